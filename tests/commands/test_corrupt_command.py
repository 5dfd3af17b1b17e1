"""``lauter corrupt``: where the truth goes, the picture, and what is taken of the data."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lauter
from lauter.__main__ import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def table(photos: Path, tmp_path: Path) -> Path:
    """The photos as a table; people call every third image a dog."""
    paths = sorted(photos.glob("*/*.png"))
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "key", "label", "people"])
        for number, path in enumerate(paths):
            kind = path.parent.name
            writer.writerow([path, f"k{number:02}", kind, "dog" if number % 3 == 0 else kind])
    return tmp_path / "table.csv"


def test_the_training_file_holds_no_truth_unless_it_is_asked_to(photos: Path) -> None:
    words = ["corrupt", str(photos), "--closed-rate", "0.3"]
    assert main([*words, "--out", "apart"]) == 0
    assert main([*words, "--truth", "columns", "--out", "together"]) == 0
    names = {
        folder: pq.ParquetFile(f"{folder}/train-00000-of-00001.parquet").schema_arrow.names
        for folder in ("apart", "together")
    }
    assert names == {
        "apart": ["id", "image", "label"],
        "together": ["id", "image", "label", "true_label", "noise"],
    }
    assert Path("apart/truth.parquet").exists()
    assert not Path("together/truth.parquet").exists()
    truths = [lauter.open_dataset(name, truth_column="true_label").true_labels for name in names]
    np.testing.assert_array_equal(truths[0], truths[1])


def test_the_last_line_works_as_typed_for_any_folder(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corrupt", str(photos), "--closed-rate", "0.3", "--out", "it's noisy"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["lauter", "fit", "it's noisy"]
    noisy = lauter.open_dataset(words[2], label_column=words[4], truth_column=words[6])
    assert noisy.true_labels is not None
    assert words[3::2] == ["--label-column", "--truth-column"]


def test_instance_noise_says_how_good_its_model_is(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--closed-kind", "instance", "--closed-rate", "0.2", "--seed", "4", "--out", "noisy"]
    assert main(["corrupt", str(photos), *words]) == 0
    model = json.loads(Path("noisy/recipe.json").read_text())["train"]["confusions"]
    assert model["seed"] == 4
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith(f"a model of 9 features (seed 4) took {model['accuracy']:.1%} of the clean")
    assert len(said) == 3


def test_a_picture_is_drawn(photos: Path) -> None:
    words = ["--closed-rate", "0.3", "--picture", "shown/noise.png", "--out", "noisy"]
    assert main(["corrupt", str(photos), *words]) == 0
    with Image.open("shown/noise.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert picture.width > picture.height > 300  # two bands: clean and closed


def test_part_of_a_table_with_human_labels_that_stay_with_their_images(table: Path) -> None:
    words = ["--image-column", "picture", "--id-column", "key", "--label-column", "label", "--size", "20"]
    words += ["--closed-kind", "human", "--human-column", "people", "--out", "noisy"]
    assert main(["corrupt", str(table), *words]) == 0
    noisy = lauter.open_dataset("noisy", truth_column="true_label")
    assert len(noisy) == 20
    whole = lauter.open_dataset(table, image_column="picture", id_column="key", label_column="label")
    place = {id_: row for row, id_ in enumerate(whole.ids.tolist())}
    rows = np.array([place[id_] for id_ in noisy.ids.tolist()])
    np.testing.assert_array_equal(noisy.true_labels, whole.labels[rows])
    np.testing.assert_array_equal(noisy.labels, np.where(rows % 3 == 0, 1, whole.labels[rows]))


def test_a_set_that_is_noisy_already_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--image-column", "picture", "--label-column", "people", "--truth-column", "label"]
    assert main(["corrupt", str(table), *words, "--closed-rate", "0.1", "--out", "noisy"]) == 2
    assert "its given labels are not its true labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--truth", "both"], "--truth must be file or columns, not 'both'"),
        (["--picture", "noise.jpg"], "noise.jpg: the picture is written as PNG"),
        (["--closed-kind", "instance", "--open-rate", "0.1"], "needs open images"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_left(
    words: list[str],
    message: str,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["corrupt", str(photos), "--closed-rate", "0.1", *words, "--out", "noisy"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []

"""``lauter fit`` as a new user types it: images as they come, tables as they are, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lauter
from lauter import results
from lauter.__main__ import main
from lauter.pipeline import FitResult

Photo = Callable[..., Image.Image]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, without ONNX: other tests are about that."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(results, "can_export_onnx", lambda: False)


def write_table(photos: Path, path: Path, **columns: Any) -> pd.DataFrame:
    """A table of all photos: path, label, and the columns given as functions of (number, name)."""
    images = sorted(photos.rglob("*.png"))
    names = [image.parent.name for image in images]
    table = pd.DataFrame({"path": [str(image) for image in images], "label": names})
    for column, value in columns.items():
        table[column] = [value(number, name) for number, name in enumerate(names)]
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return table


def test_flags_python_and_yaml_make_the_same_run(
    photos: Path, micro_flags: list[str], finished: FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(photos), *micro_flags, "--out", "by-flags"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "data        photos: 42 images, 3 classes\n" in said.out
    assert "labels      by-flags/labels.parquet\n" in said.out
    assert "student     agreement_with_given 0." in said.out
    config = str(finished.directory / "config.yaml")
    assert main(["fit", str(photos), "--config", config, "--out", "by-file"]) == 0
    for name in ("labels.parquet", "teacher.safetensors", "student.safetensors"):
        expected = (finished.directory / name).read_bytes()
        assert (Path("by-flags") / name).read_bytes() == expected, name
        assert (Path("by-file") / name).read_bytes() == expected, name
    assert (Path("by-flags") / "config.yaml").read_bytes() == Path(config).read_bytes()
    assert sorted(entry.name for entry in Path().iterdir()) == ["by-file", "by-flags"]


def test_no_baseline_and_resume(
    photos: Path, micro_flags: list[str], finished: FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(photos), *micro_flags, "--no-baseline", "--out", "run"]
    assert main(words) == 0
    assert "baseline" not in json.loads(Path("run/metrics.json").read_text())
    assert main(words) == 2
    assert (
        "run holds a run; choose another --out, or continue that run with --resume" in capsys.readouterr().err
    )
    assert main([*words, "--resume"]) == 0
    assert "resume      run\n" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    assert main([*words, "--resume", "--robust.epochs", "3"]) == 2
    said = capsys.readouterr().err
    assert "run holds a run with other settings (fit.robust.epochs: 2 there, 3 here)" in said
    assert {path: path.read_bytes() for path in Path("run").glob("*.*")} == before


def test_images_as_they_come(
    tmp_path: Path, photo: Photo, micro_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Odd sizes, turned, grey, CMYK, 16 bits, transparent: used. Broken ones: counted and listed."""
    root = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "train")):
        (root / name).mkdir(parents=True)
        for number in range(9):
            width, height = generator.integers(18, 40, 2)
            photo(label, number, int(width), int(height)).save(root / name / f"{number}.JPG", "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(0, 20, 30, 20).save(root / "cat" / "turned.jpg", exif=exif)
    photo(0, 21, 20, 20).convert("L").save(root / "cat" / "grey.png")
    photo(0, 22, 20, 20).convert("CMYK").save(root / "cat" / "cmyk.jpg")
    Image.fromarray(generator.integers(0, 65535, (20, 20)).astype(np.uint16)).save(root / "dog" / "deep.png")
    faint = photo(1, 23, 20, 20).convert("RGBA")
    faint.putalpha(90)
    faint.save(root / "dog" / "faint.png")
    whole = (root / "dog" / "0.JPG").read_bytes()
    (root / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "zero.jpg").write_bytes(b"")
    (root / "train" / "text.jpg").write_text("no image")
    Image.new("1", (11_000, 11_000)).save(root / "train" / "huge.png")
    (root / "train" / ".thumbs.jpg").write_bytes(b"hidden")

    assert main(["fit", str(root), *micro_flags, "--image-size", "16", "--no-baseline", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "data        photos: 32 images, 3 classes, 4 files left out (the report says which), " in said
    assert "4 turned or converted\n" in said
    table = pd.read_parquet("run/labels.parquet")
    used = {"cat/turned.jpg", "cat/grey.png", "cat/cmyk.jpg", "dog/deep.png", "dog/faint.png", "cat/0.JPG"}
    assert used <= set(table["id"])
    broken = {"dog/cut.jpg", "dog/zero.jpg", "train/text.jpg", "train/huge.png"}
    assert not broken & set(table["id"])
    report = Path("run/report.html").read_text()
    for name in broken | {"cat/turned.jpg", "cat/cmyk.jpg", "dog/deep.png", "dog/faint.png"}:
        assert name in report
    for fault in ("truncated", "empty", "unreadable", "enormous", "rotated", "cmyk", "16-bit", "transparent"):
        assert fault in report
    assert json.loads(Path("run/metrics.json").read_text())["labels"]["faults"] == 8


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_with_missing_labels(
    suffix: str, photos: Path, tmp_path: Path, micro_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {0, 20, 41}
    path = tmp_path / f"table{suffix}"
    table = write_table(
        photos,
        path,
        kind=lambda number, name: None if number in bare else f"{name}s",
        truth=lambda _, n: f"{n}s",
    )
    words = ["fit", str(path), *micro_flags, "--no-baseline", "--label-column", "kind"]
    assert main([*words, "--out", "blind"]) == 0
    said = capsys.readouterr().out
    assert "42 images, 3 classes, 3 without a label (they get a suggestion and teach by mimicking)\n" in said
    assert "3 unlabelled; estimated noise" in said
    labels = pd.read_parquet("blind/labels.parquet")
    assert labels["id"].tolist() == table["path"].tolist()
    assert labels.index[labels["given"].isna()].tolist() == sorted(bare)
    assert labels["suggested"].isin(["cats", "dogs", "trains"]).all()
    assert main([*words, "--truth-column", "truth", "--out", "informed"]) == 0
    for name in ("labels.parquet", "student.safetensors"):
        assert (Path("informed") / name).read_bytes() == (Path("blind") / name).read_bytes()
    assert json.loads(Path("informed/metrics.json").read_text())["labels"]["true_noise_rate"] == 0


def test_integer_labels_keep_their_numbers_as_names(
    photos: Path, tmp_path: Path, micro_flags: list[str]
) -> None:
    numbers = {"cat": 2, "dog": 10, "train": 1}
    write_table(photos, tmp_path / "t.csv", number=lambda _, name: numbers[name])
    words = ["--label-column", "number", "--no-baseline", "--out", "run"]
    assert main(["fit", str(tmp_path / "t.csv"), *micro_flags, *words]) == 0
    assert lauter.load("run").class_names == ("1", "2", "10")
    labels = pd.read_parquet("run/labels.parquet")
    assert labels["given"].value_counts().to_dict() == {"1": 14, "2": 14, "10": 14}


def test_a_test_split_and_a_seed(micro_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--augment", "digits", "--size", "100", "--no-baseline", "--seed", "3", "--out", "run"]
    assert main(["fit", "digits", *micro_flags, *words]) == 0
    said = capsys.readouterr().out
    assert "100 images, 10 classes\n" in said
    assert "80 to train, 20 held out, 596 test images\n" in said
    assert "student     balanced_accuracy 0." in said
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert set(metrics["student"]["last"]) == {
        "balanced_accuracy",
        "macro_f1",
        "worst_class_recall",
        "accuracy",
    }
    assert metrics["student"]["oracle_gap"] >= 0


def test_a_zoo_network_on_photographs_is_warned_of(
    photos: Path, micro_flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lauter import pipeline
    from lauter.errors import RunError

    def stop(*_: Any) -> None:
        raise RunError("far enough")

    monkeypatch.setattr(pipeline, "train_teacher", stop)
    with pytest.MonkeyPatch.context():
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main(["fit", str(photos), *micro_flags, "--image-size", "128", "--out", "run"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        "lauter: resnet8 is made for images of about 32 pixels; at 128 it is slow and weak"
    )
    assert said[1:] == ["lauter fit: far enough"]


def make_folder(root: Path, photo: Photo, **counts: int) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            photo(label, number).save(root / name / f"{number}.png")
    return root


REFUSED: list[Any] = [
    pytest.param(lambda top, photo: [top / "gone"], "no such folder or file", id="missing folder"),
    pytest.param(lambda top, photo: [make_folder(top / "x", photo)], "no such folder", id="nothing made"),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=0, b=0)], "no images found", id="no images"
    ),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=5)], "1 class ('a'); expected two", id="one class"
    ),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=5, b=1)],
        "fewer than 2 images: 'b' has 1",
        id="one image of a class",
    ),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=3, b=3), "--label-column", "kind"],
        "label_column='kind' conflicts with a folder of class folders, which has no columns",
        id="columns of a folder",
    ),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=3, b=3), "--test", top / "gone"],
        "no such folder or file",
        id="missing test set",
    ),
    pytest.param(
        lambda top, photo: [make_folder(top / "x", photo, a=3, b=3), "--split", "val"], "val", id="split"
    ),
    pytest.param(lambda top, photo: ["digits", "--size", "9999"], "size must be between 1", id="size"),
    pytest.param(lambda top, photo: ["digits", "--student", "resnet9"], "near it: resnet8", id="student"),
    pytest.param(lambda top, photo: ["digits", "--teacher", "resnt20"], "near it: resnet20", id="teacher"),
    pytest.param(
        lambda top, photo: ["digits", "--teacher-weights", "w.pt"], "'w.pt' is missing", id="weights"
    ),
    pytest.param(
        lambda top, photo: ["digits", "--runtime.device", "mps"], "device mps was asked for", id="device"
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_bad_input_is_one_line_code_2_and_leaves_nothing(
    make: Callable[[Path, Photo], list[Any]],
    message: str,
    tmp_path: Path,
    photo: Photo,
    micro_flags: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(word) for word in make(tmp_path, photo)]
    assert main(["fit", words[0], *micro_flags, *words[1:], "--out", "run"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("lauter fit: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(Path().iterdir()) == []


def test_when_no_image_is_left_the_reasons_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
        (tmp_path / name / "2.jpg").write_text("text")
    assert main(["fit", str(tmp_path), "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert "no image can be used (left out: 2 empty (a/1.jpg: no bytes); 2 unreadable (a/2.jpg: " in said
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("flags", "change", "message"),
    [
        (["--label-column", "kind"], None, "no column 'kind' (label_column); its columns: path, label"),
        (["--truth-column", "true"], None, "no column 'true' (truth_column); its columns: path, label"),
        ([], lambda t: pd.concat([t, t[:2]]), "ids that stand more than once: "),
        ([], lambda t: t.assign(label=None), "0 class (no labels); expected two or more"),
        ([], lambda t: t.assign(path="gone.png", id=range(42)), "no image can be used (left out: 42 missing"),
    ],
)
def test_a_table_that_cannot_be_used(
    flags: list[str],
    change: Callable[[pd.DataFrame], pd.DataFrame] | None,
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "table.csv"
    table = write_table(photos, path)
    if change is not None:
        change(table).to_csv(path, index=False)
    assert main(["fit", str(path), *flags, "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []

"""The other verbs on a finished run: train, distill, evaluate, predict, export, report, corrupt."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

import lauter
from lauter import artefacts, results
from lauter.__main__ import main
from lauter.commands import demo
from lauter.config import FitConfig
from lauter.data.dataset import OPEN, Dataset
from lauter.demo import make_demo_data
from lauter.pipeline import FitResult

CSV = "id,class,probability"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, without ONNX."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(results, "can_export_onnx", lambda: False)


def test_train_then_distill_equals_fit(
    photos: Path, micro_flags: list[str], finished: FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(photos), *micro_flags, "--out", "trained"]) == 0
    said = capsys.readouterr().out
    assert "network     trained/teacher.safetensors\n" in said
    assert not Path("trained/student.safetensors").exists()
    words = ["distill", str(photos), *micro_flags, "--labels", "trained/labels.parquet", "--out", "small"]
    assert main([*words, "--teacher", "trained"]) == 0
    assert "student     small/student.safetensors\n" in capsys.readouterr().out
    for name, run in (
        ("labels.parquet", "trained"),
        ("teacher.safetensors", "trained"),
        ("student.safetensors", "small"),
    ):
        assert (Path(run) / name).read_bytes() == (finished.directory / name).read_bytes()
    assert sorted(entry.name for entry in Path().iterdir()) == ["small", "trained"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", ""], "distill needs --teacher FILE: teacher.safetensors of a finished run"),
        (["--teacher", "gone.safetensors"], "'gone.safetensors' is missing"),
        (["--teacher", "resnet8"], "'resnet8' is no file, and as a network's name it brings no weights"),
        (["--teacher", "RUN", "--labels", "gone.parquet"], "the label table gone.parquet is missing"),
        (["--teacher", "RUN", "--student", "resnet9"], "no network is called 'resnet9'"),
        (["--teacher", "RUN", "--runtime.device", "mps"], "device mps was asked for"),
    ],
)
def test_a_distillation_that_cannot_be(
    words: list[str],
    message: str,
    photos: Path,
    micro_flags: list[str],
    finished: FitResult,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(finished.directory) if word == "RUN" else word for word in words]
    assert main(["distill", str(photos), *micro_flags, *words, "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_teacher_of_other_classes(finished: FitResult, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = str(finished.directory / "teacher.safetensors")
    assert main(["distill", "digits", "--size", "50", "--teacher", teacher, "--out", "run"]) == 2
    assert (
        "the teacher tells cat, dog, train... apart, the data has 0, 1, 2, 3, 4..." in capsys.readouterr().err
    )
    assert not Path("run").exists()


def test_predictions_go_to_stdout_and_the_rest_to_stderr(
    finished: FitResult, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(photos / "dog", folder / "deep" / "down")
    (folder / "broken.jpg").write_text("text")
    Image.new("CMYK", (20, 20)).save(folder / "print.jpg")
    assert main(["predict", str(finished.directory), str(folder)]) == 0
    said = capsys.readouterr()
    table = pd.read_csv(StringIO(said.out))
    assert list(table.columns) == CSV.split(",")
    assert table["id"].tolist() == [*(f"deep/down/{number:02}.png" for number in range(14)), "print.jpg"]
    assert table["class"].isin(finished.class_names).all()
    assert "left out    broken.jpg: unreadable" in said.err
    assert "changed     1 of the images" in said.err


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_predictions_are_written_whole(
    name: str, finished: FitResult, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(finished.directory / "student.safetensors"), str(photos), "--out", name]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{name}: 42 images\n"
    table = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    expected = lauter.load(finished.directory).predict(lauter.open_dataset(photos))
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert main(words) == 2
    assert f"{name} exists already; choose another --out" in capsys.readouterr().err
    assert [entry.name for entry in Path().iterdir()] == [name]


def test_one_image_a_table_and_a_data_set_are_predicted(
    finished: FitResult, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(finished.directory)
    assert main(["predict", run, str(photos / "cat" / "03.png")]) == 0
    assert capsys.readouterr().out.startswith(f"{CSV}\n03.png,")
    images = sorted(photos.rglob("*.png"))[:6:3]
    rows = [{"path": str(image), "label": name} for image, name in zip(images, "ab", strict=True)]
    pd.DataFrame([*rows, *rows]).assign(id=range(4)).to_csv(tmp_path / "t.csv", index=False)
    assert main(["predict", run, str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.count("\n") == 5
    assert main(["predict", run, "digits", "--out", "digits.csv"]) == 0
    assert len(pd.read_csv("digits.csv")) == 1201


@pytest.mark.parametrize(
    ("model", "images", "out", "message"),
    [
        ("gone", "PHOTOS", None, "'gone' is missing"),
        (".", "PHOTOS", None, "holds no student.safetensors: the run is not finished"),
        ("RUN/student.onnx", "PHOTOS", None, "must end in .safetensors, .pt or .pth"),
        ("RUN", "gone", None, "no such folder or file"),
        ("RUN", ".", None, "no images in it"),
        ("RUN", "PHOTOS", "table.txt", "--out must end in .csv or .parquet, not 'table.txt'"),
    ],
)
def test_predictions_that_cannot_be(
    model: str,
    images: str,
    out: str | None,
    message: str,
    finished: FitResult,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"RUN": str(finished.directory), "PHOTOS": str(photos)}
    model, images = (word.replace(key, names[key]) for word, key in ((model, "RUN"), (images, "PHOTOS")))
    assert main(["predict", model, images, *(["--out", out] if out else [])]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(Path().iterdir()) == []


def test_evaluate(finished: FitResult, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished.directory), str(photos), "--out", "deep/scores.json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == json.loads(Path("deep/scores.json").read_text())
    model, data = lauter.load(finished.directory), lauter.open_dataset(photos)
    assert scores == lauter.evaluate(model, data)
    assert main(["evaluate", str(finished.directory), str(photos), "--out", "deep/scores.json"]) == 2
    said = capsys.readouterr()
    assert "scores.json exists already; choose another --out" in said.err
    assert said.out == ""  # nothing was computed and then thrown away
    assert main(["evaluate", str(finished.directory), "digits"]) == 2
    assert "class_names" in capsys.readouterr().err


def test_export(finished: FitResult, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(finished.directory), "--images", str(photos / "cat"), "--out", "net.onnx"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "net.onnx: 77,587 parameters, " in said
    assert "FLOPs an image at 16 px\n" in said
    assert "largest difference to PyTorch on 14 real images: " in said
    assert onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).get_inputs()
    assert main(words) == 2
    assert "net.onnx exists already" in capsys.readouterr().err


def test_export_without_the_extra(
    finished: FitResult,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artefacts, "can_export_onnx", lambda: False)
    assert main(["export", str(finished.directory), "--images", str(photos), "--out", "net.onnx"]) == 2
    assert "pip install 'lauter[export]'" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_the_report_is_written_again(
    finished: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished.directory, run)
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert (run / "report.html").read_text() == before
    (run / "metrics.json").unlink()
    assert main(["report", str(run)]) == 2
    assert "is not finished: it has no metrics.json; continue it with --resume" in capsys.readouterr().err
    assert main(["report", "gone"]) == 2
    assert "gone is no run directory: it has no config.yaml" in capsys.readouterr().err


def test_the_report_of_other_data_is_refused(
    finished: FitResult, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = tmp_path / "copy", tmp_path / "photos"
    shutil.copytree(finished.directory, run)
    shutil.copytree(photos, moved)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(photos), str(moved)))
    assert main(["report", str(run)]) == 0
    shutil.copy(moved / "cat" / "00.png", moved / "cat" / "01.png")
    assert main(["report", str(run)]) == 2
    assert "was made from other data than photos is now (their hashes differ)" in capsys.readouterr().err
    with pytest.raises(lauter.errors.RunError, match="was made from other data"):
        lauter.report(run, lauter.open_dataset("digits", size=50))
    assert lauter.report(run, lauter.open_dataset(photos)) == run / "report.html"


def test_a_corrupted_copy_is_fitted_with_its_truth(
    photos: Path, micro_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corrupt", str(photos), "--closed-rate", "0.3", "--seed", "2", "--out", "noisy"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("noisy: 42 images (")
    made = json.loads(Path("noisy/recipe.json").read_text())["train"]["counts"]
    assert made["clean"] + made["closed"] == 42
    assert 10 <= made["closed"] <= 15
    words = said[1].split()
    assert words[:3] == ["lauter", "fit", "noisy"]
    assert main([*words[1:], *micro_flags, "--no-baseline", "--out", "run"]) == 0
    labels = json.loads(Path("run/metrics.json").read_text())["labels"]
    assert labels["true_noise_rate"] == pytest.approx(made["closed"] / 42)
    assert {"precision", "recall", "f1", "auroc", "average_precision"} <= set(labels)
    assert "found       bad labels with precision" in capsys.readouterr().out
    assert lauter.load("run").class_names == ("cat", "dog", "train")
    assert main(["corrupt", str(photos), "--closed-rate", "0.3", "--out", "noisy"]) == 2
    assert "noisy: is there and not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "foo"], "no recipe 'foo'; there are ncifar10-mild"),
        (["--closed-rate", "1.5"], "closed_rate 1.5"),
        (["--open-rate", "0.2"], "open"),
        (["--closed-kind", "funny", "--closed-rate", "0.1"], "funny"),
        (["--closed-rate", "some"], "--closed-rate must be a number, not 'some'"),
    ],
)
def test_a_corruption_that_cannot_be(
    words: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corrupt", str(photos), *words, "--out", "noisy"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_open_noise_comes_from_another_data_set(
    photos: Path, write_photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_photos(tmp_path / "other", count=10, side=20)
    for old, new in (("cat", "cow"), ("dog", "duck"), ("train", "tram")):
        (other / old).rename(other / new)
    words = ["--closed-rate", "0.1", "--open-rate", "0.2", "--open-source", str(other), "--out", "noisy"]
    assert main(["corrupt", str(photos), *words]) == 0
    assert " open), hash " in capsys.readouterr().out
    noisy = lauter.open_dataset("noisy", label_column="label", truth_column="true_label")
    assert noisy.true_labels is not None
    made = json.loads(Path("noisy/recipe.json").read_text())["train"]["counts"]
    assert (noisy.true_labels == OPEN).sum() == made["open"] > 0
    assert noisy.class_names == ("cat", "dog", "train")
    assert noisy.images.uniform is not None
    assert noisy.images.uniform.shape == (42, 3, 16, 16)


def test_the_demo_sets_the_result_beside_plain_cross_entropy(
    micro_config: FitConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = make_demo_data

    def make_small(seed: int) -> tuple[Dataset, Dataset]:
        data, test = make(seed)
        return data.subset(np.arange(0, len(data), 4)), test.subset(np.arange(0, len(test), 4))

    monkeypatch.setattr(demo, "make_demo_data", make_small)
    monkeypatch.setattr(
        demo, "demo_config", lambda seed: dataclasses.replace(micro_config, augment="digits", seed=seed)
    )
    assert main(["demo", "--out", "shown", "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert "digits 0 to 7 are the classes; 25% of the labels are wrong, 15% of the images are an 8" in said
    for word in (
        "plain cross-entropy",
        "kept, corrected",
        "balanced accuracy",
        "images seen",
        "bad labels  found with",
    ):
        assert word in said
    assert "open        shown/report.html\n" in said
    metrics = json.loads(Path("shown/metrics.json").read_text())
    assert {"open_auroc", "open_macro_f1"} <= set(metrics["student"]["last"])
    assert metrics["labels"]["true_noise_rate"] > 0.2

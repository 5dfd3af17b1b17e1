"""``lauter doctor teacher``: a table with warnings, and code 2 for what cannot be examined."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lauter
from lauter.__main__ import main
from lauter.distillation.stored import write_features
from lauter.models import create_network
from lauter.models.artefact import save_network

DIGITS = tuple("0123456789")
QUICK = (
    *("--size", "120", "--student", "resnet8", "--distill.epochs", "3", "--distill.batch-size", "32"),
    *(
        "--distill.hashes",
        "16",
        "--augment",
        "digits",
        "--runtime.device",
        "cpu",
        "--runtime.precision",
        "32",
    ),
    *("--runtime.workers", "0", "--holdout", "0.25"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save_teacher(path: str, names: tuple[str, ...] = DIGITS) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(create_network("resnet8", 10, image_size=16), path, class_names=names)


def write_pixels(path: str, rows: int | None = None) -> None:
    """The pixels themselves as features."""
    data = lauter.open_dataset("digits")
    pixels = data.images.uniform
    assert pixels is not None
    features = torch.from_numpy(pixels[:rows, 0, ::2, ::2].astype(np.float32)).flatten(1)
    write_features(path, data.ids[:rows], features)


def lines_of(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.splitlines()}


def test_a_network_is_examined_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    save_teacher("teacher.safetensors", DIGITS[::-1])
    assert main(["doctor", "teacher", "digits", "--teacher", "teacher.safetensors", *QUICK]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = lines_of(said.out)
    assert found["data"] == "digits: 120 images, 10 classes; looked at 90 to train and 30 held out"
    assert found["teacher"] == "resnet8, network"
    assert found["features"].startswith("64, median norm ")
    assert found["input"].count(".") == 6
    assert found["neighbours"].endswith("%)")
    assert found["classifier"].startswith("agrees with ")
    assert found["mimic"].startswith("lshl2, beta 6, 16 hashes, std 0.0")
    assert found["bank"] == "16 views of 90 images: 184 kB of features in half precision, 5.76 kB of bits"
    assert "3 epochs take about " in found["time"]
    assert found["warning"].startswith(
        "the teacher tells 9, 8, 7, 6, 5... apart, the data has 0, 1, 2, 3, 4...;"
    )
    assert [entry.name for entry in Path().iterdir()] == ["teacher.safetensors"]


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_stored_features_are_examined(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_pixels(f"pixels.{suffix}")
    words = ["doctor", "teacher", "digits", "--teacher", f"pixels.{suffix}", "--distill.source.views", "2"]
    assert main([*words, *QUICK, "--distill.loss", "l2"]) == 0
    found = lines_of(capsys.readouterr().out)
    assert found["teacher"].startswith(f"pixels.{suffix}, stored features: every view is taught with those")
    assert found["extra"] == "1,081 rows of the file belong to no image of the data"
    assert found["mimic"] == "l2, beta 6"
    assert found["bank"] == "2 views of 90 images: 23 kB of features in half precision"
    assert found["healthy"] == "nothing to warn of"
    assert "input" not in found
    assert "classifier" not in found
    assert found["time"].startswith("teacher 0 ms and resnet8 ")


def test_rows_in_the_order_of_the_data_must_be_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    write_pixels("pixels.npy")
    Path("pixels.ids.txt").unlink()
    words = ["doctor", "teacher", "digits", "--teacher", "pixels.npy", *QUICK[2:]]
    assert main(words) == 2
    assert "comes without ids" in capsys.readouterr().err
    assert main([*words, "--row-order"]) == 0
    assert lines_of(capsys.readouterr().out)["healthy"] == "nothing to warn of"


def test_a_network_by_name_needs_weights(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "teacher", "digits", "--teacher", "resnet8", *QUICK]
    assert main(words) == 2
    assert "add --teacher-weights FILE or --teacher-pretrained" in capsys.readouterr().err
    save_teacher("weights.safetensors")
    assert main([*words, "--teacher-weights", "weights.safetensors"]) == 0
    found = lines_of(capsys.readouterr().out)
    assert found["teacher"] == "resnet8, network"
    assert "classifier" not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["patient", "digits", "--teacher", "t.npy"], "doctor examines a teacher, not 'patient'"),
        (
            ["teacher", "digits"],
            "doctor needs --teacher: a file, a run's directory, or the name of a network",
        ),
        (["teacher", "digits", "--teacher", "gone.safetensors"], "'gone.safetensors' is missing"),
        (["teacher", "digits", "--teacher", "gone.npy"], "'gone.npy' is missing"),
        (["teacher", "digits", "--teacher", "few.npy"], "lacks 1101 of the 1201 images"),
        (["teacher", "digits", "--teacher", "few.npy", "--student", "resnet9"], "no network is called"),
        (["teacher", "digits", "--teacher", "few.npy", "--views", "3"], "there is no flag --views"),
        (["teacher", "nowhere", "--teacher", "few.npy"], "'nowhere': no such folder or file"),
        (["teacher", "digits", "--teacher", "few.npy", "--preset", "slow"], "preset must be one of"),
        (
            ["teacher", "digits", "--teacher", "few.npy", "--robust.epochs", "3"],
            "there is no flag --robust.epochs",
        ),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pixels("few.npy", 100)
    assert main(["doctor", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1


def test_settings_come_from_preset_file_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    write_pixels("pixels.npy")
    Path("mine.yaml").write_text("distill: {beta: 2.5, bias: median}\nrobust: {epochs: 9}\n")
    words = ["doctor", "teacher", "digits", "--teacher", "pixels.npy", *QUICK[:4], *QUICK[6:]]
    assert main([*words, "--preset", "quick", "--config", "mine.yaml"]) == 0
    found = lines_of(capsys.readouterr().out)
    assert found["mimic"].startswith("lshl2, beta 2.5, 16 hashes")
    assert found["mimic"].endswith("bias median")
    assert found["bank"].startswith("16 views")

"""The measurement of distillation, on digits in seconds: methods run, resume, and share what they may."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lauter.bench import distill, distill_speed
from lauter.bench.distill import Protocol, measure_pair
from lauter.bench.records import read_parts
from lauter.bench.yardstick import PictureFolder, time_yardstick
from lauter.data import Dataset, open_dataset
from lauter.distillation.method import Lesson
from lauter.losses.mimic import l2
from lauter.models import create_network
from lauter.training.runtime import RuntimeConfig

RUNTIME = RuntimeConfig(device="cpu", precision="32", workers=0)
PAIR = ("resnet8x4", "resnet8")


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_digits(protocol: Protocol, folder: Path, seed: int) -> tuple[Dataset, Dataset]:
        return open_dataset("digits", split="train", size=100), open_dataset("digits", split="test", size=50)

    monkeypatch.setattr(distill, "open_protocol", open_digits)
    small = Protocol("digits", 0, 2, batch_size=50, image_size=8, augment="digits")
    monkeypatch.setattr(distill, "PROTOCOLS", {"digits": small})


def test_every_method_leaves_its_records_and_is_not_run_twice(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["none", "lshl2", "lsh_expected", "teacher_head", "lshl2_bank8", "dkd", "simkd", "fitnet"]
    records = measure_pair("digits", PAIR, 1, tmp_path, tmp_path, RUNTIME, methods)
    found = {(record.method, record.metric): record.value for record in records}
    assert {record.method for record in records} == {"teacher", *methods}
    assert {(record.suite, record.data, record.seed) for record in records} == {
        ("distill", "digits resnet8x4 -> resnet8", 1)
    }
    for method in methods:
        assert 0 <= found[method, "accuracy_last"] <= found[method, "accuracy_best"] <= 1
        assert found[method, "images_per_second"] > 0
        assert found[method, "peak_mib"] > 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(distill.Bench, "train_student", refuse)
    again = measure_pair("digits", PAIR, 1, tmp_path, tmp_path, RUNTIME, methods)
    assert {record.key for record in again} == {record.key for record in records}
    assert len(read_parts(tmp_path)) == len(records)


def test_methods_start_from_the_same_student_and_the_same_teacher(digits: None, tmp_path: Path) -> None:
    measure_pair("digits", PAIR, 0, tmp_path, tmp_path / "one", RUNTIME, ["none"])
    measure_pair("digits", PAIR, 0, tmp_path, tmp_path / "two", RUNTIME, ["kd", "none"])
    one, two = (
        {(r.method, r.metric): r.value for r in read_parts(tmp_path / name)} for name in ("one", "two")
    )
    for method in ("teacher", "none"):
        assert one[method, "accuracy_last"] == two[method, "accuracy_last"]


def test_a_warm_up_keeps_its_share_of_a_short_training() -> None:
    make, needs = distill.make_rival("dkd", 30)
    assert needs == {"logits"}
    student = create_network("resnet8", 3)
    head = nn.Linear(64, 3)
    lesson = Lesson(student, 64, 3, head, torch.rand(4, 64), np.arange(4), torch.arange(4) % 3)
    assert make(lesson).config.warmup == round(30 * 20 / 240)


def test_the_usual_loop_moves_everything_to_its_device() -> None:
    pixels = np.zeros((4, 3, 8, 8), dtype=np.uint8)
    pictures = PictureFolder(pixels, np.zeros(4, dtype=np.int64))
    student, teacher = (create_network(name, 3, image_size=8) for name in PAIR[::-1])
    # On meta a step goes through only if all of it is there; then the loss has no number to read.
    with pytest.raises(RuntimeError, match="item"):
        time_yardstick(
            pictures,
            student,
            teacher,
            l2,
            nn.Linear(64, 256),
            batch_size=4,
            workers=0,
            device=torch.device("meta"),
        )
    assert {parameter.device.type for parameter in teacher.parameters()} == {"meta"}


def test_speed_is_measured_with_its_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_digits(*_: object, **__: object) -> Dataset:
        return open_dataset("digits", split="train", size=128)

    monkeypatch.setattr(distill_speed, "open_dataset", open_digits)
    monkeypatch.setattr(distill_speed, "IMAGES", 128)
    monkeypatch.setattr(distill_speed, "VIEWS", 2)
    records = distill_speed.measure_speed("digits", RUNTIME, ("resnet8x4", "resnet8"), repeats=1)
    found = {(record.method, record.metric): record.value for record in records}
    assert found["plain", "of_plain"] == 1
    for loss in ("lsh", "lshl2"):
        bank = found[f"bank {loss}", "images_per_second"]
        assert found[f"bank {loss}", "of_yardstick"] == pytest.approx(
            bank / found[f"yardstick {loss}", "images_per_second"]
        )
        assert 0 < found[f"bank {loss}", "images_per_second_built"] < bank
        assert 0 < found[f"bank {loss}", "term_share"] < 1
        assert found[f"live {loss}", "images_per_second"] > 0

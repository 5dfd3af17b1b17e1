"""Sections of the speed bench, tiny: what each records, and that parts are not measured again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lauter.bench import distill_speed, speed, speed_course, speed_sections
from lauter.bench.audit_speed import measure_audit_speed
from lauter.bench.distill_speed import Course
from lauter.bench.export_speed import measure_export
from lauter.bench.records import Record
from lauter.bench.speed import SECTIONS, SpeedRequest, measure_section, measure_sections
from lauter.bench.speed_course import SpeedConfig, record_ratio
from lauter.data import Dataset
from lauter.data.dataset import ResidentImages
from lauter.errors import ConfigError
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup

TINY = SpeedConfig(
    repeats=1,
    steps=2,
    pair=("resnet8", "resnet8"),
    robust="resnet8",
    robust_images=60,
    audit_images=200,
    audit_features=8,
    calls=1,
)
RUNTIME = RuntimeConfig(device="cpu", precision="32", workers=0)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    """60 pictures; steps of 8 images."""
    for module in (distill_speed, speed_sections):
        monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(distill_speed, "VIEWS", 1)
    monkeypatch.setattr(speed_course, "measure_matrix_peak", lambda *_: 1e9)
    rng = np.random.default_rng(0)
    images = ResidentImages(rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8))
    data = Dataset("x", images, np.arange(60) % 2, ("a", "b"), np.arange(60).astype(np.str_))
    loop = Loop(Runtime(RUNTIME), Checkpoints(None), Progress(), 0)
    rows = np.arange(16)
    return Course(data, Setup(data, rows, rows[:4], None, loop, 32, "objects"), TINY.pair, tmp_path)


def index(records: list[Record]) -> dict[tuple[str, str], float]:
    assert {record.suite for record in records} == {"speed"}
    assert len({record.key for record in records}) == len(records)
    return {(record.method, record.metric): record.value for record in records}


def require_shares(found: dict[tuple[str, str], float], name: str) -> None:
    shares = [value for (method, metric), value in found.items() if method == name and "share_" in metric]
    np.testing.assert_allclose(sum(shares), 1)
    rate = found[name, "flops_per_second"]
    np.testing.assert_allclose(found[name, "of_peak"], rate / 1e9)
    assert rate > 0
    assert found[name, "peak_mib"] > 0


def test_the_student_is_set_beside_the_bare_loop_and_the_data_path(course: Course) -> None:
    found = index(speed_sections.measure_student(course, TINY))
    require_shares(found, "student")
    rates = {name: found[name, "images_per_second"] for name in ("student", "bare", "data")}
    np.testing.assert_allclose(found["loop_over_bare", "ratio"], rates["student"] / rates["bare"])
    np.testing.assert_allclose(found["data_over_student", "ratio"], rates["data"] / rates["student"])


@pytest.mark.parametrize("source", ["live", "bank"])
def test_mimicking_is_set_beside_plain_training(course: Course, source: str) -> None:
    measure = getattr(speed_sections, f"measure_{source}")
    found = index(measure(course, TINY))
    require_shares(found, source)
    assert found[source, "share_teacher"] > 0
    assert found[f"{source}_over_plain", "ratio"] > 0
    assert (course.folder / "traces" / f"{source}.json").exists()


def test_simclr_counts_both_views(course: Course) -> None:
    require_shares(index(speed_sections.measure_simclr(course, TINY)), "simclr")


def test_the_belief_share_counts_judge_and_hold_out(course: Course) -> None:
    found = index(speed_sections.measure_robust(course, TINY))
    shares = []
    for name in ("robust", "robust, neighbours searched"):
        require_shares(found, name)
        assert found[name, "share_beliefs"] > 0
        shares.append(found[name, "share_beliefs"] + found[name, "share_epoch_end"])
    assert min(shares) <= found["belief_share", "ratio"] <= max(shares)


def test_the_usual_loop_takes_its_turn_where_asked_for(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def pretend(pictures: Any, student: Any = None, **options: Any) -> float:
        asked.append((len(pictures), student is not None, options["batch_size"]))
        return 10.0

    monkeypatch.setattr(speed_sections, "time_yardstick_data", pretend)
    monkeypatch.setattr(speed_sections, "time_yardstick", pretend)
    data = index(speed_sections.measure_data(course, TINY, against=True))
    np.testing.assert_allclose(data["data_over_yardstick", "ratio"], data["data", "images_per_second"] / 10)
    student = index(speed_sections.measure_student(course, TINY, against=True))
    rate = student["student", "images_per_second"]
    np.testing.assert_allclose(student["loop_over_yardstick", "ratio"], rate / 10)
    assert asked == [(16, False, 8)] * 2 + [(16, True, 8)] * 2  # a round to warm up, and one that counts


def test_an_audit_and_its_parts_are_clocked(tmp_path: Path) -> None:
    found = index(measure_audit_speed(tmp_path, TINY))
    assert found["audit", "images_per_second"] > 0
    assert found["audit", "share_neighbours"] > 0
    assert found["audit", "share_judging"] > 0


def test_exported_students_are_timed_with_both_heads(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = index(measure_export(tmp_path, RUNTIME, TINY))
    for batch in (1, 64):
        for way in ("PyTorch", "ONNX Runtime"):
            seconds = [
                found[f"{way}, {head} head", f"milliseconds_{batch}"] for head in ("folded", "embedded")
            ]
            assert min(seconds) > 0
            if way == "PyTorch":
                ratio = found[f"folded_over_embedded_{batch}", "ratio"]
                np.testing.assert_allclose(ratio, seconds[0] / seconds[1])


def test_ratios_are_medians_of_pairs() -> None:
    found = {"a": [1.0, 6.0, 30.0], "b": [1.0, 2.0, 3.0]}
    assert record_ratio("x", "a_over_b", found, "a", "b").value == 3


def test_a_section_that_has_a_part_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def pretend(request: SpeedRequest) -> list[Record]:
        measured.append("peak")
        return [Record("speed", "x", "y", 0, "ratio", 2.0)]

    monkeypatch.setitem(SECTIONS, "peak", pretend)
    monkeypatch.setattr(speed, "run_apart", lambda act, *arguments: act(*arguments))
    request = SpeedRequest(None, None, tmp_path)
    seen: list[list[Record]] = []
    for _ in range(2):
        measure_sections(["peak"], request, seen.append)
    assert measured == ["peak"]
    assert seen[0] == seen[1] == [Record("speed", "x", "y", 0, "ratio", 2.0)]


def test_large_images_are_measured_on_the_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(speed, "measure_large_images", lambda *given: asked.append(given[:3]) or [])
    request = SpeedRequest(None, tmp_path / "photos", tmp_path, RUNTIME, TINY)
    assert measure_section("large", request) == []
    assert asked == [(tmp_path / "photos", tmp_path / "large", 1)]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    request = SpeedRequest(None, None, tmp_path)
    with pytest.raises(ConfigError, match="one of peak, data, student"):
        measure_section("gpu", request)
    with pytest.raises(ConfigError, match="needs --cifar10"):
        measure_section("student", request)
    with pytest.raises(ConfigError, match="needs --photos"):
        speed.check_request(["peak", "large"], request)
    with pytest.raises(ConfigError, match="repeats must be 1 or more, not 0"):
        SpeedConfig(repeats=0)


def test_a_course_is_opened_from_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, course: Course
) -> None:
    monkeypatch.setattr(speed_course, "open_dataset", lambda *_, **__: course.data)
    with speed_course.open_course(tmp_path, tmp_path, RUNTIME, TINY, Console(quiet=True)) as opened:
        assert opened.setup.image_size == 32
        assert len(opened.setup.train) == 60

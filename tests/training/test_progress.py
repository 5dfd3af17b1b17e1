"""Progress: lines for people, JSON for programs, TensorBoard on request."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lauter.errors import ConfigError, RunError
from lauter.training import progress as progress_module
from lauter.training.progress import Progress, format_seconds, read_history


def make_record(stage: str = "robust", epoch: int = 0, **metrics: float) -> dict[str, Any]:
    return {
        "stage": stage,
        "epoch": epoch,
        "loss": {"classification": 0.51234},
        "metrics": metrics,
        "images_per_second": 1234.5,
        "seconds": 8.0,
    }


def step(progress: Progress, done: float = 0.5, left: float = 75.0) -> None:
    progress.step("robust", 2, 40, done, "classification 0.512", 1234.5, left)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_by_epoch() -> None:
    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=False, width=200)) as progress:
        step(progress)
        assert out.getvalue() == ""
        progress.epoch(make_record(agreement_with_given=0.875), 40)
        progress.say("labels [bold]as given[/bold]")
    assert out.getvalue().splitlines() == [
        "robust  epoch 1/40  classification 0.5123  agreement_with_given 0.875  1,234 images/s",
        "labels [bold]as given[/bold]",
    ]


def test_on_a_terminal_one_line_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=150, color_system=None)
    with Progress(console=console) as progress:
        step(progress)
        first = out.getvalue()
        assert "robust  epoch 3/40  " + "━" * 10 + "─" * 10 in first
        assert "classification 0.512  1,234 images/s  1 min 15 s left" in first
        clock.now += 0.2
        step(progress, done=0.75)
        assert out.getvalue() == first  # a few times a second at most
        clock.now += 0.1
        step(progress, done=0.75)
        assert "━" * 15 + "─" * 5 in out.getvalue()[len(first) :]
        before = len(out.getvalue())
        progress.epoch(make_record(), 40)
        assert out.getvalue()[before:] == ""
        progress.say("done")
        assert "done\n" in out.getvalue()[before:]
        assert "\x1b[1A\x1b[2K" in out.getvalue()[before:]  # the live line is taken away
        assert "\x1b[?25h" in out.getvalue()[before:]  # and the cursor is back
        clock.now += 1
        step(progress, done=1.0)
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 2


def test_a_long_line_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=40, color_system=None)) as progress:
        step(progress)
    assert "…" in out.getvalue()
    assert "images/s" not in out.getvalue()


def test_nobody_listens() -> None:
    with Progress() as progress:
        step(progress)
        progress.say("unheard")
        progress.epoch(make_record(), 40)
    assert progress.path is None


def test_epochs_go_to_a_file_and_come_back(tmp_path: Path) -> None:
    records = [make_record("pretrain", 0), make_record("robust", 0, kept=0.5), make_record("robust", 1)]
    with Progress(tmp_path / "run") as progress:
        for record in records:
            progress.epoch(record, 2)
    assert read_history(tmp_path / "run") == records
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_epoch_that_was_trained_again_counts_once(tmp_path: Path) -> None:
    with Progress(tmp_path) as progress:
        progress.epoch(make_record("a", 0), 2)
        progress.epoch(make_record("a", 1, kept=0.1), 2)
    with Progress(tmp_path) as progress:
        progress.epoch(make_record("a", 1, kept=0.2), 2)
        progress.epoch(make_record("b", 0), 2)
    assert read_history(tmp_path) == [make_record("a", 0), make_record("a", 1, kept=0.2), make_record("b", 0)]


def test_a_line_that_a_killed_process_left_unfinished_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps(make_record()) + "\n"
    path.write_text(whole + '{"stage": "robust", "epo')
    assert read_history(tmp_path) == [make_record()]
    with Progress(tmp_path) as progress:
        assert path.read_text() == whole
        progress.epoch(make_record(epoch=1), 2)
    assert read_history(tmp_path) == [make_record(), make_record(epoch=1)]


@pytest.mark.parametrize("content", ["", '{"stage"'])
def test_a_file_without_a_whole_line_is_emptied(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    Progress(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert read_history(tmp_path) == []


def test_no_run_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []


def test_a_metric_that_json_cannot_hold_is_null(tmp_path: Path) -> None:
    with Progress(tmp_path) as progress:
        progress.epoch(make_record(angle=math.nan, ratio=math.inf, kept=0.5), 2)
    (record,) = read_history(tmp_path)
    assert record["metrics"] == {"angle": None, "ratio": None, "kept": 0.5}


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()  # stands for a file that cannot be written to
    with pytest.raises(RunError, match=r"metrics\.jsonl could not be written .* continue with --resume"):
        progress.epoch(make_record(), 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Progress(tmp_path, tensorboard=True) as progress:
        progress.epoch(make_record(kept=0.5), 2)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"robust/classification" in content
    assert b"robust/kept" in content
    with Progress(tmp_path / "silent"):
        pass
    assert not (tmp_path / "silent" / "tensorboard").exists()


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'lauter\[loggers\]'"):
        Progress(tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (9e4, "25 h 0 min"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text

"""Progress of a pass over images: live on a terminal, now and then elsewhere, else nothing."""

import io

import pytest
from rich.console import Console

from lauter.training import progress as progress_module
from lauter.training.progress import Progress


def count(console: Console | None, calls: int = 1) -> str:
    with Progress(console=console) as progress:
        for call in range(calls):
            progress.count("features", 1_280 * (call + 1), 50_000, 321.4, 90.0)
    assert console is None or isinstance(console.file, io.StringIO)
    return "" if console is None else console.file.getvalue()  # type: ignore[attr-defined]


def test_elsewhere_a_plain_line_every_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "features    1,280 of 50,000, 321 images/s, 1 min 30 s left\n"
    assert count(Console(file=io.StringIO(), width=200), calls=3) == line
    monkeypatch.setattr(progress_module, "PLAIN_SECONDS", 0.0)
    assert len(count(Console(file=io.StringIO(), width=200), calls=3).splitlines()) == 3


def test_on_a_terminal_one_live_line() -> None:
    said = count(Console(file=io.StringIO(), width=200, force_terminal=True), calls=3)
    assert "1,280 of 50,000  321 images/s  1 min 30 s left" in said
    assert "2,560" not in said


def test_nobody_is_told_nothing() -> None:
    assert count(None) == ""

"""The command line under a launcher: which verbs several processes do, and who of them speaks."""

import pytest

from lauter import __main__ as entry
from lauter.__main__ import main
from lauter.errors import DataError


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("verb", ["bench", "doctor", "evaluate", "predict", "export", "corrupt", "report"])
def test_verbs_for_one_process_are_refused(
    verb: str, second: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert f"lauter {verb}: WORLD_SIZE is 2, and this verb is for one process" in said
    assert "start it without torchrun (several do fit, audit, train, distill, demo)" in said


def test_a_launcher_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert main(["fit", "digits"]) == 2
    assert "WORLD_SIZE must be a whole number" in capsys.readouterr().err


def test_the_second_process_is_silent_but_for_its_errors(
    second: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(argv: list[str]) -> int:
        print("a line")
        raise DataError("an image is broken")

    monkeypatch.setattr("lauter.commands.train.main", fail)
    assert main(["train", "digits"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "lauter train, process 1 of 2: an image is broken\n"


def test_an_end_that_the_launcher_makes_is_said_like_an_interruption(
    second: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(argv: list[str]) -> int:
        entry.signal.raise_signal(entry.signal.SIGTERM)
        return 0

    before = entry.signal.getsignal(entry.signal.SIGTERM)
    monkeypatch.setattr("lauter.commands.train.main", wait)
    assert main(["train", "digits"]) == 130
    assert "lauter train, process 1 of 2: stopped; finished stages are kept" in capsys.readouterr().err
    assert entry.signal.getsignal(entry.signal.SIGTERM) is before

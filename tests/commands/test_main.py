"""The entry: verbs, messages, exit codes."""

import errno
import sys
import types
import warnings
from collections.abc import Callable

import pytest

from lauter import __version__
from lauter.__main__ import main
from lauter.commands import COMMANDS
from lauter.errors import ConfigError
from lauter.training.loop import Interrupted

Verb = Callable[[list[str]], int]


@pytest.fixture
def replace_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Verb], None]:
    """Put a function in a verb's place."""

    def replace(name: str, function: Verb) -> None:
        module = types.ModuleType(f"lauter.commands.{name}")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


def raising(error: BaseException) -> Verb:
    def verb(_: list[str]) -> int:
        raise error

    return verb


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    said = capsys.readouterr()
    for verb, text in COMMANDS.items():
        assert f"  {verb} " in said.out
        assert text in said.out
    assert said.err == ""


def test_no_verb_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: lauter VERB")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lauter {__version__}\n"


def test_an_unknown_verb_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti"]) == 2
    said = capsys.readouterr()
    assert said.err == f"lauter: there is no verb 'fti'; choose one of {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_a_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: lauter {verb} ")
    for foreign in ("null", "type:", "Path to a configuration", "_column", "==SUPPRESS==", "``"):
        assert foreign not in said


def test_wrong_input_is_one_line_and_code_2(
    replace_verb: Callable[[str, Verb], None], capsys: pytest.CaptureFixture[str]
) -> None:
    replace_verb("fit", raising(ConfigError("seed must be 0 or more, not -1")))
    assert main(["fit"]) == 2
    assert capsys.readouterr() == ("", "lauter fit: seed must be 0 or more, not -1\n")


def test_a_mistake_of_ours_is_not_hidden(replace_verb: Callable[[str, Verb], None]) -> None:
    replace_verb("fit", raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        main(["fit"])
    replace_verb("fit", raising(OSError(errno.ENOENT, "No such file", "x")))
    with pytest.raises(OSError, match="No such file"):
        main(["fit"])


@pytest.mark.parametrize(
    ("verb", "error", "message"),
    [
        ("fit", Interrupted("robust"), "a checkpoint was written. The same command with --resume continues"),
        ("fit", KeyboardInterrupt(), "finished stages are kept. The same command with --resume continues"),
        ("predict", KeyboardInterrupt(), "lauter predict: stopped."),
    ],
)
def test_ctrl_c_is_130_and_says_how_to_go_on(
    verb: str,
    error: BaseException,
    message: str,
    replace_verb: Callable[[str, Verb], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace_verb(verb, raising(error))
    assert main([verb]) == 130
    said = capsys.readouterr().err
    assert message in said
    assert ("--resume" in said) == (verb == "fit")


@pytest.mark.parametrize(
    ("verb", "number", "message"),
    [
        (
            "fit",
            errno.ENOSPC,
            "out/labels: full. What was finished is whole: make room, and the same ",
        ),
        ("predict", errno.ENOSPC, "lauter predict: out/labels: full.\n"),
        ("fit", errno.EACCES, "lauter fit: out/labels: full.\n"),
        ("fit", errno.ENOTDIR, "lauter fit: out/labels: full.\n"),
    ],
)
def test_a_disk_that_does_not_take_it_is_code_2(
    verb: str,
    number: int,
    message: str,
    replace_verb: Callable[[str, Verb], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace_verb(verb, raising(OSError(number, "full", "out/labels")))
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_warning_is_one_line_and_told_once(
    replace_verb: Callable[[str, Verb], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(_: list[str]) -> int:
        warnings.simplefilter("always")
        for _unused in range(3):
            warnings.warn("resnet8 is slow at 128", UserWarning, stacklevel=1)
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        return 0

    shown = warnings.showwarning
    replace_verb("fit", warn)
    assert main(["fit"]) == 0
    said = capsys.readouterr().err
    assert said == "lauter: resnet8 is slow at 128\nlauter: FutureWarning: soon gone\n"
    assert warnings.showwarning is shown

"""Entry of the command ``lauter``."""

import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from lauter import __version__
from lauter.commands import COMMANDS
from lauter.errors import ConfigError, LauterError
from lauter.training.processes import Processes, read_processes

_USAGE = (
    "usage: lauter VERB ...\n\n{verbs}\n\nlauter VERB --help says more; lauter --version tells the version."
)
_RESUMABLE = ("fit", "audit", "train", "distill", "demo")
_SHARED = ("fit", "audit", "train", "distill", "demo")
"""Verbs that several processes, started by a launcher such as torchrun, do together."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; bad input ends with a message on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        verbs = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        print(_USAGE.format(verbs=verbs), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lauter {__version__}")
        return 0
    verb = arguments[0]
    if verb not in COMMANDS:
        print(f"lauter: there is no verb {verb!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        place = _read_place(verb)
    except ConfigError as error:
        print(f"lauter {verb}: {error}", file=sys.stderr)
        return 2
    with warnings.catch_warnings(), _take_place(place):
        warnings.showwarning = _Teller(place.leads)
        return _run(verb, arguments[1:], place)


def _read_place(verb: str) -> Processes:
    """This process's place among several.

    Raises:
        ConfigError: what the launcher says makes no sense, or the verb is for one process.
    """
    place = read_processes()
    if place.size > 1 and verb not in _SHARED:
        raise ConfigError(
            f"WORLD_SIZE is {place.size}, and this verb is for one process; start it without torchrun "
            f"(several do {', '.join(_SHARED)})"
        )
    return place


@contextmanager
def _take_place(place: Processes) -> Iterator[None]:
    """Of several processes the first speaks; a launcher that ends them does it as Ctrl-C would."""
    if place.size == 1:
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if place.leads:
            yield
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(verb: str, arguments: Sequence[str], place: Processes) -> int:
    resumable = verb in _RESUMABLE
    name = f"lauter {verb}" if place.size == 1 else f"lauter {verb}, process {place.rank} of {place.size}"
    try:
        module = importlib.import_module(f"lauter.commands.{verb}")
        code = int(module.main(arguments))
        sys.stdout.flush()  # a reader who has gone is noticed here, not when Python ends
        return code
    except LauterError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        # By its name: what was interrupted may have been the import of the very module that defines it.
        saved = type(error).__name__ == "Interrupted"
        done = "a checkpoint was written" if saved else "finished stages are kept"
        way_on = f"; {done}. The same command with --resume continues there." if resumable else "."
        print(f"\n{name}: stopped{way_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left unsaid
        return 1
    except OSError as error:
        if error.errno not in (*_FULL, *_NO_PLACE):
            raise
        where = f"{error.filename}: " if error.filename else ""
        way_on = ""
        if resumable and error.errno in _FULL:
            way_on = (
                ". What was finished is whole: make room, and the same command with --resume goes on there"
            )
        print(f"{name}: {where}{error.strerror or error}{way_on}.", file=sys.stderr)
        return 2


class _Teller:
    """Says a warning in one line, without the place in our code, and each only once.

    Args:
        speaks: whether this process says anything.
    """

    def __init__(self, speaks: bool = True) -> None:
        self._speaks = speaks
        self._told: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        line = f"lauter: {'' if category is UserWarning else f'{category.__name__}: '}{message}"
        if self._speaks and line not in self._told:
            self._told.add(line)
            print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

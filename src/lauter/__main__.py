"""Entry of the command ``lauter``."""

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from lauter import __version__
from lauter.commands import COMMANDS
from lauter.errors import LauterError

_USAGE = (
    "usage: lauter VERB ...\n\n{verbs}\n\nlauter VERB --help says more; lauter --version tells the version."
)
_RESUMABLE = ("fit", "audit", "train", "distill", "demo")
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
    with warnings.catch_warnings():
        warnings.showwarning = _Teller()
        return _run(verb, arguments[1:])


def _run(verb: str, arguments: Sequence[str]) -> int:
    resumable = verb in _RESUMABLE
    try:
        module = importlib.import_module(f"lauter.commands.{verb}")
        code = int(module.main(arguments))
        sys.stdout.flush()  # a reader who has gone is noticed here, not when Python ends
        return code
    except LauterError as error:
        print(f"lauter {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        # By its name: what was interrupted may have been the import of the very module that defines it.
        saved = type(error).__name__ == "Interrupted"
        done = "a checkpoint was written" if saved else "finished stages are kept"
        way_on = f"; {done}. The same command with --resume continues there." if resumable else "."
        print(f"\nlauter {verb}: stopped{way_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left unsaid
        return 1
    except OSError as error:
        if error.errno not in (*_FULL, *_NO_PLACE):
            raise
        place = f"{error.filename}: " if error.filename else ""
        way_on = ""
        if resumable and error.errno in _FULL:
            way_on = (
                ". What was finished is whole: make room, and the same command with --resume goes on there"
            )
        print(f"lauter {verb}: {place}{error.strerror or error}{way_on}.", file=sys.stderr)
        return 2


class _Teller:
    """Says a warning in one line, without the place in our code, and each only once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        line = f"lauter: {'' if category is UserWarning else f'{category.__name__}: '}{message}"
        if line not in self._told:
            self._told.add(line)
            print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""Entry of the command ``lauter``."""

import errno
import importlib
import sys
import warnings
from collections.abc import Sequence

from lauter import __version__
from lauter.commands import COMMANDS
from lauter.errors import LauterError

_USAGE = (
    "usage: lauter VERB ...\n\n{verbs}\n\nlauter VERB --help says more; lauter --version tells the version."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; bad input ends with a message on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(_USAGE.format(verbs="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lauter {__version__}")
        return 0
    verb = arguments[0]
    if verb not in COMMANDS:
        print(f"lauter: there is no verb {verb!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    warnings.showwarning = _show_warning
    try:
        module = importlib.import_module(f"lauter.commands.{verb}")
        return int(module.main(arguments[1:]))
    except LauterError as error:
        print(f"lauter {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        from lauter.training.loop import Interrupted

        done = "a checkpoint was written" if isinstance(error, Interrupted) else "finished stages are kept"
        print(
            f"\nlauter {verb}: stopped; {done}. The same command with --resume continues there.",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        place = f" {error.filename}" if error.filename else ""
        print(
            f"lauter {verb}: cannot write{place}: {error.strerror}. What was finished is whole; "
            f"make room or choose another --out, then continue with --resume.",
            file=sys.stderr,
        )
        return 2


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our users' warnings in one line, without the place in our code."""
    print(f"lauter: {category.__name__}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

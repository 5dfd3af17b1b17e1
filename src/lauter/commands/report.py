"""``lauter report``: write the report of a finished run again."""

from collections.abc import Sequence

from lauter.commands import flags
from lauter.results import report


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser("report", "Write the report of a finished run again.", "RUN")
    parser.add_argument("run", help="directory of the run")
    print(report(flags.parse(parser, argv).run))
    return 0

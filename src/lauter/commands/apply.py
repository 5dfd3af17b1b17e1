"""``lauter apply``: a person's decisions merged into the label table of an audit."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from lauter.auditing.decisions import apply_decisions, count_decisions, read_decisions
from lauter.auditing.label_table import TABLE_SUFFIXES, read_label_table, write_label_table
from lauter.commands import flags
from lauter.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "apply",
        "Merge a person's decisions, as the page of an audit gives them, into its label table. The table "
        "stays as it is: beside it stand labels.reviewed.parquet and labels.reviewed.csv afterwards, for "
        "lauter train --labels and lauter fit --labels.",
        "DECISIONS --labels RUN/labels.parquet [--out FILE]",
    )
    parser.add_argument("decisions", help="CSV file with the columns id, given, decision, label")
    parser.add_argument("--labels", type=str, required=True, help="label table that the page was made from")
    parser.add_argument(
        "--out", type=str | None, help="a .parquet or .csv file to write in place of the two beside the table"
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="replace files that are there already")
    arguments = flags.parse(parser, argv)
    outputs = _choose_outputs(Path(arguments.labels), arguments.out, overwrite=arguments.overwrite)
    table, decisions = read_label_table(arguments.labels), read_decisions(arguments.decisions)
    reviewed = apply_decisions(table, decisions)
    write_label_table(reviewed, *outputs)
    counts = count_decisions(table, reviewed, decisions)
    print(
        f"decisions   {counts.agreed:,} as the table had it, {counts.kept:,} keep their label after all, "
        f"{counts.relabelled:,} get another, {counts.dropped:,} are dropped; {counts.skipped:,} skipped"
    )
    verdicts = ", ".join(f"{count:,} {name}" for name, count in reviewed["verdict"].value_counts().items())
    print(f"left        {counts.left:,} of {len(table):,} images stay as the table has them")
    print(f"labels      {' and '.join(map(str, outputs))}: {verdicts}")
    print(f"lauter train DATA --labels {shlex.quote(str(outputs[0]))}")
    return 0


def _choose_outputs(table: Path, out: str | None, *, overwrite: bool) -> tuple[Path, ...]:
    """Where the reviewed table goes; nothing that is there is replaced unasked."""
    if out is not None and Path(out).suffix.lower() not in TABLE_SUFFIXES:
        raise ConfigError(f"--out must end in .csv or .parquet, not {Path(out).name!r}")
    stem = table.stem.removesuffix(".reviewed")
    beside = tuple(table.with_name(f"{stem}.reviewed{suffix}") for suffix in TABLE_SUFFIXES)
    outputs = beside if out is None else (Path(out),)
    if not overwrite and (there := [path for path in outputs if path.exists()]):
        raise ConfigError(f"{there[0]} exists already; choose another --out, or replace it with --overwrite")
    return outputs

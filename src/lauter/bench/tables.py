"""Markdown tables from result files, and putting them between their markers in README and docs."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lauter.bench.records import Record, ResultFile
from lauter.errors import ConfigError
from lauter.evaluation.intervals import paired_difference
from lauter.files import write_text

FRACTIONS = frozenset(
    {
        "balanced_accuracy",
        "macro_f1",
        "worst_class_recall",
        "accuracy",
        "open_auroc",
        "open_macro_f1",
        "agreement_with_given",
        "auroc",
        "average_precision",
        "precision",
        "recall",
        "f1",
        "f1_of_best",
        "best_f1",
        "oracle_gap",
        "noise_estimated",
        "true_noise_rate",
        "kept",
        "dropped_or_relabelled",
        "correction_precision",
        "review_precision",
        "f1_worst_class",
        "recall_worst_class",
        "flagged",
        "relabelled",
        "advises",
        "noise_true",
        "noise_low",
        "noise_high",
        "noise_width",
        "noise_inside",
        "accuracy_best",
        "accuracy_neighbours",
        "accuracy_probe",
        "loss_error_rms",
        "gradient_error_rms",
        "of_plain",
        "term_share",
    }
)
"""Metrics stored as fractions, shown in percent; also with ``label_`` before or ``_last`` behind them."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        data: data set or setting of its records.
        metric: metric of its records.
        title: heading; None makes one of data, metric and unit.
        digits: digits behind the point.
        against: name of a method; the column then shows the paired difference from it over common seeds.
    """

    data: str
    metric: str
    title: str | None = None
    digits: int = 1
    against: str | None = None

    @property
    def scale(self) -> float:
        """What values are multiplied by: fractions are shown in percent, operations in 10^12."""
        if self.metric.endswith("flops"):
            return 1e-12
        base = self.metric.removeprefix("label_").removesuffix("_last").removesuffix("_selected")
        return 100.0 if base in FRACTIONS else 1.0

    @property
    def heading(self) -> str:
        """The title, or one made of what the column shows."""
        if self.title is not None:
            return self.title
        unit = {100.0: ", %"}.get(self.scale, "")
        name = f"{self.data}: {self.metric.replace('_', ' ')}{unit}"
        return name if self.against is None else f"{name}, against {self.against}"


def find_columns(
    records: Sequence[Record], metrics: Sequence[str] | None = None, against: str | None = None
) -> list[Column]:
    """A column for each data set and metric, in the order of the records.

    Args:
        records: what there is.
        metrics: which metrics, in this order within each data set; None takes all.
        against: name of a method; adds a column of paired differences from it after each column.
    """
    wanted = list(dict.fromkeys(record.metric for record in records)) if metrics is None else list(metrics)
    present = {(record.data, record.metric) for record in records}
    columns = []
    for data in dict.fromkeys(record.data for record in records):
        for metric in wanted:
            if (data, metric) in present:
                columns.append(Column(data, metric))
                if against is not None:
                    columns.append(Column(data, metric, against=against))
    return columns


def render_table(
    records: Sequence[Record],
    columns: Sequence[Column],
    methods: Sequence[str] | None = None,
    note: str | None = None,
) -> str:
    """A Markdown table: methods as rows, mean ± sample standard deviation over seeds in the cells.

    Where every cell stands on the same number of seeds it is said once below the table, otherwise in each
    cell. A single run has no standard deviation. A difference is paired by seed and comes with its 95% t
    interval, or without where only one seed is common.

    Args:
        records: of one suite.
        columns: from :func:`find_columns`, or made by hand.
        methods: which rows, in this order; None takes all in the order of the records.
        note: what stands below the table; None says over how many seeds the cells are means.

    Returns:
        The table with its note, without a newline at the end. The same records give the same text.

    Raises:
        ConfigError: there is nothing to show, records of several suites are mixed, or a method is unknown.
    """
    if not records or not columns:
        raise ConfigError("there are no records to make a table of; run the benchmark first")
    suites = sorted({record.suite for record in records})
    if len(suites) > 1:
        raise ConfigError(
            f"a table shows one suite, and these records are of {', '.join(suites)}; filter them first"
        )
    known = list(dict.fromkeys(record.method for record in records))
    rows = known if methods is None else list(methods)
    for name in [*rows, *(column.against for column in columns if column.against is not None)]:
        if name not in known:
            raise ConfigError(f"no record of method {name!r}; there are {', '.join(known)}")
    by_cell: dict[tuple[str, str, str], dict[int, float]] = {}
    for record in records:
        by_cell.setdefault((record.method, record.data, record.metric), {})[record.seed] = record.value

    def values_of(method: str, column: Column) -> dict[int, float]:
        scaled = by_cell.get((method, column.data, column.metric), {})
        return {seed: value * column.scale for seed, value in scaled.items()}

    sizes = {len(values) for row in rows for column in columns if (values := values_of(row, column))}
    same_size = len(sizes) == 1
    lines = [
        _join(["method", *(column.heading for column in columns)]),
        _join(["---", *["---:"] * len(columns)]),
    ]
    for row in rows:
        cells = [row]
        for column in columns:
            values = values_of(row, column)
            if row == column.against:
                cells.append("—")
            elif column.against is None:
                cells.append(_show_mean(values, column.digits, state_n=not same_size))
            else:
                cells.append(_show_difference(values, values_of(column.against, column), column.digits))
        lines.append(_join(cells))
    return "\n".join([*lines, "", _write_note(sizes, columns) if note is None else note])


def _show_mean(values: dict[int, float], digits: int, state_n: bool) -> str:
    if not values:
        return "—"
    text = f"{statistics.fmean(values.values()):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values.values()):.{digits}f}"
    return f"{text} (n={len(values)})" if state_n else text


def _show_difference(values: dict[int, float], others: dict[int, float], digits: int) -> str:
    common = sorted(values.keys() & others.keys())
    if not common:
        return "—"
    a, b = [values[seed] for seed in common], [others[seed] for seed in common]
    if len(common) == 1:
        return f"{a[0] - b[0]:+.{digits}f} (n=1)"
    found = paired_difference(a, b)
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _write_note(sizes: set[int], columns: Sequence[Column]) -> str:
    if sizes == {1}:
        note = "One seed: no standard deviation."
    elif len(sizes) == 1:
        note = f"Mean ± standard deviation over {sizes.pop()} seeds."
    else:
        note = "Mean ± standard deviation over n seeds."
    if any(column.against is not None for column in columns):
        note += " Differences are paired by seed, with their 95% t interval."
    return note


def _join(cells: Sequence[str]) -> str:
    # A bar in a name would end the cell.
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def describe_file(file: ResultFile) -> str:
    """One paragraph under a table: hardware, versions, and the command that writes the file again."""
    about = file.machine
    parts = [str(about.get("cpu", "unknown processor")), f"{about.get('cores', '?')} cores"]
    if about.get("memory_gib"):
        parts.append(f"{about['memory_gib']} GiB memory")
    if about.get("accelerator"):
        parts.append(str(about["accelerator"]))
    if about.get("system"):
        parts.append(str(about["system"]))
    libraries = ", ".join(f"{name} {number}" for name, number in file.versions.items())
    return f"Measured on {', '.join(parts)}; {libraries}. Written by `{file.command}`."


def update_markdown(path: str | os.PathLike[str], name: str, table: str) -> bool:
    """Replace what stands between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``.

    Args:
        path: a Markdown file with both markers, each once.
        name: NAME of the markers.
        table: the new text.

    Returns:
        Whether the file changed.

    Raises:
        ConfigError: a marker is missing, stands more than once, or the two are in the wrong order.
    """
    text = Path(path).read_text(encoding="utf-8")
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    for marker in (start, end):
        if text.count(marker) != 1:
            raise ConfigError(
                f"{os.fspath(path)} has the marker {marker} {text.count(marker)} times; "
                "it must stand there once"
            )
    if text.index(start) > text.index(end):
        raise ConfigError(f"{os.fspath(path)} has {end} before {start}; swap them")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    updated = f"{before}{start}\n{table.strip()}\n{end}{after}"
    if updated == text:
        return False
    write_text(path, updated)
    return True

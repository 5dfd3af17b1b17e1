"""Tables of the audit's measurement: data sets as rows, and the audit beside the best of the others."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from lauter.bench.audit import PICTURES, SHARED
from lauter.bench.audit_data import CIFAR, DIGITS
from lauter.bench.audit_rivals import ORACLE
from lauter.bench.audit_scale import SIZES as SCALES
from lauter.bench.records import Record
from lauter.bench.tables import Column, render_table

OURS = "lauter"
OWN = frozenset({OURS, "filter", ORACLE, SHARED, PICTURES})
"""Methods of the records that are no rivals: ours, an oracle, and what is no judge of labels."""
SETS = (*CIFAR, "photos")
CORRUPTIONS = tuple(DIGITS)
DETECTION = (
    Column(OURS, "auroc", "AUROC"),
    Column(OURS, "average_precision", "AP"),
    Column(OURS, "precision", "precision"),
    Column(OURS, "recall", "recall"),
    Column(OURS, "f1", "F1"),
    Column(OURS, "f1_of_best", "F1 of best"),
    Column(OURS, "f1_worst_class", "F1, worst class"),
    Column(OURS, "review_precision", "bad among first shown"),
    Column(OURS, "relabelled", "relabelled"),
    Column(OURS, "correction_precision", "of these rightly"),
    Column(OURS, "advises", "advises to act"),
)
"""What the audit finds, in percent."""
CALIBRATION = (
    Column(OURS, "calibration_error", "calibration error", digits=3),
    Column(OURS, "adaptive_calibration_error", "equal counts", digits=3),
    Column(OURS, "brier", "Brier", digits=3),
    Column(OURS, "brier_base", "base rate's", digits=3),
    Column(OURS, "brier_of_base", "ratio", digits=2),
)
RATES = (
    Column(OURS, "noise_true", "noise, true, %"),
    Column(OURS, "noise_estimated", "estimated"),
    Column(OURS, "noise_low", "from"),
    Column(OURS, "noise_high", "to"),
    Column(OURS, "noise_width", "width"),
    Column(OURS, "noise_inside", "seeds inside"),
)
COSTS = (
    Column(SHARED, "images", "images", digits=0),
    Column(SHARED, "seconds_features", "features, s"),
    Column(SHARED, "images_per_second", "images/s of extraction", digits=0),
    Column(SHARED, "seconds_evidence", "beliefs, s"),
    Column(OURS, "seconds", "judging, s", digits=2),
    Column(SHARED, "peak_mib", "peak memory, MiB", digits=0),
)
FOUND = (
    Column(PICTURES, "images", "pictures", digits=0),
    Column(PICTURES, "faults", "faults", digits=0),
    Column(PICTURES, "near_duplicates", "near-duplicates", digits=0),
    Column(PICTURES, "near_duplicate_groups", "groups of them", digits=0),
    Column(PICTURES, "conflicts", "with other labels", digits=0),
    Column(PICTURES, "leaks", "also in another split", digits=0),
    Column(PICTURES, "seconds", "seconds"),
    Column(PICTURES, "images_per_second", "pictures/s", digits=0),
    Column(PICTURES, "peak_mib", "peak memory, MiB", digits=0),
)

SIZES = tuple(f"{count} x {size}, {classes} classes" for count, size, classes in SCALES.values())
SCALE = (
    Column(OURS, "seconds_evidence", "beliefs, s"),
    Column(OURS, "seconds_judging", "judging, s"),
    Column(OURS, "seconds", "both, s"),
    Column(OURS, "peak_mib", "peak memory, MiB", digits=0),
    Column(OURS, "neighbour_recall", "neighbours found", digits=3),
    Column(OURS, "auroc", "AUROC, %"),
    Column(OURS, "f1", "F1, %"),
)


def tabulate_sets(columns: Sequence[Column], sets: Sequence[str]) -> Callable[[Sequence[Record]], str]:
    """Make a renderer of a table with data sets as rows.

    Args:
        columns: the method stands where a column of another table has its data set.
        sets: rows, as far as there are records; a set that was believed otherwise (its name, a space and how)
            stands behind the set itself.

    Returns:
        Records -> Markdown; empty where nothing of this was measured.
    """
    wanted = {(column.data, column.metric) for column in columns}

    def render(records: Sequence[Record]) -> str:
        turned = [
            replace(record, data=record.method, method=record.data)
            for record in records
            if (record.method, record.metric) in wanted
        ]
        rows = sort_sets({record.method for record in turned}, sets)
        measured = {(record.data, record.metric) for record in turned if record.method in rows}
        shown = [column for column in columns if (column.data, column.metric) in measured]
        if not shown:
            return ""
        table = render_table([record for record in turned if record.method in rows], shown, rows)
        return "| data |" + table.removeprefix("| method |")

    return render


def sort_sets(found: set[str], sets: Sequence[str]) -> list[str]:
    """The names that belong to ``sets``, in their order; other ways to beliefs behind the usual one."""
    own = {name: name if name in sets else name.split()[0] for name in found}
    return sorted(
        (name for name in found if own[name] in sets), key=lambda name: (sets.index(own[name]), name)
    )


def compare_with_best(records: Sequence[Record]) -> str:
    """A Markdown table: the audit's F1 and AUROC beside the best of the others, on the same beliefs.

    The best is chosen by the truth, for each data set anew: an oracle's choice, which no user has. *Least
    lead* is over the seeds: what is left of the lead where it is smallest, against the best in that seed.

    Args:
        records: of the suite audit.

    Returns:
        One row by data set, means over seeds in percent; empty where there is nothing to compare.
    """
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for record in records:
        if record.metric in ("f1", "auroc"):
            by_method = values.setdefault((record.data, record.metric), {})
            by_method.setdefault(record.method, {})[record.seed] = 100 * record.value
    names = sort_sets({data for data, _ in values}, (*SETS, *CORRUPTIONS))
    columns = (
        *("F1, %", "best of cleanlab", "disagreement", "least lead"),
        *("AUROC, %", "best of others", "least lead"),
    )
    lines = [f"| data | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name in names:
        f1, auroc = values.get((name, "f1"), {}), values.get((name, "auroc"), {})
        if OURS not in f1 or not f1.keys() - OWN:
            continue
        cleanlab = {method: f1[method] for method in f1 if method.startswith(("cleanlab", "datalab"))}
        cells = [
            _show_mean(f1[OURS]),
            _show_best(cleanlab),
            _show_mean(f1.get("disagreement", {})),
            _show_lead(f1),
            _show_mean(auroc.get(OURS, {})),
            _show_best({method: seen for method, seen in auroc.items() if method not in OWN}),
            _show_lead(auroc),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _show_mean(by_seed: dict[int, float]) -> str:
    return f"{statistics.fmean(by_seed.values()):.1f}" if by_seed else "—"


def _show_best(by_method: dict[str, dict[int, float]]) -> str:
    means = {method: statistics.fmean(by_seed.values()) for method, by_seed in by_method.items()}
    if not means:
        return "—"
    best = max(means, key=lambda method: means[method])
    return f"{means[best]:.1f} ({best})"


def _show_lead(by_method: dict[str, dict[int, float]]) -> str:
    leads = []
    for seed, own in by_method.get(OURS, {}).items():
        others = [found[seed] for method, found in by_method.items() if method not in OWN and seed in found]
        if others:
            leads.append(own - max(others))
    return f"{min(leads):+.1f}" if leads else "—"

"""Tables with data sets as rows, and the audit beside the best of the others."""

import pytest

from lauter.bench.audit_pages import (
    CORRUPTIONS,
    OWN,
    SCALE,
    SETS,
    SIZES,
    compare_with_best,
    sort_sets,
    tabulate_sets,
)
from lauter.bench.records import Record
from lauter.bench.tables import Column


def record(data: str, method: str, metric: str, *values: float) -> list[Record]:
    return [Record("audit", data, method, seed, metric, value) for seed, value in enumerate(values)]


def test_data_sets_are_rows_in_the_order_of_the_measurement() -> None:
    records = [
        *record("ncifar10", "lauter", "f1", 0.5, 0.7),
        *record("cifar10n-worst training", "lauter", "f1", 0.8, 0.8),
        *record("cifar10n-worst", "lauter", "f1", 0.6, 0.6),
        *record("cifar10n-worst", "evidence", "seconds_features", 12.0, 13.0),
        *record("cifar10n-worst", "disagreement", "f1", 0.1, 0.1),
        *record("digits-clean", "lauter", "f1", 0.9, 0.9),
    ]
    columns = [
        Column("lauter", "f1", "F1"),
        Column("evidence", "seconds_features", "features, s"),
        Column("lauter", "auroc", "AUROC"),
    ]
    lines = tabulate_sets(columns, SETS)(records).splitlines()
    assert lines[0] == "| data | F1 | features, s |"  # a column without a record is none
    assert lines[2] == "| cifar10n-worst | 60.0 ± 0.0 | 12.5 ± 0.7 |"
    assert lines[3].startswith("| cifar10n-worst training | 80.0")
    assert lines[4].startswith("| ncifar10 | 60.0 ± 14.1 |")
    assert len([line for line in lines if line.startswith("|")]) == 5
    assert tabulate_sets(columns, ("photos",))(records) == ""


def test_other_ways_to_beliefs_stand_behind_the_usual_one() -> None:
    found = {"ncifar10 networks", "photos", "ncifar10", "elsewhere", "cifar10n-aggre"}
    assert sort_sets(found, SETS) == ["cifar10n-aggre", "ncifar10", "ncifar10 networks", "photos"]
    assert not set(SETS) & set(CORRUPTIONS)


def test_sizes_are_rows_of_their_own() -> None:
    records = [
        *record("1000000 x 512, 1000 classes", "lauter", "seconds", 600.0),
        *record("50000 x 512, 10 classes", "lauter", "seconds", 20.0),
    ]
    lines = tabulate_sets(SCALE, SIZES)(records).splitlines()
    assert lines[2:4] == ["| 50000 x 512, 10 classes | 20.0 |", "| 1000000 x 512, 1000 classes | 600.0 |"]


def test_the_best_of_the_others_is_chosen_by_set_and_the_lead_by_seed() -> None:
    records = [
        *record("ncifar10", "lauter", "f1", 0.70, 0.74),
        *record("ncifar10", "cleanlab-class", "f1", 0.60, 0.72),
        *record("ncifar10", "datalab", "f1", 0.66, 0.68),
        *record("ncifar10", "disagreement", "f1", 0.69, 0.50),
        *record("ncifar10", "oracle rate", "f1", 0.99, 0.99),
        *record("ncifar10", "filter", "f1", 0.98, 0.98),
        *record("ncifar10", "lauter", "auroc", 0.80, 0.80),
        *record("ncifar10", "disagreement", "auroc", 0.79, 0.83),
        *record("photos", "lauter", "f1", 0.5),
        *record("digits-pairs-10", "lauter", "f1", 0.5),
        *record("digits-pairs-10", "confident", "f1", 0.4),
    ]
    lines = compare_with_best(records).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    row = "| ncifar10 | 72.0 | 67.0 (datalab) | 59.5 | +1.0 | 80.0 | 81.0 (disagreement) | -3.0 |"
    assert lines[2] == row
    assert lines[3] == "| digits-pairs-10 | 50.0 | — | — | +10.0 | — | — | — |"
    assert len(lines) == 4  # with nobody beside it, a set is not compared
    assert compare_with_best(record("photos", "lauter", "f1", 0.5)) == ""


def test_what_is_ours_is_no_rival() -> None:
    assert {"lauter", "filter", "oracle rate", "evidence", "pictures"} == OWN


@pytest.mark.parametrize("metric", ["noise_low", "review_precision", "f1_worst_class", "advises"])
def test_shares_are_shown_in_percent(metric: str) -> None:
    assert Column("lauter", metric).scale == 100

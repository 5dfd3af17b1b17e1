"""Checked label tables: read from files, held against the data, turned into labels to train on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lauter
from lauter.auditing.label_table import (
    add_history,
    choose_targets,
    match_table,
    open_again,
    read_label_table,
    with_checked_labels,
    write_label_table,
)
from lauter.config import to_plain
from lauter.data.dataset import UNLABELLED, Dataset, ImageFault
from lauter.errors import DataError

Make = Callable[..., pd.DataFrame]


@pytest.fixture
def data(photos: Path) -> Dataset:
    return lauter.open_dataset(photos)


@pytest.fixture
def make_table(data: Dataset) -> Make:
    """Make a table of the photos that keeps all labels: ``make_table({row: (verdict, suggested, who)})``."""

    def make(changes: dict[int, tuple[str, str, str]] | None = None) -> pd.DataFrame:
        names = np.array(data.class_names, dtype=object)
        table = pd.DataFrame(
            {
                "id": data.ids.astype(object),
                "given": names[data.labels],
                "verdict": "keep",
                "suggested": names[data.labels],
                "p_given_right": np.linspace(0, 1, len(data)),
                "decided_by": "audit",
            }
        )
        for row, cells in (changes or {}).items():
            table.loc[row, ["verdict", "suggested", "decided_by"]] = list(cells)
        return table

    return make


def as_objects(table: pd.DataFrame) -> pd.DataFrame:
    """Cells alone: pandas has more than one type for text, and more than one sign for nothing."""
    return table.astype(object).where(table.notna(), None)


CHANGES = {
    0: ("relabel", "dog", "audit"),
    1: ("relabel", "train", "person"),
    2: ("drop", "cat", "audit"),
    3: ("drop", "cat", "person"),
    4: ("ask", "dog", "audit"),
    5: ("ask", "dog", "person"),
    6: ("keep", "cat", "person"),
}


def test_every_verdict_has_its_label(data: Dataset, make_table: Make) -> None:
    table = make_table(CHANGES).sample(frac=1, random_state=0)  # in any order
    checked = with_checked_labels(data, table)
    expected = data.labels.copy()
    expected[:7] = [1, 2, UNLABELLED, UNLABELLED, 0, 0, 0]
    np.testing.assert_array_equal(checked.labels, expected)
    np.testing.assert_array_equal(np.flatnonzero(checked.trusted), [1, 3, 6])  # a question decides nothing
    np.testing.assert_array_equal(checked.original_labels, data.labels)
    assert checked.source["spec"] == data.source["spec"]
    assert checked.source["checked_labels"] == {
        "file": None,
        "drop": False,
        "counts": {"keep": 36, "relabel": 2, "drop": 2, "ask": 2, "by_person": 3, "not_in_table": 0},
    }
    assert len({data.fingerprint(), checked.fingerprint()}) == 2
    assert data.original_labels is None


def test_dropped_images_may_be_left_out(data: Dataset, make_table: Make) -> None:
    whole = with_checked_labels(data, make_table(CHANGES))
    checked = with_checked_labels(data, make_table(CHANGES), drop=True)
    rows = np.array([row for row in range(len(data)) if row not in (2, 3)])
    assert checked.ids.tolist() == data.ids[rows].tolist()
    np.testing.assert_array_equal(checked.labels, whole.labels[rows])
    np.testing.assert_array_equal(checked.original_labels, data.labels[rows])
    assert checked.trusted is not None
    np.testing.assert_array_equal(np.flatnonzero(checked.trusted), [1, 4])


def test_a_table_that_changes_nothing_gives_the_same_data(data: Dataset, make_table: Make) -> None:
    checked = with_checked_labels(data, make_table().drop(columns="decided_by"))
    np.testing.assert_array_equal(checked.labels, data.labels)
    assert checked.trusted is None
    assert checked.fingerprint() == data.fingerprint()


def test_unlabelled_images_take_a_suggestion_or_stay_so(data: Dataset, make_table: Make) -> None:
    bare = data.with_labels(np.where(np.arange(len(data)) < 2, UNLABELLED, data.labels))
    table = make_table({0: ("relabel", "dog", "audit"), 1: ("ask", "dog", "audit")})
    for nothing in (None, np.nan):
        table.loc[[0, 1], "given"] = nothing
        np.testing.assert_array_equal(with_checked_labels(bare, table).labels[:3], [1, UNLABELLED, 0])


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv"])
def test_a_table_in_a_file_says_the_same(name: str, data: Dataset, make_table: Make, tmp_path: Path) -> None:
    table = make_table(CHANGES)
    write_label_table(table, tmp_path / name)
    pd.testing.assert_frame_equal(as_objects(read_label_table(tmp_path / name)), as_objects(table))
    checked = with_checked_labels(data, tmp_path / name)
    assert checked.source["checked_labels"]["file"] == str(tmp_path / name)
    expected = with_checked_labels(data, table)
    np.testing.assert_array_equal(checked.labels, expected.labels)
    assert checked.fingerprint() == expected.fingerprint()


def test_a_csv_keeps_names_as_text_and_numbers_as_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "id": ["007", "1e5", "NA"],
            "given": ["0", "10", None],
            "verdict": ["keep", "relabel", "ask"],
            "suggested": ["0", "nan", "10"],
            "p_given_right": [0.1 + 0.2, 1e-12, np.nan],
            "near_duplicate_group": [3.0, np.nan, 3.0],
            "leak": [True, False, False],
            "faults": [None, "tiny", None],
        }
    )
    write_label_table(table, tmp_path / "labels.csv")
    found = read_label_table(tmp_path / "labels.csv")
    pd.testing.assert_frame_equal(as_objects(found), as_objects(table))
    kinds = {name: found[name].dtype.kind for name in ("p_given_right", "near_duplicate_group", "leak")}
    assert kinds == {"p_given_right": "f", "near_duplicate_group": "f", "leak": "b"}


def test_files_are_written_all_or_none(make_table: Make, tmp_path: Path) -> None:
    table = make_table()
    table["thing"] = [object()] * len(table)  # Parquet has no type for it, CSV has
    (tmp_path / "labels.csv").write_text("before")
    with pytest.raises(Exception, match="object"):
        write_label_table(table, tmp_path / "labels.csv", tmp_path / "labels.parquet")
    assert (tmp_path / "labels.csv").read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.csv"]
    with pytest.raises(DataError, match=r"is written as \.parquet or \.csv, not as '.*labels\.xlsx'"):
        write_label_table(table, tmp_path / "labels.xlsx")


def test_images_without_a_row_keep_their_label_with_a_warning(data: Dataset, make_table: Make) -> None:
    table = make_table({0: ("relabel", "dog", "audit")}).iloc[:40]
    with pytest.warns(UserWarning, match=r"2 of the 42 images are not in the label table .* 'train/12\.png'"):
        checked = with_checked_labels(data, table)
    np.testing.assert_array_equal(checked.labels[[0, 40, 41]], [1, 2, 2])
    assert checked.source["checked_labels"]["counts"]["not_in_table"] == 2


def test_a_class_that_is_left_with_nothing_is_said(data: Dataset, make_table: Make) -> None:
    table = make_table(dict.fromkeys(range(14), ("drop", "cat", "audit")))
    with pytest.warns(UserWarning, match="leave no image to 1 classes: 'cat'"):
        with_checked_labels(data, table)


def test_rows_of_images_that_cannot_be_read_any_more_are_no_strangers(
    data: Dataset, make_table: Make
) -> None:
    broken = dataclasses.replace(
        data.subset(np.arange(1, 42)), faults=(ImageFault("cat/00.png", "unreadable", "gone", True),)
    )
    np.testing.assert_array_equal(with_checked_labels(broken, make_table()).labels, broken.labels)


def test_a_table_of_other_data_is_refused(data: Dataset, make_table: Make) -> None:
    table = make_table()
    stale = make_table()
    stale.loc[[3, 20, 30, 31], "given"] = ["dog", None, "dog", "dog"]
    unsaid = make_table({7: ("relabel", "dog", "audit")})
    unsaid.loc[7, "suggested"] = None
    part = data.subset(np.arange(40))
    cases: list[tuple[Dataset, pd.DataFrame, str]] = [
        (
            part,
            table,
            r"2 of the 42 ids in the label table are not in photos: 'train/12.png', 'train/13.png'",
        ),
        (data, table.iloc[:0], "the label table has no rows"),
        (
            data,
            stale,
            r"from other labels than photos has now: 4 of 42 differ, such as 'cat/03.png' \(dog there, cat "
            r"here\), 'dog/06.png' \(no label there, dog here\), 'train/02.png' \(dog there, train here",
        ),
        (data, table.assign(suggested="cow"), "has the class 'cow', which the data has not"),
        (data, unsaid, "relabels 'cat/07.png' but suggests no class for it"),
        (
            data,
            table.assign(verdict="maybe"),
            "the verdict 'maybe' for 'cat/00.png'; expected keep, relabel, ",
        ),
        (data, table.drop(columns="given"), "has no column 'given'; it is not one that lauter wrote"),
        (data, table.assign(id=None), "has 42 rows without an id"),
        (data, pd.concat([table, table.iloc[:1]]), "names 'cat/00.png' more than once"),
        (
            with_checked_labels(data, table),
            table,
            "the labels of photos come from a checked label table alre",
        ),
    ]
    for which, labels, message in cases:
        with pytest.raises(DataError, match=message):
            with_checked_labels(which, labels)


def test_a_file_that_is_no_table_is_refused(make_table: Make, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    (tmp_path / "short.csv").write_text("id,given\n")
    write_label_table(make_table().assign(verdict="maybe"), tmp_path / "odd.csv")
    for name, message in (
        ("gone.parquet", r"the label table .*gone\.parquet is missing"),
        ("text.parquet", r"the label table .*text\.parquet cannot be read as Parquet"),
        ("short.csv", r"short\.csv has no column 'verdict'"),
        ("odd.csv", r"odd\.csv: the label table has the verdict 'maybe'"),
        (".", r"is a folder; name the label table in it, such as .*labels\.parquet"),
    ):
        with pytest.raises(DataError, match=message):
            read_label_table(tmp_path / name)


def test_checked_data_opens_again_from_its_source(data: Dataset, make_table: Make, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write_label_table(make_table(CHANGES), path)
    for drop in (False, True):
        checked = with_checked_labels(data, path, drop=drop)
        again = open_again(json.loads(json.dumps(to_plain(checked.source))))
        assert again.fingerprint() == checked.fingerprint()
        assert again.source == checked.source
    assert open_again(data.source).fingerprint() == data.fingerprint()
    unwritten = with_checked_labels(data, make_table(CHANGES))
    with pytest.raises(DataError, match="the checked labels of photos were passed from Python"):
        open_again(unwritten.source)


def test_a_runs_table_tells_the_labels_of_the_data_and_is_taken_for_them(
    data: Dataset, make_table: Make
) -> None:
    checked = with_checked_labels(data, make_table(CHANGES))
    names = np.array([*data.class_names, None], dtype=object)
    judged = make_table().drop(columns="decided_by").assign(given=names[checked.labels])
    judged.loc[[2, 3], "verdict"] = "ask"  # as for any image without a label
    judged.loc[10, ["verdict", "suggested"]] = ["relabel", "dog"]
    told = add_history(judged, checked)
    assert told["original"].tolist() == [data.class_names[label] for label in data.labels]
    assert told["decided_by"].tolist()[:7] == [
        *("audit", "person", "audit", "person", "audit", "audit", "person")
    ]
    assert told["verdict"].tolist()[:4] == ["keep", "keep", "ask", "drop"]
    assert judged["verdict"].tolist()[3] == "ask"
    again = with_checked_labels(data, told)
    expected = checked.labels.copy()
    expected[10] = 1
    np.testing.assert_array_equal(again.labels, expected)
    np.testing.assert_array_equal(again.trusted, checked.trusted)
    assert add_history(judged, data) is judged
    # The same table fits the checked data too.
    np.testing.assert_array_equal(match_table(checked, told).labels, expected)


def test_targets_are_kept_and_relabelled_labels(data: Dataset, make_table: Make) -> None:
    table = make_table()
    table.loc[[20, 30], ["verdict", "suggested"]] = ["relabel", "cat"]
    table.loc[21, "verdict"] = "drop"
    table.loc[22, "verdict"] = "ask"
    table.loc[23, ["given", "verdict"]] = [None, "ask"]
    expected = data.labels.copy()
    expected[[20, 30]] = 0
    expected[[21, 22, 23]] = UNLABELLED
    shuffled = table.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(choose_targets(data, shuffled), expected)
    extra = pd.concat([table, table.iloc[:1].assign(id="elsewhere.png")])
    np.testing.assert_array_equal(choose_targets(data, extra), expected)


def test_targets_of_a_table_that_does_not_fit_are_refused(
    data: Dataset, make_table: Make, tmp_path: Path
) -> None:
    table = make_table()
    cases: list[tuple[Any, str]] = [
        (table.drop(columns="verdict"), "has no column 'verdict'; it is not one that lauter wrote"),
        (table.iloc[2:], "lacks 2 of the 42 images, the first is 'cat/00.png'"),
        (pd.concat([table, table.iloc[:1]]), "names 'cat/00.png' more than once"),
        (table.assign(given="cow"), "has the class 'cow', which the data has not"),
        (tmp_path / "gone.parquet", r"the label table .*gone\.parquet is missing"),
    ]
    for labels, message in cases:
        with pytest.raises(DataError, match=message):
            choose_targets(data, labels)

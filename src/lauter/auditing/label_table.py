"""Checked label tables as an input: read from a file, held against the data, made labels to train on."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.judgement import VERDICTS
from lauter.auditing.spreadsheet import read_spreadsheet
from lauter.data import Dataset, open_dataset
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import DataError
from lauter.files import atomic_path

COLUMNS = ("id", "given", "verdict", "suggested")
"""What every label table has; the rest is for people."""
TEXT_COLUMNS = (*COLUMNS, "original", "decided_by", "part", "label", "path")
"""Columns whose cells are names, also where they look like numbers."""
PERSON, AUDIT = "person", "audit"
"""Values of the column ``decided_by``: whose word a row's verdict is."""
TABLE_SUFFIXES = (".parquet", ".csv")

LabelTable = pd.DataFrame | str | Path


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """What a label table says of the images of a data set.

    Attributes:
        place: [N] row of the table for each image, -1 where the table has none.
        labels: [N] the label to learn: the given one where it is kept or asked about, the suggested one where
            it is relabelled, -1 where it is dropped; the data's own where the table has no row.
        verdicts: [N] the table's verdicts; empty where it has no row.
        by_person: [N] whether a person decided the row: kept, relabelled or dropped it.
    """

    place: Int64s
    labels: Int64s
    verdicts: NDArray[np.str_]
    by_person: NDArray[np.bool_]


def read_label_table(path: str | Path) -> pd.DataFrame:
    """Read a label table from a .parquet or .csv file, and check that it is one.

    In a CSV file names stay text, and every other column becomes numbers where all of its cells are.

    Args:
        path: the file.

    Returns:
        The table, None or NaN where a cell is empty.

    Raises:
        DataError: there is no such file, it cannot be read, or it is no label table (see
            :func:`check_label_table`).
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the label table in it, such as {path / 'labels.parquet'}")
    if not path.is_file():
        raise DataError(f"the label table {path} is missing")
    if path.suffix.lower() == ".csv":
        table = read_spreadsheet(path, COLUMNS)
        for name in set(table.columns) - set(TEXT_COLUMNS):
            table[name] = _read_numbers(table[name])
    else:
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"the label table {path} cannot be read as Parquet: {error}") from error
    try:
        check_label_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return table


def check_label_table(table: pd.DataFrame) -> None:
    """Look whether a table is a label table.

    Raises:
        DataError: a column is missing, there are no rows, an id is empty or stands there twice, or a verdict
            is none.
    """
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(f"the label table has no column {missing[0]!r}; it is not one that lauter wrote")
    if not len(table):
        raise DataError("the label table has no rows")
    if empty := int(table["id"].isna().sum()):
        raise DataError(f"the label table has {empty} rows without an id")
    if (twice := table["id"].duplicated()).any():
        raise DataError(f"the label table names {table['id'][twice].iloc[0]!r} more than once")
    if (strange := ~table["verdict"].isin(VERDICTS)).any():
        raise DataError(
            f"the label table has the verdict {table['verdict'][strange].iloc[0]!r} "
            f"for {table['id'][strange].iloc[0]!r}; expected {', '.join(VERDICTS)}"
        )


def write_label_table(table: pd.DataFrame, *paths: str | Path) -> None:
    """Write a label table to one or more files, all of them or none.

    Args:
        table: what to write.
        paths: .parquet or .csv files (UTF-8, commas).

    Raises:
        DataError: a path ends in something else.
        OSError: from the writing itself; every file is then what it was before.
    """
    if wrong := [str(path) for path in paths if Path(path).suffix.lower() not in TABLE_SUFFIXES]:
        raise DataError(f"a label table is written as .parquet or .csv, not as {wrong[0]!r}")
    with ExitStack() as stack:
        for path in paths:
            temporary = stack.enter_context(atomic_path(path))
            if temporary.suffix.lower() == ".csv":
                table.to_csv(temporary, index=False)
            else:
                table.to_parquet(temporary, index=False)


def match_table(data: Dataset, table: pd.DataFrame) -> CheckedRows:
    """Hold a label table against the data set that it speaks of.

    A table of a run on checked labels has a column ``original`` with the labels of the data as it lies on the
    disk; then that column is compared with the data, and ``given`` is what was checked since.

    Args:
        data: as it was audited.
        table: a checked label table.

    Returns:
        What it says of each image. Images without a row keep their label, with a warning.

    Raises:
        DataError: the table has ids or classes that the data has not, or other given labels, or relabels
            without a suggestion.
    """
    check_label_table(table)
    ids = table["id"].astype(str).to_numpy(dtype=object)
    _refuse_strangers(data, ids)
    place = pd.Series(np.arange(len(table)), index=ids).reindex(data.ids.astype(object), fill_value=-1)
    rows = place.to_numpy(dtype=np.int64)
    here = np.flatnonzero(rows >= 0)
    given, suggested = (_encode(data, table[name]) for name in ("given", "suggested"))
    before = _encode(data, table["original"]) if "original" in table.columns else given
    in_data = data.labels
    if "original" in table.columns and data.original_labels is not None:
        in_data = data.original_labels
    _refuse_other_labels(data, here, before[rows[here]], in_data[here])

    verdicts = np.full(len(data), "", dtype="<U10")
    verdicts[here] = table["verdict"].to_numpy(dtype=object)[rows[here]]
    labels = data.labels.copy()
    relabelled = verdicts[here] == "relabel"
    if (lacking := relabelled & (suggested[rows[here]] == UNLABELLED)).any():
        first = str(data.ids[here[lacking][0]])
        raise DataError(f"the label table relabels {first!r} but suggests no class for it")
    labels[here] = np.where(relabelled, suggested[rows[here]], given[rows[here]])
    labels[verdicts == "drop"] = UNLABELLED
    by_person = np.zeros(len(data), dtype=bool)
    if "decided_by" in table.columns:
        decided = (table["decided_by"] == PERSON).to_numpy(dtype=bool)
        by_person[here] = decided[rows[here]] & (verdicts[here] != "ask")
    if absent := len(data) - len(here):
        first = str(data.ids[np.flatnonzero(rows < 0)[0]])
        warnings.warn(
            f"{absent:,} of the {len(data):,} images are not in the label table and keep their given label; "
            f"the first is {first!r}",
            UserWarning,
            stacklevel=3,
        )
    return CheckedRows(rows, labels, verdicts, by_person)


def with_checked_labels(data: Dataset, labels: LabelTable, *, drop: bool = False) -> Dataset:
    """The data set under the labels of a checked label table, to train on.

    ==========  ================================================================================
    verdict     what becomes of the image
    ==========  ================================================================================
    keep        its given label
    relabel     the suggested label
    drop        no label: it teaches by mimicking alone; with ``drop`` it is left out
    ask         its given label, as doubtful as it was
    ==========  ================================================================================

    Training judges these labels again, and may still drop or correct them. Only what a person decided
    (``decided_by`` is person) is final: such labels are trusted, and an image that a person dropped is given
    no other label.

    Args:
        data: as it was audited, with the labels that the table calls given.
        labels: the table, or its .parquet or .csv file, from an audit, from ``lauter apply``, or from a run.
        drop: whether dropped images are left out.

    Returns:
        The same images (without the dropped ones, if asked for) under these labels. ``source`` tells how they
        came about, ``original_labels`` what they were, ``trusted`` which ones a person decided.

    Raises:
        DataError: see :func:`read_label_table` and :func:`match_table`; or the data has checked labels
            already.
    """
    if data.original_labels is not None:
        raise DataError(
            f"the labels of {data.name} come from a checked label table already; start from the data set as "
            "it was opened"
        )
    table = labels if isinstance(labels, pd.DataFrame) else read_label_table(labels)
    found = match_table(data, table)
    counts = {name: int((found.verdicts == name).sum()) for name in VERDICTS}
    checked = replace(
        data.with_labels(found.labels),
        original_labels=data.labels,
        trusted=found.by_person if found.by_person.any() else None,
        source={
            **(data.source or {"name": data.name}),
            "checked_labels": {
                "file": None if isinstance(labels, pd.DataFrame) else str(Path(labels).absolute()),
                "drop": drop,
                "counts": {
                    **counts,
                    "by_person": int(found.by_person.sum()),
                    "not_in_table": int((found.place < 0).sum()),
                },
            },
        },
    )
    checked = checked.subset(found.verdicts != "drop") if drop else checked
    _warn_of_empty_classes(data, checked)
    return checked


def open_again(source: Mapping[str, Any]) -> Dataset:
    """Open a data set as its ``source`` says that it was, checked labels included.

    Raises:
        DataError: it cannot be opened any more, or its labels came from a table that was no file.
    """
    arguments = dict(source)
    checked = arguments.pop("checked_labels", None)
    data = open_dataset(**arguments)
    if checked is None:
        return data
    if checked["file"] is None:
        raise DataError(f"the checked labels of {data.name} were passed from Python and are in no file")
    return with_checked_labels(data, checked["file"], drop=checked["drop"])


def choose_targets(data: Dataset, labels: LabelTable) -> Int64s:
    """Labels to learn [N] by a checked label table: given where kept, suggested where relabelled, else -1.

    Args:
        data: the images of the table; its own labels are not looked at.
        labels: the table, or its file. It may have rows of other images too.

    Raises:
        DataError: the table cannot be read, lacks images of the data, or names unknown classes.
    """
    table = labels if isinstance(labels, pd.DataFrame) else read_label_table(labels)
    check_label_table(table)
    rows = table.assign(id=table["id"].astype(str)).set_index("id").reindex(data.ids)
    if absent := int(rows["verdict"].isna().sum()):
        name = str(data.ids[np.flatnonzero(rows["verdict"].isna())[0]])
        raise DataError(f"the label table lacks {absent} of the {len(data)} images, the first is {name!r}")
    given, suggested = rows["given"].astype(object), rows["suggested"].astype(object)
    chosen = given.where(rows["verdict"] == "keep", suggested)
    return _encode(data, chosen.where(rows["verdict"].isin(["keep", "relabel"])))


def add_history(table: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Say in a run's label table which labels came from a checked one.

    Args:
        table: one row for each image, in the data's order; ``given`` is the label that the run was given.
        data: what the run was given.

    Returns:
        The table as it is where no label was checked before. Else with ``original``, the label of the data as
        it lies on the disk, and ``decided_by``; what a person dropped is dropped.
    """
    if data.original_labels is None:
        return table
    names: NDArray[np.object_] = np.array([*data.class_names, None], dtype=object)
    trusted = np.zeros(len(data), dtype=bool) if data.trusted is None else data.trusted
    told = table.assign(original=names[data.original_labels], decided_by=np.where(trusted, PERSON, AUDIT))
    told.loc[trusted & ~data.labelled, "verdict"] = "drop"
    return told


def name_cases(cases: Sequence[str], limit: int = 3) -> str:
    """The first few cases for a message."""
    return ", ".join(cases[:limit]) + (", ..." if len(cases) > limit else "")


def _encode(data: Dataset, column: "pd.Series[Any]") -> Int64s:
    """Labels of class names, -1 where there is none."""
    number = {name: label for label, name in enumerate(data.class_names)}
    if strange := sorted({str(name) for name in column.dropna().unique()} - set(number)):
        raise DataError(f"the label table has the class {strange[0]!r}, which the data has not")
    cells = column.astype(object)
    labels = [UNLABELLED if pd.isna(name) else number[str(name)] for name in cells]
    return np.array(labels, dtype=np.int64)


def _refuse_strangers(data: Dataset, ids: NDArray[np.object_]) -> None:
    """Refuse a table with ids that the data has not; images that could not be read may stand in it."""
    known = {*data.ids.tolist(), *(fault.id for fault in data.faults if fault.dropped)}
    if strangers := [repr(name) for name in ids.tolist() if name not in known]:
        raise DataError(
            f"{len(strangers):,} of the {len(ids):,} ids in the label table are not in {data.name}: "
            f"{name_cases(strangers)}; open the data as it was audited (the same part, --split and --size), "
            "or audit it as it is now"
        )


def _refuse_other_labels(data: Dataset, rows: Int64s, told: Int64s, own: Int64s) -> None:
    """Refuse a table of other given labels than the data has."""
    names = [*data.class_names, "no label"]
    if other := [
        f"{str(data.ids[row])!r} ({names[there]} there, {names[here]} here)"
        for row, there, here in zip(rows.tolist(), told.tolist(), own.tolist(), strict=True)
        if there != here
    ]:
        raise DataError(
            f"the label table was made from other labels than {data.name} has now: {len(other):,} of "
            f"{len(rows):,} differ, such as {name_cases(other)}; audit the data as it is now"
        )


def _warn_of_empty_classes(data: Dataset, checked: Dataset) -> None:
    before, after = (
        np.bincount(part.labels[part.labelled], minlength=data.num_classes) for part in (data, checked)
    )
    if lost := [repr(data.class_names[label]) for label in np.flatnonzero((before > 0) & (after == 0))]:
        warnings.warn(
            f"the checked labels leave no image to {len(lost)} classes: {name_cases(lost)}",
            UserWarning,
            stacklevel=3,
        )


def _read_numbers(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column of text as numbers or truth values where all of its cells are such; else as it is."""
    cells = column.dropna()
    if len(cells) and cells.isin(["True", "False"]).all() and len(cells) == len(column):
        return column == "True"
    try:
        return pd.to_numeric(column)
    except ValueError:
        return column

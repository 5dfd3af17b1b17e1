"""A person's decisions: read from the file that the audit's page gives, and merged into the label table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lauter.auditing.label_table import AUDIT, PERSON, check_label_table, name_cases
from lauter.auditing.spreadsheet import read_spreadsheet
from lauter.errors import DataError

COLUMNS = ("id", "given", "decision", "label")
DECISIONS = ("accept", "keep", "relabel", "drop", "skip")
"""What a person may say of an image: the audit is right, the given label is, another label is, none is, or
nothing at all."""


@dataclass(frozen=True)
class ReviewCounts:
    """What a person's decisions did to a label table; counts of images.

    Attributes:
        agreed: decided as the table had it.
        kept: the given label stands, where the table said something else.
        relabelled: another label than the table's.
        dropped: no label, where the table had one.
        skipped: looked at and left open.
        left: all others; the table's word stands, and so for the skipped ones.
    """

    agreed: int
    kept: int
    relabelled: int
    dropped: int
    skipped: int
    left: int


@dataclass(frozen=True)
class _Row:
    """What the table says of one image; None where a cell is empty."""

    id: str
    given: str | None
    verdict: str
    suggested: str | None
    by_person: bool


@dataclass(frozen=True)
class _Outcome:
    """What a person's decision makes of it; the suggestion stays as it is where ``suggested`` is None."""

    verdict: str
    suggested: str | None


def read_decisions(path: str | Path) -> pd.DataFrame:
    """Read a person's decisions from a CSV file.

    Args:
        path: the file, with the columns id, given, decision and label; see
            :func:`lauter.auditing.spreadsheet.read_spreadsheet` for what spreadsheet programs may do to it.

    Raises:
        DataError: the file cannot be read, or a column is missing.
    """
    return read_spreadsheet(path, COLUMNS)


def apply_decisions(table: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Merge a person's decisions into a label table.

    ========  ============================================================================
    decision  what the row says afterwards
    ========  ============================================================================
    accept    what the audit said; where it asked, its suggested label
    keep      verdict keep
    relabel   verdict relabel with ``label`` as the suggestion; keep where that is the given label
    drop      verdict drop
    skip      nothing new: the audit's word stands
    ========  ============================================================================

    A row that was decided has ``person`` in the column ``decided_by``, every other one ``audit``, or what
    stood there before: decisions of several sittings add up, and the last word counts, except that nothing of
    the audit is left to accept where a person has said something else. The probabilities stay the audit's. An
    id may stand twice in ``decisions`` as long as both times mean the same; a skipped one says nothing
    against the other.

    Args:
        table: a checked label table, as the page was made from; it is not changed.
        decisions: columns id, given, decision and label; None, NaN or '' where a cell is empty. Of ``accept``
            and ``keep`` the label may be empty; if it is not, it must be the one that is meant.

    Returns:
        The table with the person's word in ``verdict`` and ``suggested``.

    Raises:
        DataError: a column is missing, an id, a decision or a class is unknown, ``given`` differs from the
            table's (the decisions belong to another audit), decisions contradict each other or what they say
            themselves. Counts the cases and names the first ones; nothing is merged then.
    """
    check_label_table(table)
    if missing := [name for name in COLUMNS if name not in decisions.columns]:
        raise DataError(f"the decisions have no column {missing[0]!r}; they must have {', '.join(COLUMNS)}")
    ids, given, words, labels = (_read_cells(decisions[name]) for name in COLUMNS)
    place = {str(name): row for row, name in enumerate(table["id"])}
    _refuse_unknown_ids(ids, place)
    rows = _read_rows(table, [place[str(name)] for name in ids])
    _refuse_other_audit(given, rows)
    _refuse_unknown_decisions(ids, words)
    classes = _find_classes(table)
    _refuse_unknown_classes(ids, labels, classes)

    outcomes: dict[str, _Outcome] = {}
    contrary, refused = [], []
    for row, word, label in zip(rows, words, labels, strict=True):
        if word == "skip":
            continue
        outcome = _decide(row, str(word), label)
        if isinstance(outcome, str):
            refused.append(f"{row.id!r} {outcome}")
        elif outcomes.setdefault(row.id, outcome) != outcome:
            contrary.append(repr(row.id))
    if refused:
        raise DataError(f"{len(refused)} decisions cannot be: {name_cases(refused)}; nothing was merged")
    if contrary:
        raise DataError(
            f"{len(contrary)} ids are decided twice, and not alike: {name_cases(contrary)}; leave one "
            "decision of each"
        )
    return _merge(table, outcomes, place)


def count_decisions(table: pd.DataFrame, reviewed: pd.DataFrame, decisions: pd.DataFrame) -> ReviewCounts:
    """Count what decisions did to a label table.

    Args:
        table: before.
        reviewed: after :func:`apply_decisions`.
        decisions: what was merged.
    """
    words = _read_cells(decisions["decision"])
    skipping = np.array([word == "skip" for word in words], dtype=bool)
    ids = np.array([str(name) for name in decisions["id"]], dtype=object)
    decided = table["id"].astype(str).isin(ids[~skipping]).to_numpy()
    same = np.ones(len(table), dtype=bool)
    for name in ("verdict", "suggested"):
        old, new = table[name].astype(object), reviewed[name].astype(object)
        same &= ((old == new) | (old.isna() & new.isna())).to_numpy(dtype=bool)
    changed = reviewed["verdict"].to_numpy(dtype=object)[decided & ~same]
    return ReviewCounts(
        agreed=int((decided & same).sum()),
        kept=int((changed == "keep").sum()),
        relabelled=int((changed == "relabel").sum()),
        dropped=int((changed == "drop").sum()),
        skipped=len(set(ids[skipping]) - set(ids[~skipping])),
        left=int((~decided).sum()),
    )


def _read_cells(column: Iterable[object]) -> list[str | None]:
    return [None if cell is None or cell == "" or pd.isna(cell) else str(cell) for cell in column]  # type: ignore[call-overload]


def _read_rows(table: pd.DataFrame, places: list[int]) -> list[_Row]:
    part = table.iloc[places]
    given, suggested = _read_cells(part["given"]), _read_cells(part["suggested"])
    by_person = [False] * len(part)
    if "decided_by" in part.columns:
        by_person = (part["decided_by"] == PERSON).tolist()
    ids, verdicts = part["id"].astype(str), part["verdict"].astype(str)
    return [_Row(*cells) for cells in zip(ids, given, verdicts, suggested, by_person, strict=True)]


def _decide(row: _Row, word: str, label: str | None) -> _Outcome | str:
    """What a decision makes of a row, or, as text, why it cannot be."""
    if word == "accept":
        meant = {"keep": row.given, "relabel": row.suggested, "drop": None, "ask": row.suggested}[row.verdict]
        if row.by_person and label != meant:
            return "is accepted as the audit said, but was decided before; apply to the audit's own table"
        if label not in (None, meant):
            return f"accepts {label!r}, where the table says {row.verdict} with {meant!r}"
        if row.verdict == "drop":
            return _Outcome("drop", None)
        word, label = ("keep" if meant == row.given else "relabel"), meant
    if word == "drop":
        return _Outcome("drop", None)
    if word == "keep" and row.given is None:
        return "keeps a label, but the image has none"
    if word == "keep" and label not in (None, row.given):
        return f"keeps the label {row.given!r} and names {label!r} beside it"
    if word == "relabel" and label is None:
        return "relabels without a label"
    if word == "keep" or label == row.given:
        return _Outcome("keep", row.given)
    return _Outcome("relabel", label)


def _merge(table: pd.DataFrame, outcomes: dict[str, _Outcome], place: dict[str, int]) -> pd.DataFrame:
    columns = {name: table[name].to_numpy(dtype=object).copy() for name in ("verdict", "suggested")}
    decided_by = np.full(len(table), AUDIT, dtype=object)
    if "decided_by" in table.columns:
        decided_by = table["decided_by"].to_numpy(dtype=object).copy()
    for name, outcome in outcomes.items():
        row = place[name]
        decided_by[row] = PERSON
        columns["verdict"][row] = outcome.verdict
        if outcome.suggested is not None:
            columns["suggested"][row] = outcome.suggested
    return table.assign(**columns, decided_by=decided_by)


def _find_classes(table: pd.DataFrame) -> list[str]:
    """Classes that the table knows: those that occur in it, and those that its columns state."""
    names: set[str] = set()
    for name in ("given", "suggested", "original"):
        if name in table.columns:
            column = table[name]
            stated = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else ()
            names |= {str(value) for value in (*column.dropna().unique(), *stated)}
    return sorted(names)


def _refuse_unknown_ids(ids: list[str | None], place: dict[str, int]) -> None:
    if strange := [repr(name) for name in ids if name not in place]:
        raise DataError(
            f"{len(strange)} of the {len(ids)} decisions are about images that the label table has not: "
            f"{name_cases(strange)}; they belong to another audit, or a spreadsheet program has changed the "
            "ids (it takes some for numbers or dates)"
        )


def _refuse_other_audit(given: list[str | None], rows: list[_Row]) -> None:
    if other := [
        f"{row.id!r} ({told or 'no label'} there, {row.given or 'no label'} in the table)"
        for row, told in zip(rows, given, strict=True)
        if told != row.given
    ]:
        raise DataError(
            f"the decisions belong to another audit: in {len(other)} of {len(rows)} the given label is "
            f"another than in the label table, such as {name_cases(other)}"
        )


def _refuse_unknown_decisions(ids: list[str | None], words: list[str | None]) -> None:
    if strange := [
        f"{word or 'an empty cell'} for {name!r}"
        for name, word in zip(ids, words, strict=True)
        if word not in DECISIONS
    ]:
        raise DataError(
            f"{len(strange)} decisions are none of {', '.join(DECISIONS)}: {name_cases(strange)}; mend or "
            "remove these rows"
        )


def _refuse_unknown_classes(ids: list[str | None], labels: list[str | None], classes: list[str]) -> None:
    if strange := [
        f"{label!r} for {name!r}"
        for name, label in zip(ids, labels, strict=True)
        if label is not None and label not in classes
    ]:
        raise DataError(
            f"{len(strange)} labels are no class of the label table: {name_cases(strange)}; its classes are "
            f"{name_cases(classes, 10)}"
        )

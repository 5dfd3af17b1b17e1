"""Which images the page of an audit shows, and which groups of near-duplicates."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.report.pictures import select_doubtful
from lauter.data.dataset import Int64s

PLAN_SHARE = 2
"""One picture in so many is of the review plan's beginning, whatever its verdict."""
FOUND_SHARE = 8
"""At most one picture in so many is of a near-duplicate or a leak."""
MAX_GROUPS = 24
MAX_MEMBERS = 6


def select_groups(table: pd.DataFrame) -> list[Int64s]:
    """Rows of the groups of near-duplicates: those whose labels contradict each other first, then large ones.

    Args:
        table: columns given and, where known, near_duplicate_group.

    Returns:
        All groups of two or more, each as ascending rows.
    """
    if "near_duplicate_group" not in table.columns:
        return []
    groups = table["near_duplicate_group"].to_numpy(dtype=np.float64, na_value=np.nan)
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]  # NaN and -1 stand alone
    if not len(order):
        return []
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1.0))
    members = [rows.astype(np.int64) for rows in np.split(order, starts[1:]) if len(rows) > 1]
    given = table["given"].to_numpy(dtype=object)
    return sorted(members, key=lambda rows: (not contradict(given[rows]), -len(rows), int(rows[0])))


def contradict(given: NDArray[np.object_]) -> bool:
    """Whether the given labels of one group, missing ones aside, are more than one."""
    return len({name for name in given if not pd.isna(name)}) > 1


def select_pictures(table: pd.DataFrame, plan: Int64s, groups: list[Int64s], max_pictures: int) -> list[int]:
    """Choose the images that are shown: what a person should look at first, and examples of everything else.

    Half of the room is the beginning of the review plan; an eighth at most goes to near-duplicates and leaks;
    the rest is shared by verdict as :func:`~lauter.auditing.report.pictures.select_doubtful` does. Where
    every flagged image has found room, the labels that were kept with least certainty fill it.

    Args:
        table: [N] rows with verdict and p_given_right.
        plan: rows in the order of looking.
        groups: see :func:`select_groups`.
        max_pictures: upper bound on what is returned.

    Returns:
        Rows, each once: in the order of the plan as far as it goes, then by p_given_right.
    """
    chosen = dict.fromkeys(int(row) for row in plan[: max_pictures // PLAN_SHARE])
    found = [int(row) for rows in groups[:MAX_GROUPS] for row in rows[:MAX_MEMBERS]]
    if "leak" in table.columns:
        found += [int(row) for row in np.flatnonzero(find_words(table["leak"]))]
    chosen |= dict.fromkeys(found[: max_pictures // FOUND_SHARE])
    rest = np.setdiff1d(np.arange(len(table)), np.fromiter(chosen, dtype=np.int64, count=len(chosen)))
    columns = table[["verdict", "p_given_right"]].iloc[rest]
    chosen |= dict.fromkeys(int(rest[k]) for k in select_doubtful(columns, max_pictures - len(chosen)))
    doubt = table["p_given_right"].to_numpy(dtype=np.float64, na_value=np.nan)
    if len(chosen) < max_pictures:  # all that is flagged is there: the least sure of what was kept follows
        chosen |= dict.fromkeys(int(row) for row in np.argsort(doubt, kind="stable")[:max_pictures])
        chosen = dict.fromkeys(list(chosen)[:max_pictures])
    places = np.full(len(table), len(plan), dtype=np.int64)
    places[plan] = np.arange(len(plan))
    rows = np.fromiter(chosen, dtype=np.int64, count=len(chosen))
    return [int(row) for row in rows[np.lexsort((doubt[rows], places[rows]))]]


def find_words(column: "pd.Series[str]") -> NDArray[np.bool_]:
    """Which entries of a column of words are not missing and not empty."""
    return np.array([not pd.isna(value) and str(value) != "" for value in column], dtype=bool)

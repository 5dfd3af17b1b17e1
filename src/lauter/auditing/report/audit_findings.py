"""Near-duplicates and leaks, as an audit's page shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.audit_selection import MAX_GROUPS, MAX_MEMBERS, contradict, find_words
from lauter.auditing.report.formats import format_count
from lauter.auditing.report.thumbnails import Thumbnails
from lauter.data.dataset import Int64s

View = dict[str, Any]
MAX_LEAKS = 200


def build_duplicates(
    content: AuditContent, groups: Sequence[Int64s], tile_of: Mapping[int, int], thumbnails: Thumbnails
) -> View | None:
    """How many images look nearly the same, and the first groups with their labels."""
    if not groups:
        return None
    given = content.table["given"].to_numpy(dtype=object)
    shown = [
        {
            "size": len(rows),
            "conflict": contradict(given[rows]),
            "hidden": max(0, len(rows) - MAX_MEMBERS),
            "members": [_show_image(content, int(row), tile_of, thumbnails) for row in rows[:MAX_MEMBERS]],
        }
        for rows in groups[:MAX_GROUPS]
    ]
    return {
        "groups": format_count(len(groups)),
        "images": format_count(sum(len(rows) for rows in groups)),
        "conflicts": format_count(sum(contradict(given[rows]) for rows in groups)),
        "shown": shown,
        "hidden": format_count(len(groups) - len(shown)) if len(groups) > len(shown) else None,
    }


def build_leaks(content: AuditContent, tile_of: Mapping[int, int], thumbnails: Thumbnails) -> View | None:
    """Images that stand in another split as well."""
    if "leak" not in content.table.columns:
        return None
    rows = np.flatnonzero(find_words(content.table["leak"]))
    if not len(rows):
        return None
    twins = content.table["leak"].iloc[rows[:MAX_LEAKS]]
    return {
        "total": format_count(len(rows)),
        "shown": [
            {**_show_image(content, int(row), tile_of, thumbnails), "twin": str(twin)}
            for row, twin in zip(rows, twins, strict=False)
        ],
        "hidden": format_count(len(rows) - MAX_LEAKS) if len(rows) > MAX_LEAKS else None,
    }


def _show_image(content: AuditContent, row: int, tile_of: Mapping[int, int], thumbnails: Thumbnails) -> View:
    entry = content.table.iloc[row]
    tile = tile_of.get(row)
    return {
        "id": str(entry["id"]),
        "given": None if pd.isna(entry["given"]) else str(entry["given"]),
        "part": str(entry["part"]) if "part" in entry and not pd.isna(entry["part"]) else "",
        "tile": tile,
        "width": None if tile is None else thumbnails.widths[tile],
        "height": None if tile is None else thumbnails.heights[tile],
    }

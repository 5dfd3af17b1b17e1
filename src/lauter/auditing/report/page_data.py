"""What the scripts of an audit's page know, as JSON that is safe inside of a page."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lauter.auditing.judgement import VERDICTS
from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.thumbnails import Thumbnails
from lauter.data.dataset import Int64s

MAX_POINTS = 5000
"""Points on the feature map: all images with a picture, and a sample of the others."""
GRID = 10_000
"""Positions on the map are whole numbers from 0 to this."""
UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def write_data(value: Any) -> Markup:
    r"""JSON for a ``<script type="application/json">``: ASCII alone, and no ``<``, ``>`` or ``&`` in it.

    >>> write_data(["</script>", "\u2028"])
    Markup('["\\u003c/script\\u003e","\\u2028"]')
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE))


def build_data(content: AuditContent, rows: Sequence[int], thumbnails: Thumbnails) -> dict[str, Any]:
    """What the gallery, the review and the map work on; columns, not records, to stay small.

    Args:
        content: the audit.
        rows: [M] images with a picture, in the order of looking.
        thumbnails: their pictures, of which only the sizes are read.
    """
    table = content.table.iloc[list(rows)]
    codes = {name: code for code, name in enumerate(content.class_names)}
    return {
        "fingerprint": content.fingerprint(),
        "classes": list(content.class_names),
        "verdicts": list(VERDICTS),
        "tiles": {
            "id": [str(value) for value in table["id"]],
            "given": _encode_names(table["given"], codes),
            "suggested": _encode_names(table["suggested"], codes),
            "verdict": [VERDICTS.index(str(value)) for value in table["verdict"]],
            "right": _read_numbers(table, "p_given_right"),
            "suggestedRight": _read_numbers(table, "p_suggested_right"),
            "open": _read_numbers(table, "p_open"),
            "group": [-1 if value is None else int(value) for value in _read_groups(table)],
            "leak": _read_words(table, "leak"),
            "faults": _read_words(table, "faults"),
            "part": _read_words(table, "part"),
            "width": thumbnails.widths,
            "height": thumbnails.heights,
        },
        "map": _build_map(content, rows, codes),
    }


def _build_map(content: AuditContent, rows: Sequence[int], codes: dict[str, int]) -> dict[str, Any] | None:
    table = content.table
    if "map_x" not in table.columns:
        return None
    places = table[["map_x", "map_y"]].to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(places).all(axis=1)
    tile_of = {row: tile for tile, row in enumerate(rows)}
    shown = [row for row in rows if known[row]]
    others = np.setdiff1d(np.flatnonzero(known), np.array(shown, dtype=np.int64))
    room = max(0, MAX_POINTS - len(shown))
    sample: Int64s = others[np.linspace(0, len(others) - 1, min(room, len(others))).round().astype(np.int64)]
    # What has no picture is drawn first, so that it lies below.
    points = [*sample.tolist(), *reversed(shown)]
    if not points:
        return None
    at = places[points]
    low, span = at.min(axis=0), max(float(np.ptp(at, axis=0).max()), 1e-12)
    grid = ((at - low) / span * GRID).round().astype(int)
    plain = table.iloc[sample]
    return {
        "x": grid[:, 0].tolist(),
        "y": grid[:, 1].tolist(),
        "verdict": [VERDICTS.index(str(value)) for value in table["verdict"].iloc[points]],
        "tile": [tile_of.get(row, -1) for row in points],
        "id": [str(value) for value in plain["id"]],
        "given": _encode_names(plain["given"], codes),
        "suggested": _encode_names(plain["suggested"], codes),
        "total": int(known.sum()),
    }


def _encode_names(column: "pd.Series[str]", codes: dict[str, int]) -> list[int]:
    return [-1 if pd.isna(value) else codes[str(value)] for value in column]


def _read_numbers(table: pd.DataFrame, name: str) -> list[float | None]:
    if name not in table.columns:
        return [None] * len(table)
    values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _read_groups(table: pd.DataFrame) -> list[float | None]:
    return _read_numbers(table, "near_duplicate_group")


def _read_words(table: pd.DataFrame, name: str) -> list[str]:
    if name not in table.columns:
        return [""] * len(table)
    return ["" if pd.isna(value) else str(value) for value in table[name]]

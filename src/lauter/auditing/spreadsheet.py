"""Tables as text, as people and their spreadsheet programs leave them: read exactly, or refused."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lauter.errors import DataError

SEPARATORS = (",", ";", "\t")
"""Signs between cells, in the order in which they are tried; many spreadsheet programs write the second."""
_WAY_OUT = "save it as CSV in UTF-8"
_NO_TEXT = {
    b"PK\x03\x04": "an Excel or LibreOffice workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PAR1": "a Parquet file",
}


def read_spreadsheet(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file into a table of text.

    Accepted are a byte order mark, a first line ``sep=;``, commas, semicolons or tabs between the cells, and
    rows that are wholly empty, which are left out. No cell is taken for a number or a date, and no text for a
    missing value: only empty cells are missing.

    Args:
        path: the file.
        columns: columns that must be there, in any order and among others.

    Returns:
        One row for each row, with str cells, and None for those that are empty.

    Raises:
        DataError: there is no such file, it is no text in UTF-8, lacks a column or names one twice, or a row
            has more or fewer cells than the header.
    """
    path = Path(path)
    lines = _read_text(path)
    if lines[:4].lower() == "sep=":
        lines = lines.partition("\n")[2]
    separator = _find_separator(lines, columns)
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in columns if name not in header]:
            raise DataError(
                f"{path} has no column {missing[0]!r}; it must have {', '.join(columns)}, and its first line "
                f"says {', '.join(header) or 'nothing'}"
            )
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise DataError(f"{path} has the column {twice[0]!r} more than once; leave one of them")
        rows = []
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells where the first line names "
                    f"{len(header)} columns; a cell with a {separator!r} in it must stand in quotes"
                )
            rows.append([cell or None for cell in row])
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; {_WAY_OUT}") from error
    cells = np.array(rows, dtype=object).reshape(len(rows), len(header))
    return pd.DataFrame({name: cells[:, place] for place, name in enumerate(header)}, dtype=object)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    for start, kind in _NO_TEXT.items():
        if content.startswith(start):
            raise DataError(f"{path} is {kind} and no CSV; {_WAY_OUT}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: this is no text in UTF-8; {_WAY_OUT}") from error


def _find_separator(text: str, columns: Sequence[str]) -> str:
    """The sign that makes the first line name the columns; where none does, the one that cuts it most."""
    first = text.partition("\n")[0]
    names = {sign: [name.strip(' "\r') for name in first.split(sign)] for sign in SEPARATORS}
    whole = [sign for sign in SEPARATORS if set(columns) <= set(names[sign])]
    return whole[0] if whole else max(SEPARATORS, key=lambda sign: len(names[sign]))

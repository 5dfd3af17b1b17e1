"""Tables with several labels a row: names in one cell, or a column of lists."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lauter.data.sources import columns as col
from lauter.data.sources import table
from lauter.data.sources.listing import Listing
from lauter.data.sources.targets import Int8s, Names, make_targets
from lauter.errors import DataError

LIST_COLUMNS = ("labels", "classes", "tags", "categories", "targets", *col.LABEL_COLUMNS)
SEPARATORS = ("|", ";", ",")
"""Signs between names, in the order in which they are looked for."""


def list_label_table(
    path: Path,
    split: str | None,
    columns: table.Columns,
    separator: str | None,
    class_names: Sequence[str] | None,
) -> tuple[Listing, Int8s]:
    """List a CSV, TSV or Parquet manifest, or a folder of Parquet shards in the Hugging Face layout.

    Args:
        path: the file or folder; image paths are relative to the folder.
        split: which rows of a split column, or which shards.
        columns: columns that the caller named.
        separator: the sign between names, where a cell holds them as text; the first of | ; , that occurs
            where None.
        class_names: the classes and their order; else those of a ClassLabel, else those that occur.

    Returns:
        The listing, its own labels empty, and int8 [N, K].

    Raises:
        DataError: as :func:`lauter.data.sources.table.list_table`, or labels that are no lists of names.
    """
    where, name, folder = str(path), path.stem, path.parent
    cells, whole_split = None, None
    if path.is_dir():
        name, folder = path.resolve().name, path
        shards = table.find_shards(path)
        split = whole_split = table.choose_split(tuple(shards), split, where)
        table.warn_of_missing_shards(shards[split])
        content, cells = table.read_parquet(shards[split], folder, columns.image, where)
    elif path.suffix.lower() == ".parquet":
        content, cells = table.read_parquet([path], folder, columns.image, where)
    else:
        content = table.read_csv(path)
    column = col.find_column(content.column_names, columns.label, LIST_COLUMNS, "label_column", where)
    if column is None:
        raise DataError(
            f"{where}: no column of labels found; say which it is by label_column: "
            f"{', '.join(content.column_names)}"
        )
    title = f"{where}: column {column!r}"
    own_names = _list_names(col.read_features(content.schema).get(column))
    lists = read_lists(content.column(column), separator, own_names, title)
    targets, classes = make_targets(lists, None, class_names or own_names, title)
    # Images, ids and splits are listed as of any table, under empty labels: the targets stand beside them.
    empty = pa.nulls(content.num_rows, pa.string())
    content = content.set_column(content.column_names.index(column), column, empty)
    columns = table.Columns(columns.image, column, None, columns.id)
    listing = table.list_table(content, name, folder, where, split, columns, classes, cells, whole_split)
    return listing, targets[listing.rows]


def read_lists(
    column: Any, separator: str | None, own_names: tuple[str, ...] | None, title: str
) -> list[Names]:
    """Names of each row; None where the cell is empty, which says nothing of the image.

    An image of none of the classes has an empty list, or, in text, the separator alone.

    Args:
        column: Arrow chunked array of lists (of names or integers), or of text.
        separator: the sign between names, in text.
        own_names: names behind integers, where the lists are of a ClassLabel.
        title: the table and the column, for messages.

    Raises:
        DataError: another type, an integer beyond the names, or an element that is neither name nor integer.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        if separator is None:
            separator = next(
                (s for s in SEPARATORS if any(s in text for text in texts if text)), SEPARATORS[0]
            )
        return [
            None if not (text or "").strip() else {part.strip() for part in text.split(separator)} - {""}
            for text in texts
        ]
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise DataError(
            f"{title} holds {column.type}; expected lists of names or integers, or names with a sign between "
            "them (for one label per image leave out --multi-label)"
        )
    return [
        None if row is None else {_name(value, own_names, title) for value in row}
        for row in column.to_pylist()
    ]


def _name(value: object, own_names: tuple[str, ...] | None, title: str) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{title}: a list holds {value!r}; expected names or whole numbers")
    if own_names is None:
        return str(value)
    if not 0 <= value < len(own_names):
        raise DataError(f"{title}: a list holds {value}, but there are {len(own_names)} class names")
    return own_names[value]


def _list_names(feature: Any) -> tuple[str, ...] | None:
    """Class names of a Hugging Face feature that is a list of ClassLabel, in each of its spellings."""
    inner = feature[0] if isinstance(feature, list) and feature else None
    if isinstance(feature, dict):
        inner = feature.get("feature")
    return col.class_label_names({"": inner}, "")

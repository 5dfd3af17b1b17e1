"""Columns of a table: which one means what, and labels of any kind into class indices."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lauter.data.dataset import OPEN, UNLABELLED, Int64s
from lauter.data.sources.listing import is_whole_number, order_classes
from lauter.errors import DataError

IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path", "filepath")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category")
ID_COLUMNS = ("id",)
SPLIT_COLUMNS = ("split",)


def find_column(
    columns: Sequence[str], asked: str | None, usual: Sequence[str], option: str, where: str
) -> str | None:
    """Find a column: the one asked for, else the first of the usual names (in any case) that is there.

    Args:
        columns: the table's columns.
        asked: the caller's choice, or None.
        usual: names to look for, in order.
        option: the argument that carries the choice, for the message.
        where: the table, for the message.

    Returns:
        The column's name, or None where none was asked for and none is usual.

    Raises:
        DataError: the column asked for is not there; names those that are.
    """
    if asked is not None:
        if asked not in columns:
            raise DataError(f"{where}: no column {asked!r} ({option}); its columns: {', '.join(columns)}")
        return asked
    by_name = {name.casefold(): name for name in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def read_features(schema: Any) -> dict[str, Any]:
    """The Hugging Face features in an Arrow schema's metadata, by column; empty where there are none."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return {}
    features = json.loads(stored).get("info", {}).get("features", {})
    return features if isinstance(features, dict) else {}


def class_label_names(features: Mapping[str, Any], column: str | None) -> tuple[str, ...] | None:
    """Class names of a column that is a Hugging Face ClassLabel; None for any other."""
    feature = features.get(column) if column is not None else None
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
        return tuple(feature["names"])
    return None


class LabelColumn:
    """One column of labels: its distinct values, and which of them each row has.

    Args:
        column: Arrow chunked array of strings, integers, whole floats or booleans.
        own_names: names behind the integers, where the column is a ClassLabel.
        title: the table and the column, for messages.
    """

    def __init__(self, column: Any, own_names: tuple[str, ...] | None, title: str) -> None:
        if (
            pa.types.is_nested(column.type)
            or pa.types.is_binary(column.type)
            or pa.types.is_temporal(column.type)
        ):
            raise DataError(
                f"{title} holds {column.type}; expected one label per image: a name or an integer"
            )
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        encoded = pc.dictionary_encode(column).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # combine_chunks gives a chunked array for no chunks at all
            encoded = pa.array([], pa.dictionary(pa.int32(), column.type))
        self.title = title
        self.own_names = own_names
        self.codes: NDArray[np.int64] = (
            encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        self.values = [self._tidy(value) for value in encoded.dictionary.to_pylist()]

    def distinct_names(self) -> tuple[str, ...]:
        """Class names as the column's own names or values tell them, ordered."""
        if self.own_names is not None:
            return self.own_names
        present = set(np.unique(self.codes).tolist())
        used = (value for code, value in enumerate(self.values) if code in present)
        return order_classes(str(value) for value in used if value not in (None, -1, "-1"))

    def encode(self, class_names: Sequence[str]) -> Int64s:
        """Given labels [N] as class indices; empty cells and -1 are unlabelled.

        Raises:
            DataError: a value that is no class; names it and the classes.
        """
        lookup = [
            UNLABELLED if value in (None, -1, "-1") else self._find(value, class_names)
            for value in self.values
        ]
        if unknown := [value for value, label in zip(self.values, lookup, strict=True) if label is None]:
            shown = ", ".join(repr(value) for value in unknown[:5])
            raise DataError(
                f"{self.title}: {len(unknown)} values are no class: {shown}; "
                f"expected one of the {len(class_names)} classes {shorten(class_names)}, or an empty cell"
            )
        return self._spread([UNLABELLED if label is None else label for label in lookup])

    def encode_truth(self, class_names: Sequence[str]) -> Int64s:
        """True labels [N]; every value that is no class is an image of no class.

        Raises:
            DataError: empty cells, which could mean unknown as well as open.
        """
        empty = {code for code, value in enumerate(self.values) if value is None} | {-1}
        if missing := int(np.isin(self.codes, list(empty)).sum()):
            raise DataError(
                f"{self.title}: {missing} true labels are empty; write -1 for an image of no class"
            )
        found = [self._find(value, class_names) for value in self.values]
        return self._spread([OPEN if label is None else label for label in found])

    def _spread(self, lookup: list[int]) -> Int64s:
        return np.array([*lookup, UNLABELLED], dtype=np.int64)[
            self.codes
        ]  # code -1, an empty cell, meets the last

    def _find(self, value: str | int | None, class_names: Sequence[str]) -> int | None:
        """Class index of a value: by name, or by position where only the value is a number."""
        if self.own_names is not None and isinstance(value, int):
            if not 0 <= value < len(self.own_names):
                return None
            value = self.own_names[value]
        name = str(value)
        if name in class_names:
            return list(class_names).index(name)
        numbered = is_whole_number(name) and not all(is_whole_number(other) for other in class_names)
        if numbered and self.own_names is None and 0 <= int(name) < len(class_names):
            return int(name)
        return None

    def _tidy(self, value: object) -> str | int | None:
        if isinstance(value, bool):
            return str(value)
        if isinstance(value, float):
            if math.isnan(value):
                return None
            if not value.is_integer():
                raise DataError(f"{self.title} holds {value}; expected names or whole numbers")
            return int(value)
        if isinstance(value, str):
            return value.strip() or None
        return value if isinstance(value, int) else None


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """Names for a message, the first few of them."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (", ..." if len(names) > limit else "")

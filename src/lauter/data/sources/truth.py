"""The truth of a corrupted data set: a file of its own, read where its column is asked for and else never."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lauter.data.sources import columns as col
from lauter.errors import DataError

TRUTH_FILE = "truth.parquet"
"""Beside the shards of a data set; columns split, id, and those of the truth."""
_KEYS = ("split", "id")


def join_truth(
    table: Any, folder: Path, column: str | None, id_column: str | None, split: str, where: str
) -> Any:
    """Add a column of the truth to a split's table, where it is asked for and the table has none of the name.

    Args:
        table: Arrow table of the split, without images or with them.
        folder: where ``truth.parquet`` lies, if there is one.
        column: the column asked for, or None.
        id_column: the table's column of ids; by default the one called id.
        split: the split that the table is.
        where: the table, for messages.

    Returns:
        The table as it was, or with the column (and its class names) behind the others.

    Raises:
        DataError: the truth cannot be read, has no such column, or lacks an id or has it twice.
    """
    path = folder / TRUTH_FILE
    if column is None or column in table.column_names or not path.is_file():
        return table
    truth = _read_split(path, column, split, where)
    ids = col.find_column(table.column_names, id_column, col.ID_COLUMNS, "id_column", where)
    if ids is None:
        raise DataError(f"{where}: has no ids to look up in {TRUTH_FILE}; name their column by id_column")
    places = {id_: row for row, id_ in enumerate(truth.column("id").to_pylist())}
    found = [places.get(str(id_)) for id_ in table.column(ids).to_pylist()]
    if len(places) < truth.num_rows or None in found:
        what = f"{found.count(None)} of the {len(found)} ids stand nowhere"
        if len(places) < truth.num_rows:
            what = f"{truth.num_rows - len(places)} ids stand more than once"
        raise DataError(f"{path}: {what} for split {split!r}; it was written for other data")
    joined = table.append_column(column, truth.column(column).take(pa.array(found, pa.int64())))
    named = col.read_features(truth.schema)
    features = {**col.read_features(table.schema), **({column: named[column]} if column in named else {})}
    metadata = {**(table.schema.metadata or {}), b"huggingface": make_metadata(features)}
    return joined.replace_schema_metadata(metadata)


def make_metadata(features: dict[str, Any]) -> bytes:
    """Hugging Face features as they stand in an Arrow schema, under the key ``huggingface``."""
    return json.dumps({"info": {"features": features}}).encode()


def _read_split(path: Path, column: str, split: str, where: str) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in (*_KEYS, column) if name not in names]:
                raise DataError(
                    f"{where}: no column {missing[0]!r} (truth_column), neither there nor in {TRUTH_FILE}, "
                    f"whose columns are: {', '.join(names)}"
                )
            truth = file.read(columns=[*_KEYS, column])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
    return truth.filter(pc.equal(truth.column("split"), split))

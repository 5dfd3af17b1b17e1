"""Tables of images and labels: CSV, TSV and Parquet manifests, and folders of Parquet shards."""

import csv
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lauter.data.dataset import Int64s
from lauter.data.memory import available_memory
from lauter.data.sources import columns as col
from lauter.data.sources.cells import ColumnCells, ParquetCells, check_image_type
from lauter.data.sources.listing import SPLIT_NAMES, Cells, Listing, order_splits
from lauter.data.sources.truth import join_truth
from lauter.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
ENCODED_LIMIT = 2 * 1024**3
"""Bytes of encoded images up to which a Parquet image column is held in memory; above, it stays on disk.

So it does where it would take more than a quarter of the memory that is free.
"""

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?\.parquet")
_log = logging.getLogger("lauter")


@dataclass(frozen=True)
class Columns:
    """Columns that the caller named; None means: look for the usual names."""

    image: str | None = None
    label: str | None = None
    truth: str | None = None
    id: str | None = None


def list_csv(path: Path, split: str | None, columns: Columns, class_names: Sequence[str] | None) -> Listing:
    """List a CSV or TSV manifest; image paths in it are relative to its folder."""
    return list_table(read_csv(path), path.stem, path.parent, str(path), split, columns, class_names)


def list_parquet(
    files: Sequence[Path],
    name: str,
    folder: Path,
    split: str | None,
    columns: Columns,
    class_names: Sequence[str] | None,
    whole_split: str | None = None,
) -> Listing:
    """List Parquet files of one schema; the images are read into memory only where they are few.

    Of a whole split, a truth column that is asked for may also stand in ``truth.parquet`` in the folder.

    Args:
        files: the files, in order.
        name: short name of the data set.
        folder: what image paths are relative to.
        split: which rows of a split column.
        columns: columns that the caller named.
        class_names: the classes and their order, where the caller gave them.
        whole_split: the split that these files are; a split column is then not looked at.

    Raises:
        DataError: unreadable files, differing columns, or whatever :func:`list_table` refuses.
    """
    where = str(files[0]) if len(files) == 1 else str(folder)
    table, cells = read_parquet(files, folder, columns.image, where)
    if whole_split is not None:
        table = join_truth(table, folder, columns.truth, columns.id, whole_split, where)
    return list_table(table, name, folder, where, split, columns, class_names, cells, whole_split)


def read_parquet(
    files: Sequence[Path], folder: Path, image_column: str | None, where: str
) -> tuple[Any, Cells | None]:
    """Read Parquet files of one schema into an Arrow table.

    Args:
        files: the files, in order.
        folder: what image paths are relative to.
        image_column: the caller's choice, or None for the usual names.
        where: the table, for messages.

    Returns:
        The table, and its images where there are too many to be one of its columns.

    Raises:
        DataError: unreadable files, differing columns, or no image column.
    """
    try:
        schema = pq.read_schema(files[0])
        image = _find_image(schema, image_column, where)
        stored = sum(_column_size(file, image) for file in files)
        free = available_memory()
        held = stored <= (ENCODED_LIMIT if free is None else min(ENCODED_LIMIT, free // 4))
        wanted = [name for name in schema.names if name != image or held]
        table = pa.concat_tables([pq.ParquetFile(file).read(columns=wanted) for file in files])
        cells = None if image in wanted else ParquetCells(files, image, folder)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{where}: cannot be read as Parquet ({error})") from error
    return table.replace_schema_metadata(schema.metadata), cells


def list_table(
    table: Any,
    name: str,
    folder: Path,
    where: str,
    split: str | None,
    columns: Columns,
    class_names: Sequence[str] | None,
    cells: Cells | None = None,
    whole_split: str | None = None,
) -> Listing:
    """List an Arrow table.

    Class names come from ``class_names``, else from the ClassLabel metadata of the label column or of the
    truth column, else from the values: whole numbers in their order, names sorted.

    Args:
        table: Arrow table; Hugging Face metadata in its schema is used.
        name: short name of the data set.
        folder: what image paths are relative to.
        where: the table, for messages.
        split: which rows of a split column.
        columns: columns that the caller named.
        class_names: the classes and their order.
        cells: the images, where they are not a column of ``table``.
        whole_split: the split that the table is; a split column is then not looked at.

    Raises:
        DataError: a column that is not there or not of its kind, values that are no class, duplicate ids.
    """
    names, features = table.column_names, col.read_features(table.schema)
    label = col.find_column(names, columns.label, col.LABEL_COLUMNS, "label_column", where)
    if label is None:
        labelled = [column for column in names if col.class_label_names(features, column)]
        if len(labelled) != 1:
            raise DataError(
                f"{where}: no label column found; say which it is by label_column: {', '.join(names)}"
            )
        label = labelled[0]
    truth = col.find_column(names, columns.truth, (), "truth_column", where)
    id_column = col.find_column(names, columns.id, col.ID_COLUMNS, "id_column", where)
    image = None if cells is not None else _find_image(table.schema, columns.image, where)

    rows = np.arange(table.num_rows, dtype=np.int64)
    if whole_split is None:
        split, rows = _choose_rows(table, split, where)
    else:
        split = whole_split
    given = _label_column(table, label, features, where)
    true = None if truth is None else _label_column(table, truth, features, where)
    classes = tuple(
        class_names
        or given.own_names
        or (true.own_names if true is not None else None)
        or given.distinct_names()
    )
    labels = given.encode(classes)
    true_labels = None if true is None else true.encode_truth(classes)
    ids = _make_ids(table, id_column, image, rows, split, where)
    if cells is None:
        cells = ColumnCells(table.column(image), folder, f"{where}: column {image!r}")
    return Listing(
        name=name,
        split=split,
        cells=cells,
        rows=rows,
        ids=ids,
        labels=labels[rows],
        class_names=classes,
        true_labels=None if true_labels is None else true_labels[rows],
    )


def list_table_splits(path: Path) -> tuple[str, ...]:
    """Values of a manifest's split column, ordered; none where it has no such column."""
    if path.suffix.lower() != ".parquet":
        table = read_csv(path)
        column = col.find_column(table.column_names, None, col.SPLIT_COLUMNS, "split", str(path))
        return _distinct_splits(table, column) if column else ()
    try:
        column = col.find_column(pq.read_schema(path).names, None, col.SPLIT_COLUMNS, "split", str(path))
        return _distinct_splits(pq.ParquetFile(path).read(columns=[column]), column) if column else ()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """Parquet files of each split in a folder of the Hugging Face layout (or in ``data/`` inside it).

    Recognised are ``<split>-00000-of-00005.parquet`` and ``<split>.parquet`` with a usual split name.
    Shards that are missing are logged as a warning: the rest is a data set of its own.
    """
    splits: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        if match := _SHARD.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
        elif path.stem.casefold() in SPLIT_NAMES:
            splits.setdefault(path.stem, []).append(path)
    return {split: splits[split] for split in order_splits(splits)}


def warn_of_missing_shards(files: Sequence[Path]) -> None:
    """Log a warning where shard names promise more files than there are."""
    match = _SHARD.fullmatch(files[0].name)
    count = int(match["count"]) if match else len(files)
    if len(files) < count:
        _log.warning("%s: %d of %d shards are here; the rest is missing", files[0].parent, len(files), count)


def read_csv(path: Path) -> Any:
    """Read a CSV or TSV file into a table of strings, empty cells as nulls."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            records = [record for record in reader if record]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 {path.suffix[1:].upper()} ({error})") from error
    if not header or len(set(header)) < len(header):
        raise DataError(f"{path}: the first line must name the columns, each once; it says {header}")
    for number, record in enumerate(records, start=1):
        if len(record) != len(header):
            raise DataError(f"{path}: record {number} has {len(record)} cells, the header {len(header)}")
    cells = zip(*records, strict=True) if records else [()] * len(header)
    arrays = [pa.array([text.strip() or None for text in column], pa.string()) for column in cells]
    return pa.table(arrays, names=header)


def _column_size(file: Path, column: str) -> int:
    metadata = pq.read_metadata(file)
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            if chunk.path_in_schema.split(".")[0] == column:
                total += chunk.total_uncompressed_size
    return total


def _find_image(schema: Any, asked: str | None, where: str) -> str:
    features = col.read_features(schema)
    pictures = [name for name in schema.names if (features.get(name) or {}).get("_type") == "Image"]
    usual = (*(name.casefold() for name in pictures), *col.IMAGE_COLUMNS)
    image = col.find_column(schema.names, asked, usual, "image_column", where)
    if image is None:
        raise DataError(
            f"{where}: no image column found; say which it is by image_column: {', '.join(schema.names)}"
        )
    check_image_type(schema.field(image).type, f"{where}: column {image!r}")
    return image


def _label_column(table: Any, column: str, features: dict[str, Any], where: str) -> col.LabelColumn:
    own_names = col.class_label_names(features, column)
    return col.LabelColumn(table.column(column), own_names, f"{where}: column {column!r}")


def _distinct_splits(table: Any, column: str) -> tuple[str, ...]:
    return order_splits(
        str(value) for value in table.column(column).unique().to_pylist() if value is not None
    )


def _choose_rows(table: Any, split: str | None, where: str) -> tuple[str | None, Int64s]:
    """Rows of the split, and its name: the one asked for, the only one, or train where there are several."""
    column = col.find_column(table.column_names, None, col.SPLIT_COLUMNS, "split", where)
    if column is None:
        if split is not None:
            raise DataError(f"{where}: split={split!r} was asked for, but there is no split column")
        return None, np.arange(table.num_rows, dtype=np.int64)
    splits = _distinct_splits(table, column)
    split = choose_split(splits, split, where)
    values = np.array([str(value) for value in table.column(column).to_pylist()], dtype=np.str_)
    return split, np.flatnonzero(values == split).astype(np.int64)


def choose_split(splits: Sequence[str], asked: str | None, where: str) -> str:
    """The split asked for, else the only one, else train.

    Raises:
        DataError: it is not there, or none was asked for and none of several is called train.
    """
    if asked is not None and asked not in splits:
        raise DataError(f"{where}: no split {asked!r}; its splits: {', '.join(splits) or 'none'}")
    if asked is None and len(splits) != 1 and "train" not in splits:
        raise DataError(f"{where}: pass split=, one of {', '.join(splits) or 'none'}")
    return asked or ("train" if "train" in splits else splits[0])


def _make_ids(
    table: Any, id_column: str | None, image: str | None, rows: Int64s, split: str | None, where: str
) -> NDArray[np.str_]:
    """Ids from the id column, else the image paths, else split and row number."""
    text_image = image is not None and str(table.schema.field(image).type) in ("string", "large_string")
    source = id_column or (image if text_image else None)
    if source is None:
        return np.array([f"{split or 'row'}/{row:08d}" for row in rows.tolist()], dtype=np.str_)
    values = table.column(source).take(pa.array(rows)).to_pylist()
    if id_column is not None and None in values:
        raise DataError(
            f"{where}: column {source!r} has {values.count(None)} empty ids; every image needs one"
        )
    ids = np.array(
        [f"row/{row}" if v is None else str(v) for v, row in zip(values, rows, strict=True)], dtype=np.str_
    )
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) < len(ids):
        again = ", ".join(repr(str(value)) for value in distinct[counts > 1][:3])
        way_out = (
            "name each image once" if id_column is None else "make them unique or choose another id_column"
        )
        raise DataError(f"{where}: column {source!r} has ids that stand more than once: {again}; {way_out}")
    return ids

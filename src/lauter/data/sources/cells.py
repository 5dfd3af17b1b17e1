"""Encoded images in tables: a column in memory, or one that stays in its Parquet files."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lauter.errors import DataError


class ColumnCells:
    """An Arrow column of images, in memory (or mapped into it).

    Args:
        column: chunked array of paths, of encoded bytes, or of structs {bytes, path}.
        folder: what relative paths are relative to.
        title: the table and the column, for messages.
    """

    def __init__(self, column: Any, folder: Path, title: str) -> None:
        check_image_type(column.type, title)
        self.folder = folder
        is_struct = pa.types.is_struct(column.type)
        self.column = pc.struct_field(column, "bytes") if is_struct else column
        has_paths = is_struct and column.type.get_field_index("path") >= 0
        self.paths = pc.struct_field(column, "path") if has_paths else None

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: int) -> bytes | Path:
        """Encoded bytes, or a path; no bytes where the cell is empty."""
        value = self.column[row].as_py()
        if value is None and self.paths is not None:
            value = self.paths[row].as_py()
        return self.folder / value if isinstance(value, str) and value else value or b""


class ParquetCells:
    """An image column that stays in its Parquet files and is read by row group.

    A row group is the least that can be read, so reading in random order is only as fast as row groups are
    small: ten photographs are a good size. The groups read last are kept, as far as they fit into
    ``kept_bytes`` in each process, and one in any case.

    Args:
        files: Parquet files, in order.
        column: name of the image column.
        folder: what relative paths are relative to.
    """

    kept_bytes = 64 * 2**20
    kept_files = 16
    """Files whose tables of contents are kept."""

    def __init__(self, files: Sequence[Path], column: str, folder: Path) -> None:
        self.files = tuple(files)
        self.column = column
        self.folder = folder
        self.groups: list[tuple[int, int]] = []
        sizes = []
        for number, file in enumerate(self.files):
            metadata = pq.read_metadata(file)
            for group in range(metadata.num_row_groups):
                self.groups.append((number, group))
                sizes.append(metadata.row_group(group).num_rows)
        self.ends = np.cumsum(sizes, dtype=np.int64)
        self._start_cache()

    def _start_cache(self) -> None:
        self._groups: OrderedDict[int, tuple[ColumnCells, int]] = OrderedDict()
        self._group_bytes = 0
        self._contents: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the cache and its lock: a worker process starts its own."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_cache()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, row: int) -> bytes | Path:
        """Encoded bytes, or a path; no bytes where the cell is empty."""
        position = int(np.searchsorted(self.ends, row, side="right"))
        start = int(self.ends[position - 1]) if position else 0
        return self._read_group(position)[row - start]

    def stamp(self, row: int) -> str:
        """Size and time of change of the file that a row stands in, and the row; nothing is read."""
        position = int(np.searchsorted(self.ends, row, side="right"))
        about = self.files[self.groups[position][0]].stat()
        return f"{about.st_size} {about.st_mtime_ns} {row}"

    def _read_group(self, position: int) -> ColumnCells:
        with self._lock:
            if position in self._groups:
                self._groups.move_to_end(position)
                return self._groups[position][0]
            number, group = self.groups[position]
            contents = self._contents.get(number)
        # Parsing a file's table of contents takes longer than reading a small group.
        with pq.ParquetFile(self.files[number], metadata=contents) as file:
            table = file.read_row_group(group, columns=[self.column], use_threads=False)
            contents = file.metadata
        cells = ColumnCells(
            table.column(self.column), self.folder, f"{self.files[number]}: column {self.column!r}"
        )
        with self._lock:
            self._contents[number] = contents
            if len(self._contents) > self.kept_files:
                self._contents.popitem(last=False)
            if position not in self._groups:
                self._groups[position] = cells, table.nbytes
                self._group_bytes += table.nbytes
            while self._group_bytes > self.kept_bytes and len(self._groups) > 1:
                self._group_bytes -= self._groups.popitem(last=False)[1][1]
        return cells


def check_image_type(type_: Any, title: str) -> None:
    """Refuse a column that can hold no images.

    Raises:
        DataError: the type is neither text, nor bytes, nor a struct with bytes.
    """
    if pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0:
        return
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_kind(type_) for is_kind in kinds):
        raise DataError(
            f"{title} holds {type_}; expected image paths, image bytes, or structs of bytes and path"
        )

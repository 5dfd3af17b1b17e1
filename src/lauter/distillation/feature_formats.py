"""The three kinds of features file, read into and written from plain arrays; ``stored.py`` joins and checks.

- ``.safetensors``: tensors ``features`` [M, D], ``ids`` (uint8: the ids in UTF-8, a zero byte between each
  two) and, where there are any, ``logits`` [M, K].
- ``.parquet``: columns ``id`` (text or integers), ``features`` and, where there are any, ``logits`` (lists of
  floats of one length).
- ``.npy``: one array [M, D]. Its ids stand beside it: of ``teacher.npy`` in ``teacher.ids.txt`` (UTF-8, one a
  line) or in ``teacher.ids.npy`` (an array of text).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lauter.errors import DataError
from lauter.files import atomic_path

PARTS = ("features", "logits")
JOINT = "\0"
"""Between the ids in a .safetensors file: no path and no line of text contains it."""

Arrays = dict[str, NDArray[Any]]
"""Features, and logits where there are any, by name."""


@dataclass(frozen=True)
class Format:
    """How one kind of file is read and written.

    Attributes:
        read: path -> arrays as they are in the file, and ids; None where the file brings none.
        write: path, ids and arrays -> a file that is there whole or not at all.
        parting: characters that no id may contain in such a file.
        has_logits: whether it has room for them.
    """

    read: Callable[[Path], tuple[Arrays, list[str] | None]]
    write: Callable[[Path, list[str], Arrays], None]
    parting: str = ""
    has_logits: bool = True


def read_safetensors(path: Path) -> tuple[Arrays, list[str] | None]:
    """Read a .safetensors file; a DataError where it is damaged or lacks features or ids."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in sorted({*PARTS, "ids"} & set(file.keys()))}
    except (SafetensorError, OSError) as error:
        raise DataError(f"features file {str(path)!r} is damaged: {error}") from error
    if missing := [key for key in ("features", "ids") if key not in tensors]:
        raise DataError(
            f"features file {str(path)!r} holds no tensor {missing[0]!r}; write it with write_features"
        )
    joined = tensors.pop("ids")
    if joined.dtype != torch.uint8 or joined.ndim != 1:
        raise DataError(
            f"features file {str(path)!r}: ids must be uint8 [L], UTF-8 with a zero byte between each two, "
            f"not {describe_array(joined)}"
        )
    try:
        names = joined.numpy().tobytes().decode().split(JOINT)
    except UnicodeDecodeError as error:
        raise DataError(f"features file {str(path)!r}: its ids are no UTF-8 ({error})") from error
    # NumPy knows no bfloat16; float32 is what comes out in any case.
    widened = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return {key: value.numpy() for key, value in widened.items()}, names


def write_safetensors(path: Path, names: list[str], arrays: Arrays) -> None:
    """Write a .safetensors file."""
    joined = np.frombuffer(JOINT.join(names).encode(), dtype=np.uint8).copy()
    tensors = {part: torch.from_numpy(values) for part, values in arrays.items()}
    with atomic_path(path) as temporary:
        save_file({**tensors, "ids": torch.from_numpy(joined)}, temporary)


def read_parquet(path: Path) -> tuple[Arrays, list[str] | None]:
    """Read a .parquet file; a DataError where it is damaged or its columns are missing or of other types."""
    try:
        known = pq.read_schema(path).names
        if missing := [name for name in ("id", "features") if name not in known]:
            raise DataError(
                f"features file {str(path)!r} has no column {missing[0]!r}; it has {', '.join(known)}"
            )
        table = pq.read_table(path, columns=[name for name in ("id", *PARTS) if name in known])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"features file {str(path)!r} cannot be read as Parquet: {error}") from error
    ids = table["id"]
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_integer(kind)) or ids.null_count:
        raise DataError(
            f"features file {str(path)!r}: id must be text or integers without gaps, not {ids.type} with "
            f"{ids.null_count} gaps"
        )
    arrays = {name: _stack_lists(path, name, table[name]) for name in PARTS if name in known}
    return arrays, list(map(str, ids.to_pylist()))


def _stack_lists(path: Path, name: str, column: Any) -> NDArray[Any]:
    """A column of lists as one array, chunk by chunk: the whole may exceed what a 32-bit offset reaches."""
    types = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    if not isinstance(column.type, types) or column.null_count:
        raise DataError(
            f"features file {str(path)!r}: {name} must be lists of floats without gaps, not {column.type} "
            f"with {column.null_count} gaps"
        )
    blocks: list[NDArray[Any]] = []
    widths: set[int] = set()
    for chunk in filter(len, column.chunks):
        widths |= set(np.unique(chunk.value_lengths().to_numpy()).tolist())
        if len(widths) > 1:
            raise DataError(
                f"features file {str(path)!r}: the lists of {name} differ in length "
                f"({', '.join(map(str, sorted(widths)))}); expected one length"
            )
        blocks.append(chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), *widths))
    return np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)


def write_parquet(path: Path, names: list[str], arrays: Arrays) -> None:
    """Write a .parquet file."""
    columns: dict[str, Any] = {"id": pa.array(names, pa.string())}
    for part, values in arrays.items():
        columns[part] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_npy(path: Path) -> tuple[Arrays, list[str] | None]:
    """Read a .npy file with the ids beside it; a DataError where one is damaged or there are ids twice."""
    array = _load_npy(path, mmap_mode="r")  # rows that nobody asks for need not be read
    text, binary = path.with_suffix(".ids.txt"), path.with_suffix(".ids.npy")
    if text.exists() and binary.exists():
        raise DataError(f"features file {str(path)!r} has ids in {text.name} and {binary.name}; remove one")
    if binary.exists():
        names = _load_npy(binary)
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(f"{str(binary)!r} must be an array of text [M], not {describe_array(names)}")
        return {"features": array}, names.tolist()
    if not text.exists():
        return {"features": array}, None
    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(text)!r} is no UTF-8 text: {error}") from error
    # Not splitlines: it also parts at characters that an id may well contain.
    return {"features": array}, content.removesuffix("\n").split("\n")


def _load_npy(path: Path, **options: Any) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False, **options)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as .npy: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{str(path)!r} is an archive of arrays; expected one array, as numpy.save writes it")
    return array


def write_npy(path: Path, names: list[str], arrays: Arrays) -> None:
    """Write a .npy file, and its ids beside it."""
    # At no time do features stand beside the ids of others: the old pair goes before the new one comes.
    for old in (path, path.with_suffix(".ids.txt"), path.with_suffix(".ids.npy")):
        old.unlink(missing_ok=True)
    with atomic_path(path.with_suffix(".ids.txt")) as temporary:
        temporary.write_bytes("".join(f"{name}\n" for name in names).encode())
    with atomic_path(path) as temporary:
        np.save(temporary, arrays["features"], allow_pickle=False)


FORMATS = {
    ".safetensors": Format(read_safetensors, write_safetensors, JOINT),
    ".parquet": Format(read_parquet, write_parquet),
    ".npy": Format(read_npy, write_npy, "\r\n", has_logits=False),
}
"""Suffix -> how such a file is read and written."""


def describe_array(values: Tensor | NDArray[Any]) -> str:
    """Type and shape, for messages."""
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"

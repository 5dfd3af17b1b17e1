"""The feature store: what a network shows of a data set's images, on disk, so that it is computed once.

A store is a folder named after its key. While it is being made, a folder ``shards`` holds the rows that are
finished, a block of them in each file; any number of processes may add files there. When all are there they
are joined to one array ``features.npy``, and ``manifest.json`` says what it is and how it is checked. Each
file is there whole or not at all, and every block has a checksum.

Given labels decide nothing here: a second audit of the same images under other labels finds its features.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.features import FeatureValues
from lauter.data.dataset import Dataset, Int64s
from lauter.errors import ConfigError, DataError, RunError
from lauter.files import atomic_path, read_json, write_json
from lauter.models import Network
from lauter.models.fingerprint import fingerprint_weights

VERSION = 1
"""Changes whenever the files of a store mean something else."""
SHARD_ROWS = 1024
"""Images in a shard: so many are seen again after a stop."""
MANIFEST, FEATURES, SHARDS = "manifest.json", "features.npy", "shards"
DTYPES = ("float16", "float32")
_SHARD_NAME = re.compile(r"(\d{6,})-([0-9a-f]{8})\.rows")


@dataclass(frozen=True)
class FeatureKey:
    """Everything that decides stored features. Labels do not.

    Attributes:
        data: hash of ids and pictures (:meth:`lauter.data.Dataset.fingerprint_images`).
        model: name of the network.
        weights: hash of its weights.
        input_size: side in pixels to which it resizes its input.
        mean: per-channel mean that it subtracts.
        std: per-channel standard deviation by which it divides.
        image_size: side in pixels of the pictures that it is handed.
        precision: bf16 or 32, of the forward pass.
        dtype: float16 or float32, of what is stored.
    """

    data: str
    model: str
    weights: str
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    precision: str
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"features are stored as {' or '.join(DTYPES)}, not {self.dtype!r}")

    def digest(self) -> str:
        """16 hexadecimal digits, the same in every process that asks for the same."""
        content = json.dumps([VERSION, SHARD_ROWS, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_feature_key(
    network: Network, data: Dataset, image_size: int, precision: str, dtype: str
) -> FeatureKey:
    """The key of what a network shows of a data set's unchanged images.

    Args:
        network: whose features are meant.
        data: whose images.
        image_size: side in pixels of the pictures that the network is handed.
        precision: bf16 or 32.
        dtype: float16 or float32.

    Raises:
        ConfigError: the dtype is another one.
    """
    spec = network.input_spec
    return FeatureKey(
        data=data.fingerprint_images(),
        model=network.name,
        weights=fingerprint_weights(network),
        input_size=spec.size,
        mean=tuple(spec.mean),
        std=tuple(spec.std),
        image_size=image_size,
        precision=precision,
        dtype=dtype,
    )


class FeatureStore:
    """The features of one key: shards while they are being made, then one array mapped into memory.

    Args:
        root: folder that holds stores; this one is a folder in it, named after the key.
        key: what the features depend on.
        count: N images.
        width: D.

    Attributes:
        directory: of this store.
        blocks: how many shards make it whole.

    Raises:
        DataError: the folder holds a store of something else; both keys are shown.
    """

    def __init__(self, root: Path, key: FeatureKey, count: int, width: int) -> None:
        if count < 1 or width < 1:
            raise DataError(f"a feature store needs images and features, not {count} images of width {width}")
        self.directory = root / f"features-{key.digest()}"
        self.key, self.count, self.width = key, count, width
        self.blocks = -(-count // SHARD_ROWS)
        self._dtype = np.dtype(key.dtype).newbyteorder("<")
        if self.finished:
            self._read_manifest()

    @property
    def finished(self) -> bool:
        """Whether all shards were made and joined; whether they are still whole, :meth:`open` finds out."""
        return (self.directory / MANIFEST).is_file()

    def rows(self, block: int) -> Int64s:
        """The data set's rows in a block."""
        return np.arange(block * SHARD_ROWS, min((block + 1) * SHARD_ROWS, self.count), dtype=np.int64)

    def open(self) -> FeatureValues | None:
        """The finished features, every checksum compared.

        Where some blocks are broken, the store becomes an unfinished one that has all others.

        Returns:
            [N, D], mapped into memory; None where the store is not finished, or no more.

        Raises:
            DataError: the store is of something else, or its manifest cannot be read.
            RunError: the disk does not take what is to be kept of a broken store.
        """
        if not self.finished:
            return None
        offset, checksums = self._read_manifest()
        path = self.directory / FEATURES
        if not all(self._read_joined(block, offset, crc) for block, crc in enumerate(checksums)):
            self._take_apart(offset, checksums)
            return None
        return np.memmap(path, self._dtype, "r", offset, (self.count, self.width))

    def find_missing(self, blocks: Iterable[int]) -> list[int]:
        """Which of some blocks have no shard, or a broken one; broken ones are removed."""
        return [block for block in blocks if self._read_shard(block) is None]

    def list_absent(self) -> list[int]:
        """Blocks that have no shard yet, by the names of the files alone; none once the store is finished."""
        if self.finished:
            return []
        present = {int(found[1]) for name in self._list_shards() if (found := _SHARD_NAME.fullmatch(name))}
        return [block for block in range(self.blocks) if block not in present]

    def write_shard(self, block: int, values: NDArray[np.floating[Any]]) -> None:
        """Write the features of a block, whole or not at all.

        Args:
            block: number of the block.
            values: [rows of the block, D]; numbers that the store's dtype does not hold become infinite, so
                check them before.

        Raises:
            DataError: the shape is another one.
            RunError: the disk does not take them.
        """
        rows = len(self.rows(block))
        if values.shape != (rows, self.width):
            raise DataError(f"block {block} takes features [{rows}, {self.width}], not {list(values.shape)}")
        self._write_bytes(block, np.ascontiguousarray(values, dtype=self._dtype).tobytes())

    def require_room(self, blocks: int) -> None:
        """Check that the disk takes so many more shards, and the array that all shards are joined to.

        Raises:
            RunError: it does not.
        """
        row = self.width * self._dtype.itemsize
        needed = (blocks * SHARD_ROWS + self.count) * row
        folder = next(path for path in (self.directory, *self.directory.absolute().parents) if path.exists())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise RunError(
                f"the features need up to {needed:,} bytes in {self.directory}, and {free:,} are free; free "
                "some, or choose another folder for stored features"
            )

    def join(self) -> None:
        """Join all shards to one array and write the manifest; the shards are then removed.

        Raises:
            RunError: a shard is missing or broken, or the disk does not take the array.
        """
        path, checksums = self.directory / FEATURES, []
        for leftover in self.directory.glob(f".{path.stem}-*"):  # of a process that was killed while joining
            leftover.unlink(missing_ok=True)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.count, self.width)}
        # Written, not mapped: on a full disk a write is an error, a mapped page ends the process.
        with _name_disk_errors(path):
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                offset = file.tell()
                for block in range(self.blocks):
                    content = self._read_shard(block)
                    if content is None:
                        raise RunError(
                            f"{self.directory} lost its shard {block} while its features were joined; start "
                            "the same command again: what is finished is kept"
                        )
                    file.write(content)
                    checksums.append(zlib.crc32(content))
            content_of_manifest = {
                "version": VERSION,
                "key": asdict(self.key),
                "count": self.count,
                "width": self.width,
                "shard_rows": SHARD_ROWS,
                "offset": offset,
                "checksums": checksums,
            }
            write_json(self.directory / MANIFEST, content_of_manifest)
        shutil.rmtree(self.directory / SHARDS, ignore_errors=True)

    def _block_bytes(self, block: int) -> int:
        return len(self.rows(block)) * self.width * self._dtype.itemsize

    def _list_shards(self) -> list[str]:
        folder = self.directory / SHARDS
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def _read_shard(self, block: int) -> bytes | None:
        """The bytes of a block; None where no whole shard has them."""
        for path in sorted((self.directory / SHARDS).glob(f"{block:06}-????????.rows")):
            with contextlib.suppress(FileNotFoundError):  # another process joined and removed them
                content = path.read_bytes()
                if len(content) == self._block_bytes(block) and path.name == _name_shard(block, content):
                    return content
                path.unlink()
        return None

    def _write_bytes(self, block: int, content: bytes) -> None:
        path = self.directory / SHARDS / _name_shard(block, content)
        with _name_disk_errors(path), atomic_path(path) as temporary:
            temporary.write_bytes(content)

    def _read_joined(self, block: int, offset: int, crc: int) -> bytes | None:
        """The bytes of a block in the joined array; None where they are cut short or changed."""
        path, size = self.directory / FEATURES, self._block_bytes(block)
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            file.seek(offset + block * SHARD_ROWS * self.width * self._dtype.itemsize)
            content = file.read(size)
        return content if len(content) == size and zlib.crc32(content) == crc else None

    def _take_apart(self, offset: int, checksums: list[int]) -> None:
        """Make shards of the whole blocks of an array that has broken ones."""
        for block, crc in enumerate(checksums):
            if (content := self._read_joined(block, offset, crc)) is not None:
                self._write_bytes(block, content)
        (self.directory / MANIFEST).unlink()
        (self.directory / FEATURES).unlink(missing_ok=True)

    def _read_manifest(self) -> tuple[int, list[int]]:
        """Where the numbers begin in the file, and the CRC-32 of every block."""
        path = self.directory / MANIFEST
        way_out = f"delete {self.directory} to have the features computed again"
        try:
            content: dict[str, Any] = read_json(path)
            known = {entry.name for entry in fields(FeatureKey)}
            key = {name: tuple(v) if isinstance(v, list) else v for name, v in content["key"].items()}
            offset, checksums = int(content["offset"]), [int(value) for value in content["checksums"]]
            shape = content["version"], content["shard_rows"], content["count"], content["width"]
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not the manifest of a feature store ({error}); {way_out}") from error
        wanted = asdict(self.key)
        differing = [
            f"\n  {name}: {key.get(name)!r} in the store, {wanted.get(name)!r} expected"
            for name in sorted(known | set(key))
            if key.get(name) != wanted.get(name)
        ]
        if shape != (VERSION, SHARD_ROWS, self.count, self.width) or len(checksums) != self.blocks:
            differing.append(
                f"\n  version, shard rows, images and width: {shape} in the store, "
                f"{(VERSION, SHARD_ROWS, self.count, self.width)} expected"
            )
        if differing:
            raise DataError(
                f"{self.directory} holds features of something else:{''.join(differing)}\n{way_out}"
            )
        return offset, checksums


def _name_shard(block: int, content: bytes) -> str:
    """File name of a shard: it holds the checksum, so that file and checksum cannot part."""
    return f"{block:06}-{zlib.crc32(content):08x}.rows"


@contextlib.contextmanager
def _name_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written ({error}); mend that and start the same command again: what is "
            "finished is kept"
        ) from error

"""The files of a teacher bank: what it is keyed by, its manifest, arrays that are checked when read.

A bank is a directory: ``manifest.json``, the rows that it holds, the weights and bias of its hashes, and one
array of bytes per view and block of rows. Each file is there whole or not at all, and the manifest names the
length and the checksum of each.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.dataset import Dataset, Int64s, Pixels
from lauter.data.views import ViewRecipe
from lauter.distillation.bank_layout import Layout
from lauter.errors import BankError
from lauter.files import atomic_path, read_json, write_json
from lauter.models import Network
from lauter.training.runtime import Runtime

VERSION = 1
"""Changes whenever the files of a bank mean something else."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BankKey:
    """Everything that decides what a teacher shows. Given labels are not part of it: it never saw them.

    Attributes:
        data: hash of the ids, and of the pixels where they are resident.
        teacher: hash of the weights, with the network's name, input size and normalisation.
        recipe: how the views are made.
        view_seed: what they are drawn from.
        image_size: side of the pictures in pixels.
        device: type of the device; views are equal bit for bit on one type.
        precision: bf16 or 32, of the teacher's forward pass.
        hashes: hash of the weights and bias behind the bits; empty where bits are not asked for.
    """

    data: str
    teacher: str
    recipe: str
    view_seed: int
    image_size: int
    device: str
    precision: str
    hashes: str = ""


def make_bank_key(
    network: Network,
    data: Dataset,
    recipe: ViewRecipe,
    view_seed: int,
    image_size: int,
    runtime: Runtime,
    hashes: tuple[Tensor, Tensor] | None = None,
) -> BankKey:
    """The key of what a teacher shows of a data set's views.

    Args:
        network: the teacher.
        data: whose images it sees; of images that stream from disk the ids alone are hashed.
        recipe: how the views are made.
        view_seed: what they are drawn from.
        image_size: side of the pictures in pixels.
        runtime: device and precision.
        hashes: weights [N, D] and bias [N], where bits are read.

    Returns:
        The key, equal in every process that asks for the same.
    """
    return BankKey(
        data=_fingerprint_pictures(data),
        teacher=_fingerprint_network(network),
        recipe=recipe.key(),
        view_seed=view_seed,
        image_size=image_size,
        device=runtime.device.type,
        precision=runtime.precision,
        hashes="" if hashes is None else _digest(*map(_bytes_of, hashes)),
    )


def _digest(*parts: bytes | NDArray[Any]) -> str:
    """Hash of some bytes and of where each part ends."""
    digest = hashlib.sha256()
    for part in parts:
        array = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else np.ascontiguousarray(part)
        digest.update(array.nbytes.to_bytes(8, "little"))
        digest.update(array.data)
    return digest.hexdigest()[:16]


def _bytes_of(tensor: Tensor) -> Pixels:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _fingerprint_pictures(data: Dataset) -> str:
    pixels = data.images.uniform
    shown: list[bytes | NDArray[Any]] = [] if pixels is None else [str(pixels.shape).encode(), pixels]
    if data.source.get("reduced_decoding"):
        shown.append(b"reduced")
    return _digest("\0".join(data.ids.tolist()).encode(), *shown)


def _fingerprint_network(network: Network) -> str:
    parts: list[bytes | NDArray[Any]] = [f"{network.name} {network.input_spec}".encode()]
    for name, tensor in network.state_dict().items():
        parts += [f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), _bytes_of(tensor)]
    return _digest(*parts)


def fingerprint_rows(rows: Int64s) -> str:
    """Hash of the rows that a bank holds."""
    return _digest(rows)


@dataclass(frozen=True)
class Manifest:
    """What a bank says about itself.

    Attributes:
        key: what its content depends on.
        layout: what a row holds.
        num_images: N of the data set.
        num_rows: how many of its rows the bank holds.
        rows: hash of which ones.
        views: V; views 0..V-1 are kept.
        shard_rows: rows in a shard.
        files: (bytes, CRC-32) of every file that is finished.
    """

    key: BankKey
    layout: Layout
    num_images: int
    num_rows: int
    rows: str
    views: int
    shard_rows: int
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def shards(self) -> list[tuple[int, int]]:
        """(view, block) of every shard of the finished bank, in the order of building."""
        blocks = -(-self.num_rows // self.shard_rows)
        return [(view, block) for view in range(self.views) for block in range(blocks)]

    @property
    def names(self) -> list[str]:
        """Every file of the finished bank beside the manifest."""
        hashes = ["weight.npy", "bias.npy"] if self.layout.hashes else []
        return ["rows.npy", *hashes, *(name_shard(*shard) for shard in self.shards)]

    def with_file(self, name: str, measured: tuple[int, int]) -> "Manifest":
        """The same with one more finished file."""
        return replace(self, files={**self.files, name: measured})

    def write(self, directory: Path) -> None:
        """Write it to its place, atomically.

        Raises:
            BankError: the disk does not take it.
        """
        with _name_disk_errors(directory / MANIFEST):
            write_json(directory / MANIFEST, {"version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest of a bank.

        Raises:
            BankError: there is none, it cannot be read, or it is of another version.
        """
        path = directory / MANIFEST
        if not path.is_file():
            raise BankError(f"{directory} is no teacher bank: it has no {MANIFEST}; build one there first")
        again = "delete the directory and build the bank again"
        try:
            content: dict[str, Any] = read_json(path)
            version = content.pop("version")
            if version == VERSION:
                return cls(
                    **{
                        **content,
                        "key": BankKey(**content["key"]),
                        "layout": Layout(**content["layout"]),
                        "files": {name: (size, crc) for name, (size, crc) in content["files"].items()},
                    }
                )
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BankError(f"{path} cannot be read ({error}); {again}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BankError(f"{path} is not the manifest of a bank ({error}); {again}") from error
        raise BankError(f"{path} is of version {version}, and this lauter reads version {VERSION}; {again}")


def name_shard(view: int, block: int) -> str:
    """File name of a shard."""
    return f"view-{view:04}-block-{block:05}.npy"


def require_same_key(directory: Path, found: BankKey, expected: BankKey) -> None:
    """Check that a bank is the one that is expected. Who expects no hashes may read a bank that has some.

    Raises:
        BankError: it is not; every field that differs is shown with both values.
    """
    pairs = [
        (entry.name, getattr(found, entry.name), getattr(expected, entry.name)) for entry in fields(BankKey)
    ]
    differing = [
        f"\n  {name}: {there!r} in the bank, {wanted!r} expected"
        for name, there, wanted in pairs
        if there != wanted and (name != "hashes" or wanted)
    ]
    if differing:
        raise BankError(
            f"{directory} is a teacher bank of something else:{''.join(differing)}\n"
            "build one for this teacher and these views in another directory"
        )


def write_array(directory: Path, name: str, array: NDArray[Any]) -> tuple[int, int]:
    """Write an array, whole or not at all.

    Returns:
        Its file's bytes and CRC-32.

    Raises:
        BankError: the disk does not take it.
    """
    with _name_disk_errors(directory / name):
        with atomic_path(directory / name) as temporary:
            np.save(temporary, array)
        return _measure(directory / name)


@contextmanager
def _name_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BankError(
            f"{path} could not be written ({error}); mend that and build the bank again: what is finished is "
            "kept"
        ) from error


def _measure(path: Path) -> tuple[int, int]:
    crc = size = 0
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return size, crc


def find_fault(directory: Path, name: str, manifest: Manifest, *, content: bool) -> str:
    """What is wrong with a file of a bank, for a message; empty where nothing is.

    Args:
        directory: of the bank.
        name: of the file.
        manifest: what it should be.
        content: whether to read the file and compare its checksum, too, or its length alone.
    """
    path = directory / name
    if name not in manifest.files:
        return "is not built yet"
    size, crc = manifest.files[name]
    if not path.is_file():
        return "is missing"
    if (found := path.stat().st_size) != size:
        return f"has {found:,} bytes where {size:,} were written"
    return "has changed since it was written" if content and _measure(path)[1] != crc else ""


def open_array(directory: Path, name: str, manifest: Manifest) -> NDArray[Any]:
    """Map an array of a bank into memory; its file is read through once and its checksum compared.

    Raises:
        BankError: the file is missing, cut short or changed.
    """
    if fault := find_fault(directory, name, manifest, content=True):
        raise BankError(f"{directory / name} {fault}; build the bank again: only such files are made anew")
    return np.asarray(np.load(directory / name, mmap_mode="r", allow_pickle=False))

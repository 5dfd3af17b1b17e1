"""Teacher bank: what a teacher shows of every picture, kept on disk for any number of students.

A view is a pure function of (view seed, row, view number), so what the teacher says of it can be computed
once and met again by every student, in any order of batches. A student's views must then come from the bank's
seed and come again after as many epochs as the bank keeps: ``ImageBatches(view_seed=..., cycle=...)``.

The bank is ours; so is keeping hash bits in the place of features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import Int64s, Pixels
from lauter.distillation.bank_files import (
    BankKey,
    Manifest,
    find_fault,
    name_shard,
    open_array,
    require_same_key,
)
from lauter.distillation.method import Seen
from lauter.errors import BankError
from lauter.losses.hashing import hash_bits


class Bank:
    """A finished bank, read through memory maps. :func:`open_bank` makes it.

    Args:
        directory: where its files lie.
        manifest: what they are.

    Attributes:
        key: what its content depends on.
        layout: what a row holds.
        views: V; views 0..V-1 are kept.
        rows: [M] the data set's rows that it holds, ascending.
        hashes: weights [N, D] and bias [N] behind the bits; None where it shows none.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.key = manifest.key
        self.layout = manifest.layout
        self.views = manifest.views
        self.rows: Int64s = open_array(directory, "rows.npy", manifest).copy()
        self.hashes: tuple[Tensor, Tensor] | None = None
        if self.layout.hashes:
            weight, bias = (open_array(directory, name, manifest) for name in ("weight.npy", "bias.npy"))
            self.hashes = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
        self._manifest = manifest
        self._places = np.full(manifest.num_images, -1, dtype=np.int64)
        self._places[self.rows] = np.arange(len(self.rows))
        # One view's shards at a time: an epoch reads no other, and every map holds a file open.
        self._view = -1
        self._shards: dict[int, Pixels] = {}

    def look_up(self, index: Int64s, view: int) -> Pixels:
        """What is kept of some pictures.

        Args:
            index: [B] rows of the data set.
            view: number of the view.

        Returns:
            uint8 [B, row_bytes], to be decoded by the layout.

        Raises:
            BankError: the bank holds no such view or row, or a shard is missing, cut short or changed.
        """
        if not 0 <= view < self.views:
            raise BankError(
                f"{self.directory} keeps the views 0..{self.views - 1}, not {view}; let the batches' views "
                f"come again after {self.views} epochs (cycle), or build more views"
            )
        known = (index >= 0) & (index < len(self._places))
        places = np.where(known, self._places[np.where(known, index, 0)], -1)
        if len(places) and places.min() < 0:
            raise BankError(
                f"{self.directory} does not hold row {index[places < 0][0]}; build one of all rows that teach"
            )
        if view != self._view:
            self._view, self._shards = view, {}
        blocks, within = np.divmod(places, self._manifest.shard_rows)
        records = np.empty((len(index), self.layout.row_bytes), dtype=np.uint8)
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            records[chosen] = self._open_shard(block)[within[chosen]]
        return records

    def _open_shard(self, block: int) -> Pixels:
        if block not in self._shards:
            name = name_shard(self._view, block)
            self._shards[block] = open_array(self.directory, name, self._manifest)
        return self._shards[block]

    def require_batches(self, batches: ImageBatches) -> None:
        """Check before training that a student's batches show the pictures that the bank's teacher saw.

        Raises:
            BankError: they do not; the message names every difference.
        """
        pairs: list[tuple[str, object, object]] = [
            ("views", " and ".join(recipe.key() for recipe in batches.recipes), self.key.recipe),
            ("view_seed", batches.view_seed, self.key.view_seed),
            ("image_size", batches.image_size, self.key.image_size),
            ("device", batches.device.type, self.key.device),
        ]
        wrong = [
            f"{name} is {found}, the bank's {wanted}" for name, found, wanted in pairs if found != wanted
        ]
        if not 0 < batches.cycle <= self.views:
            wrong.append(f"cycle is {batches.cycle}, and 1..{self.views} views are kept")
        if absent := len(np.setdiff1d(batches.index, self.rows)):
            wrong.append(f"{absent:,} of {len(batches.index):,} rows are not in the bank")
        if wrong:
            raise BankError(
                f"{self.directory} does not fit the student's batches: {'; '.join(wrong)}. Give the batches "
                "the bank's settings, or build a bank for these"
            )


class BankTeacher:
    """A teacher that was asked before: looks up what it said of the very pictures that the student sees.

    Args:
        bank: with the rows and views of the batches; see :meth:`Bank.require_batches`.
        device: where the batches are.

    Attributes:
        name: for messages.
        shows: what the bank keeps.
        flops_per_image: what showing one image costs; 0 unless bits are made at reading.
    """

    def __init__(self, bank: Bank, device: torch.device | str = "cpu") -> None:
        self.bank = bank
        self.name = f"the bank {bank.directory}"
        self.shows = bank.layout.shows
        self._hashes: tuple[Tensor, Tensor] | None = None
        self.flops_per_image = 0.0
        if bank.hashes is not None and not bank.layout.packed:
            weight, bias = bank.hashes
            self._hashes = weight.to(device), bias.to(device)
            self.flops_per_image = 2.0 * weight.numel()

    def begin_epoch(self) -> None:
        """Nothing changes with an epoch; the batches' view numbers do."""

    def see(self, batch: Batch) -> Seen:
        """What the bank keeps of the first view of a batch (this process's part of it), on its device.

        Raises:
            BankError: the bank holds no such view or row, or a shard is damaged.
        """
        records = self.bank.look_up(batch.own.cpu().numpy(), batch.view)
        seen = self.bank.layout.decode(records, batch.index.device)
        if self._hashes is None or seen.features is None:
            return seen
        with whole_float32():
            return seen._replace(bits=hash_bits(seen.features, *self._hashes))


@contextmanager
def whole_float32() -> Iterator[None]:
    """Products without TensorFloat-32, which flips bits next to the border."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def open_bank(directory: str | Path, expected_key: BankKey) -> Bank:
    """Open a finished bank. Lengths are checked now, each shard's checksum when it is first read.

    Args:
        directory: of the bank.
        expected_key: of the teacher and the views that the students need.

    Returns:
        The bank.

    Raises:
        BankError: this is no bank, one of something else, or it is incomplete or damaged.
    """
    path = Path(directory)
    manifest = Manifest.read(path)
    require_same_key(path, manifest.key, expected_key)
    faults = [(name, find_fault(path, name, manifest, content=False)) for name in manifest.names]
    if broken := [f"{name} {fault}" for name, fault in faults if fault]:
        raise BankError(
            f"{path} is not whole, {len(broken)} of {len(faults)} files are wrong; the first: {broken[0]}. "
            "Build the bank again with the same settings: only such files are made anew"
        )
    return Bank(path, manifest)

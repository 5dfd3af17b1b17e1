"""Building a teacher bank: the teacher's passes, shard by shard, and whether they pay at all."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.dataset import Dataset, Int64s
from lauter.data.views import ViewRecipe
from lauter.distillation.bank import Bank, open_bank, whole_float32
from lauter.distillation.bank_files import (
    MANIFEST,
    Manifest,
    find_fault,
    fingerprint_rows,
    make_bank_key,
    name_shard,
    require_same_key,
    write_array,
)
from lauter.distillation.bank_layout import plan_layout
from lauter.distillation.method import Part, Seen
from lauter.errors import BankError, ConfigError, DataError
from lauter.losses.hashing import hash_bits, require_hashes
from lauter.models import Network
from lauter.training.predict import predict
from lauter.training.runtime import Runtime

SHARD_ROWS = 16384
SHARD_BYTES = 32 * 2**20
"""A shard holds at most so many rows and bytes: so much is computed again after a build was killed."""


def build_bank(
    directory: str | Path,
    network: Network,
    data: Dataset,
    rows: Int64s,
    runtime: Runtime,
    *,
    recipe: ViewRecipe,
    view_seed: int,
    views: int,
    image_size: int,
    parts: frozenset[Part],
    hashes: tuple[Tensor, Tensor] | None = None,
    exact: bool = False,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Ask a teacher about views of images and keep what it shows, or go on with a build that was stopped.

    Finished shards are kept; those that are missing, cut short or changed are made. A bank may grow: more
    views than it has are added to it, fewer leave it as it is. The processes of the runtime's group make a
    shard each at a time, in a directory that all of them see, and process 0 keeps the manifest; which of them
    made a shard cannot be seen in it. Otherwise one process builds at a time.

    Args:
        directory: of the bank; new, empty, or of the same bank.
        network: the teacher; put into eval mode meanwhile.
        data: whose images it sees.
        rows: the data set's rows to keep, in any order.
        runtime: device and precision.
        recipe: how the views are made.
        view_seed: what they are drawn from; the students' batches need the same.
        views: V; the teacher passes over the rows V times.
        image_size: side of the pictures in pixels.
        parts: what the students' method reads: features, logits, bits.
        hashes: weights [N, D] and bias [N] of the bits.
        exact: keep features and logits as float32, in twice the room (see ``plan_layout``).
        batch_size: images at a time.
        progress: told after every shard how many pictures are done, and of how many.

    Returns:
        The finished bank.

    Raises:
        BankError: the directory holds something else, the disk has no room, or the teacher's outputs are not
            finite.
        ConfigError: a number is out of its range, or parts and hashes contradict each other.
        DataError: there are no rows, or some are not in the data set.
        ModelError: the teacher has no such part, or the hashes are of another size.
    """
    path = Path(directory)
    if views < 1 or batch_size < 1:
        raise ConfigError(f"views and batch_size must be 1 or more, not {views} and {batch_size}")
    chosen = _sort_rows(rows, len(data))
    count = 0 if hashes is None else len(hashes[0])
    layout = plan_layout(parts, network.feature_size, network.num_classes, count, exact=exact)
    arrays: dict[str, NDArray[np.generic]] = {"rows.npy": chosen}
    if hashes is not None:
        weight, bias = (tensor.detach().cpu().float() for tensor in hashes)
        require_hashes(torch.zeros(1, network.feature_size), weight, bias)
        hashes = weight, bias
        arrays |= {"weight.npy": weight.numpy(), "bias.npy": bias.numpy()}
    wanted = Manifest(
        make_bank_key(network, data, recipe, view_seed, image_size, runtime, hashes),
        layout,
        len(data),
        len(chosen),
        fingerprint_rows(chosen),
        views,
        max(1, min(SHARD_ROWS, SHARD_BYTES // layout.row_bytes)),
    )
    group = runtime.group
    group.lead(lambda: _begin_bank(path, wanted, arrays))
    manifest = Manifest.read(path)
    missing = _list_missing(manifest, chosen)
    left, total = sum(len(index) for _, index in missing), manifest.views * len(chosen)
    for start in range(0, len(missing), group.size):
        together = missing[start : start + group.size]
        made: dict[str, tuple[int, int]] = {}
        for (view, block), index in together[group.rank : group.rank + 1]:
            shown = predict(
                network,
                data.images,
                runtime.alone(),
                index=index,
                image_size=image_size,
                batch_size=batch_size,
                view=(recipe, view_seed, view),
            )
            bits = None
            if hashes is not None and layout.packed:
                bits = _hash_on(runtime.device, shown.features, hashes, batch_size)
            name = name_shard(view, block)
            made[name] = write_array(path, name, layout.encode(Seen(shown.features, shown.logits, bits=bits)))
        for finished in group.collect(made):
            for name, measured in finished.items():
                manifest = manifest.with_file(name, measured)
        if group.leads:
            manifest.write(path)
        left -= sum(len(index) for _, index in together)
        if progress is not None:
            progress(total - left, total)
    group.wait()  # for the manifest
    return open_bank(path, manifest.key)


def _begin_bank(path: Path, wanted: Manifest, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write the manifest and the small files of a bank, or mend those of one that is there.

    Raises:
        BankError: the directory holds something else, or the disk has no room.
    """
    manifest = _continue_bank(path, wanted)
    left = sum(len(index) for _, index in _list_missing(manifest, arrays["rows.npy"]))
    small = sum(array.nbytes for name, array in arrays.items() if name not in manifest.files)
    _require_room(path, left * manifest.layout.row_bytes + small)
    manifest.write(path)
    for name, array in arrays.items():
        if name not in manifest.files:
            manifest = manifest.with_file(name, write_array(path, name, array))
    manifest.write(path)


def _list_missing(manifest: Manifest, rows: NDArray[Any]) -> list[tuple[tuple[int, int], Int64s]]:
    """(view, block) and the data set's rows of every shard that is not finished."""
    return [
        ((view, block), rows[block * manifest.shard_rows :][: manifest.shard_rows])
        for view, block in manifest.shards
        if name_shard(view, block) not in manifest.files
    ]


def _sort_rows(rows: Int64s, num_images: int) -> Int64s:
    """Rows in ascending order, each once."""
    chosen = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(chosen):
        raise DataError("a bank needs rows of the data set, and none was given")
    if chosen[0] < 0 or chosen[-1] >= num_images:
        raise DataError(
            f"a bank's rows must be rows of the data set, 0..{num_images - 1}, not {chosen[0]}..{chosen[-1]}"
        )
    return chosen


def _hash_on(
    device: torch.device, features: Tensor, hashes: tuple[Tensor, Tensor], batch_size: int
) -> Tensor:
    """Bits [M, N] on the host, hashed where a live teacher's features would be."""
    weight, bias = (tensor.to(device) for tensor in hashes)
    with whole_float32():
        blocks = torch.split(features, batch_size)
        return torch.cat([hash_bits(block.to(device), weight, bias).cpu() for block in blocks])


def _continue_bank(path: Path, wanted: Manifest) -> Manifest:
    """The manifest to go on with: that of the directory, without its broken files, or the one that is wanted.

    Raises:
        BankError: the directory holds something else.
    """
    if path.exists() and not path.is_dir():
        raise BankError(f"{path} is a file; name a directory for the bank")
    if not (path / MANIFEST).exists():
        # Hidden files do not count: file managers put them anywhere, killed processes leave temporary ones.
        if path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise BankError(f"{path} is not empty and holds no teacher bank; choose another directory")
        return wanted
    found = Manifest.read(path)
    require_same_key(path, found.key, wanted.key)
    for what in ("layout", "num_images", "num_rows", "rows"):
        there, here = getattr(found, what), getattr(wanted, what)
        if there != here:
            raise BankError(
                f"{path} holds a bank of this teacher and these views, but its {what} differs: "
                f"{there} there, {here} wanted; choose another directory"
            )
    for leftover in path.glob(".*.npy"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    faults = {name: find_fault(path, name, found, content=True) for name in found.files}
    whole = {name: measured for name, measured in found.files.items() if not faults[name]}
    return replace(found, views=max(found.views, wanted.views), files=whole)


def _require_room(path: Path, needed: int) -> None:
    """Check that a disk takes so many bytes more.

    Raises:
        BankError: it does not.
    """
    folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BankError(
            f"the bank needs {needed:,} bytes more in {path}, and {free:,} are free; free some, choose "
            "another disk, or keep fewer views or parts"
        )


@dataclass(frozen=True)
class Choice:
    """Where a teacher's outputs should come from.

    Attributes:
        source: live or bank.
        reason: why, in words and numbers.
    """

    source: Literal["live", "bank"]
    reason: str


def choose_teacher_source(
    teacher_seconds_per_image: float,
    epochs: int,
    views: int,
    students: int,
    rows: int,
    bytes_per_image_view: int,
    free_bytes: int,
) -> Choice:
    """Whether to ask the teacher in every step or to build a bank first.

    A bank costs as many passes of the teacher as it keeps views; a live teacher costs one for each epoch of
    each student. So a bank pays where V is below epochs times students, and fits where the disk takes it.
    Reading it costs next to nothing. Fewer views than epochs also means that pictures come again; what that
    does to a student is not weighed here.

    Args:
        teacher_seconds_per_image: of one forward pass.
        epochs: of each student.
        views: V that the bank would keep.
        students: how many will be trained on the same views.
        rows: images that teach.
        bytes_per_image_view: what the bank keeps of a picture (``plan_layout(...).row_bytes``).
        free_bytes: on the disk.

    Returns:
        The choice with its reason.

    Raises:
        ConfigError: a number is out of its range.

    Example:
        >>> choose_teacher_source(0.002, 240, 8, 1, 50_000, 1024, 10**10).source
        'bank'
    """
    if min(epochs, views, students, rows, bytes_per_image_view) < 1 or not teacher_seconds_per_image > 0:
        raise ConfigError(
            "epochs, views, students, rows and bytes_per_image_view must be 1 or more and "
            f"teacher_seconds_per_image above 0, not {epochs}, {views}, {students}, {rows}, "
            f"{bytes_per_image_view} and {teacher_seconds_per_image}"
        )
    passes, needed = epochs * students, views * rows * bytes_per_image_view
    live, bank = (count * rows * teacher_seconds_per_image for count in (passes, views))
    cost = (
        f"a live teacher passes over the images {passes:,} times ({epochs:,} epochs of {students:,} "
        f"{'student' if students == 1 else 'students'}, {live:,.1f} s), a bank of {views:,} "
        f"{'view' if views == 1 else 'views'} {views:,} times ({bank:,.1f} s)"
    )
    if views >= passes:
        return Choice("live", f"{cost}, so a bank would save nothing")
    if needed > free_bytes:
        return Choice("live", f"{cost}, but the bank needs {needed:,} bytes and {free_bytes:,} are free")
    return Choice("bank", f"{cost}, so the bank saves {live - bank:,.1f} s for {needed:,} bytes of disk")

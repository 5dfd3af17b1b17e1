"""Extraction: a network's pass over all images into a feature store, by one process or by several.

Several processes need nothing but a folder that all of them see: process r makes the shards r, r + W,
r + 2W, ..., process 0 waits for all of them and joins them. Which process made a shard cannot be seen in it,
so a pass that was stopped goes on with any number of processes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.feature_store import FeatureStore, make_feature_key
from lauter.auditing.features import SHOWN_IDS, Features
from lauter.data.dataset import Dataset, Images
from lauter.errors import ConfigError, ModelError, RunError
from lauter.models import Network
from lauter.training.predict import stream_predictions
from lauter.training.processes import Processes
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime

POLL_SECONDS = 0.5
"""How often process 0 looks for shards of the others."""
SHOWN_SHARDS = 8


def extract_features(
    network: Network,
    data: Dataset,
    runtime: Runtime,
    root: str | Path,
    *,
    source: str = "",
    dtype: str = "float16",
    batch_size: int = 128,
    processes: Processes | None = None,
    wait_seconds: float = 1800.0,
    progress: Progress | None = None,
) -> Features | None:
    """The features of all images: from the store where it has them, else computed and stored.

    A pass that was stopped goes on after its last finished shard; shards that are cut short or changed are
    made again. Where the batch size divides the rows of a shard, the features do not depend on stops, nor on
    the number of processes.

    Args:
        network: whose features; put into eval mode meanwhile.
        data: whose images; labels are not looked at.
        runtime: device and precision of this process.
        root: folder of feature stores, seen by all processes.
        source: where the features come from, for people; the network's name where empty.
        dtype: float16 or float32, of what is stored.
        batch_size: images at a time.
        processes: this process's place among several; alone where None.
        wait_seconds: how long process 0 waits for the next shard of the others.
        progress: who is told.

    Returns:
        The features, mapped into memory; None in a process that only helped and is now done.

    Raises:
        ConfigError: a number is out of its range.
        DataError: an image is broken, or a store is of something else.
        ModelError: features are NaN or infinite, or too large for float16.
        RunError: the disk does not take them, or other processes do not deliver theirs.
    """
    if batch_size < 1 or not wait_seconds > 0:
        raise ConfigError(f"batch_size and wait_seconds must be above 0, not {batch_size} and {wait_seconds}")
    place, progress, began = processes or Processes(), progress or Progress(), time.monotonic()
    size = choose_picture_size(network, data.images)
    key = make_feature_key(network, data, size, runtime.precision, dtype)
    store = FeatureStore(Path(root).expanduser(), key, len(data), network.feature_size)
    if not place.leads and store.finished:
        return None
    was_finished = store.finished
    values = store.open()
    computed, seconds = 0, 0.0
    if values is None:
        own = range(place.rank, store.blocks, place.size)
        if was_finished:  # the others saw a finished store and went
            progress.say(
                f"features    {store.directory} has changed on disk; its broken parts are made again"
            )
            own = range(store.blocks)
        store.require_room(len(own))
        started = time.monotonic()
        computed = _make_shards(store, own, network, data, runtime, size, batch_size, progress)
        if not place.leads:
            return None
        if len(own) < store.blocks:
            _await_shards(store, place, wait_seconds, progress)
            everything = range(store.blocks)
            computed += _make_shards(store, everything, network, data, runtime, size, batch_size, progress)
        seconds = time.monotonic() - started
        store.join()
        values = store.open()
        if values is None:
            raise RunError(
                f"{store.directory} was written and cannot be read back whole; check the disk, and start the "
                "same command again"
            )
    name = source or f"{network.name}, {network.input_spec.size} px"
    return Features(values, name, key.digest(), computed, time.monotonic() - began, seconds)


def choose_picture_size(network: Network, images: Images) -> int:
    """Side in pixels of the pictures that a network is handed for its features.

    Its own input size; but resident images that are smaller are handed over as they are, and the network
    enlarges them on its device: the same picture, at a fraction of the bytes.
    """
    pixels = images.uniform
    own = network.input_spec.size
    return own if pixels is None else min(own, *pixels.shape[-2:])


def _make_shards(
    store: FeatureStore,
    blocks: Sequence[int],
    network: Network,
    data: Dataset,
    runtime: Runtime,
    image_size: int,
    batch_size: int,
    progress: Progress,
) -> int:
    """Make those of some shards that are missing or broken; gives how many images were seen."""
    missing = store.find_missing(blocks)
    if not missing:
        return 0
    lengths = [len(store.rows(block)) for block in missing]
    tell = _count_images(progress, sum(lengths))
    stream = stream_predictions(
        network,
        data.images,
        runtime,
        index=np.concatenate([store.rows(block) for block in missing]),
        image_size=image_size,
        batch_size=batch_size,
    )
    with closing(stream):  # an error here, too, leaves the network in its old mode
        parts = (tell(np.asarray(part.features.numpy())) for part in stream)
        for block, features in zip(missing, _regroup(parts, lengths), strict=True):
            store.write_shard(block, _lower(features, store, network.name, data.ids[store.rows(block)]))
    progress.close_line()
    return sum(lengths)


def _regroup(parts: Iterable[NDArray[np.float32]], lengths: Iterable[int]) -> Iterator[NDArray[np.float32]]:
    """Rows that come in parts of any lengths, in parts of the given lengths."""
    source, held, waiting = iter(parts), 0, list[NDArray[np.float32]]()
    for length in lengths:
        while held < length:
            waiting.append(next(source))
            held += len(waiting[-1])
        rows = np.concatenate(waiting)
        yield rows[:length]
        waiting, held = [rows[length:]], held - length


def _lower(
    features: NDArray[np.float32], store: FeatureStore, name: str, ids: NDArray[np.str_]
) -> NDArray[Any]:
    """Features as they are stored, once it is known that they can be."""
    with np.errstate(over="ignore"):  # what float16 does not hold is refused here as infinite
        stored = features.astype(store.key.dtype)
    broken = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not broken.size:
        return stored
    named = ", ".join(repr(str(ids[row])) for row in broken[:SHOWN_IDS])
    if np.isfinite(features).all():
        raise ModelError(
            f"{name}: features up to {np.abs(features).max():.3g} (of {named}) do not fit into float16; "
            "store them as float32"
        )
    raise ModelError(
        f"{name}: the features of {len(broken)} images of a shard are NaN or infinite ({named}); check the "
        "weights, or compute with --runtime.precision 32"
    )


def _count_images(progress: Progress, total: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Tell progress of every part that passes through."""
    began, done = time.monotonic(), 0

    def tell(part: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal done
        done += len(part)
        rate = done / max(time.monotonic() - began, 1e-9)
        progress.count("features", done, total, rate, (total - done) / rate)
        return part

    return tell


def _await_shards(store: FeatureStore, place: Processes, seconds: float, progress: Progress) -> None:
    """Wait until the other processes have made their shards.

    Raises:
        RunError: for some time none came.
    """
    fewest, came = store.blocks + 1, time.monotonic()
    if absent := store.list_absent():
        progress.say(f"features    waiting for {len(absent):,} of {store.blocks:,} shards of other processes")
    while absent := store.list_absent():
        if len(absent) < fewest:
            fewest, came = len(absent), time.monotonic()
        if time.monotonic() - came > seconds:
            named = ", ".join(map(str, absent[:SHOWN_SHARDS])) + (", ..." if absent[SHOWN_SHARDS:] else "")
            owing = ", ".join(map(str, sorted({block % place.size for block in absent})))
            raise RunError(
                f"{store.directory}: no shard came for {seconds:,.0f} s, and {len(absent)} of {store.blocks} "
                f"are missing ({named}), which processes {owing} of {place.size} were to make. They have "
                "stopped, or they see another folder or other images. Start the same command again: what is "
                "finished is kept"
            )
        time.sleep(POLL_SECONDS)

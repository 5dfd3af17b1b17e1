"""Random numbers from counters: one vectorised integer hash, the same on every machine.

There is no generator state: the draw for (seed, index, view, column) can be computed at any time, on any
rank, in any order. Computed on the host in 64-bit integers, so that no device can differ.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection that scatters every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_counters(*counters: ArrayLike) -> NDArray[np.uint64]:
    """Hash integer counters, broadcast against each other, to 64 bits each.

    Example:
        >>> int(hash_counters(0, [1])[0]) == int(hash_counters([0], [1])[0])
        True
        >>> hash_counters(0, 1) == hash_counters(1, 0)
        array([False])
    """
    state = np.zeros(1, dtype=np.uint64)
    for counter in counters:
        value = np.atleast_1d(np.asarray(counter)).astype(np.int64).view(np.uint64)
        state = _mix((state ^ value) + _GOLDEN)
    return state


def draw_uniforms(seed: int, index: NDArray[np.int64], view: int, columns: int) -> NDArray[np.float64]:
    """Uniform draws in [0, 1), a pure function of (seed, index, view, column).

    Args:
        seed: the run's seed.
        index: [B] stable sample indices.
        view: number of the view.
        columns: how many draws each sample needs.

    Returns:
        [B, columns], multiples of 2**-53.
    """
    bits = hash_counters(seed, index[:, None], view, np.arange(columns)[None, :])
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def draw_order(seed: int, size: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..size-1 for an epoch, a pure function of (seed, size, epoch)."""
    return np.argsort(hash_counters(seed, epoch, np.arange(size)), kind="stable").astype(np.int64)


def derive_seed(*parts: int | str) -> int:
    """A seed below 2**63 from numbers and names, the same in every process.

    Example:
        >>> derive_seed(0, "pretrain", 3) == derive_seed(0, "pretrain", 3)
        True
    """
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1

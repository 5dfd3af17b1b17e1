"""Features: one vector for each image of a data set, wherever they come from; what an audit stands on."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError

FeatureValues = NDArray[np.float16] | NDArray[np.float32]
SHOWN_IDS = 3
"""How many ids an error names."""
_CHECKED_ROWS = 65536


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N images, in the data set's order.

    Attributes:
        values: [N, D], float16 or float32; an array, or one that stays on disk and is mapped into memory.
        source: where they come from, for people.
        key: hash of all that decides them; the same key means the same features.
        computed: how many images a network saw for them in this process; 0 where they were there already.
        seconds: wall-clock of this call, the training of a network included.
        extraction_seconds: the part of it in which the ``computed`` images were seen, and those of other
            processes waited for.
    """

    values: FeatureValues
    source: str
    key: str
    computed: int = 0
    seconds: float = 0.0
    extraction_seconds: float = 0.0

    def __post_init__(self) -> None:
        values: Any = self.values
        if values.ndim != 2 or not values.size or values.dtype not in (np.float16, np.float32):
            raise DataError(
                f"{self.source}: features must be float16 or float32 [N, D] and not empty, not "
                f"{values.dtype} {list(values.shape)}"
            )
        if self.computed < 0 or min(self.seconds, self.extraction_seconds) < 0:
            raise DataError(
                f"{self.source}: computed images and seconds must be 0 or more, not {self.computed}, "
                f"{self.seconds} and {self.extraction_seconds}"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """D, the width of a feature."""
        return int(self.values.shape[1])

    @property
    def images_per_second(self) -> float:
        """How fast the network of this process saw images; 0 where it saw none in this call."""
        return self.computed / max(self.extraction_seconds, 1e-9) if self.computed else 0.0


def take_array(
    values: Any,
    ids: NDArray[np.str_],
    source: str = "features given as an array",
    *,
    width: int | None = None,
) -> Features:
    """Features from an array in memory whose rows stand in the data set's order.

    Args:
        values: [N, D] of floats: an array, a tensor on the host, nested lists. float16 and float32 are taken
            as they are, without a copy; other floats become float32.
        ids: [N] the data set's ids.
        source: where they come from, for people.
        width: D, where only features of this width will do.

    Returns:
        The features; their key is a hash of the numbers.

    Raises:
        DataError: the shape or type is another one, there are more or fewer rows than images, or numbers are
            NaN or infinite; names the first images of which they are.
    """
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 2 or not array.size or array.dtype.kind != "f":
        raise DataError(
            f"{source}: expected floats [N, D] for {len(ids)} images, got {array.dtype} {list(array.shape)}"
        )
    if len(array) != len(ids):
        raise DataError(
            f"{source}: {len(array)} rows for {len(ids)} images; give one row for each image, in the data "
            "set's order"
        )
    if width not in (None, array.shape[1]):
        raise DataError(f"{source}: features of width {array.shape[1]}, expected {width}")
    if array.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # what float32 does not hold is refused below as infinite
            array = array.astype(np.float32)
    require_finite(array, ids, source)
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    for start in range(0, len(array), _CHECKED_ROWS):
        digest.update(np.ascontiguousarray(array[start : start + _CHECKED_ROWS]).data)
    return Features(array, source, digest.hexdigest()[:16])


def require_finite(values: NDArray[Any], ids: NDArray[np.str_], source: str) -> None:
    """Check that no number is NaN or infinite, in blocks that fit into memory.

    Raises:
        DataError: some are; names the first of their images.
    """
    for start in range(0, len(values), _CHECKED_ROWS):
        block = values[start : start + _CHECKED_ROWS]
        if (broken := np.flatnonzero(~np.isfinite(block).all(axis=1))).size:
            named = ", ".join(repr(str(ids[start + row])) for row in broken[:SHOWN_IDS])
            more = ", ..." if len(broken) > SHOWN_IDS else ""
            raise DataError(
                f"{source}: features are NaN, infinite or beyond {values.dtype} for {named}{more}; compute "
                "them again, or leave these images out"
            )

"""Features files: a teacher of which only the features are at hand, one row for each image.

Rows are joined to a data set by its ids, never by where they happen to stand, unless the caller says so.
The kinds of file are described in ``feature_formats.py``.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lauter.data.batches import Batch
from lauter.data.dataset import Int64s
from lauter.distillation.feature_formats import FORMATS, Arrays, describe_array
from lauter.distillation.method import Part, Seen
from lauter.errors import DataError

SHOWN_IDS = 3
"""How many ids an error names."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A teacher's features of a data set, in its order.

    Attributes:
        name: for messages.
        features: [N, D], float32.
        logits: [N, K], float32; None where there are none.
        extra: rows of the file that belong to no image of the data set.
    """

    name: str
    features: Tensor
    logits: Tensor | None = None
    extra: int = 0

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype != torch.float32:
            raise DataError(
                f"{self.name}: features must be float32 [N, D], not {describe_array(self.features)}; read "
                "them with read_features"
            )
        logits = self.logits
        if logits is not None and (logits.ndim != 2 or len(logits) != len(self.features)):
            raise DataError(
                f"{self.name}: logits must be [{len(self.features)}, K], a row for each one of the features, "
                f"not {describe_array(logits)}"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def feature_size(self) -> int:
        """D, the width of the features."""
        return self.features.shape[1]

    @property
    def num_classes(self) -> int:
        """K, the number of classes; 0 where there are no logits."""
        return 0 if self.logits is None else self.logits.shape[1]

    def require_images(self, count: int) -> None:
        """Check that there is a row for each image of a data set.

        Raises:
            DataError: there are more or fewer.
        """
        if len(self) != count:
            raise DataError(
                f"{self.name} holds features of {len(self)} images, the data has {count}; read them with the "
                "ids of this data"
            )

    def take(self, rows: Int64s) -> "Stored":
        """The features of some images, in that order."""
        index = torch.from_numpy(rows)
        logits = None if self.logits is None else self.logits[index]
        return Stored(self.name, self.features[index], logits, self.extra)


class StoredTeacher:
    """A teacher that shows the same stored features for every view of an image.

    A crop is therefore taught with the features of the whole image. That costs nothing and suits mild
    augmentation; under crops that leave much of the image out, only a teacher that sees the crop itself
    teaches what is in the picture.

    Args:
        stored: features of the whole data set, by its rows.
        device: where the batches are; the features move there and take 4 N (D + K) bytes.
        name: for messages; that of ``stored`` where empty.
    """

    def __init__(self, stored: Stored, device: torch.device, name: str = "") -> None:
        self.name = name or stored.name
        self.features = stored.features.to(device)
        self.logits = None if stored.logits is None else stored.logits.to(device)
        parts: set[Part] = {"features"} if self.logits is None else {"features", "logits"}
        self.shows = frozenset(parts)
        self.flops_per_image = 0.0

    def begin_epoch(self) -> None:
        """Nothing changes from epoch to epoch."""

    def see(self, batch: Batch) -> Seen:
        """The rows of the batch's images (of this process's part of them), whatever the view."""
        logits = None if self.logits is None else self.logits[batch.own]
        return Seen(self.features[batch.own], logits)


def is_features_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a features file: by its suffix, and .safetensors by what it holds."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        return path.suffix.lower() in FORMATS
    try:
        with safe_open(path, framework="pt") as file:
            return "features" in set(file.keys())
    except (SafetensorError, OSError):
        return False


def read_features(
    path: str | os.PathLike[str],
    ids: Sequence[str] | NDArray[np.str_],
    *,
    row_order: bool = False,
    width: int | None = None,
) -> Stored:
    """Read a features file and bring its rows into a data set's order.

    Args:
        path: .safetensors, .parquet or .npy (see ``feature_formats.py``).
        ids: [N] the data set's ids.
        row_order: for .npy without ids: states that its rows stand in the data set's order.
        width: D, where only features of this width will do.

    Returns:
        Features and, where the file has them, logits of every image, in float32. Rows for other images are
        counted in ``extra``.

    Raises:
        DataError: there is no such file, it is of another kind, damaged or empty; its ids are missing, lack
            some of the data set's, or one stands twice; a number is no float or not finite; the width is
            another one. The message names the file and what to do.
    """
    path = Path(path).expanduser()
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"features file {str(path)!r} must end in {', '.join(FORMATS)}")
    if not path.is_file():
        raise DataError(f"features file {str(path)!r} is missing")
    arrays, names = kind.read(path)
    count = len(arrays["features"]) if arrays["features"].ndim else 0
    _check_arrays(path, arrays, count)
    found = arrays["features"].shape[1]
    if width not in (None, found):
        raise DataError(
            f"features file {str(path)!r} holds features of width {found}, expected {width}; "
            "take the file of the same teacher"
        )
    wanted = [str(name) for name in ids]
    rows = _find_rows(path, names, wanted, count, row_order)
    chosen = {part: torch.from_numpy(_take(values, rows)) for part, values in arrays.items()}
    for part, values in chosen.items():
        broken = torch.nonzero(~values.isfinite().all(1)).flatten().tolist()
        if broken:
            raise DataError(
                f"features file {str(path)!r}: the {part} of {len(broken)} images are NaN, infinite or "
                f"beyond float32 ({_list(wanted[row] for row in broken)}); compute them again"
            )
    return Stored(path.name, chosen["features"], chosen.get("logits"), count - len(rows))


def write_features(
    path: str | os.PathLike[str],
    ids: Sequence[str] | NDArray[np.str_],
    features: Tensor,
    logits: Tensor | None = None,
) -> None:
    """Write a features file, whole or not at all; :func:`read_features` reads it.

    Args:
        path: where it shall stand, .safetensors, .parquet or .npy; .npy brings its ids in a second file,
            ``NAME.ids.txt``. What stands there is replaced.
        ids: [M] unique ids.
        features: [M, D]; float16 stays so and takes half the room, other floats become float32.
        logits: [M, K] or None; .npy has no room for them.

    Raises:
        DataError: the suffix is another one, shapes do not fit, there is nothing to write, an id stands twice
            or cannot be written in this kind of file, or a number is not finite. Nothing is written.
        OSError: the file cannot be written.
    """
    path = Path(path).expanduser()
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"a features file must end in {', '.join(FORMATS)}, not {str(path)!r}")
    if logits is not None and not kind.has_logits:
        raise DataError(f"{path.name} has no room for logits; write a .safetensors or .parquet file")
    names = [str(name) for name in ids]
    tensors = {"features": features} if logits is None else {"features": features, "logits": logits}
    arrays = {part: _lower(path, part, tensor, len(names)) for part, tensor in tensors.items()}
    _refuse_doubles(path, names)
    if unfit := [repr(name) for name in names if any(letter in name for letter in kind.parting)]:
        raise DataError(
            f"{path.name}: {len(unfit)} ids contain what parts ids in such a file ({_list(unfit)}); "
            "write a .parquet file"
        )
    kind.write(path, names, arrays)


def _check_arrays(path: Path, arrays: Arrays, count: int) -> None:
    for part, values in arrays.items():
        if values.ndim != 2 or not values.size or values.dtype.kind != "f":
            raise DataError(
                f"features file {str(path)!r}: {part} must be floats [M, D] and not empty, not "
                f"{describe_array(values)}"
            )
        if len(values) != count:
            raise DataError(
                f"features file {str(path)!r} has {len(values)} rows of {part} and {count} of features"
            )


def _find_rows(path: Path, names: list[str] | None, wanted: list[str], count: int, row_order: bool) -> Int64s:
    """Where each wanted id stands in the file."""
    if names is None:
        if not row_order:
            raise DataError(
                f"features file {str(path)!r} comes without ids; put them into {path.stem}.ids.txt, one a "
                "line, or state --row-order (row_order=True) where its rows stand in the data set's order"
            )
        if count != len(wanted):
            raise DataError(f"features file {str(path)!r} has {count} rows for {len(wanted)} images")
        return np.arange(count)
    if row_order:
        raise DataError(f"features file {str(path)!r} brings its ids; leave --row-order out")
    if len(names) != count:
        raise DataError(f"features file {str(path)!r} has {len(names)} ids for {count} rows of features")
    _refuse_doubles(path, names)
    place = {name: row for row, name in enumerate(names)}
    if missing := [name for name in wanted if name not in place]:
        raise DataError(
            f"features file {str(path)!r} lacks {len(missing)} of the {len(wanted)} images "
            f"({_list(missing)}); its own ids are like {_list(names)}"
        )
    return np.array([place[name] for name in wanted], dtype=np.int64)


def _take(values: NDArray[Any], rows: Int64s) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 does not hold is reported as not finite
        return np.ascontiguousarray(values[rows], dtype=np.float32)


def _lower(path: Path, part: str, tensor: Tensor, count: int) -> NDArray[Any]:
    """A tensor as the array that is written."""
    if tensor.ndim != 2 or not tensor.numel() or len(tensor) != count or not tensor.is_floating_point():
        raise DataError(
            f"{path.name}: {part} must be floats [{count}, D] for {count} ids and not empty, not "
            f"{describe_array(tensor)}"
        )
    stored = tensor.detach().cpu()
    stored = stored if stored.dtype == torch.float16 else stored.float()
    if broken := int((~stored.isfinite()).any(1).sum()):
        raise DataError(
            f"{path.name}: the {part} of {broken} images are NaN or infinite; nothing was written"
        )
    array: NDArray[Any] = stored.contiguous().numpy()
    return array


def _refuse_doubles(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(
            f"features file {str(path)!r}: {len(twice)} ids stand more than once ({_list(twice)}); "
            "give each image one row"
        )


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN_IDS]) + (", ..." if len(listed) > SHOWN_IDS else "")

"""Pickled arrays of numbers, read without running anything that the file says.

A pickle names functions, and reading it calls them. Here only the names that numpy writes for an array are
known, and they stand for classes of this module that keep what they are told, check it, and build the array
themselves. Not even numpy's own way of restoring arrays is reachable: with a forged type it would take bytes
for pointers.
"""

import io
import math
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError

_KINDS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_OBJECTS = frozenset({"O", "O4", "O8"})
_ORDERS = frozenset("<>|=")


class _Type:
    """Stands for numpy.dtype."""

    def __init__(self, kind: object, align: object = False, copy: object = True) -> None:
        if kind not in _KINDS | _OBJECTS:
            raise pickle.UnpicklingError(f"an array of {kind!r}, not of numbers")
        self.kind = str(kind)
        self.order = "|"

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in _ORDERS:
            raise pickle.UnpicklingError(f"an array whose type has the state {state!r}")
        self.order = str(order)


class _Array:
    """Stands for numpy.ndarray; ``values`` is the array, or a list where it holds objects."""

    def __init__(self) -> None:
        self.values: NDArray[Any] | list[object] = []

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            raise pickle.UnpicklingError("an array with a state of another form")
        _, shape, kind, by_column, content = state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of the shape {shape!r}")
        if kind.kind in _OBJECTS:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise pickle.UnpicklingError("an array of objects with a content of another form")
            self.values = content
            return
        # Python 2 wrote bytes as text, and Python 3 reads them as such.
        raw = content.encode("latin1") if isinstance(content, str) else content
        dtype = np.dtype(kind.order + kind.kind)
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape) * dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of the shape {shape} with too few or too many bytes")
        self.values = np.frombuffer(raw, dtype=dtype).reshape(shape, order="F" if by_column else "C")


def _make_stand_ins() -> dict[str, Any]:
    """What the names in a pickle stand for; any other is refused.

    The functions are made anew for each file, because a pickle can set attributes of what it names.
    """

    def begin_array(kind: object, shape: object, code: object) -> _Array:
        """Stands for numpy's ``_reconstruct``, which gives an empty array that its state then fills."""
        if kind is not _Array:
            raise pickle.UnpicklingError(f"an array of the class {kind!r}")
        return _Array()

    def encode_latin1(text: str, encoding: str) -> bytes:
        """Stands for ``_codecs.encode``, by which bytes are written; other encodings run code."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")

    return {
        "numpy.core.multiarray._reconstruct": begin_array,
        "numpy._core.multiarray._reconstruct": begin_array,
        "numpy.ndarray": _Array,
        "numpy.dtype": _Type,
        "_codecs.encode": encode_latin1,
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.stand_ins = _make_stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        if (full := f"{module}.{name}") not in self.stand_ins:
            raise pickle.UnpicklingError(f"it calls {full}, which arrays of numbers have no need of")
        return self.stand_ins[full]


def read_pickle(path: Path) -> object:
    """Read a pickle of dicts, lists, text, numbers and arrays of them.

    Args:
        path: written by Python 2 or 3, with pickle protocols up to 4.

    Returns:
        Its content, text of Python 2 as latin1.

    Raises:
        DataError: the file is missing, damaged, or asks for anything else; nothing of it was run.
    """
    with _open_binary(path) as file:
        return _load(file, path)


def read_pickled_npy(path: Path) -> object:
    """Read the one object in a .npy file that ``numpy.save`` made of a dict.

    Raises:
        DataError: as :func:`read_pickle`, or the file holds a plain array.
    """
    with _open_binary(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: cannot be read as .npy ({error}); fetch it again") from error
        if not dtype.hasobject or shape != ():
            raise DataError(f"{path} holds an array of {dtype} {shape}; expected a dict of arrays")
        content = _load(io.BytesIO(file.read()), path)
    return content[0] if isinstance(content, list) and len(content) == 1 else content


def read_torch(path: Path) -> object:
    """Read a file that ``torch.save`` made of dicts, lists, numbers, tensors and arrays.

    Raises:
        DataError: the file is missing, damaged, or asks for anything else; nothing of it was run.
    """
    import torch  # slow to import, and few need it

    # torch reads bytes by itself, and calls no other names than its own and these.
    stand_ins: list[Any] = [
        (value, name) for name, value in _make_stand_ins().items() if name != "_codecs.encode"
    ]
    with _open_binary(path) as file, torch.serialization.safe_globals(stand_ins):
        try:
            return _unwrap(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file raises anything, from RuntimeError to IndexError
            # torch wraps what it met in an advice to load the file unsafely.
            met = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
            raise _refusal(path, met or error) from error


def _open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        DataError: it is missing or may not be read.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; unpack the data set whole") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error}); check that it is a file that may be read"
        ) from error


def _unwrap(value: object) -> object:
    """Arrays in the place of their stand-ins, at any depth of dicts and lists."""
    if isinstance(value, _Array):
        return _unwrap(value.values) if isinstance(value.values, list) else value.values
    if isinstance(value, dict):
        return {key: _unwrap(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unwrap(entry) for entry in value]
    return value


def _load(file: IO[bytes], path: Path) -> object:
    try:
        return _unwrap(_Unpickler(file).load())
    except Exception as error:  # a damaged pickle raises anything, from EOFError to UnicodeDecodeError
        raise _refusal(path, error) from error


def _refusal(path: Path, error: BaseException) -> DataError:
    met = str(error).partition("\n")[0].partition(". ")[0][:200] or type(error).__name__
    return DataError(f"{path} is no file of labels or images that can be read safely: {met}; fetch it again")

"""Pickled arrays: those of all writers come back, and files that mean harm are refused without being run."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data.sources.pickles import read_pickle, read_pickled_npy, read_torch
from lauter.errors import DataError

CONTENT = {"a": np.arange(5), "b": np.array([[1], [0]], dtype=np.uint8), "c": [1, "text"]}
BYTES = np.random.default_rng(0).integers(0, 256, size=(2, 3072), dtype=np.uint8)


def save(path: Path, content: object, protocol: int = 2) -> None:
    """A pickle as numpy before version 2 wrote it: its module had another name."""
    raw = pickle.dumps(content, protocol=protocol)
    path.write_bytes(raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def save_new(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


def save_torch(path: Path, content: object) -> None:
    torch.save(content, path)


def save_old_torch(path: Path, content: object) -> None:
    """As torch before 1.6 and numpy before 2 wrote it."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def save_npy(path: Path, content: object) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array(content, dtype=object), allow_pickle=True)


FORMS: dict[str, tuple[Callable[[Path, object], None], Callable[[Path], object]]] = {
    "pickle": (save_new, read_pickle),
    "old pickle": (save, read_pickle),
    "torch": (save_torch, read_torch),
    "old torch": (save_old_torch, read_torch),
    "numpy": (save_npy, read_pickled_npy),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_every_writer_come_back(tmp_path: Path, form: str) -> None:
    write, read = FORMS[form]
    write(tmp_path / "file", CONTENT)
    found = read(tmp_path / "file")
    assert isinstance(found, dict)
    assert found["c"] == CONTENT["c"]
    for name in ("a", "b"):
        assert found[name].dtype == CONTENT[name].dtype
        np.testing.assert_array_equal(found[name], CONTENT[name])


class Harm:
    """Makes a folder when it is unpickled by the usual means."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_a_file_says_is_run(tmp_path: Path, form: str) -> None:
    write, read = FORMS[form]
    trap = tmp_path / "trapped"
    write(tmp_path / "harm", {**CONTENT, "b": Harm(trap)})
    with pytest.raises(
        DataError, match=r"harm is no file of labels or images that can be read safely: .*mkdir"
    ):
        read(tmp_path / "harm")
    assert not trap.exists()
    if read is read_pickle:
        pickle.loads((tmp_path / "harm").read_bytes())
        assert trap.exists(), "the trap is none"


def python2_array(data: np.ndarray) -> bytes:
    """The instructions by which Python 2 pickled a uint8 array, byte by byte."""
    shape = b"".join(b"M" + struct.pack("<H", size) for size in data.shape) + b"\x86"
    begun = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = data.tobytes()
    return begun + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"


def test_batches_of_python_2_come_back(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}(U\x04data" + python2_array(BYTES) + b"U\x06labels](K\x00K\x09eu.")
    found = read_pickle(path)
    assert isinstance(found, dict)
    assert found["labels"] == [0, 9]
    np.testing.assert_array_equal(found["data"], BYTES)


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"cbuiltins\neval\nU\x011\x85R.", r"it calls builtins\.eval"),
        (b"cnumpy\nload\nU\x01x\x85R.", r"it calls numpy\.load"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x04zlib\x86R.", "bytes in the encoding 'zlib'"),
        (b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R.", "an array of 'V8', not of numbers"),
        (b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01!tb.", "an array whose type has the state"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.",
            "an array of the class",
        ),
        (b"}U\x01aK\x00s", "that can be read safely: Ran out of input"),
        (b"", "that can be read safely: Ran out of input"),
    ],
)
def test_forged_pickles_are_refused(tmp_path: Path, instructions: bytes, message: str) -> None:
    path = tmp_path / "forged"
    path.write_bytes(b"\x80\x02" + instructions)
    with pytest.raises(DataError, match=message):
        read_pickle(path)


def test_arrays_of_pointers_and_of_wrong_sizes_are_refused(tmp_path: Path) -> None:
    good = python2_array(BYTES)
    forged = {
        "an array of objects with a content of another form": good.replace(b"U\x02u1", b"U\x02O8"),
        "with too few or too many bytes": good.replace(b"M\x02\x00", b"M\x03\x00", 1),
        "an array of the shape": good.replace(
            b"(K\x01M\x02\x00M\x00\x0c\x86", b"(K\x01J\xff\xff\xff\xff\x85"
        ),
        "a state of another form": good.replace(b"\x89T", b"\x89\x89T"),
    }
    path = tmp_path / "forged"
    path.write_bytes(b"\x80\x02" + good + b".")
    np.testing.assert_array_equal(read_pickle(path), BYTES)
    for message, array in forged.items():
        assert array != good
        path.write_bytes(b"\x80\x02" + array + b".")
        with pytest.raises(DataError, match=message):
            read_pickle(path)


@pytest.mark.parametrize("kind", ["<i8", ">i4", "<u2", "|i1", "<f4", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_numbers_and_order_come_back(tmp_path: Path, kind: str, order: Any) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=kind, order=order)
    save(tmp_path / "array", {"a": [array], "b": "text", "c": {"d": 1.5}})
    torch.save({"a": [array], "b": "text", "c": {"d": 1.5}}, tmp_path / "array.pt")
    for found in (read_pickle(tmp_path / "array"), read_torch(tmp_path / "array.pt")):
        assert isinstance(found, dict)
        assert (found["b"], found["c"]) == ("text", {"d": 1.5})
        assert found["a"][0].dtype == np.dtype(kind)
        np.testing.assert_array_equal(found["a"][0], array)


def test_npy_files_that_hold_no_dict_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, np.arange(5))
    with pytest.raises(DataError, match=r"holds an array of int64 \(5,\); expected a dict of arrays"):
        read_pickled_npy(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"cannot be read as \.npy"):
        read_pickled_npy(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_torch(tmp_path)


def test_reading_leaves_no_name_allowed_behind(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    save_torch(tmp_path / "file", CONTENT)
    read_torch(tmp_path / "file")
    assert set(torch.serialization.get_safe_globals()) == before

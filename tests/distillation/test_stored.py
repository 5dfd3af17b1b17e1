"""Features files: rows are joined by id, whatever the kind of file, and nothing is guessed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lauter.data.batches import Batch
from lauter.distillation import feature_formats
from lauter.distillation.stored import (
    Stored,
    StoredTeacher,
    is_features_file,
    read_features,
    write_features,
)
from lauter.distillation.teacher import Teacher
from lauter.errors import DataError

SUFFIXES = ("safetensors", "parquet", "npy")
IDS = [f"cat/{number}.png" for number in range(5)]


def draw_features(count: int = 7, width: int = 3) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def join_ids(*names: str) -> torch.Tensor:
    return torch.tensor(list("\0".join(names).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.bfloat16])
def test_rows_come_back_by_id_in_the_order_asked_for(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    names = ["b ü", "a", "d/\N{LINE SEPARATOR}é", "z", "", "c", "e "]
    features = draw_features().to(dtype)
    path = tmp_path / f"deep/teacher.v2.{suffix}"
    write_features(path, names, features)
    wanted = ["c", "a", "e ", "", "d/\N{LINE SEPARATOR}é"]
    stored = read_features(path, np.array(wanted))
    assert (stored.name, stored.extra, len(stored)) == (path.name, 2, 5)
    assert (stored.feature_size, stored.num_classes, stored.logits) == (3, 0, None)
    expected = [[float(features[names.index(name), j]) for j in range(3)] for name in wanted]
    torch.testing.assert_close(stored.features, torch.tensor(expected), rtol=1e-7, atol=0)


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_logits_are_kept_beside(suffix: str, tmp_path: Path) -> None:
    features, logits = draw_features(5), draw_features(5, 4)
    write_features(tmp_path / f"t.{suffix}", IDS, features, logits)
    stored = read_features(tmp_path / f"t.{suffix}", IDS[::-1])
    assert stored.logits is not None
    torch.testing.assert_close(stored.logits, logits.flip(0), rtol=0, atol=0)
    torch.testing.assert_close(stored.features, features.flip(0), rtol=0, atol=0)
    assert (stored.num_classes, stored.extra) == (4, 0)
    part = stored.take(np.array([3, 0]))
    assert part.logits is not None
    torch.testing.assert_close(part.logits, logits.flip(0)[[3, 0]], rtol=0, atol=0)
    torch.testing.assert_close(part.features, features.flip(0)[[3, 0]], rtol=0, atol=0)


def test_half_precision_takes_half_the_room(tmp_path: Path) -> None:
    features = draw_features(5, 4000)
    sizes = []
    for dtype in (torch.float32, torch.float16):
        write_features(tmp_path / "t.npy", IDS, features.to(dtype))
        sizes.append((tmp_path / "t.npy").stat().st_size)
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)


def test_numpy_files_of_others(tmp_path: Path) -> None:
    features = draw_features(5).numpy()
    np.save(tmp_path / "t.npy", features.astype(">f8"))
    (tmp_path / "t.ids.txt").write_bytes("\r\n".join(IDS).encode())
    by_text = read_features(tmp_path / "t.npy", IDS[::-1])
    np.testing.assert_array_equal(by_text.features.numpy(), features[::-1])
    (tmp_path / "t.ids.txt").unlink()
    np.save(tmp_path / "t.ids.npy", np.array(IDS))
    by_array = read_features(tmp_path / "t.npy", IDS[::-1])
    np.testing.assert_array_equal(by_array.features.numpy(), features[::-1])
    (tmp_path / "t.ids.npy").unlink()
    by_order = read_features(tmp_path / "t.npy", IDS, row_order=True)
    np.testing.assert_array_equal(by_order.features.numpy(), features)
    by_order.features[0] = 7  # a copy of its own, not the file
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), features)


@pytest.mark.parametrize("ids", [pa.array([10, 2, 30]), pa.array(["10", "2", "30"]).dictionary_encode()])
def test_parquet_files_of_others(ids: pa.Array, tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)):
        table = pa.table({"id": ids, "features": pa.array(rows, kind), "caption": ["x", "y", "z"]})
        pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
        stored = read_features(tmp_path / "t.parquet", ["30", "10"])
        torch.testing.assert_close(stored.features, torch.tensor([[5.0, 6.0], [1.0, 2.0]]))


def test_columns_in_several_chunks_are_stacked() -> None:
    column = pa.chunked_array([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]], pa.list_(pa.float32()))
    sliced = pa.chunked_array([column.chunk(2).slice(1), column.chunk(0)])
    stack = feature_formats._stack_lists
    np.testing.assert_array_equal(stack(Path("t"), "features", column), [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(stack(Path("t"), "features", sliced), [[5, 6], [1, 2]])


def write_ids(path: Path, names: list[str]) -> None:
    path.with_suffix(".ids.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def put_array(path: Path, array: Any, names: list[str] | None = IDS) -> None:
    np.save(path, array)
    if names is not None:
        write_ids(path, names)


ONES = np.ones((5, 2), np.float32)


def with_number(value: float) -> np.ndarray[Any, Any]:
    array = np.ones((5, 2))
    array[[1, 4], 0] = value
    return array


@pytest.mark.parametrize(
    ("array", "names", "message"),
    [
        (ONES, None, r"comes without ids; put them into t.ids.txt, one a line, or state --row-order"),
        (
            ONES,
            ["a", "b", *IDS[2:]],
            r"lacks 2 of the 5 images \(cat/0.png, cat/1.png\).*are like a, b, cat/2",
        ),
        (ONES, [f"{name}x" for name in IDS], r"lacks 5 of the 5 images \(cat/0.png, .*cat/2.png, \.\.\.\)"),
        (ONES, [*IDS[:3], IDS[0], IDS[1]], r"2 ids stand more than once \(cat/0.png, cat/1.png\)"),
        (ONES, IDS[:4], "has 4 ids for 5 rows"),
        (with_number(np.nan), IDS, r"the features of 2 images are NaN.*\(cat/1.png, cat/4.png\)"),
        (with_number(np.inf), IDS, "of 2 images are NaN, infinite"),
        (with_number(1e39), IDS, "beyond float32"),
        (np.ones((5, 2), np.int64), IDS, r"must be floats \[M, D\] and not empty, not int64 \[5, 2\]"),
        (np.ones(5), IDS, r"not float64 \[5\]"),
        (np.float64(1), IDS, r"not float64 \[\]"),
        (np.ones((0, 2)), [], r"not empty, not float64 \[0, 2\]"),
        (np.ones((5, 0)), IDS, r"not empty, not float64 \[5, 0\]"),
    ],
)
def test_numpy_files_that_are_refused(
    array: Any, names: list[str] | None, message: str, tmp_path: Path
) -> None:
    put_array(tmp_path / "t.npy", array, names)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "t.npy", IDS)


def test_what_is_wrong_beside_a_numpy_file(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    put_array(path, ONES, None)
    with pytest.raises(DataError, match="has 5 rows for 4 images"):
        read_features(path, IDS[:4], row_order=True)
    np.save(tmp_path / "t.ids.npy", np.arange(5))
    with pytest.raises(DataError, match=r"must be an array of text \[M\], not int64 \[5\]"):
        read_features(path, IDS)
    write_ids(path, IDS)
    with pytest.raises(DataError, match=r"has ids in t.ids.txt and t.ids.npy; remove one"):
        read_features(path, IDS)
    (tmp_path / "t.ids.npy").unlink()
    with pytest.raises(DataError, match="brings its ids; leave --row-order out"):
        read_features(path, IDS, row_order=True)
    with pytest.raises(DataError, match="width 2, expected 512; take the file of the same teacher"):
        read_features(path, IDS, width=512)
    assert read_features(path, IDS, width=2).feature_size == 2
    path.with_suffix(".ids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_features(path, IDS)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as .npy"):
        read_features(path, IDS)
    with open(path, "wb") as file:
        np.savez(file, features=ONES)
    with pytest.raises(DataError, match="an archive of arrays"):
        read_features(path, IDS)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(5, 2)}, "holds no tensor 'features'"),
        ({"features": torch.ones(5, 2)}, "holds no tensor 'ids'"),
        ({"features": torch.ones(5, 2), "ids": torch.arange(5)}, r"must be uint8 \[L\].*not int64 \[5\]"),
        ({"features": torch.ones(5, 2), "ids": torch.tensor([255], dtype=torch.uint8)}, "no UTF-8"),
        ({"features": torch.ones(5, 2).int(), "ids": join_ids(*IDS)}, "must be floats.*not int32"),
        (
            {"features": torch.ones(5, 2), "logits": torch.ones(4, 2), "ids": join_ids(*IDS)},
            "4 rows of logits and 5 of features",
        ),
        (
            {"features": torch.ones(5, 2), "logits": torch.full((5, 2), torch.nan), "ids": join_ids(*IDS)},
            "the logits of 5 images are NaN",
        ),
    ],
)
def test_safetensors_files_that_are_refused(
    tensors: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "t.safetensors", IDS)


FIVE = [[1.0, 2.0]] * 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": IDS, "features": FIVE}, r"has no column 'id'; it has name, features"),
        ({"id": IDS, "feature": FIVE}, r"has no column 'features'"),
        ({"id": [0.5] * 5, "features": FIVE}, "id must be text or integers without gaps, not double"),
        ({"id": [*IDS[:4], None], "features": FIVE}, "with 1 gaps"),
        ({"id": IDS, "features": [1.0] * 5}, "must be lists of floats without gaps, not double"),
        ({"id": IDS, "features": [*FIVE[:4], None]}, "features must be lists .* with 1 gaps"),
        ({"id": IDS, "features": [*FIVE[:4], [1.0]]}, r"the lists of features differ in length \(1, 2\)"),
        ({"id": IDS, "features": [*FIVE[:4], [1.0, None]]}, r"of 1 images are NaN.*\(cat/4.png\)"),
        ({"id": IDS, "features": [[1, 2]] * 5}, "must be floats.*not int64"),
        ({"id": pa.array([], pa.string()), "features": pa.array([], pa.list_(pa.float32()))}, "not empty"),
    ],
)
def test_parquet_files_that_are_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "t.parquet", IDS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_missing_damaged_or_of_another_kind(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    with pytest.raises(DataError, match="is missing"):
        read_features(path, IDS)
    path.write_bytes(b"nothing of that kind")
    with pytest.raises(DataError, match=r"damaged|cannot be read"):
        read_features(path, IDS)
    with pytest.raises(DataError, match=r"must end in .safetensors, .parquet, .npy"):
        read_features(tmp_path / "t.pt", IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "t.csv"}, r"must end in .safetensors, .parquet, .npy, not '.*t.csv'"),
        ({"ids": IDS[:4]}, r"must be floats \[4, D\] for 4 ids"),
        ({"features": torch.ones(5)}, r"not float32 \[5\]"),
        ({"features": torch.ones(5, 2).long()}, r"not int64 \[5, 2\]"),
        ({"ids": [], "features": torch.ones(0, 2)}, "not empty"),
        ({"features": torch.tensor([[1.0]] * 4 + [[torch.inf]])}, "of 1 images are NaN or infinite"),
        ({"features": torch.full((5, 2), 1e39, dtype=torch.float64)}, "of 5 images are NaN or infinite"),
        ({"ids": [*IDS[:4], IDS[0]]}, r"1 ids stand more than once \(cat/0.png\)"),
        ({"logits": torch.ones(5, 2), "path": "t.npy"}, "t.npy has no room for logits"),
        ({"logits": torch.ones(4, 2)}, r"logits must be floats \[5, D\]"),
        ({"ids": [*IDS[:4], "a\0b"]}, r"1 ids contain what parts ids in such a file \('a.*b'\)"),
        ({"ids": [*IDS[:4], "a\nb"], "path": "t.npy"}, "write a .parquet file"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    old = read_old(tmp_path)
    arguments = {"path": "t.safetensors", "ids": IDS, "features": torch.ones(5, 2), **change}
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(DataError, match=message):
        write_features(**arguments)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def read_old(folder: Path) -> dict[str, bytes]:
    for suffix in SUFFIXES:
        write_features(folder / f"t.{suffix}", IDS, 3 * torch.ones(5, 2))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_never_stand_beside_the_ids_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.npy"
    put_array(path, ONES, None)
    np.save(tmp_path / "t.ids.npy", np.array(IDS))

    def fill_the_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(feature_formats.np, "save", fill_the_disk)
        with pytest.raises(OSError, match="no space"):
            write_features(path, IDS[::-1], torch.zeros(5, 2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.ids.txt"]
    write_features(path, IDS[::-1], torch.zeros(5, 2))
    torch.testing.assert_close(read_features(path, IDS).features, torch.zeros(5, 2))


def test_features_files_are_told_from_networks(tmp_path: Path) -> None:
    write_features(tmp_path / "t.safetensors", IDS, torch.ones(5, 2))
    save_file({"head.weight": torch.ones(2, 2)}, tmp_path / "network.safetensors")
    (tmp_path / "broken.safetensors").write_text("text")
    names = ("t.safetensors", "x.npy", "x.PARQUET", "network.safetensors", "broken.safetensors", "x.pt", "x")
    found = [is_features_file(tmp_path / name) for name in names]
    assert found == [True, True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stored("t", torch.ones(5)), r"t: features must be float32 \[N, D\], not float32 \[5\]"),
        (lambda: Stored("t", torch.ones(5, 2).half()), "not float16"),
        (lambda: Stored("t", torch.ones(5, 2), torch.ones(4, 2)), r"logits must be \[5, K\]"),
    ],
)
def test_what_is_stored_has_a_shape(make: Callable[[], Stored], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def test_every_view_of_an_image_is_taught_with_the_same_features() -> None:
    stored = Stored("file", draw_features(5), draw_features(5, 4))
    teacher: Teacher = StoredTeacher(stored, torch.device("cpu"))
    assert (teacher.name, teacher.flops_per_image) == ("file", 0.0)
    assert teacher.shows == {"features", "logits"}
    teacher.begin_epoch()
    index = torch.tensor([4, 0, 4])
    for seed in range(2):
        pixels = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
        seen = teacher.see(Batch(index, (pixels.to(torch.uint8),)))
        assert seen.features is not None
        assert seen.logits is not None
        torch.testing.assert_close(seen.features, stored.features[index], rtol=0, atol=0)
        torch.testing.assert_close(seen.logits, stored.logits[index], rtol=0, atol=0)  # type: ignore[index]
        assert (seen.maps, seen.bits) == ((), None)
    headless = StoredTeacher(Stored("file", draw_features(5)), torch.device("cpu"), "other")
    assert (headless.name, headless.shows) == ("other", {"features"})
    assert headless.see(Batch(index, ())).logits is None

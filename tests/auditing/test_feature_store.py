"""The feature store: keyed by pictures and network, whole or not, never believed without its checksums."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lauter.auditing import feature_store
from lauter.auditing.feature_store import FeatureKey, FeatureStore
from lauter.auditing.features import Features, require_finite, take_array
from lauter.errors import ConfigError, DataError, RunError

KEY = FeatureKey("d1", "net", "w1", 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 8, "32", "float32")
COUNT, WIDTH, ROWS = 27, 5, 8
VALUES = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
IDS = np.array([f"image-{row}" for row in range(COUNT)])

Fill = Callable[..., FeatureStore]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "SHARD_ROWS", ROWS)


def open_store(root: Path, **changed: Any) -> FeatureStore:
    return FeatureStore(root, dataclasses.replace(KEY, **changed), COUNT, WIDTH)


def fill(store: FeatureStore, blocks: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    for block in blocks:
        store.write_shard(block, VALUES[store.rows(block)])


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def values_of(store: FeatureStore) -> NDArray[Any]:
    found = store.open()
    assert found is not None
    return np.asarray(found)


def test_what_was_written_is_read_by_numpy_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.blocks == 4
    assert [len(store.rows(block)) for block in range(4)] == [8, 8, 8, 3]
    assert store.open() is None
    fill(store)
    store.join()
    np.testing.assert_array_equal(values_of(store), VALUES)
    np.testing.assert_array_equal(np.load(store.directory / "features.npy"), VALUES)
    assert sorted(entry.name for entry in store.directory.iterdir()) == ["features.npy", "manifest.json"]
    assert isinstance(store.open(), np.memmap)
    again = open_store(tmp_path)
    assert again.finished
    np.testing.assert_array_equal(values_of(again), VALUES)


def test_half_precision_takes_half_the_room(tmp_path: Path) -> None:
    store = open_store(tmp_path, dtype="float16")
    fill(store)
    store.join()
    found = values_of(store)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VALUES.astype(np.float16))


@pytest.mark.parametrize("field", [entry.name for entry in dataclasses.fields(FeatureKey)])
def test_every_part_of_the_key_makes_another_store(tmp_path: Path, field: str) -> None:
    other: dict[str, Any] = {"input_size": 9, "image_size": 9, "precision": "bf16", "dtype": "float16"}
    other |= {"mean": (0.5, 0.4, 0.2), "std": (0.2, 0.2, 0.1)}
    changed = {field: other.get(field, "else")}
    fill(first := open_store(tmp_path))
    first.join()
    assert open_store(tmp_path, **changed).directory != first.directory
    assert not open_store(tmp_path, **changed).finished


def test_the_digest_is_the_same_in_every_process() -> None:
    assert KEY.digest() == dataclasses.replace(KEY).digest()
    assert len(KEY.digest()) == 16


def test_a_store_in_the_place_of_another_is_refused_with_both_keys(tmp_path: Path) -> None:
    fill(store := open_store(tmp_path))
    store.join()
    other = open_store(tmp_path, weights="w2")
    shutil.copytree(store.directory, other.directory)
    with pytest.raises(DataError, match=r"(?s)something else.*weights: 'w1' in the store, 'w2' expected"):
        open_store(tmp_path, weights="w2")
    with pytest.raises(DataError, match=r"(?s)something else.*images and width: .*27, 5.*26, 5"):
        FeatureStore(tmp_path, KEY, COUNT - 1, WIDTH)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}', '{"key": {}, "offset": "x"}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    fill(store := open_store(tmp_path))
    store.join()
    (store.directory / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"not the manifest.*delete .*features-"):
        open_store(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_broken_shard_is_found_and_made_again(tmp_path: Path, damage: str) -> None:
    fill(store := open_store(tmp_path))
    assert store.find_missing(range(4)) == []
    (path,) = (store.directory / "shards").glob("000002-*")
    if damage == "changed":
        flip_byte(path, 3)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -1])
    with pytest.raises(RunError, match="lost its shard 2"):
        store.join()
    assert not store.finished
    assert store.find_missing(range(4)) == [2]
    assert not path.exists()
    fill(store, (2,))
    store.join()
    np.testing.assert_array_equal(values_of(store), VALUES)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_finished_store_keeps_what_is_whole_of_it(tmp_path: Path, damage: str) -> None:
    fill(store := open_store(tmp_path))
    store.join()
    path = store.directory / "features.npy"
    offset = json.loads((store.directory / "manifest.json").read_text())["offset"]
    if damage == "changed":
        flip_byte(path, offset + 4 * WIDTH * ROWS)  # the first byte of block 1
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    broken = {"cut": [3], "changed": [1], "gone": [0, 1, 2, 3]}[damage]
    again = open_store(tmp_path)
    assert again.open() is None
    assert not again.finished
    assert again.find_missing(range(4)) == broken
    fill(again, tuple(broken))
    again.join()
    np.testing.assert_array_equal(values_of(again), VALUES)


def test_absent_shards_are_told_by_their_names(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.list_absent() == [0, 1, 2, 3]
    fill(store, (1, 3))
    assert store.list_absent() == [0, 2]
    fill(store, (0, 2))
    store.join()
    assert store.list_absent() == []


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    (store.directory / ".features-x1.npy").write_bytes(b"half")
    (store.directory / "shards" / ".000001-x1.rows").write_bytes(b"half")
    store.join()
    assert sorted(entry.name for entry in store.directory.iterdir()) == ["features.npy", "manifest.json"]


def test_a_full_disk_is_said_before_and_when_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "not" / "there")
    store.require_room(4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunError, match=r"up to 1,180 bytes .* 1 are free; free some"):
        store.require_room(4)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        fill(open_store(tmp_path / "file"))


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float16 or float32, not 'int8'"):
        dataclasses.replace(KEY, dtype="int8")
    with pytest.raises(DataError, match="not 0 images of width 5"):
        FeatureStore(tmp_path, KEY, 0, WIDTH)
    with pytest.raises(DataError, match=r"block 3 takes features \[3, 5\], not \[8, 5\]"):
        open_store(tmp_path).write_shard(3, VALUES[:8])


def test_an_array_is_taken_as_it_is() -> None:
    found = take_array(VALUES, IDS)
    assert found.values is VALUES
    assert (len(found), found.size, found.computed) == (COUNT, WIDTH, 0)
    np.testing.assert_array_equal(found.images_per_second, 0.0)
    half = take_array(VALUES.astype(np.float16), IDS)
    assert half.values.dtype == np.float16
    double = take_array(VALUES.astype(np.float64), IDS)
    assert double.values.dtype == np.float32
    np.testing.assert_array_equal(double.values, VALUES)
    assert take_array(VALUES[::-1][::-1], IDS).key == found.key
    assert len({found.key, half.key, take_array(VALUES + 1, IDS).key}) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[:-1], r"26 rows for 27 images"),
        (VALUES[:, 0], r"expected floats \[N, D\] for 27 images, got float32 \[27\]"),
        (VALUES[:, :0], r"got float32 \[27, 0\]"),
        (np.zeros((COUNT, 2), np.int64), r"got int64"),
        (np.where(np.arange(COUNT)[:, None] == 4, np.nan, VALUES), r"NaN, infinite .*'image-4'"),
        (np.full((COUNT, 2), 1e60), r"beyond float32 for 'image-0', 'image-1', 'image-2', \.\.\."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(values: NDArray[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        take_array(values, IDS)


def test_another_width_is_refused() -> None:
    assert take_array(VALUES, IDS, width=WIDTH).size == WIDTH
    with pytest.raises(DataError, match="width 5, expected 6"):
        take_array(VALUES, IDS, width=6)


def test_what_is_not_finite_is_found_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lauter.auditing.features._CHECKED_ROWS", 10)
    values = VALUES.copy()
    values[23, 1] = np.inf
    with pytest.raises(DataError, match="x: features are NaN, infinite or beyond float32 for 'image-23';"):
        require_finite(values, IDS, "x")


def test_features_have_a_type_and_a_time() -> None:
    found = Features(VALUES, "x", "k", computed=20, seconds=9.0, extraction_seconds=4.0)
    np.testing.assert_allclose(found.images_per_second, 5.0)
    with pytest.raises(DataError, match=r"float16 or float32 \[N, D\] and not empty, not float64"):
        Features(VALUES.astype(np.float64), "x", "k")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="must be 0 or more"):
        Features(VALUES, "x", "k", seconds=-1.0)

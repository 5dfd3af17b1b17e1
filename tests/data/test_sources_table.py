import csv
import io
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.data import OPEN, UNLABELLED, available_splits, open_dataset
from lauter.data.sources import table as table_source
from lauter.data.sources.cells import ParquetCells
from lauter.errors import DataError

Picture = Callable[..., Image.Image]


@pytest.fixture
def manifest(tmp_path: Path, picture: Picture) -> Callable[..., Path]:
    """Write numbered pictures and a table that names them, from a header and rows."""
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        picture(number).save(tmp_path / "pictures" / f"{number}.png")

    def write(header: Sequence[str], rows: Sequence[Sequence[str]], name: str = "labels.csv") -> Path:
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",")
            writer.writerows([header, *rows])
        return tmp_path / name

    return write


def make_rows(labels: Sequence[str]) -> list[list[str]]:
    return [[f"pictures/{number}.png", label] for number, label in enumerate(labels)]


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet_table(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_a_manifest_opens_with_paths_relative_to_it(manifest: Callable[..., Path], name: str) -> None:
    path = manifest(["image", "label"], make_rows(["cat", "dog", "cat", "dog"]), name)
    dataset = open_dataset(path)
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.labels, [0, 1, 0, 1])
    assert dataset.ids.tolist() == [f"pictures/{number}.png" for number in range(4)]
    stored = np.asarray(Image.open(path.parent / "pictures" / "2.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.images.read(2), stored)


@pytest.mark.parametrize(
    ("image", "label"), [("Path", "Class"), ("file_name", "target"), ("filename", "LABEL")]
)
def test_usual_column_names_are_found(manifest: Callable[..., Path], image: str, label: str) -> None:
    dataset = open_dataset(manifest([image, label], make_rows(["a", "b", "a", "b"])))
    np.testing.assert_array_equal(dataset.labels, [0, 1, 0, 1])


def test_integer_labels_keep_their_number_order(manifest: Callable[..., Path]) -> None:
    dataset = open_dataset(manifest(["image", "label"], make_rows(["10", "9", "2", "10", "9", "2"])))
    assert dataset.class_names == ("2", "9", "10")
    np.testing.assert_array_equal(dataset.labels, [2, 1, 0, 2, 1, 0])


def test_empty_cells_and_minus_one_are_unlabelled(manifest: Callable[..., Path]) -> None:
    dataset = open_dataset(
        manifest(["image", "label"], make_rows(["cat", "", "dog", " ", "cat", "dog", "-1"]))
    )
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.labels, [0, UNLABELLED, 1, UNLABELLED, 0, 1, UNLABELLED])


def test_labels_are_stripped_of_blanks(manifest: Callable[..., Path]) -> None:
    dataset = open_dataset(manifest(["image", "label"], make_rows(["cat", " cat", "dog ", "dog"])))
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 1])


def test_truth_outside_of_the_classes_is_open(manifest: Callable[..., Path]) -> None:
    rows = [
        [f"pictures/{i}.png", label, true] for i, (label, true) in enumerate(zip("abab", "abxb", strict=True))
    ]
    dataset = open_dataset(manifest(["image", "label", "truth"], rows), truth_column="truth")
    assert dataset.true_labels is not None
    np.testing.assert_array_equal(dataset.true_labels, [0, 1, OPEN, 1])
    assert open_dataset(manifest(["image", "label", "truth"], rows)).true_labels is None


def test_an_empty_truth_is_refused(manifest: Callable[..., Path]) -> None:
    rows = [[f"pictures/{i}.png", label, true] for i, (label, true) in enumerate([("a", "a"), ("b", "")])]
    with pytest.raises(DataError, match="1 true labels are empty; write -1"):
        open_dataset(manifest(["image", "label", "truth"], rows), truth_column="truth")


def test_a_split_column_is_honoured(manifest: Callable[..., Path]) -> None:
    splits = ["train", "test", "train", "train", "test", "train", "test", "test"]
    rows = [[f"pictures/{i}.png", "ab"[i // 2 % 2], split] for i, split in enumerate(splits)]
    path = manifest(["image", "label", "split"], rows)
    assert available_splits(path) == ("train", "test")
    test = open_dataset(path, split="test", min_per_class=1)
    assert test.ids.tolist() == [f"pictures/{i}.png" for i in (1, 4, 6, 7)]
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1])
    assert open_dataset(path, min_per_class=1).source["split"] == "train"
    with pytest.raises(DataError, match="no split 'val'; its splits: train, test"):
        open_dataset(path, split="val")
    with pytest.raises(DataError, match="there is no split column"):
        open_dataset(manifest(["image", "label"], make_rows("abab")), split="train")


def test_classes_are_those_of_all_splits(manifest: Callable[..., Path]) -> None:
    rows = [
        [f"pictures/{i}.png", label, split]
        for i, (label, split) in enumerate(zip("aabbcc", "xxxxyy", strict=True))
    ]
    dataset = open_dataset(manifest(["image", "label", "split"], rows), split="y", min_per_class=0)
    assert dataset.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.labels, [2, 2])


def test_ids_come_from_their_column_and_must_be_unique(manifest: Callable[..., Path]) -> None:
    rows = [[f"pictures/{i}.png", "ab"[i % 2], f"k{i}"] for i in range(4)]
    assert open_dataset(manifest(["image", "label", "id"], rows)).ids.tolist() == ["k0", "k1", "k2", "k3"]
    rows[3][2] = "k1"
    with pytest.raises(DataError, match="column 'id' has ids that stand more than once: 'k1'"):
        open_dataset(manifest(["image", "label", "id"], rows))
    twice = [*make_rows("abab"), ["pictures/0.png", "b"]]
    with pytest.raises(DataError, match=r"more than once: 'pictures/0\.png'; name each image once"):
        open_dataset(manifest(["image", "label"], twice))


def test_missing_columns_are_refused_and_the_others_named(manifest: Callable[..., Path]) -> None:
    path = manifest(["picture", "kind"], make_rows("abab"))
    with pytest.raises(
        DataError, match="no label column found; say which it is by label_column: picture, kind"
    ):
        open_dataset(path)
    with pytest.raises(
        DataError, match="no image column found; say which it is by image_column: picture, kind"
    ):
        open_dataset(path, label_column="kind")
    with pytest.raises(DataError, match=r"no column 'sort' \(label_column\); its columns: picture, kind"):
        open_dataset(path, label_column="sort")
    with pytest.raises(DataError, match=r"no column 'sort' \(truth_column\)"):
        open_dataset(path, label_column="kind", truth_column="sort")
    assert len(open_dataset(path, label_column="kind", image_column="picture")) == 4


def test_missing_files_are_left_out(manifest: Callable[..., Path]) -> None:
    rows = [*make_rows("abab"), ["pictures/none.png", "a"], ["", "b"]]
    dataset = open_dataset(manifest(["image", "label"], rows))
    assert len(dataset) == 4
    assert [(fault.id, fault.fault) for fault in dataset.faults] == [
        ("pictures/none.png", "missing"),
        ("row/5", "empty"),
    ]


def test_broken_csv_files_are_refused(manifest: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 2 has 1 cells, the header 2"):
        open_dataset(manifest(["image", "label"], [["pictures/0.png", "a"], ["pictures/1.png"]]))
    with pytest.raises(DataError, match="must name the columns, each once"):
        open_dataset(manifest(["image", "image"], []))
    (tmp_path / "latin.csv").write_bytes("image,label\nx.png,Käse\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as UTF-8 CSV"):
        open_dataset(tmp_path / "latin.csv")
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(DataError, match="must name the columns"):
        open_dataset(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no images found"):
        open_dataset(manifest(["image", "label"], []))


def test_a_byte_order_mark_is_no_part_of_a_name(manifest: Callable[..., Path]) -> None:
    path = manifest(["image", "label"], make_rows("abab"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(open_dataset(path)) == 4


def test_class_names_take_integers_by_position_and_refuse_strangers(manifest: Callable[..., Path]) -> None:
    by_position = open_dataset(manifest(["image", "label"], make_rows("1010")), class_names=["cat", "dog"])
    np.testing.assert_array_equal(by_position.labels, [1, 0, 1, 0])
    by_value = open_dataset(manifest(["image", "label"], make_rows("7373")), class_names=["7", "3"])
    np.testing.assert_array_equal(by_value.labels, [0, 1, 0, 1])
    with pytest.raises(
        DataError, match="1 values are no class: 'cow'; expected one of the 2 classes 'cat', 'dog'"
    ):
        open_dataset(manifest(["image", "label"], make_rows(["cat", "cow"])), class_names=["cat", "dog"])
    with pytest.raises(DataError, match="1 values are no class: '2'"):
        open_dataset(manifest(["image", "label"], make_rows("012")), class_names=["cat", "dog"])


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_with_image_bytes(tmp_path: Path, picture: Picture, struct: bool) -> None:
    encoded = [encode(picture(number)) for number in range(4)]
    images = [{"bytes": data, "path": None} for data in encoded] if struct else encoded
    path = write_parquet_table(tmp_path / "x.parquet", {"image": images, "label": [3, 5, 3, 5]})
    dataset = open_dataset(path)
    assert dataset.class_names == ("3", "5")
    assert dataset.ids.tolist() == [f"row/{row:08d}" for row in range(4)]
    for row in range(4):
        np.testing.assert_array_equal(dataset.images.read(row), np.asarray(picture(row)).transpose(2, 0, 1))


def test_a_struct_without_bytes_names_a_file(tmp_path: Path, picture: Picture) -> None:
    picture(0).save(tmp_path / "a.png")
    images = [{"bytes": None, "path": "a.png"}, {"bytes": encode(picture(1)), "path": "b.png"}]
    path = write_parquet_table(tmp_path / "x.parquet", {"image": images, "label": ["x", "y"]})
    dataset = open_dataset(path, min_per_class=1)
    for row in range(2):
        np.testing.assert_array_equal(dataset.images.read(row), np.asarray(picture(row)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("values", "names", "labels"),
    [
        ([1, None, 2, 1, 2], ("1", "2"), [0, -1, 1, 0, 1]),
        ([1.0, None, 2.0, 1.0, 2.0], ("1", "2"), [0, -1, 1, 0, 1]),
        ([True, None, False, True, False], ("False", "True"), [1, -1, 0, 1, 0]),
        (["b ", None, " a", "b", ""], ("a", "b"), [1, -1, 0, 1, -1]),
        (pa.array(["b", None, "a", "b", "a"]).dictionary_encode(), ("a", "b"), [1, -1, 0, 1, 0]),
    ],
)
def test_parquet_labels_of_every_kind(
    tmp_path: Path, picture: Picture, values: Any, names: tuple[str, ...], labels: list[int]
) -> None:
    images = [encode(picture(number)) for number in range(5)]
    path = write_parquet_table(tmp_path / "x.parquet", {"image": images, "label": values})
    dataset = open_dataset(path, min_per_class=1)
    assert dataset.class_names == names
    np.testing.assert_array_equal(dataset.labels, labels)


@pytest.mark.parametrize(
    ("column", "message"),
    [([[1], [2]], "expected one label per image"), ([0.5, 1.0], "names or whole numbers")],
)
def test_parquet_labels_of_no_use_are_refused(
    tmp_path: Path, picture: Picture, column: Any, message: str
) -> None:
    images = [encode(picture(number)) for number in range(2)]
    path = write_parquet_table(tmp_path / "x.parquet", {"image": images, "label": column})
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_class_label_metadata_names_the_classes_of_labels_and_truth(tmp_path: Path, picture: Picture) -> None:
    columns = {
        "image": [encode(picture(number)) for number in range(4)],
        "label": [0, 1, -1, 1],
        "people": [1, 1, 0, 0],
    }
    named = {"names": ["zebra", "ant"], "_type": "ClassLabel"}
    path = write_parquet_table(tmp_path / "x.parquet", columns, {"image": {"_type": "Image"}, "label": named})
    dataset = open_dataset(path, min_per_class=1)
    assert dataset.class_names == ("zebra", "ant")
    np.testing.assert_array_equal(dataset.labels, [0, 1, UNLABELLED, 1])
    people = open_dataset(path, label_column="people", truth_column="label")
    assert people.class_names == ("zebra", "ant")
    assert people.true_labels is not None
    np.testing.assert_array_equal(people.labels, [1, 1, 0, 0])
    np.testing.assert_array_equal(people.true_labels, [0, 1, OPEN, 1])
    reordered = open_dataset(path, class_names=["ant", "zebra"], min_per_class=1)
    np.testing.assert_array_equal(reordered.labels, [1, 0, UNLABELLED, 0])


def test_a_class_label_out_of_range_is_refused(tmp_path: Path, picture: Picture) -> None:
    columns = {"image": [encode(picture(0))] * 2, "label": [0, 2]}
    features = {"label": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}
    with pytest.raises(DataError, match="1 values are no class: 2"):
        open_dataset(write_parquet_table(tmp_path / "x.parquet", columns, features))


def test_an_image_column_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_parquet_table(tmp_path / "x.parquet", {"image": [1, 2], "label": ["a", "b"]})
    with pytest.raises(DataError, match="column 'image' holds int64; expected image paths"):
        open_dataset(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    for open_it in (open_dataset, available_splits):
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            open_it(tmp_path / "x.parquet")


@pytest.fixture
def shards(tmp_path: Path, picture: Picture) -> Path:
    """A folder with two train shards and one test shard, in small row groups."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        images = [{"bytes": encode(picture(10 * number + i)), "path": None} for i in range(6)]
        table = pa.table({"image": images, "label": ["a", "b"] * 3})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=4)
    return folder


def test_shards_open_by_split_with_train_the_default(shards: Path, picture: Picture) -> None:
    assert available_splits(shards) == ("train", "test")
    train, test = open_dataset(shards), open_dataset(shards, split="test")
    assert (len(train), len(test)) == (12, 6)
    assert train.ids[11] == "train/00000011"
    assert train.source["split"] == "train"
    np.testing.assert_array_equal(train.images.read(7), np.asarray(picture(11)).transpose(2, 0, 1))
    with pytest.raises(DataError, match="no split 'val'; its splits: train, test"):
        open_dataset(shards, split="val")


def test_missing_shards_are_told(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_dataset(shards)
    assert caplog.messages == []
    (shards / "train-00001-of-00002.parquet").unlink()
    assert len(open_dataset(shards)) == 6
    assert caplog.messages == [f"{shards}: 1 of 2 shards are here; the rest is missing"]


def test_images_above_the_limit_stay_in_their_files(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = open_dataset(shards, resident_limit=0)
    monkeypatch.setattr(table_source, "ENCODED_LIMIT", 0)
    monkeypatch.setattr(ParquetCells, "kept_bytes", 0)
    streamed = open_dataset(shards, resident_limit=0)
    assert isinstance(streamed.images.cells, ParquetCells)  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(streamed.images))
    for row in (11, 0, 5, 6, 3, 4):
        np.testing.assert_array_equal(streamed.images.read(row), held.images.read(row))
        np.testing.assert_array_equal(again.read(row), held.images.read(row))
    resident = open_dataset(shards)
    assert resident.images.uniform is not None
    np.testing.assert_array_equal(resident.images.read(9), held.images.read(9))

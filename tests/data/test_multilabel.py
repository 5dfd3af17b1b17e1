"""Several labels per image: the data set, its four layouts, the hold-out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.data import ResidentImages
from lauter.data.images import encode_png
from lauter.data.multilabel import (
    MultiLabelDataset,
    available_multilabel_splits,
    hold_out_images,
    open_multilabel,
)
from lauter.errors import DataError

VOC_OBJECTS = {
    "000001": [("dog", 0), ("person", 0), ("dog", 1)],
    "000002": [("person", 1)],
    "000003": [("cat", 0), ("person", 1)],
    "000004": [("cat", 0), ("dog", 0)],
}


def save_picture(path: Path, width: int = 20, height: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def write_voc(root: Path) -> Path:
    """VOCdevkit/VOC2007 with three images in trainval and one in test."""
    top = root / "VOCdevkit" / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main"):
        (top / folder).mkdir(parents=True)
    for name, objects in VOC_OBJECTS.items():
        save_picture(top / "JPEGImages" / f"{name}.jpg")
        parts = "".join(
            f"<object><name>{kind}</name><difficult>{hard}</difficult><part><name>head</name></part></object>"
            for kind, hard in objects
        )
        (top / "Annotations" / f"{name}.xml").write_text(f"<annotation>{parts}</annotation>")
    lists = top / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("000001\n000002\n000003\n")
    (lists / "test.txt").write_text("000004\n")
    (lists / "dog_trainval.txt").write_text("000001  1\n000002 -1\n000003 -1\n")
    return root / "VOCdevkit"


def write_coco(root: Path) -> Path:
    for split, count in (("train2017", 3), ("val2017", 1)):
        images = [{"id": 10 + n, "file_name": f"{n:012}.jpg"} for n in range(count)]
        annotations = [{"image_id": 10, "category_id": 3}, {"image_id": 10, "category_id": 1}]
        if count == 3:
            annotations += [
                {"image_id": 12, "category_id": 3, "iscrowd": 1},
                {"image_id": 12, "category_id": 3},
            ]
        categories = [{"id": 3, "name": "apple"}, {"id": 1, "name": "zebra"}]
        for image in images:
            save_picture(root / "images" / split / str(image["file_name"]))
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return root


def write_csv(root: Path, cells: Sequence[str], header: str = "image,labels") -> Path:
    for number in range(len(cells)):
        save_picture(root / f"{number}.png")
    lines = [f'{number}.png,"{cell}"' for number, cell in enumerate(cells)]
    path = root / "table.csv"
    path.write_text("\n".join([header, *lines]))
    return path


def make_dataset(targets: list[list[int]]) -> MultiLabelDataset:
    n = len(targets)
    return MultiLabelDataset(
        "made",
        ResidentImages(np.zeros((n, 3, 8, 8), np.uint8)),
        np.array(targets, dtype=np.int8),
        tuple("abcdef"[: len(targets[0])]),
        np.array([str(row) for row in range(n)]),
    )


def test_voc_difficult_objects_are_unknown_unless_a_plain_one_is_there(tmp_path: Path) -> None:
    data = open_multilabel(write_voc(tmp_path))
    assert data.class_names == ("cat", "dog", "person")  # and no 'head', which is a part
    assert data.ids.tolist() == ["000001", "000002", "000003"]
    assert data.targets.tolist() == [[0, 1, 1], [0, 0, -1], [1, 0, -1]]
    assert data.source["split"] == "trainval"
    assert data.labelled.tolist() == [True, True, True]


def test_voc_splits_leave_the_lists_of_classes_out(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    assert available_multilabel_splits(root) == ("test", "trainval")
    inner = open_multilabel(root / "VOC2007", split="test", class_names=("person", "dog", "cat"))
    assert inner.targets.tolist() == [[0, 1, 1]]


def test_voc_faults_are_named(tmp_path: Path) -> None:
    top = write_voc(tmp_path) / "VOC2007"
    with pytest.raises(DataError, match="no split 'val'; its splits: test, trainval"):
        open_multilabel(top, split="val")
    with pytest.raises(DataError, match="1 names are no class: 'person'"):
        open_multilabel(top, class_names=("cat", "dog"))
    (top / "JPEGImages" / "000002.jpg").unlink()
    data = open_multilabel(top)
    assert data.ids.tolist() == ["000001", "000003"]
    assert [(fault.id, fault.fault) for fault in data.faults] == [("000002", "missing")]
    annotation = top / "Annotations" / "000003.xml"
    annotation.write_text("<annotation>")
    with pytest.raises(DataError, match=r"000003\.xml cannot be read as XML"):
        open_multilabel(top)
    annotation.unlink()
    with pytest.raises(DataError, match=r"000003\.xml is missing"):
        open_multilabel(top)


def test_several_voc_sets_are_not_chosen_from(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    (root / "VOC2012" / "Annotations").mkdir(parents=True)
    (root / "VOC2012" / "ImageSets" / "Main").mkdir(parents=True)
    with pytest.raises(DataError, match="several VOC sets"):
        open_multilabel(root)


def test_coco_classes_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    data = open_multilabel(write_coco(tmp_path))
    assert data.class_names == ("zebra", "apple")
    assert data.targets.tolist() == [[1, 1], [0, 0], [0, 1]]  # without annotation: none of them
    assert data.source["split"] == "train2017"
    assert available_multilabel_splits(tmp_path) == ("train2017", "val2017")
    val = open_multilabel(tmp_path, split="val2017", class_names=("apple", "zebra"))
    assert val.targets.tolist() == [[1, 1]]


def test_coco_faults_are_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    with pytest.raises(DataError, match="pass split=, one of train2017, val2017; got 'test2017'"):
        open_multilabel(root, split="test2017")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"no COCO annotation of instances \(KeyError: 99"):
        open_multilabel(root, split="val2017")
    (root / "images").rename(root / "pictures")
    with pytest.raises(DataError, match="the images of split 'train2017' are in none of"):
        open_multilabel(root)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["cat|dog", "", "|", " dog | traffic light "], None),
        (["cat;dog", "", ";", "dog;traffic light"], None),
        (["cat,dog", "", ",", "dog,traffic light"], None),
        (["cat+dog", "", "+", "dog+traffic light"], "+"),
    ],
)
def test_names_in_one_cell(tmp_path: Path, cells: list[str], separator: str | None) -> None:
    data = open_multilabel(write_csv(tmp_path, cells), separator=separator)
    assert data.class_names == ("cat", "dog", "traffic light")
    assert data.targets.tolist() == [[1, 1, 0], [-1, -1, -1], [0, 0, 0], [0, 1, 1]]
    assert data.labelled.tolist() == [True, False, True, True]
    assert data.ids.tolist() == ["0.png", "1.png", "2.png", "3.png"]


def write_parquet(path: Path, lists: pa.Array, names: list[str] | None = None) -> Path:
    png = encode_png(np.zeros((3, 8, 8), np.uint8))
    content = pa.table({"image": pa.array([{"bytes": png}] * len(lists)), "labels": lists})
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "labels": {"feature": label, "_type": "List"}}
        content = content.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(exist_ok=True)
    pq.write_table(content, path)
    return path


def test_lists_of_class_labels_in_shards(tmp_path: Path) -> None:
    lists = pa.array([[0, 2], [], None, [1]], pa.list_(pa.int64()))
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", lists, ["x", "y", "z"])
    data = open_multilabel(tmp_path)
    assert data.class_names == ("x", "y", "z")
    assert data.targets.tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]]
    assert data.images.uniform is not None  # equal squares of 8 pixels keep their size
    again = open_multilabel(**data.source)
    assert again.fingerprint() == data.fingerprint()
    np.testing.assert_array_equal(again.targets, data.targets)


def test_lists_without_names_are_their_own_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a" / "t.parquet", pa.array([[10, 9], [9]]))
    assert open_multilabel(path).class_names == ("9", "10")
    path = write_parquet(tmp_path / "a" / "s.parquet", pa.array([["b"], ["a", "b"]]))
    assert open_multilabel(path).targets.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("lists", "names", "message"),
    [
        (pa.array([[3]]), ["x", "y"], "holds 3, but there are 2 class names"),
        (pa.array([[-1]]), ["x", "y"], "holds -1, but there are 2"),
        (pa.array([[0.5]]), None, "holds 0.5; expected names or whole numbers"),
        (pa.array([1, 2]), None, r"holds int64; expected lists .* leave out --multi-label"),
        (pa.array([[], []], pa.list_(pa.string())), None, "no image has a label"),
    ],
)
def test_wrong_lists_are_refused(
    tmp_path: Path, lists: pa.Array, names: list[str] | None, message: str
) -> None:
    path = write_parquet(tmp_path / "a" / "t.parquet", lists, names)
    with pytest.raises(DataError, match=message):
        open_multilabel(path)


def test_what_is_laid_out_otherwise_is_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"class folders leave out --multi-label"):
        open_multilabel(photos)
    with pytest.raises(DataError, match="no such folder or file"):
        open_multilabel(tmp_path / "nothing")
    with pytest.raises(DataError, match="belong to tables"):
        open_multilabel(write_voc(tmp_path), separator=",")
    (tmp_path / "names.csv").write_text("image,breed\na.png,x\n")
    with pytest.raises(DataError, match=r"no column of labels found.*image, breed"):
        open_multilabel(tmp_path / "names.csv")
    with pytest.raises(DataError, match="image_size must be at least 4, not 1"):
        open_multilabel(tmp_path / "names.csv", image_size=1)


def test_wide_pictures_keep_their_margins(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, :4] = 255  # an object at the left margin, which the usual centre crop would lose
    root = write_coco(tmp_path)
    Image.fromarray(pixels).save(root / "images" / "train2017" / f"{0:012}.jpg", quality=95)
    for limit in (0, 2**30):
        data = open_multilabel(root, image_size=20, resident_limit=limit)
        assert (data.images.uniform is None) == (limit == 0)
        picture = data.images.read(0)
        assert picture.shape == (3, 20, 20)
        assert picture[:, 5:15, 0].min() > 200
        assert picture[:, 5:15, 6:].max() < 40
    assert open_multilabel(root).images.read(0).shape == (3, 224, 224)


def test_a_picture_that_breaks_while_it_is_decoded_is_left_out(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    path = root / "images" / "train2017" / f"{1:012}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")  # its header and its end are right
    data = open_multilabel(root, image_size=16)
    assert data.ids.tolist() == [f"{0:012}.jpg", f"{2:012}.jpg"]
    assert data.targets.tolist() == [[1, 1], [0, 1]]
    assert [fault.dropped for fault in data.faults] == [True]


def test_the_data_set_refuses_what_does_not_fit() -> None:
    data = make_dataset([[1, 0], [0, -1], [-1, -1]])
    assert data.labelled.tolist() == [True, True, False]
    assert data.subset(np.array([False, True, True])).targets.tolist() == [[0, -1], [-1, -1]]
    assert data.fingerprint() != make_dataset([[1, 0], [0, 0], [-1, -1]]).fingerprint()
    assert data.without_targets().labels.tolist() == [-1, -1, -1]
    with pytest.raises(DataError, match=r"1 \(present\), 0 \(absent\) or -1 \(unknown\), found 2"):
        make_dataset([[2, 0]])
    with pytest.raises(DataError, match=r"targets must be int8 \[3, 1\]"):
        MultiLabelDataset("x", data.images, data.targets, ("a",), data.ids)
    with pytest.raises(DataError, match="ids must be unique"):
        MultiLabelDataset("x", data.images, data.targets, ("a", "b"), np.array(["1", "1", "2"]))


def test_the_hold_out_has_the_classes_shares() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.2, 0.05, 0.01])
    targets = (rng.random((1000, 4)) < shares).astype(np.int8)
    targets[:50] = -1
    train, held = hold_out_images(targets, 0.2, seed=3)
    assert sorted([*train, *held]) == list(range(1000))
    counts, kept = (targets == 1).sum(0), (targets[held] == 1).sum(0)
    np.testing.assert_array_less(np.abs(kept - 0.2 * counts), np.maximum(1, 0.01 * counts))
    empty = (targets == 0).all(1)
    np.testing.assert_allclose(empty[held].sum() / empty.sum(), 0.2, atol=0.01)
    assert (targets[held] != -1).all()
    again = hold_out_images(targets, 0.2, seed=3)[1]
    np.testing.assert_array_equal(again, held)
    assert hold_out_images(targets, 0.2, seed=4)[1].tolist() != held.tolist()


def test_no_class_is_held_out_whole() -> None:
    targets = np.array([[1, 1], [0, 1], [0, 1], [0, 1], [0, 1]], dtype=np.int8)
    for seed in range(20):
        train, held = hold_out_images(targets, 0.4, seed)
        assert 0 in train
        assert len(held) == 2
    with pytest.raises(DataError, match="holds out no image; raise the share"):
        hold_out_images(targets, 0.05, 0)
    lonely = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.int8)  # each image is the only one of some class
    with pytest.raises(DataError, match="holds out no image"):
        hold_out_images(lonely, 0.4, 0)
    with pytest.raises(DataError, match="must be between 0 and 1, not 1"):
        hold_out_images(targets, 1.0, 0)


def test_real_photographs(shared_data: Callable[[str], Path]) -> None:
    data = open_multilabel(shared_data("coco256"))
    assert (len(data), data.num_classes) == (128, 80)
    assert data.ids[0] == "000000000009.jpg"
    assert [data.class_names[k] for k in np.flatnonzero(data.targets[0])] == ["bowl", "orange", "broccoli"]
    assert set(np.unique(data.targets)) == {0, 1}
    assert data.images.read(0).shape == (3, 224, 224)
    assert available_multilabel_splits(shared_data("coco256")) == ("train", "validation")

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data import available_splits, open_dataset
from lauter.errors import DataError

Folders = Callable[..., Path]


def test_class_folders_open_with_sorted_ids_and_exact_pixels(class_folders: Folders) -> None:
    root = class_folders(dog=2, cat=3)
    dataset = open_dataset(root)
    assert dataset.name == "set"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.ids.tolist() == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1, 1])
    assert dataset.true_labels is None
    assert dataset.faults == ()
    for row, id_ in enumerate(dataset.ids.tolist()):
        stored = np.asarray(Image.open(root / id_)).transpose(2, 0, 1)
        np.testing.assert_array_equal(dataset.images.read(row), stored)


def test_classes_named_like_splits_are_classes_like_any_other(class_folders: Folders) -> None:
    dataset = open_dataset(class_folders(train=3, test=2, val=2, bus=4))
    assert dataset.class_names == ("bus", "test", "train", "val")
    np.testing.assert_array_equal(np.bincount(dataset.labels), [4, 2, 3, 2])


def test_classes_all_named_like_splits_are_classes_too(class_folders: Folders) -> None:
    root = class_folders(train=3, test=2, val=2)
    dataset = open_dataset(root)
    assert dataset.class_names == ("test", "train", "val")
    np.testing.assert_array_equal(np.bincount(dataset.labels), [2, 3, 2])
    assert available_splits(root) == ()


def test_a_split_is_opened_by_name(class_folders: Folders) -> None:
    class_folders("set/train", cat=3, dog=2)
    root = class_folders("set/test", cat=2, dog=2).parent
    assert available_splits(root) == ("train", "test")
    train, test = open_dataset(root, split="train"), open_dataset(root, split="test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert (len(train), len(test)) == (5, 4)
    assert train.ids[0] == "train/cat/0.png"
    assert train.name == "set"
    assert train.source["split"] == "train"


def test_a_folder_of_splits_asks_which(class_folders: Folders) -> None:
    class_folders("set/train", cat=3, dog=2)
    root = class_folders("set/test", cat=2, dog=2).parent
    with pytest.raises(DataError, match=r"holds splits \('train', 'test'\).*pass split='train'"):
        open_dataset(root)
    by_name = open_dataset(root, class_names=("test", "train"))
    np.testing.assert_array_equal(np.bincount(by_name.labels), [4, 5])


def test_flat_test_images_beside_a_train_split_are_not_taken_for_a_class(class_folders: Folders) -> None:
    class_folders("set/train", cat=3, dog=2)
    root = class_folders("set", test=4)
    with pytest.raises(DataError, match=r"holds splits \('train'\)"):
        open_dataset(root)
    with pytest.raises(DataError, match="no class folders, 4 images directly in it"):
        open_dataset(root, split="test")


def test_a_split_that_is_not_there_is_refused(class_folders: Folders) -> None:
    with pytest.raises(DataError, match="no split 'val' here; its folders: 'cat', 'dog'"):
        open_dataset(class_folders(cat=2, dog=2), split="val")


def test_numbered_classes_stand_in_number_order(class_folders: Folders) -> None:
    assert open_dataset(class_folders(**{"10": 2, "9": 2, "1": 2})).class_names == ("1", "9", "10")


def test_images_are_found_at_any_depth_and_hidden_ones_ignored(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    (root / "cat" / "0deep" / "er").mkdir(parents=True)
    shutil.copy(root / "cat" / "0.png", root / "cat" / "0deep" / "er" / "x.PNG")
    shutil.copy(root / "cat" / "0.png", root / "cat" / ".hidden.png")
    shutil.copytree(root / "cat", root / ".cache")
    shutil.copytree(root / "dog", root / "cat" / ".thumbs")
    dataset = open_dataset(root)
    assert dataset.ids.tolist() == ["cat/0.png", "cat/0deep/er/x.PNG", "cat/1.png", "dog/0.png", "dog/1.png"]
    np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.images.read(0), dataset.images.read(1))
    assert dataset.faults == ()


def test_other_files_and_images_outside_of_classes_are_counted(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "README.md").write_text("x")
    shutil.copy(root / "cat" / "0.png", root / "stray.png")
    dataset = open_dataset(root)
    assert len(dataset) == 4
    assert {(fault.id, fault.fault, fault.dropped) for fault in dataset.faults} == {
        ("README.md", "not-an-image", True),
        ("stray.png", "outside", True),
        ("cat/notes.txt", "not-an-image", True),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_loops_of_links_end(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    (root / "cat" / "self").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    (root / "dog" / "cats").symlink_to(root / "cat", target_is_directory=True)
    (root / "dog" / "broken.png").symlink_to(root / "nothing.png")
    dataset = open_dataset(root)
    assert dataset.ids.tolist() == [
        *("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/cats/0.png", "dog/cats/1.png")
    ]
    assert [fault.fault for fault in dataset.faults] == ["missing"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_name_that_is_not_utf8_gets_a_printable_id(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    os.rename(os.fsencode(root / "cat" / "1.png"), os.fsencode(root / "cat") + b"/\xff.png")
    dataset = open_dataset(root)
    assert "cat/\\xff.png" in dataset.ids.tolist()
    assert len(dataset.fingerprint()) == 16


def test_broken_images_are_left_out_and_listed(class_folders: Folders) -> None:
    root = class_folders(cat=3, dog=3)
    (root / "cat" / "0.png").write_bytes(b"")
    (root / "cat" / "3.jpg").write_bytes(b"no image")
    whole = (root / "dog" / "1.png").read_bytes()
    (root / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(root / "dog" / "pixel.png")
    for streamed in (False, True):
        dataset = open_dataset(root, image_size=16, resident_limit=0 if streamed else 10**6)
        assert dataset.ids.tolist() == ["cat/1.png", "cat/2.png", "dog/0.png", "dog/2.png"]
        assert (dataset.images.uniform is None) == streamed
        faults = {fault.id: fault.fault for fault in dataset.faults}
        assert set(faults) == {"cat/0.png", "cat/3.jpg", "dog/1.png", "dog/pixel.png"}
        assert faults["cat/0.png"] == "empty"
        assert faults["cat/3.jpg"] == "unreadable"
        assert faults["dog/pixel.png"] == "tiny"
        for row, id_ in enumerate(dataset.ids.tolist()):
            stored = np.asarray(Image.open(root / id_)).transpose(2, 0, 1)
            np.testing.assert_array_equal(dataset.images.read(row), stored)


def test_class_names_fix_the_classes_and_their_order(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    dataset = open_dataset(root, class_names=["dog", "cow", "cat"], min_per_class=0)
    assert dataset.class_names == ("dog", "cow", "cat")
    np.testing.assert_array_equal(dataset.labels, [2, 2, 0, 0])
    with pytest.raises(DataError, match=r"not in class_names: 'dog'; expected 'cat', 'cow'"):
        open_dataset(root, class_names=["cat", "cow"])


def test_an_empty_class_folder_is_named(class_folders: Folders) -> None:
    root = class_folders(cat=2, dog=2)
    (root / "cow").mkdir()
    with pytest.raises(DataError, match=r"fewer than 2 images: 'cow' has 0; remove .* min_per_class=0"):
        open_dataset(root)


def test_folders_without_classes_are_explained(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    with pytest.raises(DataError, match="no class folders, no images; expected one folder per class"):
        open_dataset(tmp_path)
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"1 images directly in it.*one of its tables \('labels.csv'\)"):
        open_dataset(tmp_path)


def test_columns_conflict_with_a_folder(class_folders: Folders) -> None:
    with pytest.raises(DataError, match=r"label_column='x' conflicts with a folder of class folders"):
        open_dataset(class_folders(cat=2, dog=2), label_column="x")

"""Published noisy sets on disk: Clothing1M, and Food-101N with Food-101, as tiny trees."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data import OPEN, available_splits, open_dataset
from lauter.errors import DataError

COLOURS = np.random.default_rng(7).integers(0, 256, size=(1000, 3), dtype=np.uint8)


def draw(path: Path, number: int, side: int = 8) -> None:
    """A picture of one colour, without loss, whatever its name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), tuple(COLOURS[number].tolist())).save(path, format="PNG")


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# Clothing1M ------------------------------------------------------------------------------------------------

CLOTHES = ("T-Shirt", "Shirt", "Down Coat")
NOISY = {f"images/{n % 3}/{n}.jpg": n % 3 for n in range(9)}
"""Images that are in the noisy list."""
CLEAN = {f"images/7/{n}.jpg": (n + 1) % 3 for n in range(100, 118)}
"""Images labelled by hand: six each for training, validation and test."""
ALSO_NOISY = {"images/7/101.jpg": 0, "images/7/104.jpg": 2, "images/7/103.jpg": 1, "images/7/113.jpg": 1}
"""Noisy labels of some of them; the last is a test image."""


@pytest.fixture
def clothing(tmp_path: Path) -> Path:
    root = tmp_path / "clothing1m"
    for number, key in enumerate((*NOISY, *CLEAN)):
        draw(root / key, number)
    clean = list(CLEAN)
    write(root / "category_names_eng.txt", *CLOTHES)
    write(root / "noisy_train_key_list.txt", *NOISY)
    write(root / "clean_train_key_list.txt", *clean[:6])
    write(root / "clean_val_key_list.txt", *clean[6:12])
    write(root / "clean_test_key_list.txt", *clean[12:])
    write(root / "noisy_label_kv.txt", *(f"{key} {label}" for key, label in (NOISY | ALSO_NOISY).items()))
    write(root / "clean_label_kv.txt", *(f"{key} {label}" for key, label in CLEAN.items()))
    return root


def test_clothing1m_trains_on_noisy_labels_and_tests_on_clean_ones(clothing: Path) -> None:
    assert available_splits(clothing) == ("train", "validation", "test", "clean_train", "twice_labelled")
    train = open_dataset(clothing)
    assert train.class_names == CLOTHES
    assert train.ids.tolist() == list(NOISY)
    np.testing.assert_array_equal(train.labels, list(NOISY.values()))
    assert train.true_labels is None
    assert train.source["split"] == "train"
    for row in range(len(train)):
        np.testing.assert_array_equal(train.images.read(row)[:, 3, 3], COLOURS[row])
    keys = list(CLEAN)
    for split, part in (("clean_train", keys[:6]), ("validation", keys[6:12]), ("test", keys[12:])):
        dataset = open_dataset(clothing, split=split)
        assert dataset.ids.tolist() == part
        np.testing.assert_array_equal(dataset.labels, [CLEAN[key] for key in part])
        assert dataset.true_labels is None


def test_clothing1m_knows_the_truth_where_both_labels_are_there(clothing: Path) -> None:
    dataset = open_dataset(clothing, split="twice_labelled", min_per_class=1)
    keys = ["images/7/101.jpg", "images/7/103.jpg", "images/7/104.jpg"]  # the list's order, no test image
    assert dataset.ids.tolist() == keys
    np.testing.assert_array_equal(dataset.labels, [ALSO_NOISY[key] for key in keys])
    np.testing.assert_array_equal(dataset.true_labels, [CLEAN[key] for key in keys])
    assert not np.array_equal(dataset.labels, dataset.true_labels)


def test_clothing1m_is_known_by_lists_in_annotations_too(clothing: Path) -> None:
    before = open_dataset(clothing, split="test").fingerprint()
    (clothing / "annotations").mkdir()
    for path in clothing.glob("*.txt"):
        path.rename(clothing / "annotations" / path.name)
    assert open_dataset(clothing, split="test").fingerprint() == before


def test_the_source_of_a_published_set_opens_it_again(clothing: Path) -> None:
    first = open_dataset(clothing, split="validation", size=5, min_per_class=1)
    again = open_dataset(**json.loads(json.dumps(first.source)))
    assert again.fingerprint() == first.fingerprint()
    assert again.source == first.source


def test_class_names_arrange_the_classes_of_a_published_set(clothing: Path) -> None:
    names = ["Shirt", "Hat", "Down Coat", "T-Shirt"]
    dataset = open_dataset(clothing, class_names=names, min_per_class=0)
    assert dataset.class_names == tuple(names)
    assert [names[label] for label in dataset.labels] == [CLOTHES[label] for label in NOISY.values()]
    with pytest.raises(DataError, match="1 classes that are not in class_names: 'Down Coat'; expected"):
        open_dataset(clothing, class_names=["T-Shirt", "Shirt"])


def test_a_true_class_that_was_not_asked_for_is_open(clothing: Path) -> None:
    write(clothing / "noisy_label_kv.txt", "images/7/101.jpg 0", "images/7/103.jpg 1", "images/7/104.jpg 0")
    asked = open_dataset(clothing, split="twice_labelled", class_names=CLOTHES[:2], min_per_class=1)
    assert asked.true_labels is not None
    expected = [CLEAN[key] if CLEAN[key] < 2 else OPEN for key in asked.ids.tolist()]
    assert OPEN in expected
    np.testing.assert_array_equal(asked.true_labels, expected)


def test_absent_and_repeated_images_of_clothing1m_are_faults(clothing: Path) -> None:
    (clothing / "images/0/0.jpg").unlink()
    (clothing / "images/1/1.jpg").write_bytes(b"")
    with open(clothing / "noisy_train_key_list.txt", "a") as file:
        file.write("images/2/5.jpg\n")
    for limit in (0, 10**6):
        dataset = open_dataset(clothing, resident_limit=limit)
        assert dataset.ids.tolist() == [
            key for key in NOISY if key not in ("images/0/0.jpg", "images/1/1.jpg")
        ]
        assert {fault.id: fault.fault for fault in dataset.faults} == {
            "images/0/0.jpg": "missing",
            "images/1/1.jpg": "empty",
            "images/2/5.jpg": "repeated",
        }
        assert all(fault.dropped for fault in dataset.faults)
    for key in NOISY:
        (clothing / key).unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"no image can be used \(left out: 1 repeated .*; 9 missing"):
        open_dataset(clothing)


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("noisy_label_kv.txt", ["images/0/0.jpg 3"], r"noisy_label_kv.txt, line 1: .* one of 0..2, not"),
        ("noisy_label_kv.txt", ["images/0/0.jpg 1", "", "images/1/1.jpg"], r"line 3: expected an image and"),
        ("noisy_label_kv.txt", ["images/0/0.jpg -1"], r"line 1: expected an image and one of 0..2"),
        (
            "noisy_label_kv.txt",
            ["images/0/0.jpg 0", "images/0/0.jpg 1"],
            r"line 2: .*value 1 here and 0 before",
        ),
        (
            "noisy_label_kv.txt",
            ["images/0/0.jpg 0"],
            r"train_key_list.txt, line 2: .images/1/1.jpg. has no label in noisy_label_kv.txt.* 8 of 9",
        ),
        ("category_names_eng.txt", ["Shirt", "Coat", "Shirt"], r"line 3: the class 'Shirt' stands in line 1"),
    ],
)
def test_damaged_lists_of_clothing1m_are_named_with_their_line(
    clothing: Path, file: str, lines: list[str], message: str
) -> None:
    write(clothing / file, *lines)
    with pytest.raises(DataError, match=message):
        open_dataset(clothing)


def test_missing_files_of_clothing1m_are_named(clothing: Path) -> None:
    (clothing / "clean_label_kv.txt").unlink()
    with pytest.raises(DataError, match=r"clean_label_kv\.txt is missing"):
        open_dataset(clothing, split="test")
    (clothing / "clean_test_key_list.txt").unlink()
    assert "test" not in available_splits(clothing)
    with pytest.raises(DataError, match=r"clean_test_key_list\.txt is missing"):
        open_dataset(clothing, split="test")
    with pytest.raises(DataError, match="no split 'val'; its splits: train, validation"):
        open_dataset(clothing, split="val")
    (clothing / "noisy_train_key_list.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        open_dataset(clothing)


def test_columns_that_a_published_set_does_not_have_are_refused(clothing: Path) -> None:
    with pytest.raises(DataError, match="label_column='x' conflicts with Clothing1M, which has no columns"):
        open_dataset(clothing, label_column="x")


# Food-101N -------------------------------------------------------------------------------------------------

DISHES = ("apple_pie", "baklava", "ramen")
FOOD = [f"{dish}/{number:02d}.jpg" for number in range(6) for dish in DISHES]
TRAIN_CHECKED = {FOOD[0]: 1, FOOD[4]: 0, FOOD[5]: 1, FOOD[7]: 1}
VAL_CHECKED = {FOOD[1]: 1, FOOD[2]: 0, FOOD[3]: 0, FOOD[8]: 1, FOOD[9]: 1, FOOD[10]: 1}


def write_verified(path: Path, verified: Mapping[str, object]) -> None:
    write(path, "class_name/key\tverification_label", *(f"{key}\t{value}" for key, value in verified.items()))


@pytest.fixture
def food(tmp_path: Path) -> Path:
    root = tmp_path / "Food-101N_release"
    for number, key in enumerate(FOOD):
        draw(root / "images" / key, number)
    write(root / "meta" / "classes.txt", "class_name", *DISHES)
    write(root / "meta" / "imagelist.tsv", "class_name/key", *FOOD)
    write_verified(root / "meta" / "verified_train.tsv", TRAIN_CHECKED)
    write_verified(root / "meta" / "verified_val.tsv", VAL_CHECKED)
    return root


def test_food101n_trains_on_all_but_its_validation_images(food: Path) -> None:
    assert available_splits(food) == ("train", "validation", "verified_train")
    train = open_dataset(food)
    expected = [key for key in FOOD if key not in VAL_CHECKED]
    assert train.class_names == DISHES
    assert train.ids.tolist() == [f"images/{key}" for key in expected]
    assert [DISHES[label] for label in train.labels] == [key.partition("/")[0] for key in expected]
    assert train.true_labels is None
    for row, key in enumerate(expected):
        np.testing.assert_array_equal(train.images.read(row)[:, 0, 0], COLOURS[FOOD.index(key)])


@pytest.mark.parametrize(
    ("split", "verified"), [("validation", VAL_CHECKED), ("verified_train", TRAIN_CHECKED)]
)
def test_food101n_tells_right_from_wrong_where_people_looked(
    food: Path, split: str, verified: dict[str, int]
) -> None:
    plain = open_dataset(food, split=split, min_per_class=1)
    assert plain.ids.tolist() == [f"images/{key}" for key in verified]
    assert plain.true_labels is None
    checked = open_dataset(food, split=split, truth_column="verification_label", min_per_class=1)
    np.testing.assert_array_equal(checked.labels, plain.labels)
    right = np.array(list(verified.values())) == 1
    assert checked.true_labels is not None
    np.testing.assert_array_equal(checked.true_labels[right], plain.labels[right])
    np.testing.assert_array_equal(checked.true_labels[~right], OPEN)


def test_food101n_has_no_truth_where_nobody_looked(food: Path) -> None:
    with pytest.raises(DataError, match="split 'train' has no column 'verification_label'"):
        open_dataset(food, truth_column="verification_label")
    with pytest.raises(DataError, match=r"no column .label..*the only one is 'verification_label'"):
        open_dataset(food, split="validation", truth_column="label")
    with pytest.raises(
        DataError, match="label_column='x' conflicts with Food-101N, which has only truth_column"
    ):
        open_dataset(food, label_column="x")
    with pytest.raises(DataError, match="no split 'test'; its splits: train, validation, verified_train"):
        open_dataset(food, split="test")


def test_a_verified_image_that_is_nowhere_is_a_fault(food: Path) -> None:
    # As in the real set, where one image was verified under another class than it is listed under.
    write_verified(food / "meta" / "verified_train.tsv", {**TRAIN_CHECKED, "ramen/00.jpg": 1})
    (food / "images" / "ramen" / "00.jpg").unlink()
    dataset = open_dataset(food, split="verified_train", min_per_class=1)
    assert len(dataset) == len(TRAIN_CHECKED)
    assert [(fault.id, fault.fault) for fault in dataset.faults] == [("images/ramen/00.jpg", "missing")]


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        (
            "imagelist.tsv",
            ["class_name/key", "ramen/1.jpg", "soup/1.jpg"],
            r"imagelist.tsv, line 3: expected CLASS/",
        ),
        ("imagelist.tsv", ["class_name/key", "ramen"], r"line 2: expected CLASS/IMAGE with one of the 3"),
        (
            "verified_val.tsv",
            ["class_name/key\tverification_label", "ramen/1.jpg\t2"],
            r"line 2: .* one of 0..1",
        ),
        ("verified_val.tsv", ["ramen/1.jpg"], r"verified_val.tsv, line 1: expected an image and one of 0..1"),
        (
            "classes.txt",
            ["class_name", "pie", "pie"],
            r"classes.txt, line 3: the class 'pie' stands in line 2",
        ),
    ],
)
def test_damaged_lists_of_food101n_are_named_with_their_line(
    food: Path, file: str, lines: list[str], message: str
) -> None:
    write(food / "meta" / file, *lines)
    with pytest.raises(DataError, match=message):
        open_dataset(food)


def test_food101_is_the_test_set(food: Path, tmp_path: Path) -> None:
    root = tmp_path / "food-101"
    keys = [f"{dish}/{number}" for dish in DISHES for number in (11, 5)]
    for number, key in enumerate(keys):
        draw(root / "images" / f"{key}.jpg", number)
    write(root / "meta" / "classes.txt", *DISHES)
    write(root / "meta" / "train.txt", *keys[::2])
    write(root / "meta" / "test.txt", *keys)
    assert available_splits(root) == ("train", "test")
    test = open_dataset(root, split="test", class_names=open_dataset(food).class_names)
    assert test.ids.tolist() == [f"images/{key}.jpg" for key in keys]
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 2, 2])
    train = open_dataset(root, min_per_class=1)
    assert train.ids.tolist() == [f"images/{key}.jpg" for key in keys[::2]]
    (root / "meta" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt is missing"):
        open_dataset(root)

"""ANIMAL-10N on disk, as image files and as binary batches: tiny trees in the same layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data import available_splits, open_dataset
from lauter.errors import DataError

COLOURS = np.random.default_rng(7).integers(0, 256, size=(200, 3), dtype=np.uint8)


def draw(path: Path, number: int) -> None:
    """A picture of one colour, without loss, whatever its name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), tuple(COLOURS[number].tolist())).save(path, format="PNG")


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    root = tmp_path / "animal-10n"
    for number in range(20):
        draw(root / "training" / f"{number % 10}_img_{number}.jpg", number)
        draw(root / "testing" / f"{9 - number % 10}_{number}.jpg", 100 + number)
    return root


def test_animal10n_reads_labels_off_the_names(animals: Path) -> None:
    assert available_splits(animals) == ("train", "test")
    train, test = open_dataset(animals), open_dataset(animals, split="test")
    assert train.num_classes == 10
    assert (train.class_names[0], train.class_names[9]) == ("cat", "guinea pig")
    assert train.ids.tolist() == sorted(f"training/{n % 10}_img_{n}.jpg" for n in range(20))
    assert test.ids.tolist() == sorted(f"testing/{9 - n % 10}_{n}.jpg" for n in range(20))
    for dataset, first in ((train, 0), (test, 100)):
        for row, id_ in enumerate(dataset.ids.tolist()):
            name = id_.partition("/")[2]
            assert dataset.labels[row] == int(name[0])
            number = int(name.removesuffix(".jpg").split("_")[-1])
            np.testing.assert_array_equal(dataset.images.read(row)[:, 0, 0], COLOURS[first + number])


def test_files_of_animal10n_that_are_no_images_are_faults(animals: Path) -> None:
    (animals / "training" / "readme.txt").write_text("x")
    (animals / "training" / ".hidden.jpg").write_text("x")
    (animals / "training" / "3_x.jpg").write_text("x")
    (animals / "testing" / "more").mkdir()
    assert {fault.id: fault.fault for fault in open_dataset(animals).faults} == {
        "training/readme.txt": "not-an-image",
        "training/3_x.jpg": "unreadable",
    }
    assert [fault.id for fault in open_dataset(animals, split="test").faults] == ["testing/more"]


@pytest.mark.parametrize("name", ["10_1.jpg", "cat_1.jpg", "1.jpg", "1_\u00e4.jpg"])
def test_names_without_a_label_are_refused(animals: Path, name: str) -> None:
    draw(animals / "training" / name, 0)
    with pytest.raises(DataError, match=r"begins with no label; expected 0_ to 9_"):
        open_dataset(animals)


def test_splits_with_class_folders_are_not_taken_for_animal10n(tmp_path: Path) -> None:
    for split in ("training", "testing"):
        for number, name in enumerate(("a", "a", "b", "b")):
            draw(tmp_path / split / name / f"0_{number}.jpg", number)
    dataset = open_dataset(tmp_path, split="training")
    assert dataset.class_names == ("a", "b")


def write_records(path: Path, labels: list[int], pixels: np.ndarray) -> None:
    """Records as the authors describe them: id and label of four bytes, then red, green and blue planes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b""
    for number, (label, image) in enumerate(zip(labels, pixels, strict=True)):
        content += number.to_bytes(4, "big") + label.to_bytes(4, "big")
        content += b"".join(bytes(image[:, :, channel].ravel().tolist()) for channel in range(3))
    path.write_bytes(content)


@pytest.fixture
def binary(tmp_path: Path) -> tuple[Path, np.ndarray]:
    pixels = np.random.default_rng(3).integers(0, 256, size=(60, 64, 64, 3), dtype=np.uint8)
    root = tmp_path / "binary"
    write_records(root / "data_batch_1.bin", [n % 10 for n in range(15)], pixels[:15])
    write_records(root / "data_batch_2.bin", [n % 10 for n in range(25)], pixels[15:40])
    write_records(root / "test_batch.bin", [9 - n % 10 for n in range(20)], pixels[40:])
    return root, pixels


def test_animal10n_opens_in_its_binary_form(binary: tuple[Path, np.ndarray]) -> None:
    root, pixels = binary
    assert available_splits(root) == ("train", "test")
    train, test = open_dataset(root), open_dataset(root, split="test")
    np.testing.assert_array_equal(train.labels, [*(n % 10 for n in range(15)), *(n % 10 for n in range(25))])
    np.testing.assert_array_equal(test.labels, [9 - n % 10 for n in range(20)])
    assert (train.ids[0], train.ids[15], test.ids[19]) == (
        "data_batch_1/00000",
        "data_batch_2/00000",
        "test_batch/00019",
    )
    assert train.images.uniform is not None
    np.testing.assert_array_equal(train.images.uniform, pixels[:40].transpose(0, 3, 1, 2))
    streamed = open_dataset(root, split="test", resident_limit=0)
    assert streamed.images.uniform is None
    np.testing.assert_array_equal(streamed.images.read(7), pixels[47].transpose(2, 0, 1))


def test_binary_batches_that_are_missing_cut_off_or_of_other_classes_are_refused(
    binary: tuple[Path, np.ndarray],
) -> None:
    root, pixels = binary
    write_records(root / "data_batch_4.bin", [1], pixels[:1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin is missing, but data_batch_4\.bin is here"):
        open_dataset(root)
    (root / "data_batch_4.bin").unlink()
    whole = (root / "data_batch_2.bin").read_bytes()
    (root / "data_batch_2.bin").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"data_batch_2\.bin: {len(whole) - 1:,} bytes are no whole records"):
        open_dataset(root)
    write_records(root / "data_batch_2.bin", [3, 137], pixels[:2])
    with pytest.raises(
        DataError, match=r"1 labels are out of their range 0\.\.9, the first is 137 at place 1"
    ):
        open_dataset(root)


def test_batches_with_other_records_are_not_taken_for_animal10n(tmp_path: Path) -> None:
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(bytes(3073 * 10))
    with pytest.raises(DataError, match="no class folders"):
        open_dataset(tmp_path)
    assert available_splits(tmp_path) == ()

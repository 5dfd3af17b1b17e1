import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data import ImageError, open_dataset
from lauter.errors import DataError

Folders = Callable[..., Path]


def test_small_images_of_one_size_are_resident_and_untouched(class_folders: Folders) -> None:
    dataset = open_dataset(class_folders(side=20, a=2, b=2))
    assert dataset.images.uniform is not None
    assert dataset.images.uniform.shape == (4, 3, 20, 20)
    assert dataset.source["image_size"] == 20


def test_images_of_other_sizes_stream_whole_with_224_for_their_views(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    Image.new("RGB", (40, 30), "red").save(root / "a" / "large.png")
    dataset = open_dataset(root)
    assert dataset.images.uniform is None
    assert dataset.images.read(2).shape == (3, 30, 40)
    assert dataset.source["image_size"] == 224
    part = dataset.subset([2, 0])
    assert part.images.read(0).shape == (3, 30, 40)


def test_an_image_size_makes_images_resident_at_that_size(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    Image.new("RGB", (40, 30), "red").save(root / "a" / "large.png")
    dataset = open_dataset(root, image_size=16)
    assert dataset.images.uniform is not None
    assert dataset.images.uniform.shape == (5, 3, 16, 16)
    np.testing.assert_array_equal(
        dataset.images.read(0), np.asarray(Image.open(root / "a/0.png")).transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(dataset.images.read(2)[:, 8, 8], [255, 0, 0])


def test_images_above_the_limit_stream(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    needed = 4 * 3 * 16 * 16
    assert open_dataset(root, resident_limit=needed).images.uniform is not None
    streamed = open_dataset(root, resident_limit=needed - 1)
    assert streamed.images.uniform is None
    assert streamed.source["image_size"] == 16
    assert open_dataset(root, image_size=32, resident_limit=needed).images.uniform is None


@pytest.mark.parametrize(
    "options", [{}, {"resident_limit": 0}, {"image_size": 8, "size": 6}, {"split": None}]
)
@pytest.mark.parametrize("mixed", [False, True])
def test_the_source_opens_the_same_again(
    class_folders: Folders, options: dict[str, int], mixed: bool
) -> None:
    root = class_folders(a=5, b=4)
    if mixed:
        Image.new("RGB", (40, 30)).save(root / "a" / "large.png")
    first = open_dataset(root, **options)  # type: ignore[arg-type]
    again = open_dataset(**json.loads(json.dumps(first.source)))
    assert again.fingerprint() == first.fingerprint()
    assert (again.images.uniform is None) == (first.images.uniform is None)
    assert again.source == first.source
    assert (first.source["resident_limit"] == 0) == (first.images.uniform is None)


def test_a_relative_path_is_recorded_absolute(
    class_folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(a=2, b=2)
    monkeypatch.chdir(root.parent)
    assert open_dataset("set").source["spec"] == str(root)


def test_conversions_are_noted_and_the_images_kept(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(root / "a" / "clear.png")
    Image.new("CMYK", (16, 16)).save(root / "b" / "print.tiff")
    dataset = open_dataset(root)
    assert len(dataset) == 6
    assert {(fault.id, fault.fault, fault.dropped) for fault in dataset.faults} == {
        ("a/clear.png", "transparent", False),
        ("b/print.tiff", "cmyk", False),
    }


def test_an_enormous_image_is_left_out(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    Image.new("RGB", (100, 100)).save(root / "a" / "large.png")
    dataset = open_dataset(root, max_pixels=5000)
    assert len(dataset) == 4
    assert [(fault.id, fault.fault) for fault in dataset.faults] == [("a/large.png", "enormous")]


def test_many_images_keep_their_order_when_some_are_dropped(class_folders: Folders) -> None:
    root = class_folders(a=150, b=150)
    for number in (0, 70, 149):
        (root / "a" / f"{number}.png").write_bytes(b"")
    dataset = open_dataset(root, image_size=16)
    assert len(dataset) == 297
    for row in (0, 64, 100, 146, 147, 296):
        stored = np.asarray(Image.open(root / dataset.ids[row])).transpose(2, 0, 1)
        np.testing.assert_array_equal(dataset.images.read(row), stored)


def test_a_streamed_image_that_breaks_later_is_named(class_folders: Folders) -> None:
    root = class_folders(a=2, b=2)
    dataset = open_dataset(root, resident_limit=0)
    (root / "a" / "1.png").write_bytes(b"x")
    for images in (dataset.images, pickle.loads(pickle.dumps(dataset.images))):
        assert images.read(0).shape == (3, 16, 16)
        with pytest.raises(ImageError, match=r"image is unreadable: a/1\.png: "):
            images.read(1)


def test_a_subset_is_stratified_seeded_and_exact(class_folders: Folders) -> None:
    root = class_folders(a=60, b=30, c=10)
    part = open_dataset(root, size=50)
    np.testing.assert_array_equal(np.bincount(part.labels), [30, 15, 5])
    np.testing.assert_array_equal(part.ids, open_dataset(root, size=50).ids)
    assert set(part.ids.tolist()) != set(open_dataset(root, size=50, seed=1).ids.tolist())
    np.testing.assert_array_equal(np.bincount(open_dataset(root, size=10).labels), [5, 3, 2])
    for size in (0, 101):
        with pytest.raises(DataError, match="size must be"):
            open_dataset(root, size=size)


def test_one_class_and_lonely_images_are_refused(class_folders: Folders) -> None:
    with pytest.raises(DataError, match=r"1 class \('a'\); expected two or more"):
        open_dataset(class_folders("one", a=3))
    root = class_folders("two", a=3, b=1)
    with pytest.raises(DataError, match=r"'b' has 1; remove or merge them, or pass min_per_class=1"):
        open_dataset(root)
    assert len(open_dataset(root, min_per_class=1)) == 4


def test_a_class_that_lost_its_images_is_explained(class_folders: Folders) -> None:
    root = class_folders(a=3, b=2)
    (root / "b" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"'b' has 1 \(left out: 1 empty \(b/0\.png: no bytes\)\)"):
        open_dataset(root)
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image can be used \(left out: 5 unreadable"):
        open_dataset(root)


def test_paths_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for spec in (tmp_path / "none", str(tmp_path / "none"), "mnist", "./no/such"):
        with pytest.raises(DataError, match="no such folder or file"):
            open_dataset(spec)
    (tmp_path / "set.zip").touch()
    with pytest.raises(DataError, match=r"expected a folder, or a table ending in \.csv"):
        open_dataset(tmp_path / "set.zip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 2}, "image_size must be at least 4, not 2"),
        ({"min_per_class": -1}, "min_per_class must be at least 0"),
        ({"resident_limit": -1}, "resident_limit must be at least 0"),
        ({"max_pixels": 0}, "max_pixels must be at least 1"),
        ({"class_names": "ab"}, "class_names must be a sequence of names, not the one string 'ab'"),
        ({"class_names": []}, "class_names must name 2 classes or more"),
        ({"class_names": ["a", "b", "a"]}, "class_names must differ from each other"),
    ],
)
def test_arguments_out_of_range_are_refused(
    class_folders: Folders, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(class_folders(a=2, b=2), **options)  # type: ignore[arg-type]


def test_cifar10_opens_with_human_labels_and_truth(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("cifar10")
    dataset = open_dataset(folder, label_column="label_worst", truth_column="label")
    assert len(dataset) == 30_000
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert dataset.images.uniform is not None
    assert dataset.true_labels is not None
    assert dataset.faults == ()
    for channel, (mean, std) in enumerate(((0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616))):
        # the usual statistics of all 50,000 images, of which these are the first 30,000
        counts = np.bincount(dataset.images.uniform[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        realised = np.average(values, weights=counts)
        assert realised == pytest.approx(mean, abs=2e-3)
        assert np.average((values - realised) ** 2, weights=counts) ** 0.5 == pytest.approx(std, abs=2e-3)
    assert float((dataset.labels != dataset.true_labels).mean()) == pytest.approx(0.4021, abs=0.01)

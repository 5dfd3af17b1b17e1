"""CIFAR's batches and CIFAR-N's labels: tiny folders in the same layout, and files that mean harm."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data import Dataset, ResidentImages, available_splits, open_dataset
from lauter.data.sources.cifar_n import join_cifar_n, read_cifar_n
from lauter.errors import DataError
from lauter.preparation import open_test

NAMES = ["airplane", "automobile", "bird"]
FINE, COARSE = ["apple", "bear", "clock", "dolphin"], ["plants", "animals"]
TRAIN, TEST = 30, 9


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, 3072), dtype=np.uint8)


def save(path: Path, content: object, protocol: int = 2) -> None:
    """A pickle as numpy before version 2 wrote it: its module had another name."""
    raw = pickle.dumps(content, protocol=protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    root = tmp_path / "cifar-10-batches-py"
    data = rows(0, TRAIN)
    for number in range(5):
        part = range(6 * number, 6 * number + 6)
        batch = {"data": data[part], "labels": [n % 3 for n in part], "filenames": ["x.png"] * 6}
        save(root / f"data_batch_{number + 1}", batch)
    save(root / "test_batch", {"data": rows(1, TEST), "labels": [2 - n % 3 for n in range(TEST)]})
    save(root / "batches.meta", {"label_names": NAMES, "num_vis": 3072})
    return root


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    root = tmp_path / "cifar-100-python"
    fine = [n % 4 for n in range(TRAIN)]
    train = {"data": rows(2, TRAIN), "fine_labels": fine, "coarse_labels": [n % 2 for n in fine]}
    save(root / "train", train)
    save(
        root / "test",
        {"data": rows(3, 8), "fine_labels": fine[:8], "coarse_labels": [n % 2 for n in fine[:8]]},
    )
    save(root / "meta", {"fine_label_names": FINE, "coarse_label_names": COARSE})
    return root


def human10() -> dict[str, Any]:
    clean = np.array([n % 3 for n in range(TRAIN)])
    worse = (clean + np.array([n % 2 for n in range(TRAIN)])) % 3
    return {"clean_label": clean, "worse_label": worse, "aggre_label": clean.copy()}


def human100() -> dict[str, Any]:
    clean = np.array([n % 4 for n in range(TRAIN)])
    return {
        "clean_label": clean,
        "noisy_label": np.roll(clean, 3),
        "clean_coarse_label": clean % 2,
        "noisy_coarse_label": 1 - clean % 2,
    }


def save_torch(path: Path, content: object) -> None:
    torch.save(content, path)


def save_old_torch(path: Path, content: object) -> None:
    """As torch before 1.6 and numpy before 2 wrote it."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def save_npy(path: Path, content: object) -> None:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


WRITERS: dict[str, tuple[str, Callable[[Path, object], None]]] = {
    "torch": (".pt", save_torch),
    "old torch": (".pt", save_old_torch),
    "numpy": (".npy", save_npy),
}


# CIFAR -----------------------------------------------------------------------------------------------------


def test_cifar10_opens_in_its_original_order(cifar10: Path) -> None:
    assert available_splits(cifar10) == ("train", "test")
    train, test = open_dataset(cifar10), open_dataset(cifar10, split="test")
    for dataset, seed, count in ((train, 0, TRAIN), (test, 1, TEST)):
        assert dataset.class_names == tuple(NAMES)
        assert dataset.images.uniform is not None
        np.testing.assert_array_equal(dataset.images.uniform, rows(seed, count).reshape(-1, 3, 32, 32))
        assert dataset.true_labels is None
    np.testing.assert_array_equal(train.labels, [n % 3 for n in range(TRAIN)])
    np.testing.assert_array_equal(test.labels, [2 - n % 3 for n in range(TEST)])
    assert (train.ids[0], train.ids[29], test.ids[8]) == ("train/00000", "train/00029", "test/00008")
    assert train.source["split"] == "train"
    assert open_dataset(**train.source).fingerprint() == train.fingerprint()


def test_red_green_and_blue_of_cifar_stay_where_they_are(cifar10: Path) -> None:
    # The first 1024 values of a row are the red plane, row by row.
    data = np.zeros((6, 3072), dtype=np.uint8)
    data[0, 32 * 5 + 7], data[0, 1024 + 32 * 2 + 1], data[0, 2048] = 200, 100, 50
    save(cifar10 / "data_batch_1", {"data": data, "labels": [n % 3 for n in range(6)]})
    image = open_dataset(cifar10).images.read(0)
    assert (image[0, 5, 7], image[1, 2, 1], image[2, 0, 0]) == (200, 100, 50)
    assert int(image.sum()) == 350


def test_cifar_is_resized_streamed_and_drawn_from_like_any_other_set(cifar10: Path) -> None:
    part = open_dataset(cifar10, size=12, image_size=16)
    assert part.images.uniform is not None
    assert part.images.uniform.shape == (12, 3, 16, 16)
    np.testing.assert_array_equal(np.bincount(part.labels), [4, 4, 4])
    streamed = open_dataset(cifar10, resident_limit=0)
    assert streamed.images.uniform is None
    np.testing.assert_array_equal(streamed.images.read(17).reshape(-1), rows(0, TRAIN)[17])


def test_cifar100_has_fine_and_coarse_labels(cifar100: Path) -> None:
    fine = open_dataset(cifar100)
    assert fine.class_names == tuple(FINE)
    np.testing.assert_array_equal(fine.labels, [n % 4 for n in range(TRAIN)])
    coarse = open_dataset(cifar100, split="test", label_column="coarse_label")
    assert coarse.class_names == tuple(COARSE)
    np.testing.assert_array_equal(coarse.labels, [n % 2 for n in range(8)])
    with pytest.raises(
        DataError, match="label_column='fine_label' and truth_column='coarse_label' have diff"
    ):
        open_dataset(cifar100, truth_column="coarse_label")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "is no batch of CIFAR-10: expected a dict with data, labels"),
        ({"data": rows(0, 2)}, "is no batch of CIFAR-10"),
        ({"data": rows(0, 2).astype(np.int64), "labels": [0, 1]}, r"data is no uint8 array \[N, 3072\]"),
        ({"data": rows(0, 2)[:, :-1], "labels": [0, 1]}, "data is no uint8 array"),
        ({"data": rows(0, 2), "labels": [0]}, "labels has 1 entries for 2 images"),
        (
            {"data": rows(0, 2), "labels": [0, 3]},
            r"1 labels are out of their range 0\.\.2, the first is 3 at",
        ),
        ({"data": rows(0, 2), "labels": [[0], [1, 2]]}, "labels: expected whole numbers"),
        ({"data": rows(0, 2), "labels": [0.5, 1.0]}, r"expected whole numbers \[N\], not float64"),
    ],
)
def test_damaged_batches_are_named(cifar10: Path, batch: object, message: str) -> None:
    save(cifar10 / "data_batch_3", batch)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(cifar10)
    assert "data_batch_3" in str(caught.value)


def test_missing_files_of_cifar_are_named(cifar10: Path) -> None:
    save(cifar10 / "batches.meta", {"label_names": "abc"})
    with pytest.raises(DataError, match=r"batches\.meta: expected class names under 'label_names'"):
        open_dataset(cifar10)
    save(cifar10 / "batches.meta", {"label_names": NAMES})
    (cifar10 / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4 is missing"):
        open_dataset(cifar10)
    with pytest.raises(DataError, match="no split 'val'; its splits: train, test"):
        open_dataset(cifar10, split="val")
    with pytest.raises(
        DataError, match="image_column='x' conflicts with CIFAR, which has only label_column and"
    ):
        open_dataset(cifar10, image_column="x")


# CIFAR-N ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("inside", [True, False])
def test_cifar_n_labels_are_columns_of_cifars_folder(cifar10: Path, writer: str, inside: bool) -> None:
    suffix, write = WRITERS[writer]
    write((cifar10 if inside else cifar10.parent) / f"CIFAR-10_human{suffix}", human10())
    dataset = open_dataset(cifar10, label_column="worse_label", truth_column="clean_label")
    np.testing.assert_array_equal(dataset.labels, human10()["worse_label"])
    np.testing.assert_array_equal(dataset.true_labels, human10()["clean_label"])
    assert dataset.class_names == tuple(NAMES)
    own = open_dataset(cifar10, label_column="aggre_label", truth_column="label")
    np.testing.assert_array_equal(own.labels, own.true_labels)
    assert open_dataset(cifar10).true_labels is None


def test_cifar100n_has_fine_and_coarse_labels_too(cifar100: Path) -> None:
    human = human100()
    save_torch(cifar100 / "CIFAR-100_human.pt", human)
    fine = open_dataset(cifar100, label_column="noisy_label", truth_column="fine_label")
    np.testing.assert_array_equal(fine.labels, human["noisy_label"])
    np.testing.assert_array_equal(fine.true_labels, human["clean_label"])
    coarse = open_dataset(cifar100, label_column="noisy_coarse_label", truth_column="clean_coarse_label")
    assert coarse.class_names == tuple(COARSE)
    np.testing.assert_array_equal(coarse.labels, human["noisy_coarse_label"])
    # Another numbering of the coarse classes spoils the coarse columns, and no others.
    save_torch(cifar100 / "CIFAR-100_human.pt", {**human, "clean_coarse_label": human["noisy_coarse_label"]})
    assert len(open_dataset(cifar100, label_column="noisy_label")) == TRAIN
    with pytest.raises(DataError, match="'clean_coarse_label' differs from the images' labels in 30 of 30"):
        open_dataset(cifar100, label_column="noisy_coarse_label")


def test_the_test_images_of_cifar_are_scored_by_their_own_labels(cifar10: Path) -> None:
    save_torch(cifar10 / "CIFAR-10_human.pt", human10())
    asked = {"label_column": "worse_label", "truth_column": "clean_label"}
    with pytest.raises(DataError, match=r"split 'test': no column 'worse_label' \(label_column\).* label"):
        open_dataset(cifar10, split="test", **asked)  # type: ignore[arg-type]
    data = open_dataset(cifar10, **asked)  # type: ignore[arg-type]
    test = open_test(cifar10, data, **asked)
    np.testing.assert_array_equal(test.labels, [2 - n % 3 for n in range(TEST)])
    assert test.true_labels is None


def test_human_labels_in_another_order_are_refused_with_a_count(cifar10: Path) -> None:
    human = {name: labels[::-1].copy() for name, labels in human10().items()}
    differing = int((human["clean_label"] != human10()["clean_label"]).sum())
    assert differing > 0
    save_torch(cifar10 / "CIFAR-10_human.pt", human)
    with pytest.raises(
        DataError, match=f"'clean_label' differs .* in {differing} of 30 images; .* original order"
    ):
        open_dataset(cifar10, label_column="worse_label")
    assert len(open_dataset(cifar10)) == TRAIN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clean_label": np.zeros(20, int), "worse_label": np.zeros(20, int)},
            "columns of different lengths",
        ),
        ({"worse_label": np.full(TRAIN, 3)}, r"worse_label: 30 labels are out of their range 0\.\.2"),
        (
            {"worse_label": np.full(TRAIN, -1)},
            r"worse_label: 30 labels are out of their range 0, the first is -1",
        ),
        ({"worse_label": np.zeros(TRAIN)}, r"worse_label: expected whole numbers \[N\], not float64"),
        ({"worse_label": np.zeros((TRAIN, 2), int)}, r"not int64 of the shape \[30, 2\]"),
    ],
)
def test_human_labels_that_cannot_be_right_are_refused(
    cifar10: Path, changes: dict[str, Any], message: str
) -> None:
    save_torch(cifar10 / "CIFAR-10_human.pt", {**human10(), **changes})
    with pytest.raises(DataError, match=message):
        open_dataset(cifar10, label_column="worse_label")


def test_what_is_no_file_of_cifar_n_is_refused(cifar10: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"its columns are 'label'; for labels of CIFAR-N put CIFAR-10_human\.pt"
    ):
        open_dataset(cifar10, label_column="worse_label")
    path = cifar10 / "CIFAR-10_human.pt"
    for content in ([1, 2], {"labels": np.zeros(TRAIN, int)}):
        save_torch(path, content)
        with pytest.raises(DataError, match="is no file of CIFAR-N: expected a dict of labels"):
            open_dataset(cifar10, label_column="worse_label")
    save_torch(path, {name: labels[:20] for name, labels in human10().items()})
    with pytest.raises(DataError, match="has labels for 20 images, and there are 30; open all of CIFAR's"):
        open_dataset(cifar10, label_column="worse_label")
    save_torch(path, human10())
    with pytest.raises(
        DataError, match=r"no column 'worst' \(label_column\); its columns: label, clean_label"
    ):
        open_dataset(cifar10, label_column="worst")
    with pytest.raises(
        DataError, match=r"CIFAR-10_human\.pt: expected a folder.* open the folder of CIFAR's"
    ):
        open_dataset(path)
    with pytest.raises(DataError, match=r"expected a file of CIFAR-N, ending in \.pt or \.npy"):
        read_cifar_n(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"none\.pt is missing"):
        read_cifar_n(tmp_path / "none.pt")


def test_lists_tensors_and_columns_of_one_are_labels_too(tmp_path: Path) -> None:
    human = human10()
    path = tmp_path / "CIFAR-10_human.pt"
    torch.save(
        {
            "clean_label": human["clean_label"].tolist(),
            "worse_label": torch.from_numpy(human["worse_label"]),
            "aggre_label": human["aggre_label"].astype(np.int32).reshape(-1, 1),
            "note": "of no matter",
        },
        path,
    )
    columns = read_cifar_n(path)
    assert list(columns) == ["clean_label", "worse_label", "aggre_label"]
    for name, labels in columns.items():
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, human[name])


def make_dataset(labels: np.ndarray, true_labels: np.ndarray | None = None) -> Dataset:
    images = ResidentImages(rows(0, TRAIN).reshape(-1, 3, 32, 32))
    ids = np.array([f"row/{n}" for n in range(TRAIN)])
    return Dataset("parquet", images, labels, tuple(NAMES), ids, true_labels, source={"image_size": 32})


def test_cifar_n_joins_a_set_that_was_opened_from_elsewhere(tmp_path: Path) -> None:
    human = human10()
    path = tmp_path / "CIFAR-10_human.npy"
    save_npy(path, human)
    clean = make_dataset(human["clean_label"])
    for dataset in (clean, make_dataset(human["aggre_label"], human["clean_label"])):
        joined = join_cifar_n(dataset, path, "worse_label")
        np.testing.assert_array_equal(joined.labels, human["worse_label"])
        np.testing.assert_array_equal(joined.true_labels, human["clean_label"])
        assert joined.ids.tolist() == dataset.ids.tolist()
        assert joined.source["human_labels"]["column"] == "worse_label"
        assert joined.source["image_size"] == 32
    assert clean.true_labels is None
    with pytest.raises(
        DataError, match="no column 'worst'; its columns: clean_label, worse_label, aggre_label"
    ):
        join_cifar_n(clean, path, "worst")
    with pytest.raises(DataError, match="1 images have no right label to compare with"):
        join_cifar_n(
            clean.with_labels(np.where(np.arange(TRAIN) == 3, -1, clean.labels)), path, "worse_label"
        )
    with pytest.raises(DataError, match="differs from the images' labels in 1 of 30"):
        join_cifar_n(clean.with_labels(np.where(np.arange(TRAIN) == 3, 1, clean.labels)), path, "worse_label")
    with pytest.raises(DataError, match="has labels for 30 images, and there are 29"):
        join_cifar_n(clean.subset(np.arange(29)), path, "worse_label")

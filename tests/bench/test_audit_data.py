"""The sets of the audit's measurement: what is in them, and that their truth is the truth."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.bench import audit_data
from lauter.bench.audit_data import DATA, DIGITS, Folders, open_photos
from lauter.bench.noisy_data import NoisyData
from lauter.data import Dataset
from lauter.data.sources.digits import open_digits
from lauter.errors import ConfigError, DataError

NAMES = ("person", "dog", "tree")


def encode_picture(rng: np.random.Generator, height: int, width: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_photos(folder: Path, objects: dict[str, list[list[tuple[int, float, float]]]]) -> Path:
    """Photos of splits: for each a list of objects (category, width, height); 30 x 40 pixels of noise."""
    rng = np.random.default_rng(0)
    names = {"names": list(NAMES), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "labels": {"feature": names, "_type": "List"}}
    folder.mkdir()
    for split, photos in objects.items():
        table = pa.table(
            {
                "id": [f"{split}/{row}" for row in range(len(photos))],
                "image": [encode_picture(rng, 30, 40) for _ in photos],
                "labels": [sorted({category for category, _, _ in found}) for found in photos],
                "objects": [
                    {
                        "bbox": [[1.0, 2.0, width, height] for _, width, height in found],
                        "category": [category for category, _, _ in found],
                    }
                    for found in photos
                ],
            }
        )
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    person, dog, tree = (0, 9.0, 9.0), (1, 20.0, 10.0), (2, 3.0, 100.0)
    train = [[person]] * 6 + [[person, dog]] * 8 + [[tree, dog]] * 2 + [[]]
    folder = tmp_path_factory.mktemp("audit") / "photos"
    return write_photos(folder, {"train": train, "validation": [[person]] * 4 + [[dog, person]]})


def test_a_photo_is_of_its_largest_object_where_enough_share_it(photos: Path) -> None:
    data = open_photos(Folders(photos=photos), 3)
    assert data.class_names == ("person", "dog")
    ids = [*(f"train/{row}" for row in range(14)), *(f"validation/{row}" for row in range(5))]
    assert data.ids.tolist() == ids
    truth = np.array([0] * 6 + [1] * 8 + [0] * 4 + [1])
    np.testing.assert_array_equal(data.true_labels, truth)
    assert int((data.labels != truth).sum()) == round(0.2 * 19)
    assert data.images.uniform is not None
    assert data.images.uniform.shape == (19, 3, 64, 64)
    again = open_photos(Folders(photos=photos), 3)
    np.testing.assert_array_equal(again.labels, data.labels)
    drawn = [open_photos(Folders(photos=photos), seed).labels.tolist() for seed in range(4)]
    assert len({tuple(labels) for labels in drawn}) > 1


def test_pictures_are_looked_at_as_they_lie_on_the_disk(photos: Path) -> None:
    opened = audit_data.open_photo_splits(Folders(photos=photos))
    assert {split: len(data) for split, data in opened.items()} == {"train": 17, "validation": 5}
    for data in opened.values():
        assert data.images.read(0).shape == (3, 30, 40)
        assert not data.labelled.any()


def test_photos_without_two_shared_classes_are_refused(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "few", {"train": [[(0, 9.0, 9.0)]] * 8 + [[(1, 9.0, 9.0)]] * 3})
    with pytest.raises(DataError, match="1 classes have 7 photos or more; 2 are needed"):
        open_photos(Folders(photos=folder), 0)
    with pytest.raises(DataError, match="a folder of Parquet shards"):
        open_photos(Folders(photos=tmp_path), 0)


def test_photos_without_boxes_are_refused(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "bare", {"train": [[(0, 9.0, 9.0)]] * 8})
    shard = folder / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(shard).drop_columns("objects"), shard)
    with pytest.raises(DataError, match="no column objects; expected id and objects"):
        open_photos(Folders(photos=folder), 0)


@pytest.mark.parametrize("name", DIGITS)
def test_digits_are_corrupted_as_their_name_says(name: str) -> None:
    data = DATA[name].open(Folders(), 1)
    truth = np.asarray(data.true_labels)
    wrong = truth != data.labels
    share = 0.0 if name == "digits-clean" else int(name[-2:]) / 100
    assert int(wrong.sum()) == round(share * len(data))
    assert data.labelled.all()
    assert DATA[name].features == "pixels"
    assert data.images.uniform is not None
    assert data.images.uniform.shape[1:] == (3, 8, 8)
    if "pairs" in name:
        np.testing.assert_array_equal(data.labels[wrong], (truth[wrong] + 1) % 10)
    if name == "digits-open-20":
        assert data.class_names == tuple("01234567")
        assert (truth[wrong] == -1).all()
    else:
        assert (len(data), data.num_classes) == (1797, 10)
        assert (truth >= 0).all()


def test_open_digits_are_eights_and_nines() -> None:
    data = DATA["digits-open-20"].open(Folders(), 0)
    assert data.images.uniform is not None
    everything = [open_digits(split, image_size=8) for split in ("train", "test")]
    others = np.concatenate([part.images.uniform[part.labels >= 8] for part in everything])  # type: ignore[index]
    known = {picture.tobytes() for picture in others}
    assert np.asarray(data.true_labels == -1).tolist() == [
        picture.tobytes() in known for picture in data.images.uniform
    ]


def test_people_and_recipes_open_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    digits = open_digits("train", image_size=8)
    labels = np.where(np.arange(len(digits)) < 9, 0, digits.labels)

    def remember(folder: Path, **options: Any) -> Dataset:
        asked.append({"folder": folder, **options})
        if "size" in options:
            return digits.subset(np.arange(0, len(digits), 2))
        return digits.with_truth(digits.labels).with_labels(labels)

    monkeypatch.setattr(audit_data, "open_dataset", remember)
    folders = Folders(tmp_path / "ten", tmp_path / "hundred")
    for name, folder, column in (
        ("cifar10n-aggre", "ten", "label_aggre"),
        ("cifar10n-worst", "ten", "label_worst"),
        ("cifar100n", "hundred", "label_noisy"),
        ("cifar10-clean", "ten", "label_worst"),
    ):
        opened = DATA[name].open(folders, 4)
        common = {"folder": tmp_path / folder, "split": "train"}
        # Images are drawn by their true labels, so that every column has the same ones.
        assert asked == [
            {**common, "label_column": "label", "size": 10_000, "seed": 4},
            {**common, "label_column": column, "truth_column": "label"},
        ]
        asked.clear()
        given = digits.labels if name == "cifar10-clean" else labels
        np.testing.assert_array_equal(opened.ids, digits.ids[::2])
        np.testing.assert_array_equal(opened.labels, given[::2])
        np.testing.assert_array_equal(np.asarray(opened.true_labels), digits.labels[::2])

    def open_noisy(one: Path, two: Path, seed: int) -> NoisyData:
        assert (one, two, seed) == (tmp_path / "ten", tmp_path / "hundred", 4)
        return NoisyData(digits, digits.subset(np.arange(3)))

    assert audit_data.open_recipe(open_noisy)(folders, 4) is digits


def test_missing_folders_are_named() -> None:
    with pytest.raises(ConfigError, match="needs --cifar100, a folder"):
        DATA["ncifar10"].open(Folders(cifar10=Path("ten")), 0)
    with pytest.raises(ConfigError, match="needs --photos"):
        open_photos(Folders(), 0)
    for data in DATA.values():
        assert set(data.needs) <= {"cifar10", "cifar100", "photos"}

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from lauter.data import available_splits, open_dataset
from lauter.errors import DataError

Picture = Callable[..., Image.Image]


def make_rows(picture: Picture, count: int = 6) -> Any:
    features = datasets.Features(
        {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["b", "a", "c"])}
    )
    rows = {"img": [picture(number) for number in range(count)], "fine_label": [0, 1, 2] * (count // 3)}
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_saved_data_set_opens_with_its_class_names(tmp_path: Path, picture: Picture) -> None:
    make_rows(picture).save_to_disk(tmp_path / "saved")
    dataset = open_dataset(tmp_path / "saved")
    assert available_splits(tmp_path / "saved") == ()
    assert dataset.class_names == ("b", "a", "c")
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 0, 1, 2])
    for row in range(6):
        np.testing.assert_array_equal(dataset.images.read(row), np.asarray(picture(row)).transpose(2, 0, 1))
    with pytest.raises(DataError, match="split='test' was asked for"):
        open_dataset(tmp_path / "saved", split="test")


def test_saved_splits_open_by_name_and_selections_are_followed(tmp_path: Path, picture: Picture) -> None:
    rows = make_rows(picture)
    saved = datasets.DatasetDict({"test": rows.select([5, 2, 1, 4, 0, 3]), "train": rows})
    saved.save_to_disk(tmp_path / "saved")
    assert available_splits(tmp_path / "saved") == ("train", "test")
    assert open_dataset(tmp_path / "saved").source["split"] == "train"
    test = open_dataset(tmp_path / "saved", split="test")
    np.testing.assert_array_equal(test.labels, [2, 2, 1, 1, 0, 0])
    np.testing.assert_array_equal(test.images.read(0), np.asarray(picture(5)).transpose(2, 0, 1))


def test_a_broken_saved_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="looks saved by datasets, but cannot be loaded"):
        open_dataset(tmp_path)


def test_a_hub_name_is_fetched(monkeypatch: pytest.MonkeyPatch, picture: Picture) -> None:
    asked = []

    def fetch(name: str, split: str) -> Any:
        asked.append((name, split))
        return make_rows(picture)

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: ["test", "train"])
    monkeypatch.setattr(datasets, "load_dataset", fetch)
    dataset = open_dataset("owner/some-set")
    assert dataset.name == "some-set"
    assert len(dataset) == len(open_dataset("hf:owner/some-set", split="test"))
    assert asked == [("owner/some-set", "train"), ("owner/some-set", "test")]
    assert available_splits("hf:owner/some-set") == ("train", "test")


def test_a_name_the_hub_does_not_give_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ConnectionError("no route\nto anywhere")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    with pytest.raises(
        DataError, match=r"'no/such' is neither a folder or file here nor a data set .*: no route;"
    ):
        open_dataset("no/such")


def test_parquet_written_by_datasets_opens_without_it(tmp_path: Path, picture: Picture) -> None:
    make_rows(picture).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    dataset = open_dataset(tmp_path)
    assert dataset.class_names == ("b", "a", "c")
    np.testing.assert_array_equal(dataset.images.read(4), np.asarray(picture(4)).transpose(2, 0, 1))

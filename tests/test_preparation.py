"""Before the first step: test sets, label tables, names; what is wrong is said before anything is written."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lauter
from lauter import preparation
from lauter.config import FitConfig
from lauter.data.dataset import UNLABELLED, Dataset
from lauter.errors import ConfigError, DataError, LauterError, ModelError
from lauter.models import create_network
from lauter.preparation import (
    RunOptions,
    begin,
    check_start,
    hash_array,
    hash_weights,
    open_both,
    open_test,
    resolve_networks,
    take_scorable,
)

CONFIG = FitConfig()


@pytest.fixture
def data(photos: Path) -> Dataset:
    return lauter.open_dataset(photos)


@pytest.fixture
def write_table(photos: Path) -> Callable[..., Path]:
    """Write a CSV of every third photo: ``write_table(path, label="label", truth=None)``."""

    def write(path: Path, **columns: str | None) -> Path:
        rows = [
            {"path": str(image), **{name: image.parent.name for name in columns.values() if name}}
            for image in sorted(photos.rglob("*.png"))[::3]
        ]
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write


def test_a_split_named_test_is_the_test_set(tmp_path: Path) -> None:
    data, test = open_both("digits", None, CONFIG)
    assert test is not None
    assert (data.source["split"], test.source["split"]) == ("train", "test")
    assert not set(data.ids) & set(test.ids)
    data, test = open_both("digits", data.subset(np.arange(20)), CONFIG)
    assert test is not None
    assert len(test) == 20


def test_an_opened_data_set_has_no_hidden_test_set(data: Dataset) -> None:
    same, test = open_both(data, None, CONFIG)
    assert same is data
    assert test is None


def test_a_test_set_has_the_datas_classes_and_size(photos: Path, write_photos: Any, tmp_path: Path) -> None:
    root = write_photos(tmp_path / "checked", count=3, side=20)
    for image in (root / "cat").iterdir():
        image.unlink()
    (root / "cat").rmdir()
    data, test = open_both(photos, root, CONFIG)
    assert test is not None
    assert test.class_names == data.class_names == ("cat", "dog", "train")
    assert sorted(set(test.labels)) == [1, 2]  # a class may be absent
    assert test.images.read(0).shape == (3, 16, 16)
    (root / "cow").mkdir()
    (root / "dog" / "00.png").rename(root / "cow" / "00.png")
    with pytest.raises(DataError, match="cow"):
        open_both(photos, root, CONFIG)


def test_a_data_set_of_other_classes_is_no_test_set(data: Dataset) -> None:
    other = dataclasses.replace(data, class_names=("cat", "cow", "train"))
    with pytest.raises(DataError, match=r"test set has the classes cat, cow, train\.\.\., the data cat, dog"):
        open_both(data, other, CONFIG)


@pytest.mark.parametrize(
    ("columns", "label", "truth", "scored_by"),
    [
        ({"a": "noisy", "b": "clean"}, "noisy", "clean", "clean"),  # both columns, as the data
        ({"b": "clean"}, "noisy", "clean", "clean"),  # the truth alone
        ({"a": "noisy"}, "noisy", "clean", "noisy"),  # the given labels alone
        ({"c": "label"}, "noisy", "clean", None),  # another table: by its own labels
        ({"c": "label"}, None, None, None),
    ],
)
def test_columns_of_a_test_table(
    columns: dict[str, str],
    label: str | None,
    truth: str | None,
    scored_by: str | None,
    data: Dataset,
    write_table: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = write_table(tmp_path / "test.csv", **columns)
    test = open_test(path, data, label_column=label, truth_column=truth)
    np.testing.assert_array_equal(
        test.labels if test.true_labels is None else test.true_labels, data.labels[::3]
    )
    assert (test.source["truth_column"] or test.source["label_column"]) == scored_by


def test_a_folder_may_test_a_table(data: Dataset, photos: Path) -> None:
    test = open_test(photos, data, label_column="given", truth_column="true", id_column="key")
    assert len(test) == len(data)


def test_a_test_set_that_cannot_be_opened_says_the_first_reason(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("picture,kind\n1.png,cat\n")
    with pytest.raises(DataError, match="no column 'noisy'"):
        open_test(path, data, label_column="noisy", truth_column="clean")


def test_unlabelled_test_images_do_not_count_as_open(data: Dataset) -> None:
    labels = data.labels.copy()
    labels[:5] = UNLABELLED
    part = data.with_labels(labels)
    assert len(take_scorable(part)) == len(data) - 5
    assert open_both(data, part, CONFIG)[1] is not None
    assert len(open_both(data, part, CONFIG)[1] or ()) == len(data) - 5
    assert take_scorable(data) is data
    informed = part.with_truth(data.labels)
    assert take_scorable(informed) is informed
    with pytest.raises(DataError, match="the test set photos has no label to score by"):
        take_scorable(data.with_labels(np.full(len(data), UNLABELLED)))


def test_networks_are_chosen_by_size(data: Dataset) -> None:
    resolved = resolve_networks(CONFIG, data)
    assert (resolved.teacher, resolved.student, resolved.image_size) == ("resnet20", "resnet8", 16)
    large = resolve_networks(dataclasses.replace(CONFIG, image_size=128), data)
    assert (large.teacher, large.student) == ("timm:resnet34", "timm:resnet18")
    named = dataclasses.replace(CONFIG, student="resnet14", teacher="resnet32")
    assert resolve_networks(named, data) == dataclasses.replace(named, image_size=16)
    own_size = resolve_networks(dataclasses.replace(CONFIG, student="timm:resnet18"), data)
    assert own_size.image_size == 224
    with pytest.raises(ModelError, match="no network is called 'resnet9'"):
        resolve_networks(dataclasses.replace(CONFIG, student="resnet9"), data)


def resolved(data: Dataset, **changes: Any) -> FitConfig:
    return resolve_networks(dataclasses.replace(CONFIG, **changes), data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "resnt20"}, "no network is called 'resnt20'"),
        ({"teacher_weights": "gone.pt"}, r"weights file 'gone\.pt' is missing"),
        ({"holdout": 0.001}, "holds out no image"),
        ({"distill": dataclasses.replace(CONFIG.distill, embedding_epochs=2)}, "embedding_epochs 2 needs an"),
        ({"distill": dataclasses.replace(CONFIG.distill, gamma=0.0)}, "gamma 0 learns from no label"),
        ({"runtime": dataclasses.replace(CONFIG.runtime, device="mps")}, "device mps was asked for"),
        ({"teacher_pretrained": True}, "resnet20: no pretrained weights are offered"),
    ],
)
def test_what_would_fail_later_fails_now(data: Dataset, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LauterError, match=message):
        check_start(data, resolved(data, **changes))


def test_only_what_is_used_is_checked(data: Dataset) -> None:
    check_start(data, resolved(data, teacher="resnt20"), teacher=False)
    config = dataclasses.replace(resolved(data), student="resnt8")
    check_start(data, config, student=False)
    with pytest.raises(ModelError, match="resnt8"):
        check_start(data, config)


def test_checking_draws_nothing_from_the_callers_generator(data: Dataset) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_start(data, resolved(data))
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


def test_missing_tensorboard_is_said_before_anything_is_written(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"not installed: pip install 'lauter\[loggers\]'"):
        begin(RunOptions(out, tensorboard=True), "fit", data, None, CONFIG)
    assert not out.exists()


def test_a_resumed_run_that_is_not_there_is_begun_and_said(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    options = RunOptions(tmp_path / "run", resume=True, console=Console(soft_wrap=True))
    begin(options, "fit", data, None, CONFIG)
    assert "run holds no run yet: begun anew" in capsys.readouterr().out
    begin(options, "fit", data, None, CONFIG)
    assert "begun anew" not in capsys.readouterr().out


def test_hashes_tell_weights_and_arrays_apart() -> None:
    torch.manual_seed(0)
    first, second = create_network("resnet8", 3), create_network("resnet8", 3)
    assert hash_weights(first) != hash_weights(second)
    second.load_state_dict(first.state_dict())
    assert hash_weights(first) == hash_weights(second)
    values = np.arange(12)
    assert hash_array(values) == hash_array(values.copy()) != hash_array(values[::-1])

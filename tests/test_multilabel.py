"""Several labels per image, the whole way: a teacher, a student of it in two stages, and what they leave."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import lauter
from lauter.config import FitConfig, to_plain
from lauter.data import ResidentImages
from lauter.data.multilabel import MultiLabelDataset
from lauter.errors import ConfigError, DataError, ModelError, RunError
from lauter.evaluation.multilabel import mean_average_precision
from lauter.files import read_json
from lauter.models import EmbeddedHead, create_network
from lauter.multilabel import (
    MultiLabelResult,
    evaluate_multilabel,
    fit_multilabel,
    load_multilabel_preset,
    summarise_multilabel,
)
from lauter.preparation import RunOptions
from lauter.training.progress import read_history
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig

COLOURS = ("red", "green", "blue")


def draw_squares(count: int, seed: int, side: int = 32) -> MultiLabelDataset:
    """Grey noise with a square of each colour or without: easy, and any number of labels per image."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 130, (count, 3, side, side), dtype=np.uint8)
    targets = (rng.random((count, 3)) < 0.4).astype(np.int8)
    for row, column in np.argwhere(targets == 1):
        top, left = rng.integers(0, side - 9, 2)
        pixels[row, :, top : top + 9, left : left + 9] = 0
        pixels[row, column, top : top + 9, left : left + 9] = 255
    ids = np.array([f"{seed}/{row}" for row in range(count)])
    return MultiLabelDataset("squares", ResidentImages(pixels), targets, COLOURS, ids)


def make_config(**changes: object) -> FitConfig:
    config = load_multilabel_preset("quick")
    distill = replace(
        config.distill, epochs=2, embedding_epochs=2, batch_size=8, optimizer=OptimizerConfig(lr=0.05)
    )
    runtime = RuntimeConfig(device="cpu", precision="32", threads=1, workers=0)
    config = replace(
        config, student="resnet8", image_size=32, augment="none", distill=distill, runtime=runtime
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def without_onnx() -> Iterator[None]:
    """The export takes longer than all else here and has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lauter.results.can_export_onnx", lambda: False)
        yield


@pytest.fixture(scope="module")
def squares() -> MultiLabelDataset:
    data = draw_squares(112, 0)
    targets = data.targets.copy()
    targets[:12] = -1  # they still teach by mimicking
    return replace(data, targets=targets)


@pytest.fixture(scope="module")
def test_squares() -> MultiLabelDataset:
    return draw_squares(120, 1)


@pytest.fixture(scope="module")
def teacher(squares: MultiLabelDataset, tmp_path_factory: pytest.TempPathFactory) -> MultiLabelResult:
    """Trained on labels alone, without a test set."""
    options = RunOptions(tmp_path_factory.mktemp("teacher") / "run")
    return fit_multilabel(squares, config=make_config(), options=options)


@pytest.fixture(scope="module")
def student(
    squares: MultiLabelDataset,
    test_squares: MultiLabelDataset,
    teacher: MultiLabelResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> MultiLabelResult:
    options = RunOptions(tmp_path_factory.mktemp("student") / "run")
    return fit_multilabel(
        squares, teacher=teacher.directory, test=test_squares, config=make_config(), options=options
    )


def test_the_student_is_far_better_than_chance(
    student: MultiLabelResult, test_squares: MultiLabelDataset
) -> None:
    chance = float(test_squares.targets.mean())
    assert chance < 0.45
    entry = student.metrics["student"]
    assert entry["last"]["mean_average_precision"]["value"] > chance + 0.25
    assert entry["scored_on"] == "test"
    assert entry["oracle_gap"] >= 0


def test_the_run_leaves_what_it_should(student: MultiLabelResult, teacher: MultiLabelResult) -> None:
    run = student.directory
    assert read_json(run / "metrics.json") == student.metrics
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["verb"] == "fit_multilabel"
    assert settings["fit"]["teacher"] == "resnet8"
    assert settings["fit"]["distill"] == to_plain(make_config().distill)
    stages = [(record["stage"], record["epoch"]) for record in read_history(run)]
    assert stages == [("distill-embedding", 0), ("distill-embedding", 1), ("distill", 0), ("distill", 1)]
    last = read_history(run)[-1]
    assert set(last["loss"]) == {"mimic", "presence"}
    assert "map_with_given" in last["metrics"]
    for kept in ("selected", "last"):
        entry = student.metrics["student"][kept]
        assert list(entry["average_precision"]) == list(COLOURS)
        mean = sum(entry["average_precision"].values()) / 3
        assert entry["mean_average_precision"]["value"] == pytest.approx(mean)
    assert teacher.metrics["student"]["scored_on"] == "hold-out"
    assert "oracle_gap" not in teacher.metrics["student"]
    assert "hold-out, by its given labels" in summarise_multilabel(teacher.metrics)
    with pytest.raises(RunError, match="for which there is no report"):
        lauter.report(run)


def test_what_was_saved_scores_as_the_run_said(
    student: MultiLabelResult, test_squares: MultiLabelDataset
) -> None:
    model = lauter.load(student.directory)
    assert model.multi_label
    assert model.class_names == COLOURS
    assert not isinstance(model.network.head, EmbeddedHead)  # folded
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
    found = evaluate_multilabel(model, test_squares, runtime=runtime)
    said = student.metrics["student"]["last"]
    # Stored logits are rounded to half precision, and folding to float32.
    assert found["mean_average_precision"]["value"] == pytest.approx(
        said["mean_average_precision"]["value"], abs=2e-3
    )
    table = model.predict(test_squares.without_targets(), runtime)
    assert list(table.columns) == ["id", "class", "probability"]
    assert table["id"][3:5].tolist() == [test_squares.ids[1]] * 2
    probabilities = table["probability"].to_numpy().reshape(-1, 3)
    assert table["class"][:3].tolist() == list(COLOURS)
    assert found["mean_average_precision"]["value"] == pytest.approx(
        mean_average_precision(probabilities, test_squares.targets), abs=1e-6
    )
    assert np.abs(probabilities.sum(1) - 1).max() > 0.1  # no softmax


def test_a_finished_run_resumes_to_the_same_result(
    student: MultiLabelResult,
    teacher: MultiLabelResult,
    squares: MultiLabelDataset,
    test_squares: MultiLabelDataset,
) -> None:
    options = RunOptions(student.directory, resume=True)
    again = fit_multilabel(
        squares, teacher=teacher.directory, test=test_squares, config=make_config(), options=options
    )
    torch.testing.assert_close(dict(again.student.state_dict()), dict(student.student.state_dict()))
    assert again.metrics["student"] == student.metrics["student"]
    with pytest.raises(RunError, match="other settings"):
        fit_multilabel(
            squares, teacher=teacher.directory, test=test_squares, config=make_config(seed=1), options=options
        )


def test_published_settings_are_the_presets() -> None:
    config = load_multilabel_preset("thorough").distill
    assert (config.epochs, config.batch_size, config.optimizer.lr) == (60, 32, 0.01)
    assert config.optimizer.schedule == "cosine"
    assert 0.5 <= config.beta <= 3
    assert load_multilabel_preset("quick").distill.epochs < config.epochs
    with pytest.raises(ConfigError, match="preset must be one of"):
        load_multilabel_preset("fast")


def test_bad_inputs_are_named_before_anything_is_written(
    squares: MultiLabelDataset, test_squares: MultiLabelDataset, tmp_path: Path
) -> None:
    options = RunOptions(tmp_path / "run")
    config = make_config()
    other = create_network("resnet8", 5, image_size=32)
    with pytest.raises(ModelError, match="the teacher tells 5 classes apart, the data has 3"):
        fit_multilabel(squares, teacher=other, config=config, options=options)
    with pytest.raises(ModelError, match="the student tells 5 classes apart, the data has 3"):
        fit_multilabel(squares, other, config=config, options=options)
    with pytest.raises(ConfigError, match="student_pretrained are for a student named by its name"):
        fit_multilabel(squares, other, config=config, student_pretrained=True, options=options)
    swapped = replace(test_squares, class_names=("green", "red", "blue"))
    with pytest.raises(DataError, match=r"must be the same in the same order: open it with class_names="):
        fit_multilabel(squares, test=swapped, config=config, options=options)
    blank = replace(test_squares, targets=test_squares.targets * 0)
    with pytest.raises(DataError, match="the test set squares has no label to score by"):
        fit_multilabel(squares, test=blank, config=config, options=options)
    with pytest.raises(ModelError, match="no network is called 'resnet9'"):
        fit_multilabel(squares, "resnet9", config=config, options=options)
    assert not (tmp_path / "run").exists()


def test_single_label_scoring_refuses_a_multi_label_model(
    student: MultiLabelResult, test_squares: MultiLabelDataset
) -> None:
    model = lauter.load(student.directory)
    with pytest.raises(DataError, match="which of several classes are in an image"):
        lauter.evaluate(model, test_squares.without_targets())
    with pytest.raises(DataError, match=r"gives every image one class; score it with lauter\.evaluate"):
        evaluate_multilabel(replace(model, multi_label=False), test_squares)

"""The whole way and its halves, from Python: what they leave, what they refuse, what must never leak."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn

import lauter
from lauter import pipeline, results
from lauter.config import FitConfig
from lauter.data.dataset import OPEN, UNLABELLED, Dataset
from lauter.distillation import recipe
from lauter.distillation.mimic import Mimic
from lauter.distillation.stage import DistillStage
from lauter.errors import ConfigError, DataError, LauterError, ModelError, RunError
from lauter.models import InputSpec, count_flops, count_parameters, create_network
from lauter.models.artefact import load_network, save_network
from lauter.pipeline import FitResult, RunOptions, distill, fit, train

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "checkpoints",
    "labels.parquet",
    "teacher.safetensors",
    "student.safetensors",
    "student.onnx",
    "report.html",
    "metrics.json",
    "comparison.json",
}
NAMES = ("cat", "dog", "train")
Fit = Callable[..., FitResult]


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the export out: most tests are not about it."""
    monkeypatch.setattr(results, "can_export_onnx", lambda: False)


@pytest.fixture
def quick_fit(no_onnx: None, micro_config: FitConfig, tmp_path: Path) -> Fit:
    """A micro fit without ONNX and baseline: ``quick_fit(data, name="run", **changes)``."""

    def run(data: Dataset, name: str = "run", test: Dataset | None = None, **changes: Any) -> FitResult:
        config = dataclasses.replace(micro_config, **{"baseline": False, **changes})
        return fit(data, test=test, config=config, out=tmp_path / name)

    return run


@pytest.fixture
def data(photos: Path) -> Dataset:
    return lauter.open_dataset(photos)


def mislabel(data: Dataset, share: float = 0.25) -> Dataset:
    """The data with wrong labels, open images in truth, and the truth."""
    generator = np.random.default_rng(0)
    wrong = generator.permutation(len(data))[: int(share * len(data))]
    given, truth = data.labels.copy(), data.labels.copy()
    given[wrong] = (given[wrong] + 1) % data.num_classes
    truth[wrong[::3]] = OPEN
    return data.with_labels(given).with_truth(truth)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_run_leaves_these_files_and_no_other(finished: FitResult) -> None:
    assert {entry.name for entry in finished.directory.iterdir()} == FILES
    checkpoints = {entry.name for entry in (finished.directory / "checkpoints").iterdir()}
    assert checkpoints == {"pretrain.pt", "warmup.pt", "robust.pt", "distill.pt", "baseline.pt"}


def test_the_label_table_has_a_row_for_each_image(finished: FitResult, data: Dataset) -> None:
    table = pd.read_parquet(finished.directory / "labels.parquet")
    pd.testing.assert_frame_equal(table, finished.labels)
    assert list(table.columns[:6]) == ["id", "given", "verdict", "suggested", "p_given_right", "p_open"]
    assert table["id"].tolist() == data.ids.tolist()
    assert table["given"].tolist() == [NAMES[label] for label in data.labels]
    assert set(table["verdict"]) <= {"keep", "relabel", "drop", "ask"}
    assert set(table["suggested"]) <= set(NAMES)
    assert table[["p_given_right", "p_open"]].stack().between(0, 1).all()
    kept = table["verdict"] == "keep"
    assert (table["given"] == table["suggested"])[kept].all()
    assert table["part"].value_counts().to_dict() == {"train": 34, "holdout": 8}


def test_metrics_without_a_test_set_are_called_agreement(finished: FitResult) -> None:
    metrics = json.loads((finished.directory / "metrics.json").read_text())
    assert metrics == finished.metrics
    assert set(metrics) == {"student", "teacher", "baseline", "labels", "cost"}
    for role in ("student", "teacher", "baseline"):
        for epoch in ("selected", "last"):
            assert set(metrics[role][epoch]) == {"agreement_with_given"}
            score = metrics[role][epoch]["agreement_with_given"]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert "oracle_gap" not in metrics[role]
    assert "f1" not in metrics["labels"]
    assert metrics["labels"]["images"] == 42
    assert sum(metrics["labels"]["counts"].values()) == 42


def test_costs_add_up(finished: FitResult) -> None:
    cost = finished.metrics["cost"]
    teacher = finished.metrics["teacher"]
    assert set(cost["stages"]) >= {"pretrain", "warmup", "robust", "distill", "baseline"}
    assert cost["stages"]["pretrain"]["images"] == 2 * 42  # two views of each image, once
    assert cost["stages"]["robust"]["images"] == 2 * 34
    assert cost["stages"]["distill"]["images"] == cost["stages"]["baseline"]["images"] == 2 * 34
    # Forward and backward of the student, forward of the teacher.
    assert cost["stages"]["distill"]["flops"] == 2 * 34 * 4 * teacher["flops"]
    assert cost["flops"] >= sum(stage["flops"] for stage in cost["stages"].values())
    assert cost["seconds"] == pytest.approx(sum(stage["seconds"] for stage in cost["stages"].values()))


def test_class_names_are_in_every_file(finished: FitResult) -> None:
    assert finished.class_names == NAMES
    for name in ("student", "teacher"):
        assert load_network(finished.directory / f"{name}.safetensors")[1] == NAMES
    report = (finished.directory / "report.html").read_text()
    assert all(name in report for name in NAMES)
    assert set(finished.metrics["labels"]["noise_rate_by_class"]) == set(NAMES)


def test_the_student_is_folded_frozen_and_counted(finished: FitResult) -> None:
    assert isinstance(finished.student, nn.Module)
    assert type(finished.student.head) is nn.Linear
    assert not finished.student.training
    assert not any(parameter.requires_grad for parameter in finished.student.parameters())
    entry = finished.metrics["student"]
    assert (entry["network"], entry["kept"]) == ("resnet8", "last")
    assert entry["parameters"] == count_parameters(finished.student)
    assert entry["flops"] == count_flops(finished.student)


def test_the_loaded_student_gives_the_same_bits(finished: FitResult, data: Dataset) -> None:
    pixels = torch.from_numpy(data.images.uniform)
    loaded = lauter.load(finished.directory)
    assert loaded.class_names == NAMES
    with torch.no_grad():
        expected = finished.student(pixels).logits
        found = loaded.network(pixels).logits
        teacher, _ = load_network(finished.directory / "teacher.safetensors")
        of_teacher = (teacher(pixels).logits, finished.teacher(pixels).logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(*of_teacher, rtol=0, atol=0)
    table = loaded.predict(data)
    assert table["id"].tolist() == data.ids.tolist()


def test_a_test_set_gives_the_protocols_scores(data: Dataset, quick_fit: Fit) -> None:
    run = quick_fit(data, test=data.subset(np.arange(1, 42)))
    for role in ("student", "teacher"):
        for epoch in ("selected", "last"):
            entry = run.metrics[role][epoch]
            assert set(entry) == {"balanced_accuracy", "macro_f1", "worst_class_recall", "accuracy"}
            for score in entry.values():
                assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert run.metrics[role]["oracle_gap"] >= 0
    pixels = torch.from_numpy(data.images.uniform[1:])
    hits = run.student(pixels).logits.argmax(1).numpy() == data.labels[1:]
    assert run.metrics["student"]["last"]["accuracy"]["value"] == pytest.approx(hits.mean(), abs=0.05)
    assert "baseline" not in run.metrics


def test_the_truth_never_leaks(data: Dataset, quick_fit: Fit) -> None:
    noisy = mislabel(data)
    informed = quick_fit(noisy, "informed")
    blind = quick_fit(noisy.without_truth(), "blind")
    lying = quick_fit(noisy.with_truth(np.roll(noisy.labels, 5)), "lying")
    for other in (blind, lying):
        for name in ("labels.parquet", "student.safetensors", "teacher.safetensors"):
            expected = (informed.directory / name).read_bytes()
            assert (other.directory / name).read_bytes() == expected, name
    assert "f1" not in blind.metrics["labels"]
    assert informed.metrics["labels"]["true_noise_rate"] == pytest.approx(10 / 42)
    assert lying.metrics["labels"]["true_noise_rate"] != informed.metrics["labels"]["true_noise_rate"]
    rates = {"noise_rate", "closed_rate", "open_rate", "noise_rate_by_class", "transition_matrix"}
    without_truth = {"images", "counts", "faults", *rates}
    assert set(blind.metrics["labels"]) == without_truth
    for name in without_truth:
        assert blind.metrics["labels"][name] == informed.metrics["labels"][name]


def test_what_was_drawn_before_changes_nothing(data: Dataset, quick_fit: Fit) -> None:
    # The embedding is drawn too.
    distill = dataclasses.replace(FitConfig().distill, epochs=1, head="embedded")
    first = quick_fit(data, "first", distill=distill)
    torch.manual_seed(99)
    np.random.default_rng().random(3)
    torch.rand(7)
    second = quick_fit(data, "second", distill=distill)
    for name in ("labels.parquet", "teacher.safetensors", "student.safetensors"):
        assert (second.directory / name).read_bytes() == (first.directory / name).read_bytes(), name
    assert type(first.student.head) is nn.Linear  # folded


def test_another_seed_is_another_run(data: Dataset, quick_fit: Fit, finished: FitResult) -> None:
    other = quick_fit(data, seed=1)
    ours = weights_of(other.directory / "student.safetensors")
    theirs = weights_of(finished.directory / "student.safetensors")
    assert not torch.equal(ours["head.weight"], theirs["head.weight"])
    assert set(other.labels.loc[other.labels["part"] == "holdout", "id"]) != set(
        finished.labels.loc[finished.labels["part"] == "holdout", "id"]
    )


def test_the_baseline_changes_nothing_else(data: Dataset, quick_fit: Fit, finished: FitResult) -> None:
    run = quick_fit(data)
    for name in ("labels.parquet", "teacher.safetensors", "student.safetensors"):
        assert (run.directory / name).read_bytes() == (finished.directory / name).read_bytes(), name


def test_keep_selected_takes_the_epoch_that_the_holdout_chose(data: Dataset, quick_fit: Fit) -> None:
    config = {"keep": "selected", "pretrain": dataclasses.replace(FitConfig().pretrain, epochs=1)}
    run = quick_fit(data, **config)
    assert run.metrics["student"]["kept"] == run.metrics["teacher"]["kept"] == "selected"
    holdout = np.flatnonzero(run.labels["part"] == "holdout")
    pixels = torch.from_numpy(data.images.uniform[holdout])
    given = data.labels[holdout]
    predicted = run.teacher(pixels).logits.argmax(1).numpy()
    agreement = np.mean([(predicted == given)[given == k].mean() for k in np.unique(given)])
    score = run.metrics["teacher"]["selected"]["agreement_with_given"]["value"]
    assert agreement == pytest.approx(score, abs=0.13)  # bf16 there, float32 here: an image may differ


def test_unlabelled_images_are_counted_suggested_and_mimicked(
    data: Dataset, quick_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = data.labels.copy()
    bare = np.array([0, 3, 20, 41])
    labels[bare] = UNLABELLED
    seen: dict[str, Any] = {}

    class Watched(DistillStage):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            seen["targets"] = self.targets.clone()

        def loss(self, batch: Any) -> dict[str, torch.Tensor]:
            seen.setdefault("index", []).extend(batch.index.tolist())
            terms = super().loss(batch)
            assert terms["mimic"].shape == (len(batch),)
            return terms

    monkeypatch.setattr(recipe, "DistillStage", Watched)
    run = quick_fit(data.with_labels(labels))
    assert run.metrics["labels"]["counts"]["unlabelled"] == 4
    assert sum(run.metrics["labels"]["counts"].values()) == 42
    rows = run.labels.iloc[bare]
    assert rows["given"].isna().all()
    assert rows["p_given_right"].isna().all()
    assert rows["verdict"].isin(["ask", "relabel"]).all()
    assert rows["suggested"].isin(NAMES).all()
    assert (rows["part"] == "train").all()
    assert set(bare) <= set(seen["index"])  # they mimic
    asked = bare[rows["verdict"] == "ask"]
    assert len(asked)
    assert (seen["targets"][asked] == UNLABELLED).all()  # and are not learnt from as labels
    assert set(seen["index"]) == set(np.flatnonzero(run.labels["part"] == "train"))


def test_dropped_images_may_be_left_out_of_mimicking(photos: Path) -> None:
    targets, rows = np.array([0, UNLABELLED, 1, UNLABELLED]), np.array([0, 1, 3])
    config = FitConfig().distill
    np.testing.assert_array_equal(pipeline.choose_rows(rows, targets, config), rows)
    without = dataclasses.replace(config, dropped_images=False)
    np.testing.assert_array_equal(pipeline.choose_rows(rows, targets, without), [0])


WRONG = [
    pytest.param({"student": "resnet9"}, "no network is called 'resnet9'; near it: resnet8", id="student"),
    pytest.param({"teacher": "resnt20"}, "no network is called 'resnt20'; near it: resnet20", id="teacher"),
    pytest.param({"teacher": "timm:resnet3"}, "timm has no model 'resnet3'; near it: resnet34", id="timm"),
    pytest.param({"teacher_weights": "gone.pt"}, "weights file 'gone.pt' is missing", id="missing weights"),
    pytest.param({"holdout": 0.001}, "holds out no image; raise the share", id="holdout"),
    pytest.param({"student": "timm:resnet18", "image_size": 8}, "image_size|size", id="size"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_refused_before_anything_is_written(
    changes: dict[str, Any],
    message: str,
    data: Dataset,
    micro_config: FitConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "image_size" in changes:
        changes = {"student": "resnet8", "image_size": 8, "teacher": "timm:vit_tiny_patch16_224"}
    monkeypatch.setattr(pipeline, "train_teacher", lambda *_: pytest.fail("hours were spent"))
    out = tmp_path / "run"
    with pytest.raises(LauterError, match=message):
        fit(data, config=dataclasses.replace(micro_config, **changes), out=out)
    assert not out.exists()


def test_teacher_weights_of_another_shape_are_refused(
    data: Dataset, finished: FitResult, micro_config: FitConfig, tmp_path: Path
) -> None:
    weights = finished.directory / "teacher.safetensors"
    config = dataclasses.replace(micro_config, teacher="resnet20", teacher_weights=str(weights))
    for verb in (fit, train):
        options: dict[str, Any] = {"out": tmp_path / "run"}
        if verb is train:
            options = {"options": RunOptions(tmp_path / "run")}
        with pytest.raises(ModelError, match=r"does not fit 'resnet20': .* missing"):
            verb(data, config=config, **options)
    assert not (tmp_path / "run").exists()


def test_teacher_weights_are_where_the_teacher_starts(
    data: Dataset, finished: FitResult, quick_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[dict[str, torch.Tensor]] = []
    robustly = pipeline.train_robustly

    def note(setup: Any, network: Any, config: Any) -> Any:
        starts.append({name: value.clone() for name, value in network.state_dict().items()})
        assert config.pretrain.method == "none"
        return robustly(setup, network, config)

    monkeypatch.setattr(pipeline, "train_robustly", note)
    weights = finished.directory / "teacher.safetensors"
    run = quick_fit(data, teacher_weights=str(weights))
    saved = weights_of(weights)
    for name, value in starts[0].items():
        if name.startswith("backbone."):
            torch.testing.assert_close(value, saved[name], rtol=0, atol=0)
    assert not (run.directory / "checkpoints" / "pretrain.pt").exists()


def test_a_directory_that_is_not_free_is_refused_at_once(
    finished: FitResult, micro_config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "open_both", lambda *_: pytest.fail("the data was opened first"))
    (tmp_path / "thing").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no run; choose another --out"):
        fit("anything", config=micro_config, out=tmp_path)
    with pytest.raises(RunError, match="holds a run; choose another --out, or continue"):
        train("anything", options=RunOptions(finished.directory))
    with pytest.raises(RunError, match="is a file; choose a directory"):
        distill("anything", "teacher", options=RunOptions(tmp_path / "thing"))
    assert (tmp_path / "thing").read_text() == "mine"


def test_a_finished_run_resumed_is_the_same_run(
    data: Dataset, quick_fit: Fit, tmp_path: Path, micro_config: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quick_fit(data)
    before = {entry.name: entry.read_bytes() for entry in first.directory.glob("*.*")}
    epochs = (first.directory / "metrics.jsonl").read_bytes()
    (first.directory / ".student-x7.safetensors").write_bytes(b"half of it")
    config = dataclasses.replace(micro_config, baseline=False)
    again = fit(data, config=config, out=first.directory, resume=True)
    assert (first.directory / "metrics.jsonl").read_bytes() == epochs  # nothing was trained again
    for name in ("config.yaml", "labels.parquet", "teacher.safetensors", "student.safetensors"):
        assert (first.directory / name).read_bytes() == before[name], name
    assert {entry.name for entry in first.directory.iterdir()} == FILES - {"student.onnx"}
    assert again.metrics["student"] == first.metrics["student"]
    assert again.metrics["labels"] == first.metrics["labels"]
    with pytest.raises(RunError, match=r"fit\.seed: 0 there, 5 here"):
        fit(data, config=config, out=first.directory, seed=5, resume=True)
    with pytest.raises(RunError, match="fingerprint: "):
        fit(data.with_labels(np.roll(data.labels, 1)), config=config, out=first.directory, resume=True)


def test_train_then_distill_is_the_whole_way(
    data: Dataset, no_onnx: None, micro_config: FitConfig, finished: FitResult, tmp_path: Path
) -> None:
    trained = train(data, config=micro_config, options=RunOptions(tmp_path / "trained"))
    assert {entry.name for entry in trained.directory.iterdir()} == FILES - {
        "student.onnx",
        "student.safetensors",
        "comparison.json",
    }
    pd.testing.assert_frame_equal(trained.labels, finished.labels)
    teachers = (trained.network, trained.directory / "teacher.safetensors", str(trained.directory))
    tables = (trained.labels, trained.directory / "labels.parquet", str(trained.directory / "labels.parquet"))
    for number, (teacher, labels) in enumerate(zip(teachers, tables, strict=True)):
        out = tmp_path / str(number)
        small = distill(data, teacher, labels=labels, config=micro_config, options=RunOptions(out))
        assert set(small.metrics) == {"student", "cost"}
        ours, theirs = out / "student.safetensors", finished.directory / "student.safetensors"
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_resumed_distillation_needs_the_same_teacher_and_labels(
    data: Dataset, no_onnx: None, micro_config: FitConfig, finished: FitResult, tmp_path: Path
) -> None:
    options = RunOptions(tmp_path / "small")
    distill(data, finished.directory, labels=finished.labels, config=micro_config, options=options)
    again = dataclasses.replace(options, resume=True)
    other = load_network(finished.directory / "student.safetensors")[0]
    with pytest.raises(RunError, match="teacher: '"):
        distill(data, other, labels=finished.labels, config=micro_config, options=again)
    fewer = finished.labels.assign(verdict="drop")
    with pytest.raises(RunError, match="targets: '"):
        distill(data, finished.directory, labels=fewer, config=micro_config, options=again)


def test_a_features_file_teaches_in_the_place_of_its_network(
    data: Dataset, no_onnx: None, micro_config: FitConfig, finished: FitResult, tmp_path: Path
) -> None:
    teacher = load_network(finished.directory / "teacher.safetensors")[0].eval()
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(len(data), teacher.feature_size, generator=generator)
    lauter.write_features(tmp_path / "features.parquet", data.ids, features)
    options = RunOptions(tmp_path / "small")
    small = distill(data, tmp_path / "features.parquet", config=micro_config, options=options)
    assert isinstance(small.student.head, nn.Linear)
    settings = pipeline.RunDirectory(small.directory).read_config()  # type: ignore[attr-defined]
    assert settings["fit"]["teacher"] == "features.parquet"
    comparison = json.loads((small.directory / "comparison.json").read_text())
    assert comparison["images"] + comparison["left_out"] == 8  # the hold-out
    lauter.write_features(tmp_path / "features.parquet", data.ids, features + 1)
    again = dataclasses.replace(options, resume=True)
    with pytest.raises(RunError, match="teacher: '"):
        distill(data, tmp_path / "features.parquet", config=micro_config, options=again)
    lauter.write_features(tmp_path / "fewer.npy", data.ids[1:], features[1:])
    with pytest.raises(DataError, match="1 "):
        distill(data, tmp_path / "fewer.npy", config=micro_config, options=RunOptions(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_network_by_name_teaches_with_weights_from_elsewhere(
    data: Dataset, no_onnx: None, micro_config: FitConfig, finished: FitResult, tmp_path: Path
) -> None:
    weights = str(finished.directory / "teacher.safetensors")
    config = dataclasses.replace(micro_config, teacher_weights=weights)
    small = distill(data, "resnet8", config=config, options=RunOptions(tmp_path / "small"))
    assert small.student.num_classes == 3
    assert json.loads((small.directory / "comparison.json").read_text())["images"] > 0
    with pytest.raises(ConfigError, match="'resnet8' is no file, and as a network's name"):
        distill(data, "resnet8", config=micro_config, options=RunOptions(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_folding_is_checked_and_described(
    data: Dataset, quick_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pipeline.Progress, "say", lambda self, line: said.append(line))
    embedded = dataclasses.replace(FitConfig().distill, epochs=1, head="embedded")
    run = quick_fit(data, distill=embedded)
    plain = create_network("resnet8", 3, image_size=run.student.input_spec.size)
    assert count_parameters(run.student) == count_parameters(plain)
    assert count_flops(run.student) == count_flops(plain)
    (line,) = [line for line in said if line.startswith("student  ")]
    grown = count_parameters(plain) + 64 * 64 + 64
    assert f"{count_parameters(plain):,} parameters" in line
    assert f"while it trained {grown:,} and" in line
    wider = dataclasses.replace(run)
    wider.student.head = nn.Sequential(nn.Linear(64, 3), nn.Linear(3, 3))
    with pytest.raises(ModelError, match="more than one linear layer"):
        pipeline.describe_folding(plain, wider.student)


def test_the_comparison_is_of_the_kept_student_on_the_hold_out(finished: FitResult) -> None:
    comparison = json.loads((finished.directory / "comparison.json").read_text())
    assert comparison["images"] + comparison["left_out"] == 8
    assert 0 <= comparison["angle"]["quantiles"]["p50"] <= 180
    assert comparison["bits"]["hashes"] > 0
    report = (finished.directory / "report.html").read_text()
    assert "hash bits" in report


def make_own_network(classes: int) -> lauter.Network:
    """A small module of a user's, wrapped with its feature size."""
    torch.manual_seed(3)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return lauter.wrap_module(layers, 8, classes, InputSpec(32))


def test_a_network_of_the_users_own_goes_the_whole_way(
    data: Dataset, no_onnx: None, micro_config: FitConfig, tmp_path: Path
) -> None:
    own = make_own_network(3)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    result = fit(data, own, config=dataclasses.replace(micro_config, student=""), out=tmp_path / "run")
    assert result.student.feature_size == 8
    assert result.metrics["student"]["network"] == "custom"
    assert any(
        not torch.equal(value, result.student.state_dict()[name])
        for name, value in before.items()
        if name.startswith("backbone")
    )
    for name, value in own.state_dict().items():  # a copy was trained
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    loaded, _ = load_network(tmp_path / "run" / "student.safetensors", make_own_network(3))
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, result.student.state_dict()[name], rtol=0, atol=0)
    with pytest.raises(ModelError, match="the student tells 4 classes apart, the data has 3"):
        fit(data, make_own_network(4), config=micro_config, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_teacher_of_other_classes_is_refused(
    data: Dataset, finished: FitResult, tmp_path: Path, micro_config: FitConfig
) -> None:
    path = tmp_path / "teacher.safetensors"
    save_network(finished.teacher, path, class_names=("cat", "cow", "train"))
    with pytest.raises(ModelError, match=r"cat, cow, train\.\.\. apart, the data has cat, dog, train"):
        distill(data, path, config=micro_config, options=RunOptions(tmp_path / "run"))
    with pytest.raises(ModelError, match="is missing"):
        distill(data, tmp_path / "gone.safetensors", options=RunOptions(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_the_export_extra_the_run_says_so(
    data: Dataset, quick_fit: Fit, capsys: pytest.CaptureFixture[str], micro_config: FitConfig, tmp_path: Path
) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)
    config = dataclasses.replace(micro_config, baseline=False)
    run = fit(data, config=config, out=tmp_path / "told", console=console)
    said = capsys.readouterr().out
    assert "onnx        not written: the export extra is not installed (pip install 'lauter[export]')" in said
    assert not (run.directory / "student.onnx").exists()
    assert "onnx_difference" not in run.metrics["student"]
    assert "data        photos: 42 images, 3 classes" in said
    assert "34 to train, 8 held out, no test set: scores are agreement with given labels" in said


def test_a_network_that_onnx_does_not_take_costs_no_run(
    data: Dataset, micro_config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> float:
        raise ModelError("resnet8 cannot be exported to ONNX: no such operator")

    monkeypatch.setattr(results, "export_onnx", refuse)
    config = dataclasses.replace(micro_config, baseline=False)
    with pytest.warns(UserWarning, match=r"student\.onnx was not written: .* no such operator"):
        run = fit(data, config=config, out=tmp_path / "run")
    assert {entry.name for entry in run.directory.iterdir()} == FILES - {"student.onnx"}


def test_a_zoo_network_on_photographs_brings_one_warning(
    data: Dataset, micro_config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        """Far enough."""

    def stop(setup: Any, config: FitConfig) -> None:
        pipeline.build_network(setup, config.student, config, "student")
        raise Stop

    monkeypatch.setattr(pipeline, "train_teacher", stop)
    config = dataclasses.replace(micro_config, image_size=128, teacher="resnet14")
    with (
        pytest.warns(UserWarning, match="is made for images of about 32 pixels; at 128") as caught,
        pytest.raises(Stop),
    ):
        fit(data, config=config, out=tmp_path / "run")
    assert sorted(str(warning.message).split()[0] for warning in caught) == ["resnet14", "resnet8"]


def test_nothing_is_written_elsewhere(
    data: Dataset, quick_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = sorted(photos.rglob("*"))
    quick_fit(data)
    assert list(here.iterdir()) == []
    assert sorted(photos.rglob("*")) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["here", "run"]


def test_the_mimic_loss_is_what_the_config_says(data: Dataset, quick_fit: Fit) -> None:
    losses = set()
    original = Mimic.forward

    def note(self: Mimic, *arguments: Any) -> dict[str, torch.Tensor]:
        losses.add(self.loss)
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mimic, "forward", note)
        quick_fit(data, distill=dataclasses.replace(FitConfig().distill, epochs=1, loss="l2"))
    assert losses == {"l2"}


def test_arguments_beside_the_config_win(
    data: Dataset, no_onnx: None, micro_config: FitConfig, tmp_path: Path
) -> None:
    run = fit(data, student="resnet14", config=micro_config, baseline=False, seed=3, out=tmp_path / "run")
    settings = json.dumps(lauter.pipeline.RunDirectory(run.directory).read_config()["fit"])  # type: ignore[attr-defined]
    assert '"student": "resnet14", "teacher": "resnet8"' in settings
    assert '"baseline": false, "seed": 3' in settings


def test_a_data_error_comes_from_opening(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        fit(tmp_path / "gone", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

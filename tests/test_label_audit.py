"""The audit from Python: both paths, given features and predictions, what it leaves, what it refuses."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lauter
from lauter.audit_config import AuditConfig, load_audit_preset
from lauter.auditing import training_evidence
from lauter.auditing.judgement import VERDICTS
from lauter.auditing.judging import JudgingConfig
from lauter.auditing.summary import summarise_audit
from lauter.data import Dataset, ResidentImages
from lauter.errors import ConfigError, DataError, RunError
from lauter.label_audit import AuditOptions, AuditResult, audit
from lauter.noisy.recipe import train_robustly
from lauter.training.processes import Processes
from lauter.training.setup import Setup

FILES = {"config.yaml", "labels.parquet", "labels.csv", "metrics.json", "report.html"}


def make_colours(count: int = 120, wrong: float = 0.2, seed: int = 0) -> Dataset:
    """Pictures told apart by colour, with their truth; six are unlabelled."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, count)
    pixels = rng.integers(0, 60, (count, 3, 16, 16))
    pixels[np.arange(count), true] += 150
    labels = np.where(rng.random(count) < wrong, (true + 1) % 3, true)
    labels[:6] = -1
    ids = np.array([f"{row}.png" for row in range(count)])
    images = ResidentImages(pixels.astype(np.uint8))
    return Dataset("colours", images, labels, ("r", "g", "b"), ids, true_labels=true)


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    """One epoch of everything, features kept in a folder of the test's own."""
    whole = load_audit_preset("quick")
    learning = whole.extraction.learning
    learning = dataclasses.replace(
        learning,
        network="resnet8",
        least_images=0,
        pretrain=dataclasses.replace(learning.pretrain, epochs=1, batch_size=32),
    )
    training = dataclasses.replace(
        whole.training,
        network="resnet8",
        pretrain=dataclasses.replace(whole.training.pretrain, epochs=1, batch_size=32),
        warmup=dataclasses.replace(whole.training.warmup, epochs=2),
        robust=dataclasses.replace(whole.training.robust, epochs=2, batch_size=32),
    )
    return dataclasses.replace(
        whole,
        extraction=dataclasses.replace(whole.extraction, store=str(tmp_path / "store"), learning=learning),
        training=training,
        runtime=dataclasses.replace(whole.runtime, device="cpu", precision="32", threads=1, workers=0),
    )


def run(data: Dataset, config: AuditConfig, **arguments: Any) -> AuditResult:
    result = audit(data, config=config, **arguments)
    assert result is not None
    return result


def means_of(data: Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Features that tell the classes apart."""
    assert data.images.uniform is not None
    return data.images.uniform.mean((2, 3)).astype(np.float32)


def test_wrong_labels_are_found_from_given_features(config: AuditConfig) -> None:
    data = make_colours(300)
    result = run(data, config, features=means_of(data))
    assert data.true_labels is not None
    known = data.labelled
    wrong = known & (data.labels != data.true_labels)
    flagged = (result.table["verdict"] != "keep").to_numpy()
    np.testing.assert_array_equal(flagged[known], wrong[known])
    assert result.directory is None
    assert result.judgement.noise_rate.low <= wrong[known].mean() <= result.judgement.noise_rate.high
    names = np.array(data.class_names)
    np.testing.assert_array_equal(result.table["suggested"], names[data.true_labels])
    assert set(result.table["verdict"]) <= set(VERDICTS)
    assert result.metrics["labels"]["f1"] == pytest.approx(1.0)


def test_every_image_gets_a_verdict_on_both_paths(config: AuditConfig) -> None:
    data = make_colours()
    for path in ("features", "training"):
        result = run(data, dataclasses.replace(config, path=path))
        assert list(result.table["id"]) == list(data.ids)
        assert result.table["verdict"].isin(VERDICTS).all()
        assert result.table["given"].isna().sum() == 6
        assert result.metrics["labels"]["counts"]["unlabelled"] == 6
        right = result.table.loc[data.labelled, "p_given_right"]
        assert right.between(0, 1).all()


def test_predictions_of_another_model_take_the_place_of_features(config: AuditConfig) -> None:
    data = make_colours(300)
    assert data.true_labels is not None
    sure = np.full((len(data), 3), 0.05)
    sure[np.arange(len(data)), data.true_labels] = 0.9
    result = run(data, config, probabilities=sure)
    assert result.features is None
    assert "features" not in result.metrics
    wrong = data.labelled & (data.labels != data.true_labels)
    assert (result.table["verdict"][wrong] != "keep").all()


def test_an_audit_leaves_whole_files_that_fit_each_other(config: AuditConfig, tmp_path: Path) -> None:
    data = make_colours(150)
    options = AuditOptions(tmp_path / "run", corrected=True)
    result = run(data, config, features=means_of(data), options=options)
    assert result.directory == tmp_path / "run"
    assert {entry.name for entry in result.directory.iterdir()} == FILES | {"corrected"}
    written = pd.read_parquet(result.directory / "labels.parquet")
    pd.testing.assert_frame_equal(written, result.table, check_dtype=False)
    assert len(pd.read_csv(result.directory / "labels.csv")) == len(data)
    metrics = json.loads((result.directory / "metrics.json").read_text())
    assert metrics["labels"]["counts"] == result.metrics["labels"]["counts"]
    page = (result.directory / "report.html").read_text()
    assert "Audit of colours" in page
    manifest = pd.read_csv(result.directory / "corrected" / "manifest.csv")
    dropped = int((result.table["verdict"] == "drop").sum())
    assert len(manifest) == len(data) - dropped
    told = summarise_audit(metrics)
    assert all(line in told for line in ("verdicts", "noise", "advice", "review", "pictures"))


def test_the_review_begins_with_the_most_doubtful_labels(config: AuditConfig) -> None:
    data = make_colours(300)
    table = run(data, dataclasses.replace(config, budget=20), features=means_of(data)).table
    ranked = table.dropna(subset=["review_rank"]).sort_values("review_rank")
    assert list(ranked["review_rank"][:3]) == [1, 2, 3]
    assert ranked["p_given_right"].is_monotonic_increasing
    rest = table[table["review_rank"].isna()]["p_given_right"].dropna()
    assert rest.min() >= ranked["p_given_right"].max()


def test_pictures_of_the_other_split_are_leaks(config: AuditConfig, photo: Callable[..., Any]) -> None:
    def draw(first: int) -> Dataset:
        pixels = [np.asarray(photo(n % 3, n, 64, 64)).transpose(2, 0, 1) for n in range(first, first + 30)]
        ids = np.array([f"{n}.png" for n in range(first, first + 30)])
        labels = np.arange(first, first + 30) % 3
        return Dataset("photos", ResidentImages(np.stack(pixels)), labels, ("a", "b", "c"), ids)

    train, test = draw(0), draw(29)
    features = np.random.default_rng(0).random((30, 4), dtype=np.float32)
    table = run(train, config, features=features, test=test).table
    assert table["leak"].iloc[29] == "29.png"


def test_no_network_learns_a_label_that_it_judges(
    config: AuditConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Any] = []

    def watch(setup: Setup, *rest: Any, **named: Any) -> Any:
        taught.append((setup.train, setup.holdout))
        return train_robustly(setup, *rest, **named)

    monkeypatch.setattr(training_evidence, "train_robustly", watch)
    data = make_colours()
    run(data, dataclasses.replace(config, path="training", images=False))
    (first, judged_first), (second, judged_second) = taught
    assert not set(first) & set(judged_first)
    assert not set(second) & set(judged_second)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([judged_first, judged_second])), np.flatnonzero(data.labelled)
    )
    assert set(range(6)) <= set(first) & set(second)  # unlabelled images are in both


def test_the_truth_moves_nothing_but_the_scores(config: AuditConfig) -> None:
    data = make_colours(200)
    features = means_of(data)
    with_truth, without = (
        run(data, config, features=features),
        run(data.without_truth(), config, features=features),
    )
    pd.testing.assert_frame_equal(with_truth.table, without.table)
    assert "f1" in with_truth.metrics["labels"]
    assert "f1" not in without.metrics["labels"]


def test_a_helper_process_writes_nothing(config: AuditConfig, tmp_path: Path) -> None:
    data = make_colours()
    options = AuditOptions(tmp_path / "run", processes=Processes(1, 2))
    assert audit(data, means_of(data), config=config, options=options) is None
    assert not (tmp_path / "run").exists()


def test_the_same_audit_goes_on_and_another_is_refused(config: AuditConfig, tmp_path: Path) -> None:
    data = make_colours()
    features = means_of(data)
    options = AuditOptions(tmp_path / "run")
    first = run(data, config, features=features, options=options)
    with pytest.raises(RunError, match="holds a run"):
        run(data, config, features=features, options=options)
    again = dataclasses.replace(options, resume=True)
    pd.testing.assert_frame_equal(run(data, config, features=features, options=again).table, first.table)
    with pytest.raises(RunError, match="other settings"):
        run(data, dataclasses.replace(config, precision=0.8), features=features, options=again)
    with pytest.raises(RunError, match="features"):
        run(data, config, features=features + 1, options=again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "both"}, "path must be features or training, not 'both'"),
        ({"precision": 0.0}, r"precision must be in \(0, 1\], not 0.0"),
        ({"budget": -1}, "budget must be 0 images or more, not -1"),
        ({"pictures": -1}, "pictures must be 0 or more, not -1"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"image_size": 4}, "image_size must be 8 to 1024"),
        ({"augment": "heavy"}, "augment must be none, digits or objects, not 'heavy'"),
        ({"augment": "none"}, "augment none teaches nothing"),
        ({"judging": JudgingConfig(precision=0.8)}, "judging.precision is decided by precision of the audit"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AuditConfig(**changes)


def test_what_does_not_go_together_is_refused(config: AuditConfig, tmp_path: Path) -> None:
    data = make_colours()
    training = dataclasses.replace(config, path="training")
    with pytest.raises(ConfigError, match="training makes its own features"):
        run(data, training, features=means_of(data))
    with pytest.raises(ConfigError, match="training makes predictions of its own"):
        run(data, training, probabilities=np.full((120, 3), 1 / 3))
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but the path training"):
        run(data, training, options=AuditOptions(processes=Processes(0, 2)))
    with pytest.raises(ConfigError, match="name one with out"):
        AuditOptions(corrected=True)
    with pytest.raises(DataError, match="120"):
        run(data, config, features=means_of(data)[:100])
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match=r"probabilities"):
        run(data, config, probabilities=np.full((120, 4), 0.25), options=AuditOptions(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_page_of_the_docs_names_every_column(config: AuditConfig, tmp_path: Path) -> None:
    data = make_colours()
    table = run(data, config, features=means_of(data), options=AuditOptions(tmp_path / "run")).table
    page = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    section = page.partition("## The table")[2].partition("\n## ")[0]
    told = [
        name
        for line in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)
        for name in line.split(", ")
    ]
    assert [name.strip("`") for name in told] == list(table.columns)


def test_the_public_name_is_the_function() -> None:
    assert lauter.audit is audit
    assert lauter.AuditConfig is AuditConfig

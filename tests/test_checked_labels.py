"""Runs on checked labels: what they are taught, what they write down, and how they go on and are shown."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import lauter
from lauter import pipeline, results
from lauter.__main__ import main
from lauter.config import FitConfig
from lauter.data.dataset import UNLABELLED, Dataset
from lauter.errors import ConfigError, DataError, RunError
from lauter.pipeline import RunOptions, TrainResult, fit, train
from lauter.training.setup import Setup


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, without ONNX."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(results, "can_export_onnx", lambda: False)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """Every data set that a teacher is trained on from now on."""
    found: list[Dataset] = []
    train_teacher = pipeline.train_teacher

    def watch(setup: Setup, config: FitConfig) -> Any:
        found.append(setup.data)
        return train_teacher(setup, config)

    monkeypatch.setattr(pipeline, "train_teacher", watch)
    return found


@pytest.fixture
def table(photos: Path) -> pd.DataFrame:
    """Labels as a person has looked through them: four of the photos' are not what they were."""
    data = lauter.open_dataset(photos)
    given = np.array(data.class_names, dtype=object)[data.labels]
    table = pd.DataFrame({"id": data.ids, "given": given, "verdict": "keep", "suggested": given})
    table["decided_by"] = "audit"
    table.loc[0, ["verdict", "suggested", "decided_by"]] = ["relabel", "dog", "person"]
    table.loc[1, ["verdict", "decided_by"]] = ["drop", "person"]
    table.loc[2, ["verdict", "suggested"]] = ["relabel", "train"]
    table.loc[3, "verdict"] = "drop"
    return table


def test_a_run_is_trained_on_checked_labels_and_says_so(
    photos: Path,
    table: pd.DataFrame,
    micro_flags: list[str],
    seen: list[Dataset],
    capsys: pytest.CaptureFixture[str],
) -> None:
    table.to_csv("labels.csv", index=False)
    words = ["train", str(photos), *micro_flags, "--labels", "labels.csv", "--out", "run"]
    assert main(words) == 0
    (data,) = seen
    given = lauter.open_dataset(photos).labels
    np.testing.assert_array_equal(data.labels[:5], [1, UNLABELLED, 2, UNLABELLED, 0])
    np.testing.assert_array_equal(data.labels[4:], given[4:])
    said = " ".join(capsys.readouterr().out.split())
    assert "2 without a label" in said
    assert f"labels from {Path('labels.csv').absolute()}: 38 keep, 2 relabel, 2 drop, 2 by person" in said

    written = pd.read_parquet("run/labels.parquet").set_index("id")
    assert written.columns[-2:].tolist() == ["original", "decided_by"]
    assert set(written["original"][:4]) == {"cat"}
    assert written["decided_by"].tolist()[:3] == ["person", "person", "audit"]
    assert written.loc["cat/00.png", ["given", "verdict", "suggested"]].tolist() == ["dog", "keep", "dog"]
    np.testing.assert_allclose(written.loc["cat/00.png", "p_given_right"], 1)
    assert written.loc["cat/01.png", "verdict"] == "drop"
    settings = yaml.safe_load(Path("run/config.yaml").read_text())
    assert settings["data"]["checked_labels"]["counts"]["by_person"] == 2
    assert settings["fingerprint"] == data.fingerprint() != lauter.open_dataset(photos).fingerprint()

    # The run goes on with the same labels alone, its report opens them again, and its table is one itself.
    assert main([*words, "--resume"]) == 0
    assert main([*words[:-4], "--out", "run", "--resume"]) == 2
    assert "data.checked_labels" in capsys.readouterr().err
    Path("run/report.html").unlink()
    assert main(["report", "run"]) == 0
    assert Path("run/report.html").stat().st_size > 10_000
    again = lauter.with_checked_labels(lauter.open_dataset(photos), "run/labels.parquet")
    np.testing.assert_array_equal(again.labels[:2], [1, UNLABELLED])
    np.testing.assert_array_equal(np.flatnonzero(again.trusted), [0, 1])


def test_dropped_images_teach_by_mimicking_or_not_at_all(
    photos: Path, table: pd.DataFrame, micro_config: FitConfig, seen: list[Dataset]
) -> None:
    config = dataclasses.replace(micro_config, baseline=False)
    result = fit(photos, labels=table, config=config, out="whole")
    assert len(seen[0]) == len(result.labels) == 42
    assert result.metrics["labels"]["counts"]["unlabelled"] == 2
    short = fit(photos, labels=table, drop=True, config=config, out="short")
    assert len(seen[1]) == len(short.labels) == 40
    assert not {"cat/01.png", "cat/03.png"} & set(short.labels["id"])


def test_a_run_from_python_is_shown_with_its_data(
    photos: Path, table: pd.DataFrame, micro_config: FitConfig
) -> None:
    data = lauter.with_checked_labels(lauter.open_dataset(photos), table)
    made: TrainResult = train(data, config=micro_config, options=RunOptions("run"))
    assert made.labels["original"].tolist()[0] == "cat"
    with pytest.raises(RunError, match=r"made from Python; pass its data set to lauter\.report"):
        lauter.report("run")
    assert lauter.report("run", data).is_file()


@pytest.mark.parametrize("half", [fit, train])
def test_labels_that_do_not_fit_leave_nothing(
    half: Callable[..., Any], photos: Path, table: pd.DataFrame, micro_config: FitConfig
) -> None:
    out: dict[str, Any] = {"out": "run"} if half is fit else {"options": RunOptions("run")}
    with pytest.raises(DataError, match="the label table was made from other labels than photos has now"):
        half(photos, labels=table.assign(given="dog"), config=micro_config, **out)
    with pytest.raises(ConfigError, match="drop leaves out what a label table drops, and there is none"):
        half(photos, drop=True, config=micro_config, **out)
    assert list(Path().iterdir()) == []

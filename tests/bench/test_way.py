"""The measurement of the whole way, on digits in seconds: every method runs, resumes, and leaves records."""

import dataclasses
from pathlib import Path

import pytest

from lauter.bench import way
from lauter.bench.noisy_data import NoisyData, with_true_labels
from lauter.config import FitConfig, load_preset
from lauter.data import corrupt, open_dataset
from lauter.noise import NoiseRecipe


def micro_config() -> FitConfig:
    config = load_preset("quick")
    return dataclasses.replace(
        config,
        student="resnet8",
        teacher="resnet8",
        augment="digits",
        pretrain=dataclasses.replace(config.pretrain, epochs=1),
        warmup=dataclasses.replace(config.warmup, epochs=2),
        robust=dataclasses.replace(config.robust, epochs=1),
        distill=dataclasses.replace(config.distill, epochs=1),
        runtime=dataclasses.replace(config.runtime, precision="32"),
    )


def open_digits(_one: Path, _two: Path, seed: int) -> NoisyData:
    clean = open_dataset("digits", split="train", size=200)
    noisy = corrupt(clean, NoiseRecipe("small", closed_kind="symmetric", closed_rate=0.3), seed=seed)
    return NoisyData(noisy, open_dataset("digits", split="test", size=100))


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = with_true_labels(open_digits, "digits")
    monkeypatch.setattr(way, "WAY_DATA", {"digits": open_digits, "digits-clean": twin})


def test_every_method_leaves_its_records_and_is_not_run_twice(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (tmp_path, tmp_path)
    records = way.measure_way("digits", 3, folders, tmp_path, micro_config())
    measured = {(record.method, record.metric): record.value for record in records}
    for method in (*way.METHODS, "lauter-teacher"):
        assert 0 <= measured[method, "balanced_accuracy_last"] <= 1
    assert measured["lauter", "label_true_noise_rate"] == pytest.approx(0.3)
    assert {record.seed for record in records} == {3}
    # Equal budgets: the student and its baseline see the same number of images.
    assert measured["lauter", "images"] == measured["ce", "images"]
    # The whole way costs more than its last stage, and the rival of equal cost as much within an epoch.
    total, epoch = measured["lauter", "flops_total"], measured["ce", "flops"] / measured["ce", "epochs"]
    assert abs(measured["ce-equal-cost", "flops"] - total) <= epoch
    assert {(r.method, r.metric) for r in way.read_work(tmp_path)} == set(measured)

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(way._Unit, "measure", refuse)
    assert len(way.measure_way("digits", 3, folders, tmp_path, micro_config())) == len(records)


def test_no_harm_data_has_true_labels_and_takes_over_the_self_supervised_weights(
    digits: None, tmp_path: Path
) -> None:
    folders, work = (tmp_path, tmp_path), tmp_path / "work"
    way.measure_way("digits", 0, folders, work, micro_config(), ["lauter"])
    records = way.measure_way("digits-clean", 0, folders, work, micro_config(), ["lauter"])
    measured = {(record.method, record.metric): record.value for record in records}
    assert measured["lauter", "label_true_noise_rate"] == 0
    noisy = (work / "digits/0/checkpoints/pretrain.pt").read_bytes()
    assert (work / "digits-clean/0/checkpoints/pretrain.pt").read_bytes() == noisy

"""The recipe beside its rivals, on digits in seconds: records, costs, resuming, refusals."""

import dataclasses
from pathlib import Path

import pytest

from lauter.bench import noisy
from lauter.bench.noisy_data import NoisyData
from lauter.config import FitConfig
from lauter.data import corrupt, open_dataset
from lauter.errors import ConfigError
from lauter.noise import NoiseRecipe
from lauter.training.runtime import RuntimeConfig


def open_digits(_one: Path, _two: Path, seed: int) -> NoisyData:
    clean = open_dataset("digits", split="train", size=200)
    noisy_labels = corrupt(clean, NoiseRecipe("small", closed_kind="symmetric", closed_rate=0.3), seed=seed)
    return NoisyData(noisy_labels, open_dataset("digits", split="test", size=100))


def micro_config() -> FitConfig:
    config = noisy.make_config(RuntimeConfig(precision="32"), 3)
    return dataclasses.replace(
        config,
        teacher="resnet8",
        student="resnet8",
        augment="digits",
        pretrain=dataclasses.replace(config.pretrain, epochs=2),
        warmup=dataclasses.replace(config.warmup, epochs=2),
        robust=dataclasses.replace(config.robust, epochs=2),
        supervised=dataclasses.replace(config.supervised, epochs=2),
    )


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy, "RIVAL_DATA", {"digits": open_digits})


def test_methods_leave_records_with_their_whole_cost_and_are_not_run_twice(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = micro_config()
    methods = [
        "fnf",
        "fnf-short",
        "ce",
        "ce-ssl",
        "ce-equal-cost",
        "mixup",
        "no-pretraining",
        "with-two-networks",
        "with-mixup",
    ]
    measure = lambda: noisy.measure_noisy("digits", 3, (tmp_path, tmp_path), tmp_path, config, methods)  # noqa: E731
    records = measure()
    found = {(record.method, record.metric): record.value for record in records}
    for method in methods:
        assert 0 <= found[method, "balanced_accuracy_last"] <= 1
        assert 0 <= found[method, "oracle_gap"] <= 1
        assert found[method, "cost_images"] > 0
    flops = {method: found[method, "cost_flops"] for method in methods}
    assert found["fnf", "label_true_noise_rate"] == pytest.approx(0.3)
    # The rival that mixes is one network without a judge; the recipe that mixes has one.
    assert ("mixup", "label_f1") not in found
    assert 0 <= found["with-mixup", "label_f1"] <= 1
    assert flops["mixup"] == flops["ce"]
    assert found["fnf", "label_closed_true"] == pytest.approx(0.3)
    assert found["fnf", "label_closed_low"] <= found["fnf", "label_closed_estimated"]
    # Pretraining is in the cost of whoever starts from it, shared or not.
    assert flops["ce-ssl"] - flops["ce"] == pytest.approx(flops["fnf"] - flops["no-pretraining"], rel=0.01)
    assert flops["fnf"] - flops["fnf-short"] == pytest.approx(flops["fnf-short"] - flops["no-pretraining"])
    epoch = flops["ce"] / 2
    assert abs(flops["ce-equal-cost"] - flops["fnf"]) <= epoch
    assert flops["with-two-networks"] > flops["fnf"] + epoch

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(noisy._Unit, "measure", refuse)
    assert measure() == records


def test_a_work_folder_with_other_settings_is_refused(digits: None, tmp_path: Path) -> None:
    config = micro_config()
    folders = (tmp_path, tmp_path)
    noisy.measure_noisy("digits", 3, folders, tmp_path, config, [])
    other = dataclasses.replace(config, holdout=0.2)
    with pytest.raises(ConfigError, match="was measured with other settings"):
        noisy.measure_noisy("digits", 3, folders, tmp_path, other, [])
    threads = dataclasses.replace(config, runtime=RuntimeConfig(precision="32", threads=1))
    assert noisy.measure_noisy("digits", 3, folders, tmp_path, threads, []) == []


@pytest.mark.parametrize("name", ["elf", "ce-equal-cost-ssl", "teacher"])
def test_an_unknown_method_is_refused(name: str, digits: None, tmp_path: Path) -> None:
    config = micro_config()
    with pytest.raises(ConfigError, match=rf"method must be one of fnf, fnf-short, ce, .* not '{name}'"):
        noisy.measure_noisy("digits", 3, (tmp_path, tmp_path), tmp_path, config, [name])


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data must be one of ncifar10, .* not 'cifar'"):
        noisy.measure_noisy("cifar", 0, (tmp_path, tmp_path), tmp_path, micro_config())

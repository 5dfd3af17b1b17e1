"""A headless teacher, on digits in seconds: no label teaches, and what is measured stays measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from lauter.bench import headless
from lauter.bench.headless import HeadlessConfig, measure_headless
from lauter.data import Dataset, open_dataset
from lauter.training.runtime import RuntimeConfig

RUNTIME = RuntimeConfig(device="cpu", precision="32", workers=0)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_digits(*_: object, split: str, **__: object) -> Dataset:
        return open_dataset("digits", split=split, size=120)

    monkeypatch.setattr(headless, "open_dataset", open_digits)


def make_config() -> HeadlessConfig:
    config = HeadlessConfig(teacher="resnet8x4", student="resnet8")
    return replace(
        config,
        pretrain=replace(config.pretrain, epochs=1, batch_size=60),
        mimic=replace(config.mimic, epochs=1),
    )


def test_every_method_leaves_its_records_and_is_not_run_twice(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = measure_headless("digits", tmp_path, 0, RUNTIME, make_config())
    assert {record.method for record in records} == set(headless.METHODS)
    for record in records:
        if record.metric.startswith("accuracy"):
            assert 0 <= record.value <= 1
    probes = {r.method: r.value for r in records if r.metric == "accuracy_probe"}
    assert max(probes.values()) > 0.3, "features of digits tell them apart far above chance"

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(headless, "train_method", refuse)
    assert len(measure_headless("digits", tmp_path, 0, RUNTIME, make_config())) == len(records)

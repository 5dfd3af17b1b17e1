"""Ranges: nested time is counted once, and a stage is as it was after it was looked at."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lauter.bench import ranges
from lauter.bench.ranges import RANGES, Ranges, share_time
from lauter.data import Dataset
from lauter.data.batches import ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.views import IDENTITY
from lauter.models import InputSpec, Network, wrap_module
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.supervised import SupervisedConfig, SupervisedStage
from lauter.training.tracking import Tracker, Watch

MakeStage = Callable[[Loop], SupervisedStage]


@pytest.fixture
def loop() -> Loop:
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
    return Loop(runtime, Checkpoints(None), Progress(), 3)


@pytest.fixture
def make_stage() -> MakeStage:
    def make(loop: Loop) -> SupervisedStage:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
        images = ResidentImages(pixels)
        data = Dataset("x", images, np.arange(20) % 2, ("a", "b"), np.arange(20).astype(np.str_))
        torch.manual_seed(0)
        network: Network = wrap_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), 4, 2, InputSpec(8))
        batches = ImageBatches(images, np.arange(20), 5, (IDENTITY,), 8)
        tracker = Tracker(Watch(data, np.arange(4), None, loop.runtime, 8))
        return SupervisedStage(
            "s", network, data.labels, batches, SupervisedConfig(2, 5, ema_decay=0.9), tracker
        )

    return make


def test_time_within_a_range_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ranges.time, "perf_counter", lambda: now[0])
    clock = Ranges(torch.device("cpu"))
    with clock.mark("other"):
        now[0] += 1
        with clock.mark("loss"):
            now[0] += 2
            with clock.mark("student"):
                now[0] += 4
            now[0] += 8
        with clock.mark("data"):
            now[0] += 16
    assert {name: spent for name, spent in clock.seconds.items() if spent} == {
        "other": 1,
        "loss": 10,
        "student": 4,
        "data": 16,
    }


def test_a_backward_pass_is_the_loss_s_until_it_reaches_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ranges.time, "perf_counter", lambda: now[0])
    clock = Ranges(torch.device("cpu"))
    features = torch.ones(2, requires_grad=True) * 1.0
    loss = (features * 3).sum()
    clock.note_features(features)
    with clock.mark_backward():
        now[0] += 2
        torch.autograd.backward(loss)  # the clock is read where the gradient arrives
        now[0] += 5
    np.testing.assert_allclose([clock.seconds["loss"], clock.seconds["student"]], [2, 5])


def test_shares_sum_to_one_and_the_weights_are_the_same(
    loop: Loop, make_stage: MakeStage, tmp_path: Path
) -> None:
    watched, plain = make_stage(loop), make_stage(loop)
    shares = share_time(loop, watched, tmp_path / "trace.json")
    loop.run_stage(plain)
    assert tuple(shares) == RANGES
    np.testing.assert_allclose(sum(shares.values()), 1)
    assert all(shares[name] > 0 for name in ("data", "student", "loss", "optimizer", "epoch_end", "other"))
    assert shares["teacher"] == shares["beliefs"] == 0
    torch.testing.assert_close(watched.network.state_dict(), plain.network.state_dict(), rtol=0, atol=0)
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"lauter data", "lauter student", "lauter loss", "lauter optimizer"} <= names


def test_nothing_stays_wrapped(loop: Loop, make_stage: MakeStage) -> None:
    stage = make_stage(loop)
    share_time(loop, stage)
    owners = [stage, stage.batches, stage.network, stage.trained[0].optimizer, loop.runtime.fabric]
    for owner in owners:
        assert not {"epoch", "loss", "features", "step", "backward", "end_epoch"} & set(vars(owner))

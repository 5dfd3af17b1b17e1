"""Compiling where it pays: the choice follows the clock, is said, kept, and read again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from lauter.config import FitConfig, from_plain
from lauter.data.batches import Batch, FeatureBatches, ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.views import IDENTITY
from lauter.errors import ConfigError
from lauter.models import Network
from lauter.training import compiling, runtime
from lauter.training.checkpoint import Checkpoints
from lauter.training.compiling import choose, decide_compiling, weigh
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage

MakeNetwork = Callable[[int], Network]


class Mean(Stage):
    """Trains features towards zero."""

    def __init__(self, network: Network, batches: Any, **options: Any) -> None:
        super().__init__("mean", 1, batches, {"network": network, **options})
        self.network = network
        self.train_with(network.parameters(), OptimizerConfig())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"mean": self.network(batch.images).features.square().mean(1)}


@pytest.fixture
def images(images: ResidentImages) -> ImageBatches:
    return ImageBatches(images, np.arange(24), 8, (IDENTITY,), 8)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every backbone that is compiled, without the minutes that compiling takes."""
    seen: list[object] = []

    def compile_nothing(self: torch.nn.Module, **_: Any) -> None:
        self._compiled_call_impl = self._call_impl
        seen.append(self)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_nothing)
    return seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Let steps take these seconds: the first compiled one, then eager and compiled ones in turn."""

    def wind(seconds: list[float]) -> None:
        readings = iter(np.cumsum([passed for second in seconds for passed in (0.0, second)]).tolist())
        monkeypatch.setattr(compiling.time, "perf_counter", lambda: next(readings))

    return wind


def test_the_faster_way_is_chosen_and_both_rates_are_said() -> None:
    gain = weigh(10, 0.2, 0.1, 30.0, 1000)
    assert gain.compiled
    assert gain.reason.startswith("compiled: 100 images/s, eager 50; over 1,000 steps that saves 100 s")
    short = weigh(10, 0.2, 0.1, 30.0, 500)
    assert not short.compiled
    assert "compiling would save 50 s, and compiling takes 60 s" in short.reason
    loss = weigh(10, 0.1, 0.2, 0.0, 1000)
    assert not loss.compiled
    assert loss.reason == "eager: 100 images/s, compiled 50"


def test_timing_leaves_network_and_random_state_alone(
    make_network: MakeNetwork, compiled: list[object], clock: Callable[[list[float]], None]
) -> None:
    network = make_network(0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    clock([7.0, *[0.4, 0.1] * compiling.TIMED_STEPS])
    pixels = torch.zeros((4, 3, 8, 8), dtype=torch.uint8)
    choice = choose(network, pixels, Runtime(RuntimeConfig(device="cpu", precision="32")), 100)
    assert choice.compiled
    np.testing.assert_allclose(
        [choice.eager_rate, choice.compiled_rate, choice.compile_seconds], [10, 40, 7.0]
    )
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.backbone._compiled_call_impl is None
    assert len(compiled) == 1


def test_a_choice_is_made_once_said_and_read_again(
    make_network: MakeNetwork,
    images: ImageBatches,
    compiled: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(record=True, width=200)
    auto = Runtime(RuntimeConfig(device="cpu", precision="32", compile="auto"))
    asked: list[int] = []

    def pretend(network: Network, pixels: Tensor, runtime: Runtime, steps: int) -> compiling.CompileChoice:
        asked.append(steps)
        assert pixels.shape == (8, 3, 8, 8)
        return weigh(8, 0.2, 0.1, 0.0, steps)

    monkeypatch.setattr(compiling, "choose", pretend)
    first = make_network(0)
    frozen = make_network(1).requires_grad_(False)
    loop = Loop(auto, Checkpoints(tmp_path), Progress(None, console), seed=5)
    loop.run_stage(Mean(first, images, teacher=frozen))
    assert asked == [3]
    assert compiled == [first.backbone]
    assert "compile     mean, network: compiled: 80 images/s, eager 40" in console.export_text()
    kept = json.loads((tmp_path / "mean.compile.json").read_text())
    assert kept["network"]["compiled"] is True
    again = make_network(0)
    decide_compiling(Mean(again, images), auto, Checkpoints(tmp_path), Progress())
    assert asked == [3]
    assert compiled == [first.backbone, again.backbone]
    decide_compiling(Mean(again, images), auto, Checkpoints(tmp_path / "later"), Progress())
    assert asked == [3]  # an earlier stage has compiled it


def test_nothing_is_timed_without_images_or_unasked(
    make_network: MakeNetwork, images: ImageBatches, compiled: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "choose", lambda *_: pytest.fail("was timed"))
    plain = Runtime(RuntimeConfig(device="cpu", precision="32"))
    features = FeatureBatches(torch.zeros(9, 4), np.arange(9), 3)
    decide_compiling(Mean(make_network(0), features), plain, Checkpoints(None), Progress())
    Loop(plain).run_stage(Mean(make_network(0), images))
    assert compiled == []


def test_without_a_compiler_nothing_is_compiled(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    auto = Runtime(RuntimeConfig(device="cpu", compile="auto"))
    choice = choose(make_network(0), torch.zeros((2, 3, 8, 8), dtype=torch.uint8), auto, 9)
    assert not choice.compiled
    assert "no C++ compiler" in choice.reason


def test_the_setting_is_true_false_or_auto() -> None:
    for value in (True, False, "auto"):
        config = from_plain(FitConfig, {"runtime": {"compile": value}})
        assert config.runtime.compile == value
    with pytest.raises(ConfigError, match=r"runtime\.compile must be true, false or auto, not 'fast'"):
        from_plain(FitConfig, {"runtime": {"compile": "fast"}})
    with pytest.raises(ConfigError, match="compile must be true, false or auto, not 'fast'"):
        RuntimeConfig(compile="fast")  # type: ignore[arg-type]

"""The loop: steps against hand values, clipping, costs, stops, and what is said when things go wrong."""

import io
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from lauter.data.batches import Batch, FeatureBatches, ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.views import IDENTITY
from lauter.errors import ConfigError, NonFiniteLossError
from lauter.training.loop import Cost, Interrupted, Loop, _Meter
from lauter.training.progress import Progress, read_history
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage

MakeLoop = Callable[..., Loop]
Terms = Callable[["Toy", Batch, int], dict[str, Tensor]]
PLAIN = OptimizerConfig(lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")


class Weight(nn.Module):
    """Numbers to learn."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(values))


class Toy(Stage):
    """A stage of one or more weights whose loss is given as a function of (stage, batch, step)."""

    def __init__(
        self,
        terms: Terms,
        *weights: Weight,
        configs: tuple[OptimizerConfig, ...] = (PLAIN,),
        epochs: int = 2,
        weighting: dict[str, float] | None = None,
        name: str = "toy",
    ) -> None:
        batches = FeatureBatches(torch.arange(12.0)[:, None], np.arange(12), 4, seed=1)
        modules = {f"weight{place}": weight for place, weight in enumerate(weights)}
        super().__init__(name, epochs, batches, modules, weights=weighting)
        self.terms, self.values, self.calls = terms, [weight.value for weight in weights], 0
        for weight, config in zip(weights, configs, strict=True):
            self.train_with(weight.parameters(), config)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        return self.terms(self, batch, self.calls)


class Recording(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        self.records.append(record)

    def say(self, text: str) -> None:
        self.said.append(text)


# --- steps ----------------------------------------------------------------------------------------------


def test_terms_are_averaged_over_the_batch_weighted_and_added(make_loop: MakeLoop) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        (value,) = stage.values
        return {
            "per_image": value * torch.tensor([1.0, 2.0, 3.0, 6.0]),
            "scalar": 5 * value.sum(),
            "unnamed": value.sum(),
        }

    stage = Toy(terms, Weight(1.0), epochs=1, weighting={"per_image": 2.0, "scalar": 0.1})
    progress = Recording()
    make_loop(progress=progress).run([stage])
    slope = 2.0 * 3 + 0.1 * 5 + 1
    expected = [1 - 0.1 * slope * step for step in range(4)]
    torch.testing.assert_close(stage.values[0].detach(), torch.tensor([expected[3]]))
    mean = sum(expected[:3]) / 3
    assert progress.records[0]["loss"] == pytest.approx(
        {"per_image": 3 * mean, "scalar": 5 * mean, "unnamed": mean}
    )


def test_a_term_that_comes_now_and_then_is_averaged_where_it_came(make_loop: MakeLoop) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        found = {"always": stage.values[0].sum() * 0 + step}
        return {**found, "once": stage.values[0].sum() * 0 + 10} if step == 2 else found

    progress = Recording()
    make_loop(progress=progress).run([Toy(terms, Weight(1.0), epochs=1)])
    assert progress.records[0]["loss"] == pytest.approx({"always": 2.0, "once": 10.0})


@pytest.mark.parametrize("empty", [False, True])
def test_a_batch_without_anything_to_learn_is_passed_over(make_loop: MakeLoop, empty: bool) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        if step == 2:
            return {} if empty else {"loss": torch.zeros(4)}
        return {"loss": stage.values[0] * torch.ones(4)}

    momentum = OptimizerConfig(lr=0.1, momentum=0.5, nesterov=False, weight_decay=0.0, schedule="constant")
    stage = Toy(terms, Weight(1.0), epochs=1, configs=(momentum,))
    make_loop().run([stage])
    # Two steps of velocity 1 and 1.5; the momentum waits while nothing is learnt.
    torch.testing.assert_close(stage.values[0].detach(), torch.tensor([1 - 0.1 - 0.15]))


def test_the_hooks_of_a_stage_run_in_their_order(make_loop: MakeLoop) -> None:
    class Hooked(Toy):
        def begin_epoch(self, epoch: int) -> None:
            super().begin_epoch(epoch)
            story.append(f"begin {epoch}")

        def after_step(self) -> None:
            story.append(round(self.values[0].item(), 4))  # the optimiser has stepped already

        def end_epoch(self, epoch: int) -> dict[str, float]:
            story.append(f"end {epoch}")
            return {}

        def finished(self, epoch: int) -> bool:
            story.append(f"finished {epoch}?")
            return False

    story: list[Any] = []
    make_loop().run([Hooked(lambda stage, batch, step: {"loss": stage.values[0].sum()}, Weight(1.0))])
    first = ["begin 0", 0.9, 0.8, 0.7, "end 0", "finished 0?"]
    assert story == [*first, "begin 1", 0.6, 0.5, 0.4, "end 1"]


def test_the_lr_follows_the_schedule_over_the_whole_stage(make_loop: MakeLoop) -> None:
    config = OptimizerConfig(lr=1.0, momentum=0.0, weight_decay=0.0, schedule="cosine")
    stage = Toy(lambda stage, batch, step: {"loss": stage.values[0].sum()}, Weight(0.0), configs=(config,))
    make_loop().run([stage])
    expected = -sum(0.5 + 0.5 * math.cos(math.pi * step / 6) for step in range(6))
    torch.testing.assert_close(stage.values[0].detach(), torch.tensor([expected]))


def test_a_stage_without_a_loss_says_so(make_loop: MakeLoop) -> None:
    batches = FeatureBatches(torch.zeros(3, 1), np.arange(3), 2)
    with pytest.raises(NotImplementedError, match="stage 'bare' defines no loss"):
        make_loop().run([Stage("bare", 1, batches, {})])


# --- clipping -------------------------------------------------------------------------------------------


def slopes(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
    """Gradients (3, 0), (0, 4) and 12: norm 13 over all, 5 over the first two."""
    first, second, third = stage.values
    return {"loss": 3 * first[0] + 4 * second[1] + 12 * third.sum()}


def clipped(clip: float) -> OptimizerConfig:
    return OptimizerConfig(
        lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip=clip, nesterov=False
    )


def run_once(make_loop: MakeLoop, *clips: float) -> list[list[float]]:
    weights = Weight(0.0, 0.0), Weight(0.0, 0.0), Weight(0.0)
    batches = FeatureBatches(torch.zeros(2, 1), np.arange(2), 2)
    stage = Toy(slopes, *weights, configs=tuple(clipped(clip) for clip in clips), epochs=1)
    stage.batches = batches
    make_loop().run([stage])
    return [value.detach().tolist() for value in stage.values]


def test_clipping_is_by_one_norm_over_all_optimisers(make_loop: MakeLoop) -> None:
    found = run_once(make_loop, 6.5, 6.5, 6.5)
    assert found == [pytest.approx([-1.5, 0]), pytest.approx([0, -2.0]), pytest.approx([-6.0])]


def test_an_optimiser_that_does_not_ask_is_neither_counted_nor_clipped(make_loop: MakeLoop) -> None:
    found = run_once(make_loop, 2.5, 2.5, 0.0)
    assert found == [pytest.approx([-1.5, 0]), pytest.approx([0, -2.0]), pytest.approx([-12.0])]


def test_a_short_gradient_is_not_clipped(make_loop: MakeLoop) -> None:
    assert run_once(make_loop, 13.5, 13.5, 13.5) == [[-3.0, 0.0], [0.0, -4.0], [-12.0]]


def test_two_norms_in_one_stage_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stage 'toy': its optimisers clip at 1.0 and 2.0"):
        Toy(slopes, Weight(0.0), Weight(0.0), configs=(clipped(1.0), clipped(2.0)))


# --- modes ----------------------------------------------------------------------------------------------


def test_trained_modules_are_in_training_mode_and_frozen_ones_in_eval_mode(make_loop: MakeLoop) -> None:
    trained, frozen = Weight(1.0), nn.Linear(2, 2).requires_grad_(False)
    modes = []

    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        modes.append((trained.training, frozen.training))
        return {"loss": stage.values[0].sum()}

    stage = Toy(terms, trained.eval(), epochs=1)
    stage.modules["frozen"] = frozen
    make_loop().run([stage])
    assert modes == [(True, False)] * 3


# --- costs ----------------------------------------------------------------------------------------------


class Pictures(Stage):
    """Two views of each image."""

    def __init__(self, images: ResidentImages, stop_at: int = 0) -> None:
        batches = ImageBatches(images, np.arange(20), 6, (IDENTITY, IDENTITY), 8)
        self.weight = Weight(1.0)
        super().__init__("pictures", 3, batches, {"weight": self.weight}, flops_per_image=1000.0)
        self.train_with(self.weight.parameters(), PLAIN)
        self.stop_at, self.calls = stop_at, 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return {"loss": self.weight.value * batch.images.float().mean((1, 2, 3))}


def test_costs_count_every_view_and_survive_a_stop(make_loop: MakeLoop, images: ResidentImages) -> None:
    whole = make_loop("whole")
    whole.run([Pictures(images)])
    assert whole.costs["pictures"].images == 3 * 20 * 2
    assert whole.costs["pictures"].flops == 3 * 20 * 2 * 1000
    broken = make_loop("broken")
    with pytest.raises(Interrupted):
        broken.run([Pictures(images, stop_at=6)])
    before = broken.costs["pictures"]
    assert before.images == (20 + 10) * 2
    resumed = make_loop("broken")
    resumed.run([Pictures(images)])
    after = resumed.costs["pictures"]
    assert (after.images, after.flops) == (120, 120_000.0)
    assert after.seconds > before.seconds > 0
    loaded = make_loop("broken")
    loaded.run([Pictures(images)])
    assert loaded.costs["pictures"] == after


def test_stored_features_are_no_images(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.run([Toy(lambda stage, batch, step: {"loss": stage.values[0].sum()}, Weight(1.0))])
    assert loop.costs["toy"].images == 0
    assert loop.costs["toy"] == Cost(loop.costs["toy"].seconds, 0, 0.0)


# --- complete stages ------------------------------------------------------------------------------------


def line(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
    return {"loss": stage.values[0].sum() * batch.images.mean()}


def test_a_complete_stage_is_loaded_and_not_run_again(make_loop: MakeLoop) -> None:
    first = [Toy(line, Weight(1.0), name="a"), Toy(line, Weight(2.0), name="b")]
    make_loop("run").run(first)
    again = [Toy(line, Weight(0.0), name="a"), Toy(line, Weight(0.0), name="b")]
    make_loop("run").run(again)
    for one, two in zip(first, again, strict=True):
        assert (one.calls, two.calls) == (6, 0)
        torch.testing.assert_close(two.values[0], one.values[0], rtol=0, atol=0)


def test_a_stage_may_end_before_its_epochs(make_loop: MakeLoop) -> None:
    class Early(Toy):
        def finished(self, epoch: int) -> bool:
            return epoch == 1

    progress = Recording()
    make_loop("run", progress).run([Early(line, Weight(1.0), epochs=5)])
    assert [record["epoch"] for record in progress.records] == [0, 1]
    again = Early(line, Weight(1.0), epochs=5)
    make_loop("run").run([again])
    assert again.calls == 0


def test_means_of_a_resumed_epoch_are_those_of_the_whole_epoch(make_loop: MakeLoop) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        if stage.values[0].requires_grad and step == stop:
            signal.raise_signal(signal.SIGINT)
        return {"loss": stage.values[0] * batch.images.flatten()}

    stop, whole = 0, Recording()
    make_loop("whole", whole).run([Toy(terms, Weight(1.0))])
    stop, broken, resumed = 5, Recording(), Recording()
    with pytest.raises(Interrupted):
        make_loop("broken", broken).run([Toy(terms, Weight(1.0))])
    stop = 0
    make_loop("broken", resumed).run([Toy(terms, Weight(1.0))])
    losses = [record["loss"] for record in [*broken.records, *resumed.records]]
    assert losses == [record["loss"] for record in whole.records]


def test_another_thread_count_is_said(make_loop: MakeLoop, tmp_path: Path) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return line(stage, batch, step)

    with pytest.raises(Interrupted):
        make_loop("run").run([Toy(terms, Weight(1.0))])
    path = tmp_path / "run" / "toy.pt"
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "threads": 97}, path)
    progress = Recording()
    make_loop("run", progress).run([Toy(line, Weight(1.0))])
    (said,) = progress.said
    assert f"begun with 97 threads and continues with {torch.get_num_threads()}" in said


# --- Ctrl-C ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "position"), [(2, (0, 2, False)), (3, (1, 0, False)), (6, (2, 0, True))])
def test_ctrl_c_finishes_the_step_keeps_it_and_stops(
    make_loop: MakeLoop, tmp_path: Path, step: int, position: tuple[int, int, bool]
) -> None:
    def terms(stage: Toy, batch: Batch, at: int) -> dict[str, Tensor]:
        if at == step:
            signal.raise_signal(signal.SIGINT)
        return line(stage, batch, at)

    handler = signal.getsignal(signal.SIGINT)
    stage = Toy(terms, Weight(1.0))
    with pytest.raises(Interrupted, match="toy"):
        make_loop("run").run([stage])
    assert stage.calls == step
    assert torch.load(tmp_path / "run" / "toy.pt", weights_only=True)["position"] == position
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, whole = Toy(line, Weight(1.0)), Toy(line, Weight(1.0))
    make_loop("run").run([resumed])
    make_loop().run([whole])
    assert resumed.calls == 6 - step
    torch.testing.assert_close(resumed.values[0], whole.values[0], rtol=0, atol=0)


def test_ctrl_c_between_epochs_is_not_lost(make_loop: MakeLoop) -> None:
    class Pressed(Toy):
        def end_epoch(self, epoch: int) -> dict[str, float]:
            signal.raise_signal(signal.SIGINT)
            return {}

    stage = Pressed(line, Weight(1.0))
    with pytest.raises(Interrupted):
        make_loop("run").run([stage])
    assert stage.calls == 3


def test_a_second_ctrl_c_stops_at_once(make_loop: MakeLoop, tmp_path: Path) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one came back")

    with pytest.raises(KeyboardInterrupt) as caught:
        make_loop("run").run([Toy(terms, Weight(1.0))])
    assert not isinstance(caught.value, Interrupted)
    assert not (tmp_path / "run" / "toy.pt").exists()


def test_a_loop_in_another_thread_leaves_the_signal_alone(make_loop: MakeLoop) -> None:
    stage = Toy(line, Weight(1.0))
    thread = threading.Thread(target=lambda: make_loop().run([stage]))
    thread.start()
    thread.join()
    assert stage.calls == 6


# --- what is not finite ---------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_named_with_its_place(make_loop: MakeLoop, tmp_path: Path) -> None:
    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        value = stage.values[0].sum()
        return {"good": value * 0 + 0.5, "bad": value * (math.nan if step == 5 else 1.0)}

    stage = Toy(terms, Weight(1.0))
    path = tmp_path / "run" / "toy.pt"
    message = (
        rf"stage 'toy', epoch 2, step 2: the loss is not finite \(good = 0\.5, bad = nan\); "
        rf"the last good checkpoint is {path}\..*smaller lr"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        make_loop("run").run([stage])
    assert torch.isfinite(stage.values[0]).all()  # the broken step was not taken
    assert torch.load(path, weights_only=True)["position"] == (1, 0, False)


def test_an_infinite_loss_before_any_checkpoint(make_loop: MakeLoop) -> None:
    stage = Toy(lambda stage, batch, step: {"loss": stage.values[0] / 0}, Weight(1.0))
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 1.*loss = inf.*there is no checkpoint yet"):
        make_loop("run").run([stage])


def test_weights_that_are_not_finite_are_not_kept(make_loop: MakeLoop, tmp_path: Path) -> None:
    """A finite loss may have a gradient that is not; after the last step no further loss would show it."""

    def terms(stage: Toy, batch: Batch, step: int) -> dict[str, Tensor]:
        value = stage.values[0].sum()
        return {"loss": (value - value.detach()).abs().sqrt() if step == 6 else value}

    with pytest.raises(
        NonFiniteLossError, match=r"epoch 2, the weights of 'weight0' are not finite .*toy\.pt"
    ):
        make_loop("run").run([Toy(terms, Weight(1.0))])
    saved = torch.load(tmp_path / "run" / "toy.pt", weights_only=True)
    assert saved["position"] == (1, 0, False)
    assert torch.isfinite(saved["modules"]["weight0"]["value"]).all()


def test_on_an_accelerator_terms_are_looked_at_in_blocks_and_the_first_bad_step_is_kept() -> None:
    meter = _Meter({}, deferred=True)
    for step in range(_Meter.BLOCK - 1):
        meter.add(step, {"a": torch.tensor(math.nan if step in (7, 9) else 1.0), "b": torch.tensor(2.0)})
    assert meter.broken is None
    assert meter.describe() == ""
    meter.add(_Meter.BLOCK - 1, {"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    assert meter.broken is not None
    step, terms = meter.broken
    assert (step, terms["b"], math.isnan(terms["a"])) == (7, 2.0, True)
    assert meter.means()["b"] == 2.0


# --- what is logged -------------------------------------------------------------------------------------


def test_epochs_are_logged(make_loop: MakeLoop, tmp_path: Path) -> None:
    class Scored(Toy):
        def end_epoch(self, epoch: int) -> dict[str, float]:
            return {"score": epoch / 2}

    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=200)
    with Progress(tmp_path, console) as progress:
        make_loop(progress=progress).run([Scored(line, Weight(1.0))])
    history = read_history(tmp_path)
    assert [(entry["stage"], entry["epoch"]) for entry in history] == [("toy", 0), ("toy", 1)]
    assert [entry["metrics"] for entry in history] == [{"score": 0.0}, {"score": 0.5}]
    assert all(entry["images_per_second"] > 0 and entry["seconds"] > 0 for entry in history)
    assert len(out.getvalue().splitlines()) == 2

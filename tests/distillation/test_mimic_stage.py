"""Mimicking as a stage: heads, hashes, terms, and what a dropped label may and may not do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lauter.data import ResidentImages
from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import Dataset
from lauter.data.views import IDENTITY
from lauter.distillation.mimic import Mimic, MimicConfig, MimicStage, choose_std, fit_student_head
from lauter.errors import ConfigError, ModelError
from lauter.losses import mimic
from lauter.models import EmbeddedHead, Network, create_network, fold_head
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.tracking import Tracker, Watch


def make_data(count: int = 48) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    ids = np.array([str(row) for row in range(count)])
    return Dataset("noise", ResidentImages(pixels), rng.integers(0, 3, count), ("a", "b", "c"), ids)


def make_network(name: str = "resnet8", classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return create_network(name, classes, image_size=16)


def make_stage(
    config: MimicConfig, targets: torch.Tensor, directory: Path | None = None
) -> tuple[Loop, MimicStage]:
    data = make_data()
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
    teacher, student = make_network(seed=1).eval(), make_network(seed=2)
    fit_student_head(student, teacher, config.head)
    features = torch.rand(40, 64)
    batches = ImageBatches(data.images, np.arange(40), 20, (IDENTITY,), 16)
    tracker = Tracker(Watch(data, np.arange(40, 48), None, runtime, 16))
    loss = Mimic(config, teacher, features, 16, seed=0)
    return Loop(runtime, Checkpoints(directory)), MimicStage(
        student, teacher, loss, targets, batches, config, tracker
    )


def first_batch(stage: MimicStage) -> Batch:
    return next(iter(stage.batches.epoch(0)))


@pytest.mark.parametrize("loss", ["l2", "lsh", "lshl2", "lsh_expected"])
def test_the_mimic_term_is_the_loss_of_the_features(loss: str) -> None:
    config = MimicConfig(loss=loss, epochs=1)  # type: ignore[arg-type]
    _, stage = make_stage(config, torch.full((48,), -1))
    stage.begin_epoch(0)
    batch = first_batch(stage)
    term = stage.loss(batch)["mimic"]
    stage.student.train()
    wanted = stage.teacher.features(batch.images)[0]
    features = stage.student.features(batch.images)[0]
    kept = stage.mimic_loss
    if loss == "l2":
        expected = mimic.l2(features, wanted)
    elif loss == "lsh_expected":
        expected = mimic.lsh_expected(features, wanted, std=kept.std, center=kept.center)
    else:
        expected = getattr(mimic, loss)(features, wanted, kept.weight, kept.bias)
    torch.testing.assert_close(term, expected)
    assert not stage.teacher.training


def test_images_without_a_believed_label_mimic_but_do_not_classify() -> None:
    targets = torch.randint(0, 3, (48,))
    targets[:40] = -1
    _, stage = make_stage(MimicConfig(epochs=1), targets)
    stage.begin_epoch(0)
    terms = stage.loss(first_batch(stage))
    assert float(terms["classification"].detach()) == 0
    assert float(terms["mimic"].mean().detach()) > 0
    terms["classification"].backward()
    gradients = [p.grad for p in stage.student.parameters() if p.grad is not None]
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients)


def test_classification_is_prior_corrected_unless_switched_off() -> None:
    targets = torch.tensor([0] * 30 + [1] * 6 + [2] * 2 + [-1] * 10)
    prior = torch.tensor([30.5, 6.5, 2.5]) / 39.5
    for corrected in (True, False):
        _, stage = make_stage(MimicConfig(epochs=1, prior_correction=corrected), targets)
        stage.begin_epoch(0)
        batch = first_batch(stage)
        found = stage.loss(batch)["classification"]
        stage.student.train()
        logits = stage.student(batch.images).logits + (prior.log() if corrected else 0)
        chosen = targets[batch.index]
        losses = [float(-logits[i].log_softmax(0)[t].detach()) for i, t in enumerate(chosen) if t >= 0]
        assert float(found.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_gamma_zero_needs_no_label_and_the_teachers_head_is_not_touched() -> None:
    loop, stage = make_stage(MimicConfig(epochs=2, gamma=0.0, head="teacher"), torch.full((48,), -1))
    head = stage.student.head
    assert isinstance(head, EmbeddedHead)
    before = head.classifier.weight.clone()  # type: ignore[operator]
    embedding = head.embedding.weight.clone()
    loop.run_stage(stage)
    torch.testing.assert_close(head.classifier.weight, before, rtol=0, atol=0)  # type: ignore[arg-type]
    assert float((head.embedding.weight - embedding).detach().abs().max()) > 0
    folded = fold_head(stage.student.eval())
    assert isinstance(folded.head, nn.Linear)


def test_mimicking_pulls_the_student_towards_the_teacher() -> None:
    loop, stage = make_stage(MimicConfig(epochs=8, beta=6.0), torch.full((48,), -1))
    losses = []
    end_epoch = stage.end_epoch

    def listen(epoch: int) -> dict[str, float]:
        metrics = end_epoch(epoch)
        losses.append(metrics["angle_p50"])
        return metrics

    stage.end_epoch = listen  # type: ignore[method-assign]
    loop.run_stage(stage)
    assert losses[-1] < 0.7 * losses[0]


def test_hashes_are_saved_with_the_run_bit_for_bit(tmp_path: Path) -> None:
    loop, stage = make_stage(MimicConfig(epochs=1), torch.full((48,), -1), tmp_path)
    loop.run_stage(stage)
    saved = torch.load(tmp_path / "distill.pt", weights_only=True)["modules"]["mimic"]
    torch.testing.assert_close(saved["weight"], stage.mimic_loss.weight, rtol=0, atol=0)
    torch.testing.assert_close(saved["bias"], stage.mimic_loss.bias, rtol=0, atol=0)
    assert not any(
        key.startswith("teacher") for key in torch.load(tmp_path / "distill.pt", weights_only=True)["modules"]
    )


def test_defaults_of_hashes_and_std() -> None:
    teacher, features = make_network(), torch.rand(50, 64)
    small = Mimic(MimicConfig(), teacher, features, 32, 0)
    assert small.weight.shape == (32 * 64, 64)
    assert small.std == pytest.approx(float(teacher.head.weight.detach().std()), rel=1e-6)  # type: ignore[union-attr]
    assert Mimic(MimicConfig(), teacher, features, 224, 0).weight.shape == (2048, 64)
    assert Mimic(MimicConfig(std=0.3, hashes=7), teacher, features, 32, 0).weight.shape == (7, 64)
    torch.testing.assert_close(small.bias, -small.weight @ features.mean(0), rtol=1e-4, atol=1e-5)
    other = Mimic(MimicConfig(), teacher, features, 32, 1)
    assert float((other.weight - small.weight).abs().max()) > 0
    headless = make_network(classes=0)
    assert choose_std(headless, features, torch.zeros(64)) > 0


def test_an_embedding_stands_where_sizes_differ_or_on_request() -> None:
    teacher = make_network("resnet8x4")
    student = make_network()
    fit_student_head(student, teacher, "own")
    assert isinstance(student.head, EmbeddedHead)
    assert student(torch.zeros(2, 3, 16, 16)).logits.shape == (2, 3)
    same = make_network()
    fit_student_head(same, make_network(seed=3), "own")
    assert isinstance(same.head, nn.Linear)
    fit_student_head(same, make_network(seed=3), "embedded")
    assert isinstance(same.head, EmbeddedHead)


def test_teacher_and_student_must_agree_in_classes() -> None:
    with pytest.raises(ModelError, match="tells 5 classes apart, the data has 3"):
        fit_student_head(make_network(), make_network(classes=5), "own")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"loss": "l1"}, "mimic loss"),
        ({"bias": "mode"}, "mimic bias"),
        ({"head": "none"}, "student head"),
        ({"loss": "lsh_expected", "bias": "median"}, "zero and mean only"),
        ({"beta": 0.0}, "beta"),
        ({"gamma": -1.0}, "gamma"),
        ({"hashes": -1}, "hashes"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MimicConfig(**bad)  # type: ignore[arg-type]

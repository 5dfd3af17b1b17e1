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
from lauter.distillation.heads import fit_student_head
from lauter.distillation.method import Lesson, Seen
from lauter.distillation.mimic import LOSSES, Mimic, MimicConfig, MimicLoss, choose_std
from lauter.distillation.stage import DistillStage
from lauter.distillation.teacher import LiveTeacher, live_parts
from lauter.errors import ConfigError, ModelError
from lauter.losses import mimic
from lauter.models import EmbeddedHead, Network, Output, count_flops, create_network, fold_head
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
) -> tuple[Loop, DistillStage]:
    data = make_data()
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
    teacher, student = make_network(seed=1).eval(), make_network(seed=2)
    fit_student_head(student, teacher, config.head)
    features = torch.rand(40, 64)
    batches = ImageBatches(data.images, np.arange(40), 20, (IDENTITY,), 16)
    tracker = Tracker(Watch(data, np.arange(40, 48), None, runtime, 16))
    method = Mimic(config, make_lesson(student, teacher, features, targets))
    live = LiveTeacher(teacher, torch.device("cpu"))
    return Loop(runtime, Checkpoints(directory)), DistillStage(
        student, live, method, targets, batches, config, tracker
    )


def make_lesson(
    student: Network,
    teacher: Network,
    features: torch.Tensor,
    targets: torch.Tensor,
    size: int = 16,
    seed: int = 0,
) -> Lesson:
    head = teacher.head if isinstance(teacher.head, nn.Linear) else None
    sizes = teacher.feature_size, teacher.num_classes
    rows = np.arange(len(features))
    return Lesson(
        student, *sizes, head, features, rows, targets, live_parts(teacher), image_size=size, seed=seed
    )


def network_of(stage: DistillStage) -> Network:
    assert isinstance(stage.teacher, LiveTeacher)
    return stage.teacher.network


def mimic_of(stage: DistillStage) -> Mimic:
    assert isinstance(stage.method, Mimic)
    return stage.method


def first_batch(stage: DistillStage) -> Batch:
    return next(iter(stage.batches.epoch(0)))


@pytest.mark.parametrize("loss", ["l2", "lsh", "lshl2", "lsh_expected"])
def test_the_mimic_term_is_the_loss_of_the_features(loss: str) -> None:
    config = MimicConfig(loss=loss, epochs=1)  # type: ignore[arg-type]
    _, stage = make_stage(config, torch.full((48,), -1))
    stage.begin_epoch(0)
    batch = first_batch(stage)
    term = stage.loss(batch)["mimic"]
    stage.student.train()
    wanted = network_of(stage).features(batch.images)[0]
    features = stage.student.features(batch.images)[0]
    kept = mimic_of(stage)
    if loss == "l2":
        expected = mimic.l2(features, wanted)
    elif loss == "lsh_expected":
        expected = mimic.lsh_expected(features, wanted, std=kept.std, center=kept.center)
    else:
        expected = getattr(mimic, loss)(features, wanted, kept.weight, kept.bias)
    torch.testing.assert_close(term, expected)
    assert not network_of(stage).training


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
    saved = torch.load(tmp_path / "distill.pt", weights_only=True)["modules"]["method"]
    torch.testing.assert_close(saved["weight"], mimic_of(stage).weight, rtol=0, atol=0)
    torch.testing.assert_close(saved["bias"], mimic_of(stage).bias, rtol=0, atol=0)
    assert not any(
        key.startswith("teacher") for key in torch.load(tmp_path / "distill.pt", weights_only=True)["modules"]
    )


def test_defaults_of_hashes_and_std() -> None:
    teacher, features = make_network(), torch.rand(50, 64)

    def build(config: MimicConfig, size: int = 32, seed: int = 0) -> Mimic:
        return Mimic(config, make_lesson(make_network(), teacher, features, torch.zeros(50), size, seed))

    small = build(MimicConfig())
    assert small.weight.shape == (32 * 64, 64)
    assert small.std == pytest.approx(float(teacher.head.weight.detach().std()), rel=1e-6)  # type: ignore[union-attr]
    assert build(MimicConfig(), 224).weight.shape == (2048, 64)
    assert build(MimicConfig(std=0.3, hashes=7)).weight.shape == (7, 64)
    torch.testing.assert_close(small.bias, -small.weight @ features.mean(0), rtol=1e-4, atol=1e-5)
    other = build(MimicConfig(), seed=1)
    assert float((other.weight - small.weight).abs().max()) > 0
    assert small.weights == {"mimic": 6.0, "classification": 1.0}
    assert build(MimicConfig(), 224).weights["mimic"] == 5.0
    assert choose_std(None, features, torch.zeros(64)) > 0


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


@pytest.mark.parametrize("head", ["own", "embedded", "teacher"])
def test_teacher_and_student_must_agree_in_classes(head: str) -> None:
    with pytest.raises(ModelError, match="tells 5 classes apart, the data has 3"):
        fit_student_head(make_network(), make_network(classes=5), head)
    fit_student_head(make_network(), create_network("resnet8", 0, image_size=16), "own")


@pytest.mark.parametrize("head", ["own", "embedded", "teacher"])
def test_the_head_stands_where_the_student_is_and_not_where_the_teacher_is(head: str) -> None:
    student = make_network().to("meta")
    fit_student_head(student, make_network("resnet8x4"), head)
    assert {parameter.device.type for parameter in student.parameters()} == {"meta"}
    assert count_flops(student) > 0, "a forward pass meets one device only"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"loss": "l1"}, "mimic loss"),
        ({"bias": "mode"}, "mimic bias"),
        ({"head": "none"}, "student head"),
        ({"loss": "lsh_expected", "bias": "median"}, "zero and mean only"),
        ({"beta": -1.0}, "beta"),
        ({"embedding_epochs": -1}, "embedding_epochs"),
        ({"gamma": -1.0}, "gamma"),
        ({"hashes": -1}, "hashes"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MimicConfig(**bad)  # type: ignore[arg-type]


def test_mimicking_a_headless_teacher_does_not_depend_on_its_scale() -> None:
    student, features = make_network(), torch.rand(50, 64)
    index, targets = torch.arange(50), torch.zeros(50)
    for loss in ("l2", "lsh", "lshl2"):
        answers = []
        for scale in (2.0**-14, 1.0, 2.0**13):
            lesson = make_lesson(student, make_network(classes=0), scale * features, targets)
            method = Mimic(MimicConfig(loss=loss, hashes=128), lesson)  # type: ignore[arg-type]
            shown = method.prepare(Seen(scale * features)).features
            assert shown is not None
            assert 0.5 <= float(shown.var(0, correction=0).mean()) <= 2
            answer = Output(torch.zeros(50, 3), shown.mean(0).expand(50, 64))
            answers.append(method(answer, Seen(shown), index, targets)["mimic"])
            hashes = method.hashes
            if hashes is not None:  # a bank hashes what the teacher itself shows
                bits = mimic.hash_bits(scale * features, *hashes)
                assert torch.equal(bits, mimic.hash_bits(shown, method.weight, method.bias))
        for other in answers[1:]:
            torch.testing.assert_close(other, answers[0], rtol=0, atol=0)


def test_features_of_a_teacher_with_a_classifier_stay_in_their_unit() -> None:
    method = Mimic(
        MimicConfig(), make_lesson(make_network(), make_network(), torch.rand(9, 64), torch.zeros(9))
    )
    seen = Seen(torch.rand(4, 64))
    assert method.prepare(seen) is seen


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e4])
def test_losses_and_gradients_are_finite_whatever_the_scale(
    loss: MimicLoss, dtype: torch.dtype, norm: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = nn.functional.normalize(torch.randn(40, 64, generator=generator)) * norm
    student = (
        (nn.functional.normalize(torch.randn(40, 64, generator=generator)) * norm).to(dtype).requires_grad_()
    )
    lesson = make_lesson(make_network(), make_network(classes=0), features, torch.zeros(40))
    method = Mimic(MimicConfig(loss=loss, hashes=128), lesson)
    answer = Output(torch.zeros(40, 3), student)
    seen = method.prepare(Seen(features.to(dtype).float()))
    loss_value = method(answer, seen, torch.arange(40), torch.zeros(40))["mimic"]
    (gradient,) = torch.autograd.grad(loss_value.sum(), student)
    assert bool(loss_value.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


def test_hashes_are_compared_in_the_precision_of_the_network() -> None:
    generator = torch.Generator().manual_seed(0)
    features, student = (torch.randn(40, 64, generator=generator) for _ in range(2))
    method = Mimic(
        MimicConfig(loss="lsh", hashes=128),
        make_lesson(make_network(), make_network(), features, torch.zeros(40)),
    )
    answer, nothing = Output(torch.zeros(40, 3), student), torch.zeros(40)
    seen = Seen(bits=mimic.hash_bits(features, method.weight, method.bias))
    exact = method(answer, seen, nothing, nothing)["mimic"]
    with torch.autocast("cpu", torch.bfloat16):
        half = method(answer, seen, nothing, nothing)["mimic"]
    assert seen.bits is not None
    halved = method.weight.bfloat16()
    wanted = mimic.lsh_from_bits(student, seen.bits, method.weight, method.bias, half_weight=halved)
    torch.testing.assert_close(half, wanted, rtol=0, atol=0)
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=1e-3)


def test_correct_only_leaves_out_images_that_the_teacher_gets_wrong() -> None:
    features = torch.rand(4, 64)
    lesson = make_lesson(make_network(), make_network(), features, torch.zeros(4))
    method = Mimic(MimicConfig(loss="l2", correct_only=True), lesson)
    assert method.needs == {"features", "logits"}
    logits = torch.eye(3)[[0, 1, 2, 0]]
    answer = Output(torch.zeros(4, 3), torch.zeros(4, 64))
    found = method(answer, Seen(features, logits), torch.arange(4), torch.tensor([0, 1, 0, -1]))["mimic"]
    torch.testing.assert_close(found, features[:2].square().mean())


def test_the_embedding_alone_leaves_the_backbone_as_it_was() -> None:
    config = MimicConfig(epochs=1, embedding_epochs=2, head="embedded")
    loop, whole = make_stage(config, torch.zeros(48, dtype=torch.int64))
    assert isinstance(whole.batches, ImageBatches)
    parts = whole.student, whole.teacher, whole.method, whole.targets, whole.batches, config, whole.tracker
    stage = DistillStage(*parts, "embedding", embedding_only=True)
    assert stage.epochs == 2
    before = {name: value.clone() for name, value in stage.student.state_dict().items()}
    loop.run_stage(stage)
    changed = [
        name for name, value in stage.student.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed == ["head.embedding.weight", "head.embedding.bias"]


def test_the_embedding_alone_needs_an_embedding() -> None:
    _, whole = make_stage(MimicConfig(epochs=1), torch.zeros(48, dtype=torch.int64))
    assert isinstance(whole.batches, ImageBatches)
    parts = (
        whole.student,
        whole.teacher,
        whole.method,
        whole.targets,
        whole.batches,
        MimicConfig(),
        whole.tracker,
    )
    with pytest.raises(ConfigError, match="the student's head has none"):
        DistillStage(*parts, embedding_only=True)


def test_a_teacher_that_does_not_show_what_is_read_is_refused() -> None:
    config = MimicConfig(correct_only=True)
    student, teacher = make_network(), make_network(classes=0)
    lesson = make_lesson(student, teacher, torch.rand(40, 64), torch.zeros(48))
    _, stage = make_stage(MimicConfig(), torch.full((48,), -1))
    assert isinstance(stage.batches, ImageBatches)
    live = LiveTeacher(teacher, torch.device("cpu"))
    with pytest.raises(ModelError, match="reads logits, which resnet8 does not show"):
        DistillStage(
            student, live, Mimic(config, lesson), stage.targets, stage.batches, config, stage.tracker
        )

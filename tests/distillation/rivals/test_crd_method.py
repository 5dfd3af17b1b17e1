"""CRD: what is a negative, what is remembered, what survives a stop."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.distillation.method import Lesson, Seen
from lauter.distillation.rivals.crd import CRD, CRDConfig
from lauter.errors import ConfigError, DataError, ModelError
from lauter.models import EmbeddedHead, Output, create_network

LABELS = [0, 1, 2, -1, 0, 1, 0, -1, 2, 0]
TEACHING = [9, 0, 1, 2, 3, 4, 5, 7]  # rows 6 and 8 do not teach
SMALL = CRDConfig(size=4, negatives=5)


def make_lesson(
    labels: Sequence[int] = LABELS, rows: Sequence[int] = TEACHING, seed: int = 0, embedded: bool = False
) -> Lesson:
    student = create_network("resnet8", 3, image_size=16)
    if embedded:
        student.head = EmbeddedHead(64, 48, 3)
    targets = torch.tensor(labels)
    return Lesson(student, 48, 3, None, torch.zeros(len(rows), 48), np.array(rows), targets, seed=seed)


def draw_batch(index: Sequence[int], seed: int = 0, width: int = 64) -> tuple[Output, Seen, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(len(index), width, generator=generator).requires_grad_()
    shown = torch.rand(len(index), 48, generator=generator)
    rows = torch.tensor(index)
    return Output(torch.zeros(len(index), 3), features), Seen(shown), rows, torch.tensor(LABELS)[rows]


def embed_by_loop(layer: torch.nn.Linear, features: Tensor) -> list[list[float]]:
    weight, bias = layer.weight.double().tolist(), layer.bias.double().tolist()
    vectors = []
    for row in features.detach().double().tolist():
        vector = [
            b + sum(w * x for w, x in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)
        ]
        vectors.append([value / math.hypot(*vector) for value in vector])
    return vectors


def test_the_term_is_the_papers_formula_on_both_sides() -> None:
    method = CRD(SMALL, make_lesson())
    batch = draw_batch([2, 3, 9])
    memories = [memory.double().tolist() for memory in (method.teacher_memory, method.student_memory)]
    anchors = [embed_by_loop(method.embed_student, batch[0].features)]
    anchors.append(embed_by_loop(method.embed_teacher, batch[1].features))
    torch.manual_seed(7)
    negatives = method.draw_negatives(batch[2]).tolist()
    torch.manual_seed(7)
    losses = method(*batch)["contrast"]

    expected = [0.0, 0.0, 0.0]
    size, k = len(LABELS), 5
    for vectors, memory in zip(anchors, memories, strict=True):
        likelihoods = [
            [
                math.exp(sum(a * m for a, m in zip(vector, memory[row], strict=True)) / 0.07)
                for row in (own, *others)
            ]
            for vector, own, others in zip(vectors, batch[2].tolist(), negatives, strict=True)
        ]
        constant = size * sum(map(sum, likelihoods)) / (3 * (k + 1))
        for b, values in enumerate(likelihoods):
            probs = [value / constant for value in values]
            expected[b] -= math.log(probs[0] / (probs[0] + k / size))
            expected[b] -= sum(math.log((k / size) / (p + k / size)) for p in probs[1:])
    torch.testing.assert_close(losses.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_negatives_teach_with_another_label() -> None:
    method = CRD(CRDConfig(size=4, negatives=4000), make_lesson())
    torch.manual_seed(0)
    index = list(range(len(LABELS)))
    drawn = method.draw_negatives(torch.tensor(index))
    for row in index:
        label = LABELS[row]
        # Without a label an image shares it with none: all others are its negatives, and it is one of theirs.
        allowed = {other for other in TEACHING if other != row and (label < 0 or LABELS[other] != label)}
        counts = torch.bincount(drawn[row], minlength=len(LABELS)).tolist()
        assert {other for other, count in enumerate(counts) if count} == allowed
        share = 1 / len(allowed)
        bound = 5 * math.sqrt(4000 * share * (1 - share))  # five standard deviations of the binomial
        assert all(abs(counts[other] - 4000 * share) < bound for other in allowed)


def test_the_rows_of_the_batch_move_by_the_momentum_formula() -> None:
    method = CRD(CRDConfig(size=4, negatives=5, momentum=0.75), make_lesson())
    batch, index = draw_batch([5, 0, 7]), [5, 0, 7]
    before = {name: getattr(method, name).clone() for name in ("student_memory", "teacher_memory")}
    fresh = {
        "student_memory": embed_by_loop(method.embed_student, batch[0].features),
        "teacher_memory": embed_by_loop(method.embed_teacher, batch[1].features),
    }
    method(*batch)["contrast"].sum().backward()
    for name, old in before.items():
        expected = old.clone()
        for row, vector in zip(index, fresh[name], strict=True):
            mixed = [0.75 * o + 0.25 * v for o, v in zip(old[row].double().tolist(), vector, strict=True)]
            expected[row] = torch.tensor([value / math.hypot(*mixed) for value in mixed])
        torch.testing.assert_close(getattr(method, name), expected)
        others = [row for row in range(len(LABELS)) if row not in index]
        torch.testing.assert_close(getattr(method, name)[others], old[others], rtol=0, atol=0)
        assert float((getattr(method, name) - old).abs().max()) > 0.01


def test_constants_are_estimated_at_the_first_step_and_kept() -> None:
    method = CRD(SMALL, make_lesson())
    assert bool(method.log_means.isnan().all())
    method(*draw_batch([0, 1]))
    kept = method.log_means.clone()
    assert bool(kept.isfinite().all())
    assert float(kept[0]) != float(kept[1])
    method(*draw_batch([4, 5], seed=1))
    torch.testing.assert_close(method.log_means, kept, rtol=0, atol=0)


def test_eval_mode_remembers_nothing() -> None:
    method = CRD(SMALL, make_lesson()).eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert bool(method(*draw_batch([0, 1]))["contrast"].isfinite().all())
    torch.testing.assert_close(dict(method.state_dict()), before, rtol=0, atol=0, equal_nan=True)


def take_step(method: CRD, step: int) -> Tensor:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    torch.manual_seed(step)
    loss: Tensor = method(*draw_batch([step % 3, 5, 9], seed=step))["contrast"]
    loss.mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def test_saved_and_loaded_midway_the_next_loss_is_equal_bit_for_bit() -> None:
    method = CRD(SMALL, make_lesson())
    for step in range(3):
        take_step(method, step)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    resumed = CRD(SMALL, make_lesson(seed=5))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3, 5):
        torch.testing.assert_close(take_step(resumed, step), take_step(method, step), rtol=0, atol=0)
    fresh = CRD(SMALL, make_lesson())
    assert float((take_step(fresh, 5) - take_step(method, 5)).abs().max()) > 1e-3
    assert set(method.state_dict()) == {
        *("embed_student.weight", "embed_student.bias", "embed_teacher.weight", "embed_teacher.bias"),
        *("student_memory", "teacher_memory", "log_means"),
    }


def test_learning_tells_images_apart_and_trains_both_embeddings() -> None:
    method = CRD(SMALL, make_lesson())
    before = [parameter.detach().clone() for parameter in method.parameters()]
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        batch = draw_batch(TEACHING)
        terms = method(*batch)["contrast"]
        (gradient,) = torch.autograd.grad(terms.mean(), batch[0].features, retain_graph=True)
        assert float(gradient.abs().max()) > 0
        terms.mean().backward()
        with torch.no_grad():
            for parameter in method.parameters():
                parameter -= 0.05 * parameter.grad
                parameter.grad = None
        losses.append(float(terms.detach().mean()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    moved = [
        float((now - old).detach().abs().max()) for now, old in zip(method.parameters(), before, strict=True)
    ]
    assert min(moved) > 0.01


def test_memories_begin_with_unit_length_on_average_and_from_the_seed_alone() -> None:
    labels = [0, 1] * 1000
    method = CRD(CRDConfig(negatives=3), make_lesson(labels, range(2000)))
    for memory in (method.student_memory, method.teacher_memory):
        assert memory.shape == (2000, 128)
        squares = memory.square().sum(1)
        torch.testing.assert_close(squares.mean(), torch.tensor(1.0), rtol=0.01, atol=0)
    again = CRD(CRDConfig(negatives=3), make_lesson(labels, range(2000)))
    torch.testing.assert_close(
        dict(again.state_dict()), dict(method.state_dict()), rtol=0, atol=0, equal_nan=True
    )
    other = CRD(CRDConfig(negatives=3), make_lesson(labels, range(2000), seed=1))
    assert float((other.student_memory - method.student_memory).abs().max()) > 0.01
    assert float((method.teacher_memory - method.student_memory).abs().max()) > 0.01


def test_features_are_taken_as_the_head_gives_them() -> None:
    assert CRD(SMALL, make_lesson()).embed_student.in_features == 64
    method = CRD(SMALL, make_lesson(embedded=True))
    assert method.embed_student.in_features == 48
    assert method(*draw_batch([0, 1], width=48))["contrast"].shape == (2,)


def test_autocast_does_not_touch_it() -> None:
    plain, cast = CRD(SMALL, make_lesson()), CRD(SMALL, make_lesson())
    torch.manual_seed(0)
    expected = plain(*draw_batch([0, 1]))["contrast"]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = cast(*draw_batch([0, 1]))["contrast"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_memory_of_cifars_size_with_the_benchmarks_negatives() -> None:
    labels = torch.arange(50_000) % 100
    lesson = make_lesson(labels.tolist(), range(50_000))
    method = CRD(CRDConfig(), lesson)
    features = torch.rand(64, 64, requires_grad=True)
    index = torch.arange(64) * 700
    loss = method(Output(torch.zeros(64, 3), features), Seen(torch.rand(64, 48)), index, labels[index])[
        "contrast"
    ]
    loss.mean().backward()
    assert bool(loss.isfinite().all())
    assert float(features.grad.abs().max()) > 0
    assert bool(features.grad.isfinite().all())


def test_needs_and_weights() -> None:
    method = CRD(CRDConfig(), make_lesson())
    assert method.needs == {"features"}
    assert method.weights == {"contrast": 0.8, "classification": 1.0}
    assert method.draw_negatives(torch.tensor([0])).shape == (1, 16_384)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="the 3 images that teach share one; take a method without negatives"):
        CRD(SMALL, make_lesson([1, 1, 1, 0], [0, 1, 2]))
    with pytest.raises(DataError, match="the 1 images that teach share one"):
        CRD(SMALL, make_lesson([-1, 0], [0]))
    lesson = make_lesson()
    several = Lesson(
        lesson.student,
        48,
        3,
        None,
        lesson.teacher_features,
        lesson.rows,
        torch.zeros(10, 3, dtype=torch.long),
    )
    with pytest.raises(DataError, match=r"one label per image .*, not labels \[10, 3\]"):
        CRD(SMALL, several)
    output, _, index, targets = draw_batch([0, 1])
    with pytest.raises(ModelError, match="CRD needs the teacher's features"):
        CRD(SMALL, make_lesson())(output, Seen(), index, targets)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta": -1.0}, "crd: beta must be a finite weight of 0 or more, not -1"),
        ({"gamma": float("nan")}, "crd: gamma must be"),
        ({"size": 0}, "crd: size and negatives must be 1 or more, not 0 and 16384"),
        ({"negatives": 0}, "size and negatives must be 1 or more"),
        ({"temperature": 0.0}, "temperature must be positive and finite"),
        ({"temperature": float("inf")}, "temperature must be positive and finite"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CRDConfig(**bad)

"""What every method must keep to: finite terms, gradients for the student alone, a state that is whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lauter.distillation.method import Method, Seen
from lauter.distillation.rivals import METHODS
from lauter.errors import ConfigError, ModelError

NAMES = list(METHODS)
TEACHING = [name for name in NAMES if name != "none"]
Open = Callable[..., Any]


def build(name: str, open_classroom: Open, **wishes: Any) -> tuple[Method, Any]:
    config_class, method_class = METHODS[name]
    classroom = open_classroom(method_class.head, **wishes)
    method = method_class(config_class(), classroom.lesson)
    method.begin_epoch(0)
    return method, classroom


def teach(method: Method, classroom: Any, targets: Tensor, seen: Seen | None = None) -> dict[str, Tensor]:
    shown = classroom.show(method.needs) if seen is None else seen
    torch.manual_seed(5)
    return method(classroom.answer(method), shown, torch.arange(len(targets)), targets)


def total(method: Method, terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([method.weights[name] * term.mean() for name, term in terms.items()]).sum()


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_weighed_finite_and_single_under_autocast(name: str, open_classroom: Open) -> None:
    method, classroom = build(name, open_classroom)
    with torch.autocast("cpu", torch.bfloat16):
        terms = teach(method, classroom, classroom.lesson.targets)
    assert {*terms, "classification"} == {*method.weights}
    for term in terms.values():
        assert term.dtype == torch.float32
        assert term.shape in ((), (12,))
        assert bool(term.isfinite().all())


@pytest.mark.parametrize("name", TEACHING)
def test_student_and_method_learn_and_the_teacher_does_not(name: str, open_classroom: Open) -> None:
    method, classroom = build(name, open_classroom)
    features, logits, maps, bits = classroom.show(method.needs)
    shown = [tensor.requires_grad_() for tensor in (features, logits, *maps) if tensor is not None]
    terms = teach(method, classroom, classroom.lesson.targets, Seen(features, logits, maps, bits))
    total(method, terms).backward()
    first = next(classroom.student.backbone.parameters())
    assert bool(first.grad.isfinite().all())
    assert float(first.grad.abs().max()) > 0
    for part in method.parameters():
        assert float(part.grad.abs().max()) > 0
    assert shown
    assert [tensor.grad for tensor in shown] == [None] * len(shown)


@pytest.mark.parametrize("name", TEACHING)
def test_a_batch_without_any_label_teaches_finitely(name: str, open_classroom: Open) -> None:
    method, classroom = build(name, open_classroom)
    terms = teach(method, classroom, torch.full((12,), -1))
    value = total(method, terms)
    value.backward()
    assert bool(value.isfinite())
    # A map in the middle teaches nothing to what comes after it.
    gradients = [part.grad for part in classroom.student.backbone.parameters() if part.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_state_is_the_whole_method(name: str, open_classroom: Open) -> None:
    method, classroom = build(name, open_classroom)
    teach(method, classroom, classroom.lesson.targets)
    other, _ = build(name, open_classroom, seed=1)
    other.load_state_dict(method.state_dict())
    # In eval mode nobody's batch statistics move between the two answers.
    classroom.student.eval()
    expected = teach(method.eval(), classroom, classroom.lesson.targets)
    found = teach(other.eval(), classroom, classroom.lesson.targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", TEACHING)
def test_a_teacher_that_shows_nothing_is_named(name: str, open_classroom: Open) -> None:
    method, classroom = build(name, open_classroom)
    with pytest.raises(ModelError, match=r"needs the teacher's (features|logits|maps)"):
        teach(method, classroom, classroom.lesson.targets, Seen())


@pytest.mark.parametrize("name", NAMES)
def test_configs_refuse_negative_and_endless_weights(name: str) -> None:
    config_class, _ = METHODS[name]
    weights = [key for key in ("alpha", "beta", "gamma") if key in config_class.__dataclass_fields__]
    assert weights
    for key in weights:
        for value in (-0.5, float("nan")):
            with pytest.raises(ConfigError, match=key):
                config_class(**{key: value})


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "nd"])
def test_logits_of_other_classes_are_refused_before_the_first_step(name: str, open_classroom: Open) -> None:
    config_class, method_class = METHODS[name]
    lesson = open_classroom(method_class.head).lesson
    lesson.student.num_classes = 5
    with pytest.raises(ModelError, match="teacher tells 3 classes apart, the student 5"):
        method_class(config_class(), lesson)

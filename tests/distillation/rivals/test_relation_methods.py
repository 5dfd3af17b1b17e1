"""SP, PKT and RKD: their terms are the losses of the features, whatever the widths, or of the last maps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lauter.distillation.method import Seen
from lauter.distillation.rivals.pkt import PKT, PKTConfig
from lauter.distillation.rivals.rkd import RKD, RKDConfig
from lauter.distillation.rivals.sp import SP, SPConfig
from lauter.errors import ConfigError, ModelError
from lauter.losses.relations import pkt, rkd_angle, rkd_distance, sp
from lauter.models import Output

Open = Callable[..., Any]
INDEX, TARGETS = torch.arange(4), torch.full((4,), -1)


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 5, generator=generator), torch.rand(4, 9, generator=generator)


def test_sp_and_pkt(open_classroom: Open, features: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = features
    lesson = open_classroom().lesson
    for method, loss in ((SP(SPConfig(), lesson), sp), (PKT(PKTConfig(), lesson), pkt)):
        terms = method(Output(torch.zeros(4, 3), student), Seen(teacher), INDEX, TARGETS)
        torch.testing.assert_close(list(terms.values()), [loss(student, teacher)])
    assert SP(SPConfig(), lesson).weights == {"sp": 3000.0, "classification": 1.0}
    assert PKT(PKTConfig(), lesson).weights == {"pkt": 30000.0, "classification": 1.0}


def test_rkd_computes_what_has_weight(
    open_classroom: Open, features: tuple[torch.Tensor, torch.Tensor]
) -> None:
    student, teacher = features
    lesson = open_classroom().lesson
    expected = {"distance": rkd_distance(student, teacher), "angle": rkd_angle(student, teacher)}
    for config in (RKDConfig(), RKDConfig(angle=0.0), RKDConfig(distance=0.0)):
        terms = RKD(config, lesson)(Output(torch.zeros(4, 3), student), Seen(teacher), INDEX, TARGETS)
        wanted = {name: value for name, value in expected.items() if getattr(config, name)}
        torch.testing.assert_close(terms, wanted)
    assert RKD(RKDConfig(), lesson).weights == {"distance": 25.0, "angle": 50.0, "classification": 1.0}


def test_sp_of_maps_compares_the_last_ones(open_classroom: Open) -> None:
    classroom = open_classroom()
    method = SP(SPConfig(of="maps"), classroom.lesson)
    assert method.needs == {"maps"}
    output, seen = classroom.answer(method), classroom.show(method.needs)
    expected = sp(output.maps[-1].flatten(1), seen.maps[-1].flatten(1))
    torch.testing.assert_close(method(output, seen, torch.arange(12), TARGETS), {"sp": expected})


def test_bad_settings(open_classroom: Open) -> None:
    with pytest.raises(ConfigError, match="of must be features or maps, not 'logits'"):
        SPConfig(of="logits")  # type: ignore[arg-type]
    lesson = open_classroom().lesson
    for gap in ({"student_maps": ()}, {"teacher_maps": ()}):
        with pytest.raises(ModelError, match="SP of maps needs a student and a teacher that show maps"):
            SP(SPConfig(of="maps"), dataclasses.replace(lesson, **gap))
    with pytest.raises(ModelError, match="needs the teacher's maps"):
        SP(SPConfig(of="maps"), lesson)(Output(torch.zeros(4, 3), torch.zeros(4, 5)), Seen(), INDEX, TARGETS)
    with pytest.raises(ConfigError, match="rkd: angle must be a finite weight of 0 or more, not -1"):
        RKDConfig(angle=-1.0)

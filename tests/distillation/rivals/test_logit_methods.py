"""KD, DKD and DIST: their terms are the losses of the logits, with the weights of their config."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lauter.distillation.method import Seen
from lauter.distillation.rivals.dist import DIST, DISTConfig
from lauter.distillation.rivals.dkd import DKD, DKDConfig
from lauter.distillation.rivals.kd import KD, KDConfig
from lauter.distillation.rivals.weights import warm_up
from lauter.errors import ConfigError
from lauter.losses.distillation import dist, dkd, kd
from lauter.models import Output

Open = Callable[..., Any]
INDEX, TARGETS = torch.arange(4), torch.tensor([0, -1, 2, 1])


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)


def test_kd(open_classroom: Open, logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    method = KD(KDConfig(beta=2.0, gamma=0.5, temperature=3.0), open_classroom().lesson)
    terms = method(Output(student, student), Seen(logits=teacher), INDEX, TARGETS)
    torch.testing.assert_close(terms, {"kd": kd(student, teacher, 3.0)})
    assert method.weights == {"kd": 2.0, "classification": 0.5}


def test_dkd_warms_up_by_epochs(open_classroom: Open, logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    config = DKDConfig(alpha=0.5, beta=4.0, temperature=2.0, warmup=4)
    method = DKD(config, open_classroom().lesson)
    full = dkd(student, teacher, TARGETS, alpha=0.5, beta=4.0, temperature=2.0)
    # Epoch 1 twice, as where a run is resumed in its middle.
    for epoch, share in ((0, 0.25), (1, 0.5), (1, 0.5), (3, 1.0), (50, 1.0)):
        method.begin_epoch(epoch)
        terms = method(Output(student, student), Seen(logits=teacher), INDEX, TARGETS)
        torch.testing.assert_close(terms, {"dkd": share * full})


def test_a_warm_up_of_no_epochs_is_none() -> None:
    assert [warm_up(epoch, 0) for epoch in (0, 1)] == [1.0, 1.0]


def test_dist(open_classroom: Open, logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    method = DIST(DISTConfig(inter=3.0, intra=0.5, gamma=0.1, temperature=2.0), open_classroom().lesson)
    terms = method(Output(student, student), Seen(logits=teacher), INDEX, TARGETS)
    torch.testing.assert_close(terms, dict(zip(("inter", "intra"), dist(student, teacher, 2.0), strict=True)))
    assert method.weights == {"inter": 3.0, "intra": 0.5, "classification": 0.1}


def test_bad_settings() -> None:
    for config in (KDConfig, DKDConfig, DISTConfig):
        with pytest.raises(ConfigError, match="temperature must be positive and finite, not 0"):
            config(temperature=0.0)
    with pytest.raises(ConfigError, match="dkd: warmup must be 0 or more epochs, not -1"):
        DKDConfig(warmup=-1)
    with pytest.raises(ConfigError, match="dist: intra must be a finite weight of 0 or more, not -1"):
        DISTConfig(intra=-1.0)
    with pytest.raises(ConfigError, match="kd: beta must be a finite weight of 0 or more, not inf"):
        KDConfig(beta=float("inf"))

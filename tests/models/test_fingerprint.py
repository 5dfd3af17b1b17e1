"""The hash of weights: the same for the same numbers, whatever holds them."""

import torch
from torch import nn

from lauter.models import InputSpec, Network, wrap_module
from lauter.models.fingerprint import fingerprint_weights


def make(seed: int = 0, width: int = 4) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten())
        return wrap_module(body, 36 * width, 2, InputSpec(8))


def test_the_same_weights_have_the_same_hash() -> None:
    first = fingerprint_weights(make())
    assert len(first) == 16
    assert fingerprint_weights(make()) == first
    other_memory = make()
    other_memory.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert fingerprint_weights(other_memory.eval()) == first


def test_any_other_number_type_or_name_has_another() -> None:
    first, second = make(), make()
    second.backbone.get_buffer("module.1.running_mean")[2] += 1e-6
    found = {fingerprint_weights(network) for network in (first, second, make(1), make(width=5))}
    assert len(found | {fingerprint_weights(make().half()), fingerprint_weights(make().bfloat16())}) == 6

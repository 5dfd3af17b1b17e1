"""The weight average against its formula."""

import torch
from torch import nn

from lauter.training.averaging import WeightAverage


def test_average_against_the_formula() -> None:
    """Weights and statistics by the formula, integers copied, the decay warmed up."""
    decay = 0.6
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = WeightAverage(module, decay)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    used = []
    for step in range(30):
        with torch.no_grad():
            for value in [*module.parameters(), module[1].running_mean]:
                value.add_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
            module[1].num_batches_tracked += 3
        average.update()
        m = min(decay, (1 + step) / (10 + step))
        used.append(m)
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                expected[name] = m * expected[name] + (1 - m) * value
            else:
                expected[name] = value.clone()
    assert used[0] == 0.1
    assert used[-1] == decay
    torch.testing.assert_close(average.shadow.state_dict(), expected)
    assert average.steps == 30


def test_the_shadow_is_frozen_in_eval_mode_and_apart() -> None:
    module = nn.Linear(3, 2)
    average = WeightAverage(module, 0.5)
    assert not average.shadow.training
    assert module.training
    assert not any(parameter.requires_grad for parameter in average.shadow.parameters())
    before = average.shadow.weight.clone()
    with torch.no_grad():
        module.weight.zero_()
    torch.testing.assert_close(average.shadow.weight, before, rtol=0, atol=0)


def test_a_tied_weight_moves_once() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    average = WeightAverage(module, 0.9)
    before = average.shadow[0].weight.clone()
    with torch.no_grad():
        first.weight.add_(1.0)
    average.update()
    torch.testing.assert_close(average.shadow[0].weight, 0.1 * before + 0.9 * first.weight.detach())
    assert average.shadow[0].weight is average.shadow[1].weight


def test_the_average_of_still_weights_is_those_weights() -> None:
    module = nn.Linear(4, 4)
    average = WeightAverage(module, 0.99)
    for _ in range(20):
        average.update()
    torch.testing.assert_close(average.shadow.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_a_module_that_was_moved_is_still_followed() -> None:
    """Moving puts new tensors in the place of buffers; the average must see those."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(module, 0.9)
    module.double()
    average.shadow.double()
    with torch.no_grad():
        module[1].running_mean.fill_(10.0)
        module[1].num_batches_tracked.fill_(7)
    average.update()
    torch.testing.assert_close(average.shadow[1].running_mean, torch.full((2,), 9.0).double())
    torch.testing.assert_close(average.shadow[1].num_batches_tracked, torch.tensor(7))

"""Synchronised batch normalisation comes and goes without a trace in weights, statistics and checkpoints."""

import torch
from torch import nn

from lauter.training.synced_norms import sync_norms


def test_norms_are_synchronised_for_a_while_and_stay_the_same_tensors() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    frozen = nn.Sequential(nn.BatchNorm2d(4)).requires_grad_(False)
    before, names = network[1], list(network.state_dict())
    tensors = [*network.parameters(), *network.buffers()]
    network.eval()
    pictures = torch.rand(2, 3, 5, 5)
    expected = network(pictures)
    with sync_norms([network, frozen]):
        assert isinstance(network[1], nn.SyncBatchNorm)
        assert isinstance(network[2][0], nn.SyncBatchNorm)
        assert type(frozen[0]) is nn.BatchNorm2d
        assert list(network.state_dict()) == names
        assert all(
            one is two for one, two in zip([*network.parameters(), *network.buffers()], tensors, strict=True)
        )
        assert not network[1].training
        torch.testing.assert_close(network(pictures), expected)
        network[1].running_mean.fill_(3.0)
        network.train()
    assert network[1] is before
    assert before.training
    torch.testing.assert_close(before.running_mean, torch.full((4,), 3.0))


def test_norms_are_put_back_after_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2))
    try:
        with sync_norms([network]):
            raise RuntimeError("stop")
    except RuntimeError:
        pass
    assert type(network[0]) is nn.BatchNorm1d

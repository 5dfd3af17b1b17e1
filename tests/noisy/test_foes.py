"""Mixing, guessing and penalties against plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.models import InputSpec, Network, wrap_module
from lauter.noisy.foes import FoesConfig, learn_mixed, show_and_guess


class Notebook:
    """A judge who only writes down what he is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def remember(self, index: Tensor, logits: Tensor, features: Tensor, log_prior: Tensor) -> None:
        self.seen.append((index, logits, log_prior))


LOG_PRIOR = torch.tensor([0.5, 0.3, 0.2]).log()


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return wrap_module(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), 3, 3, InputSpec(4))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.randint(0, 256, (5, 3, 4, 4), generator=generator).to(torch.uint8) for _ in range(2))
    return Batch(torch.tensor([4, 1, 0, 7, 2]), views)


def draw(config: FoesConfig, count: int, seed: int) -> tuple[float, list[int]]:
    """What learn_mixed draws from torch's random state."""
    torch.manual_seed(seed)
    share = torch.distributions.Beta(config.mixup, config.mixup).sample().item()
    return share, torch.randperm(count).tolist()


def test_guesses_are_sharpened_means_and_the_judge_sees_the_images_unmixed(
    network: Network, batch: Batch
) -> None:
    config, notebook = FoesConfig(mixup=4.0, rejected="mixmatch", temperature=0.5), Notebook()
    found = show_and_guess(network, batch, notebook, LOG_PRIOR, config)  # type: ignore[arg-type]
    first, second = ((network(view).logits.detach() + LOG_PRIOR).softmax(1) for view in batch.views)
    for row in range(5):
        mean = [(float(first[row, k]) + float(second[row, k])) / 2 for k in range(3)]
        total = sum(value**2 for value in mean)
        assert found is not None
        np.testing.assert_allclose(found[row].tolist(), [value**2 / total for value in mean], rtol=1e-5)
    ((index, logits, log_prior),) = notebook.seen
    torch.testing.assert_close(log_prior, LOG_PRIOR)
    torch.testing.assert_close(index, batch.index)
    torch.testing.assert_close(logits, network(batch.images).logits)
    assert found is not None
    assert not found.requires_grad
    assert show_and_guess(network, batch, notebook, LOG_PRIOR, FoesConfig(mixup=1.0)) is None  # type: ignore[arg-type]


def test_mixed_losses_are_those_of_a_plain_loop(network: Network, batch: Batch) -> None:
    config = FoesConfig(mixup=4.0, rejected="mixmatch")
    targets, weights = torch.tensor([0, 2, 1, -1, 1]), torch.tensor([1.0, 0.25, 0.5, 0.0, 0.0])
    guesses = torch.tensor([[0.2, 0.5, 0.3]] * 5)
    log_prior = LOG_PRIOR
    share, partner = draw(config, 5, seed=11)
    torch.manual_seed(11)
    found = learn_mixed(network, batch, targets, weights, guesses, log_prior, config, progress=0.4)
    pictures = batch.images.double()
    losses, trust, errors, distrust = [], [], [], []
    for row in range(5):
        mixed = share * pictures[row] + (1 - share) * pictures[partner[row]]
        logits = network(mixed[None].float()).logits[0].detach().double()
        log_probs = (logits + log_prior.double()).log_softmax(0)
        for part, other in ((share, row), (1 - share, partner[row])):
            label = int(targets[other])
            losses.append(0.0 if label < 0 else -float(log_probs[label]))
            trust.append(part * float(weights[other]))
            distance = [(float(log_probs.exp()[k]) - float(guesses[other, k])) ** 2 for k in range(3)]
            errors.append(sum(distance) / 3)
            distrust.append(part * (1 - float(weights[other])))
    expected = sum(a * b for a, b in zip(losses, trust, strict=True)) / sum(trust)
    guessed = 0.4 * sum(a * b for a, b in zip(errors, distrust, strict=True)) / sum(distrust)
    assert found["classification"].item() == pytest.approx(expected, rel=1e-4)
    assert found["guess"].item() == pytest.approx(guessed, rel=1e-4)
    assert "prior" not in found


def test_soft_targets_that_are_one_hot_mix_like_labels(network: Network, batch: Batch) -> None:
    config, labels, weights = FoesConfig(mixup=1.0), torch.tensor([0, 2, 1, 1, 0]), torch.ones(5)
    prior = torch.zeros(3)
    results = []
    for targets in (labels, torch.eye(3)[labels]):
        torch.manual_seed(5)
        results.append(learn_mixed(network, batch, targets, weights, None, prior, config, 0.0))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rejected": "keep"}, "rejected must be drop or mixmatch, not 'keep'"),
        ({"mixup": -1.0}, "mixup must be 0 or above, not -1.0"),
        ({"prior_penalty": float("nan")}, "prior_penalty must be 0 or above, not nan"),
        ({"temperature": 0.0}, r"temperature must be in \(0, 1\], not 0.0"),
        ({"rejected": "mixmatch"}, "give mixup an alpha too"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FoesConfig(**settings)  # type: ignore[arg-type]


def test_passes_count_what_a_picture_costs() -> None:
    make: Callable[..., FoesConfig] = FoesConfig
    assert make().passes == 3
    assert make(mixup=1.0).passes == 4  # one to show, one forward and two backward
    assert make(mixup=4.0, rejected="mixmatch").passes == 2.5  # two views shown, one picture learnt: 5 for 2

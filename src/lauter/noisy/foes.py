"""Foes: parts of other methods that can be added to robust training, so that their harm can be measured.

"Friends and Foes in Learning from Noisy Labels" (arXiv 2103.15055) calls foes what assumes that every image
belongs to one of the classes: semi-supervised use of all rejected images above all. How each is written here
is ours.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy, mean_over
from lauter.losses.robust import mix, penalise_prior, sharpen
from lauter.models import Network
from lauter.noisy.judge import Judge


@dataclass(frozen=True)
class FoesConfig:
    """Parts of other methods, off by default.

    Attributes:
        mixup: alpha of the Beta distribution from which each step draws how images and labels are mixed; 0
            does not mix.
        two_networks: whether a second network is trained, each of the two on what the other's judge decides.
        rejected: drop, or mixmatch: an image whose label is not trusted is taught the network's own
            sharpened guess over two views, by squared error, mixed with all others.
        guess_weight: weight of that squared error, reached by a linear ramp over the training.
        temperature: sharpens the guess.
        prior_penalty: weight of the divergence of a batch's mean prediction from equal class shares.
        heavy_augmentation: whether labels are learnt from the strong views of self-supervised pretraining.
    """

    mixup: float = 0.0
    two_networks: bool = False
    rejected: Literal["drop", "mixmatch"] = "drop"
    guess_weight: float = 25.0
    temperature: float = 0.5
    prior_penalty: float = 0.0
    heavy_augmentation: bool = False

    def __post_init__(self) -> None:
        if self.rejected not in ("drop", "mixmatch"):
            raise ConfigError(f"rejected must be drop or mixmatch, not {self.rejected!r}")
        for name in ("mixup", "guess_weight", "prior_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be 0 or above, not {getattr(self, name)}")
        if not 0 < self.temperature <= 1:
            raise ConfigError(f"temperature must be in (0, 1], not {self.temperature}")
        if self.rejected == "mixmatch" and not self.mixup:
            raise ConfigError("rejected = mixmatch mixes images: give mixup an alpha too (4 is usual)")

    @property
    def guesses(self) -> bool:
        """Whether images whose label is not trusted are guessed."""
        return self.rejected == "mixmatch"

    @property
    def views(self) -> int:
        """Views of each image in a step."""
        return 2 if self.guesses else 1

    @property
    def passes(self) -> float:
        """Forward passes per view; a backward pass counts two. A mixed picture is one more than its image."""
        if not self.mixup:
            return 3.0
        return (self.views + 3.0) / self.views


@torch.no_grad()
def show_and_guess(
    network: Network, batch: Batch, judge: Judge, log_prior: Tensor, config: FoesConfig
) -> Tensor | None:
    r"""Show the judge the images as they are, not mixed, and guess their labels where that is asked for.

    .. math:: q_{bk} \propto \Big(\tfrac{1}{2} \sum_v \operatorname{softmax}(x_{bv} + \log \pi)_k\Big)^{1/T}

    under the training prior, as the source's networks, which learn it, guess.

    Returns:
        [B, K] sharpened guesses, or None.
    """
    output = network(batch.images)
    first, features = batch.gather(output.logits, output.features)
    judge.remember(batch.index, first, features, log_prior)
    logits = [first]
    if config.guesses:
        logits += batch.gather(network(batch.views[1]).logits)
    # Weights that autocast lowered in here know no gradient; older versions of torch would use them again.
    torch.clear_autocast_cache()
    if not config.guesses:
        return None
    mean = torch.stack([(values + log_prior).softmax(1) for values in logits]).mean(0)
    return sharpen(mean, config.temperature)


def learn_mixed(
    network: Network,
    batch: Batch,
    targets: Tensor,
    weights: Tensor,
    guesses: Tensor | None,
    log_prior: Tensor,
    config: FoesConfig,
    progress: float,
) -> dict[str, Tensor]:
    r"""Learn from mixed pictures: each counts for both of its images, as far as they make it up.

    .. math:: x = \lambda x_i + (1 - \lambda) x_j, \qquad
              \ell = \lambda \, w_i \ell(x, y_i) + (1 - \lambda) \, w_j \ell(x, y_j)

    Args:
        network: what learns.
        batch: the images.
        targets: labels [B] or soft ones [B, K] that are taught.
        weights: [B] how far they are trusted.
        guesses: [B, K] what is taught by squared error where they are not (weight 1 - w), or None.
        log_prior: [K].
        config: alpha.
        progress: share of the training that is over: the ramp of the guesses.

    Returns:
        The terms classification, and guess and prior where asked for.
    """
    with batch.group.same_draws():
        share = torch.distributions.Beta(config.mixup, config.mixup).sample().item()
        partner = torch.randperm(len(batch), device=batch.index.device)
    (pictures,) = batch.gather(batch.images)  # a partner may be in the part of another process
    mixed = batch.take_part(mix(pictures, partner, share))
    (logits,) = batch.gather(network(mixed).logits)
    sides = ((share, slice(None)), (1 - share, partner))

    def average(values: list[Tensor], trust: Tensor) -> Tensor:
        counted = [part * trust[rows] for part, rows in sides]
        return mean_over(torch.cat(values), torch.cat(counted))

    taught = [cross_entropy(logits, targets[rows], log_prior=log_prior) for _, rows in sides]
    terms = {"classification": average(taught, weights)}
    if guesses is not None:
        probs = (logits + log_prior).softmax(1)
        errors = [(probs - guesses[rows]).square().mean(1) for _, rows in sides]
        terms["guess"] = progress * average(errors, 1 - weights)
    if config.prior_penalty:
        terms["prior"] = penalise_prior(logits + log_prior)
    return terms

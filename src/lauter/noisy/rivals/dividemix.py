"""DivideMix: two networks, each of which learns by MixMatch from a division that the other one made."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy
from lauter.losses.inputs import require_positive
from lauter.losses.robust import entropy, mix, penalise_prior, sharpen
from lauter.models import Network
from lauter.noisy.mixture import split_by_mixture
from lauter.noisy.rivals.mixup import draw_mix
from lauter.noisy.rivals.pair import NetworkPair
from lauter.noisy.rivals.rival import Ground, RivalStage
from lauter.training.predict import eval_mode

_VIEWS = 2
_NAMES = ("first", "second")


@dataclass(frozen=True)
class DivideMixConfig:
    """DivideMix.

    Attributes:
        warmup: share of the epochs, at least one of them, of cross-entropy on the given labels (0.25: 10 of
            40, the source's 10).
        threshold: an image is labelled when its label is right with more than this probability (the
            source's 0.5).
        temperature: T, sharpens refined and guessed labels (the source's 0.5).
        alpha: of the Beta distribution that mixing shares are drawn from (the source's 4).
        unlabelled_weight: lambda_u, of the unlabelled images' term (the source's 25 for CIFAR-10 with half
            of the labels wrong; the source takes others, from 0 to 150, for other noise).
        ramp: share of the epochs in which that weight rises to its whole after the warm-up (0.4: 16 of 40,
            the 16 of the source's code).
        prior_weight: lambda_r, of the uniform-prior penalty (the source's 1).
        entropy_weight: of a penalty on confident predictions in the warm-up (0; the source's 1 where the
            noise is known to be asymmetric, which no method is told here).
    """

    warmup: float = 0.25
    threshold: float = 0.5
    temperature: float = 0.5
    alpha: float = 4.0
    unlabelled_weight: float = 25.0
    ramp: float = 0.4
    prior_weight: float = 1.0
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 <= self.ramp < 1):
            raise ConfigError(
                f"dividemix: warmup and ramp must be shares of the epochs in [0, 1), "
                f"not {self.warmup} and {self.ramp}"
            )
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"dividemix: threshold must be in [0, 1), not {self.threshold}")
        require_positive(self.temperature, "dividemix: temperature", "0.5 is usual")
        require_positive(self.alpha, "dividemix: alpha", "4 is usual")
        for name in ("unlabelled_weight", "prior_weight", "entropy_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"dividemix: {name} must be 0 or more and finite, not {getattr(self, name)}"
                )


def refine_labels(labels: Tensor, guesses: Tensor, p_right: Tensor, temperature: float) -> Tensor:
    r"""Given labels as far as they are believed, and the networks' guesses for the rest, sharpened.

    .. math:: \hat y_b = \operatorname{sharpen}(w_b \, e_{\tilde y_b} + (1 - w_b) \, p_b, T)

    Args:
        labels: int64 [B] given labels.
        guesses: p, [B, K] mean probabilities over views (and networks).
        p_right: w, [B] how far each given label is believed; 0 for an unlabelled image.
        temperature: T.

    Returns:
        [B, K] targets, rows of sum 1.
    """
    given = F.one_hot(labels, guesses.shape[1]).to(guesses.dtype)
    return sharpen(torch.lerp(guesses, given, p_right[:, None].to(guesses.dtype)), temperature)


class DivideMixStage(RivalStage):
    r"""Two networks; the division of the images that either learns from is the other's.

    After some epochs of cross-entropy, every epoch begins with each network's losses of all training images,
    unchanged, in eval mode; a mixture of two Gaussians turns them into the probability w that a label is
    right (:func:`lauter.noisy.mixture.split_by_mixture`). For a network, an image is labelled where the
    *other* network's w is above the threshold; its label is refined by the network's own guess. All others
    are unlabelled, and both networks guess their labels. Two views of every image are then mixed with views
    of any other, pixels and targets alike, and on the mixed ones

    .. math:: \ell = \frac{1}{|X|} \sum_{b \in X} \operatorname{CE}(x_b, q_b)
                     + \lambda_u \frac{1}{|U| K} \sum_{b \in U} \|\operatorname{softmax}(x_b) - q_b\|^2
                     + \lambda_r \sum_k \frac{1}{K} \log \frac{1 / K}{\bar p_k}

    where X and U are the mixed images of which the larger share is a labelled or an unlabelled one. Guesses
    carry no gradient. As in the source's code, a network guesses in training mode (its batch statistics take
    part and move), and is asked by the other in eval mode; and the squared distance is averaged over classes,
    where the paper writes a sum.

    The mean of both networks' probabilities is evaluated, and averaged over steps where that is asked for.

    Source: Li, Socher and Hoi (2020), arXiv 2002.07394; MixMatch after Berthelot et al. (2019), arXiv
    1905.02249. Departures:

    - The source trains one network for an epoch, then the other, each on pairs of a labelled and an
      unlabelled batch of one size, for as long as there are labelled images. Here one shuffled pass over all
      images trains both in the same steps, and a step's images fall into the two parts as they come. With
      half of the images labelled the two are alike; with fewer, a labelled image weighs more here and is
      seen as often as any other. A step of which one part is empty is without that part's term.
    - A network guesses for both parts in one pass, so that they share its batch statistics.
    - Warm-up and ramp are shares of the epochs, and the ramp rises from epoch to epoch, each taking the
      value that the source has in its middle. Optimiser and schedule are those of every method.
    - The source sets lambda_u by the noise, and averages losses over epochs where it is extreme; here
      nothing is told about the noise, and there is one setting.

    Attributes:
        pair: both networks.
        p_right: float32 [2, N] for each network the probability that a given label is right, by its losses;
            0 before the warm-up has ended and for images without a label.
        warmup_epochs: epochs of cross-entropy.
        ramp_epochs: epochs of the ramp.

    Args:
        config: thresholds and weights.
        ground: what every method gets.
    """

    shares: ClassVar[bool] = False  # which pictures a network guesses differs from step to step

    def __init__(self, config: DivideMixConfig, ground: Ground) -> None:
        pair = NetworkPair(ground.build("first"), ground.build("second"))
        # One optimiser for both: each weight moves as by one of its own, and a clipped norm is common anyway.
        super().__init__(ground, views=_VIEWS, network=pair, passes=1)
        self.config = config
        self.pair = pair
        self.warmup_epochs = max(1, round(config.warmup * self.epochs))
        self.ramp_epochs = config.ramp * self.epochs
        self.p_right = torch.zeros(2, len(self.labels), device=self.device)
        self._forward_flops = self.flops_per_image  # of both networks
        self._of_one_view, self._of_two_views = ground.batches(), self.batches
        self._warming_up = True

    def begin_epoch(self, epoch: int) -> None:
        """Set views, weights and cost of the phase: warm-up, or MixMatch with its ramp."""
        super().begin_epoch(epoch)
        self._warming_up = epoch < self.warmup_epochs
        self.batches = self._of_one_view if self._warming_up else self._of_two_views
        # A backward pass is two forward ones; after the warm-up each network also guesses.
        self.flops_per_image = (3 if self._warming_up else 1 + 3) * self._forward_flops
        time = epoch - self.warmup_epochs + 0.5
        risen = min(1.0, time / self.ramp_epochs) if self.ramp_epochs else 1.0
        for name in _NAMES:
            self.weights[f"{name}_entropy"] = -self.config.entropy_weight
            self.weights[f"{name}_prior"] = self.config.prior_weight
            self.weights[f"{name}_unlabelled"] = max(0.0, risen) * self.config.unlabelled_weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of both networks, each named after its network.

        ``classification`` (and ``entropy``, of negative weight, where asked for) in the warm-up; then
        ``labelled`` and ``unlabelled``, where the step has such images, and ``prior``.
        """
        if self._warming_up:
            return self._warm_up(batch)
        terms: dict[str, Tensor] = {}
        for own, name in enumerate(_NAMES):
            p_right = self.p_right[1 - own, batch.index]
            labelled = p_right > self.config.threshold
            guesses = self._guess(own, batch.views, ~labelled)
            believed = p_right.masked_fill(~labelled, 0)
            targets = refine_labels(self.labels[batch.index], guesses, believed, self.config.temperature)
            logits, mixed_targets = self._mix(self.pair.networks[own], batch.views, targets)
            known = labelled.repeat(_VIEWS)
            if bool(known.any()):
                terms[f"{name}_labelled"] = cross_entropy(logits[known], mixed_targets[known])
            if not bool(known.all()):
                distance = logits[~known].softmax(1) - mixed_targets[~known]
                terms[f"{name}_unlabelled"] = distance.square().mean(1)
            terms[f"{name}_prior"] = penalise_prior(logits)
        return terms

    def _warm_up(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for name, network in zip(_NAMES, self.pair.networks, strict=True):
            logits = network(batch.images).logits
            terms[f"{name}_classification"] = cross_entropy(logits, self.labels[batch.index])
            if self.config.entropy_weight:
                terms[f"{name}_entropy"] = entropy(logits)
        return terms

    @torch.no_grad()
    def _guess(self, own: int, views: tuple[Tensor, ...], unlabelled: Tensor) -> Tensor:
        """Mean probabilities [B, K] over views: a network's own, and for unlabelled images both networks'."""
        network, other = self.pair.networks[own], self.pair.networks[1 - own]
        guesses = _average_views(network(torch.cat(views)).logits)
        asked = int(unlabelled.sum())
        if asked:
            with eval_mode(other):
                answers = _average_views(other(torch.cat([view[unlabelled] for view in views])).logits)
            guesses[unlabelled] = (guesses[unlabelled] + answers) / 2
            # The images are in the account already, this pass of one network of the two is not.
            self.further_flops += len(views) * asked * self._forward_flops / 2
        # Autocast of earlier torch releases would go on with weights cast here, which pass no gradient back.
        torch.clear_autocast_cache()
        return guesses

    def _mix(self, network: Network, views: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [2 B, K] of all views, each mixed with another one, and the targets mixed alike."""
        pictures, wanted = torch.cat(views), targets.repeat(len(views), 1)
        partners, share = draw_mix(len(pictures), self.config.alpha)
        partners = partners.to(self.device)
        share = max(share, 1 - share)  # each keeps the larger share of itself, and so its part
        logits = network(mix(pictures, partners, share)).logits
        return logits, mix(wanted, partners, share)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the pair; divide the images anew for an epoch that needs it."""
        metrics = super().end_epoch(epoch)
        if self.warmup_epochs <= epoch + 1 < self.epochs:
            metrics |= self._divide()
        return metrics

    def _divide(self) -> dict[str, float]:
        """Renew what both networks believe of the labels; gives the shares labelled, for the log."""
        setup = self.ground.setup
        rows = setup.labelled_train
        index = torch.from_numpy(rows).to(self.device)
        shares: dict[str, float] = {}
        for number, (name, network) in enumerate(zip(_NAMES, self.pair.networks, strict=True)):
            logits = setup.predict(network, rows).logits
            losses = cross_entropy(logits, self.labels[index].cpu())
            p_right = torch.from_numpy(split_by_mixture(losses.double().numpy())).float().to(self.device)
            self.p_right[number, index] = p_right
            shares[f"{name}_labelled"] = float((p_right > self.config.threshold).float().mean())
        self.count(len(rows), self._forward_flops)
        return shares

    def state(self) -> dict[str, Any]:
        """What both networks believe of the labels, tracker and average."""
        return {"p_right": self.p_right, **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.p_right = state["p_right"].to(self.device)


def _average_views(logits: Tensor) -> Tensor:
    """Mean probabilities [B, K] of the views' logits [M B, K]."""
    return logits.softmax(1).view(_VIEWS, -1, logits.shape[1]).mean(0)

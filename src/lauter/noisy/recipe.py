"""The recipe: pretrain, warm up, train robustly. It is ours; the parts and their order are F&F's friends.

F&F (Zhou, Ge and Wu, arXiv 2103.15055) names self-supervised learning, a warm-up, instance filtering and
label correction as what helps. Its formulas were not at hand: every one here is ours.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lauter.data.counters import derive_seed
from lauter.data.views import contrastive_view
from lauter.models import Network, count_flops
from lauter.noisy.beliefs import estimate_prior
from lauter.noisy.pretrain import PretrainConfig, SimCLRStage
from lauter.noisy.robust import RobustConfig, RobustStage
from lauter.noisy.warmup import WarmupConfig, WarmupStage
from lauter.training.loop import Cost
from lauter.training.setup import Setup


@dataclass(frozen=True)
class NoisyConfig:
    """The parts of the recipe.

    Attributes:
        pretrain: self-supervised pretraining.
        warmup: the head alone.
        robust: the whole network on kept and corrected labels.
    """

    pretrain: PretrainConfig
    warmup: WarmupConfig
    robust: RobustConfig


def pretrain(setup: Setup, network: Network, config: PretrainConfig) -> None:
    """Pretrain a network's backbone on all images without looking at a label; 'none' leaves it as it is."""
    if config.method == "none":
        return
    view = contrastive_view(setup.augment, setup.image_size)
    batch_size = max(2, min(config.batch_size, len(setup.data) // 2))
    batches = setup.batches("pretrain", np.arange(len(setup.data)), batch_size, (view, view))
    setup.loop.run_stage(SimCLRStage(network, batches, config))


def train_robustly(setup: Setup, network: Network, config: NoisyConfig) -> RobustStage:
    """Run the whole recipe on a network.

    Args:
        setup: images and given labels.
        network: fresh, or with a pretrained backbone (then with pretraining 'none').
        config: its parts.

    Returns:
        The finished robust stage: its beliefs, assessment, corrections and the trained network.
    """
    pretrain(setup, network, config.pretrain)
    data, labelled = setup.data, setup.labelled_train
    features = setup.predict(network).features
    prior = estimate_prior(data.labels[labelled], np.ones(len(labelled)), data.num_classes)
    log_prior = torch.from_numpy(prior).log().float()
    warmup = WarmupStage(
        network.head,
        features.to(setup.loop.runtime.device),
        data.labels,
        labelled,
        setup.holdout,
        log_prior,
        config.warmup,
        derive_seed(setup.loop.seed, "warmup"),
    )
    setup.loop.run_stage(warmup)
    with torch.no_grad():
        logits = network.head(features.to(setup.loop.runtime.device)).float().cpu()
    probabilities = (logits + log_prior).softmax(1).double().numpy()
    batches = setup.batches("robust", setup.train, config.robust.batch_size)
    robust = RobustStage(
        network, data, setup.train, batches, features, probabilities, config.robust, setup.track()
    )
    setup.loop.run_stage(robust)
    _count_inference(setup, network, robust)
    return robust


def _count_inference(setup: Setup, network: Network, robust: RobustStage) -> None:
    """Feature extraction and the hold-out's scoring belong to the method's cost too."""
    passes = len(setup.data) + len(robust.tracker.scores) * len(setup.holdout)
    setup.loop.costs["inference"] = Cost(0.0, passes, passes * count_flops(network))

"""The recipe: pretrain, warm up, train robustly. It is ours; the parts and their order are F&F's friends.

F&F (Zhou, Ge and Wu, arXiv 2103.15055) names self-supervised learning, a warm-up, instance filtering and
label correction as what helps. Its formulas were not at hand: every one here is ours.
"""

import copy
from dataclasses import dataclass

import numpy as np
from torch import nn

from lauter.data.views import ViewRecipe, contrastive_view
from lauter.models import Network, count_flops
from lauter.noisy.judge import Judge
from lauter.noisy.pretrain import PretrainConfig, make_pretrain_stage
from lauter.noisy.robust import RobustConfig, RobustStage
from lauter.noisy.warmup import WarmupConfig, run_warmup
from lauter.training.loop import Cost
from lauter.training.setup import Setup, draw_from


@dataclass(frozen=True)
class NoisyConfig:
    """The parts of the recipe.

    Attributes:
        pretrain: self-supervised pretraining.
        warmup: the head alone, or what else comes before labels are judged.
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
    with draw_from(setup.loop.seed, "robust"):  # the projector
        stage = make_pretrain_stage(network, batches, config, setup)
    setup.loop.run_stage(stage)


def train_robustly(setup: Setup, network: Network, config: NoisyConfig, *, prefix: str = "") -> RobustStage:
    """Run the whole recipe on a network.

    Args:
        setup: images and given labels.
        network: fresh, or with a pretrained backbone (then with pretraining 'none').
        config: its parts.
        prefix: of the stages' names, where several recipes share a run; the pretraining is then shared.

    Returns:
        The finished robust stage, with its judge, who knows what is believed of every label.
    """
    robust, foes = config.robust, config.robust.foes
    pretrain(setup, network, config.pretrain)
    second = _copy_with_fresh_head(setup, network) if foes.two_networks else None
    judge = _warm_up(setup, network, config, f"{prefix}warmup")
    other = None if second is None else (second, _warm_up(setup, second, config, f"{prefix}warmup-second"))
    recipes = (_choose_view(setup, foes.heavy_augmentation),) * foes.views
    batches = setup.batches("robust", setup.train, robust.batch_size, recipes)
    stage = RobustStage(network, judge, batches, robust, setup.track(), other, name=f"{prefix}robust")
    setup.loop.run_stage(stage)
    _count_inference(setup, network, stage, f"{prefix}inference")
    return stage


def _warm_up(setup: Setup, network: Network, config: NoisyConfig, name: str) -> Judge:
    """The network's first predictions, and the judge who begins with them."""
    features, probabilities = run_warmup(setup, network, config.warmup, name=name)
    judge = Judge(
        setup.data,
        setup.train,
        setup.holdout,
        features,
        probabilities,
        config.robust.judge,
        setup.loop.runtime.device,
        epochs=config.robust.epochs,
        prior_correction=config.robust.prior_correction,
    )
    group = setup.loop.runtime.group
    if group.size > 1:  # every process judged; on different machines they might not agree to the last bit
        judge.load_state(group.tell(judge.state()))
    return judge


def _copy_with_fresh_head(setup: Setup, network: Network) -> Network:
    """A second network with the same self-supervised features and another head."""
    second = copy.deepcopy(network)
    with draw_from(setup.loop.seed, "second head"):
        second.head = nn.Linear(network.feature_size, network.num_classes)
    return second


def _choose_view(setup: Setup, heavy: bool) -> ViewRecipe:
    return contrastive_view(setup.augment, setup.image_size) if heavy else setup.view


def _count_inference(setup: Setup, network: Network, stage: RobustStage, name: str) -> None:
    """Feature extraction and the hold-out's scoring belong to the method's cost too."""
    judges = 2 if stage.config.foes.two_networks else 1
    passes = judges * (len(setup.data) + len(stage.tracker.scores) * len(setup.holdout))
    setup.loop.costs[name] = Cost(0.0, passes, passes * count_flops(network))

"""Exponential moving average of a network's weights (EMA), for evaluation and for momentum networks."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class WeightAverage(Generic[Module]):
    r"""Keeps a shadow of a module: after each step :math:`\bar w \leftarrow m \bar w + (1 - m) w`.

    The decay is warmed up as min(decay, (1 + t) / (10 + t)), so that a short run's average is not
    dominated by its random start. Floating-point buffers (batch-norm statistics) are averaged like
    weights; integer buffers are copied.

    Args:
        module: what is averaged.
        decay: m, in [0, 1).
    """

    def __init__(self, module: Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.shadow: Module = copy.deepcopy(module)
        self.shadow.requires_grad_(False).eval()
        self._source = module

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        # Not by state_dict: it names a tied weight twice, which would then move twice.
        shadows = [*self.shadow.parameters(), *self.shadow.buffers()]
        sources = [*self._source.parameters(), *self._source.buffers()]
        pairs = list(zip(shadows, sources, strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([pair[0] for pair in floating], [pair[1] for pair in floating], 1 - decay)
        for shadow, source in pairs:
            if not shadow.is_floating_point():
                shadow.copy_(source)

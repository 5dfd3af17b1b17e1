"""Exponential moving average of a network's weights (EMA), for evaluation and for momentum networks."""

import copy
from typing import Any, Generic, TypeVar

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
        # Where the tensors are kept is looked up once, which they are in every step: a module that moves gets
        # new buffers. Walking through all modules in every step would take longer than the average itself.
        self._places = list(zip(_find_places(self.shadow), _find_places(module), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        pairs = [(kept[name], source[other]) for (kept, name), (source, other) in self._places]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([pair[0] for pair in floating], [pair[1] for pair in floating], 1 - decay)
        if counts:
            torch._foreach_copy_([pair[0] for pair in counts], [pair[1] for pair in counts])


def _find_places(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where a module and its parts keep parameters and buffers, each tensor once, tied ones too."""
    parts = list(module.modules())
    keepers: list[dict[str, Any]] = [part._parameters for part in parts]
    keepers += [part._buffers for part in parts]
    seen: set[int] = set()
    places = []
    for keeper in keepers:
        for name, tensor in keeper.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                places.append((keeper, name))
    return places

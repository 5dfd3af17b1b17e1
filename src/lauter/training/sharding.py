"""Splitting a large frozen network over the accelerators of all processes: fully sharded, as in FSDP.

Each process keeps its share of every weight; the weights of a block are put together for the moment in which
the block runs. All processes must therefore run the network equally often, which the shared passes of this
library do.
"""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

SMALLEST_BLOCK = 1_000_000
"""Blocks with fewer weights are not worth a gathering of their own; they travel with what is around them."""


def is_split(module: nn.Module) -> bool:
    """Whether a module's weights are split over processes."""
    return isinstance(module, FSDPModule)


def split_network(network: nn.Module) -> None:
    """Split a frozen network in place: block by block, and what is left as a whole.

    Args:
        network: on this process's accelerator; the same weights in every process. Blocks are the elements of
            its lists and sequences (a transformer's layers, a ResNet's stages).
    """
    network.to(memory_format=torch.contiguous_format)  # FSDP takes no other
    holders = (nn.ModuleList, nn.Sequential)
    for module in reversed(list(network.modules())):  # inner blocks first
        for block in module if isinstance(module, holders) else ():
            weights = sum(parameter.numel() for parameter in block.parameters())
            if not isinstance(block, holders) and not is_split(block) and weights >= SMALLEST_BLOCK:
                fully_shard(block, reshard_after_forward=True)
    fully_shard(network, reshard_after_forward=True)  # no backward pass will want the weights

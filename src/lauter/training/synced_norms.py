"""Batch normalisation over the images of all processes, for as long as a stage trains."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def sync_norms(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put torch's SyncBatchNorm in the place of every trained batch normalisation, and the old ones back.

    Weights and statistics are the same tensors before, meanwhile and afterwards, so optimisers and
    checkpoints notice nothing. Modules without any trained weight are left as they are: averages and frozen
    teachers only look their statistics up, and MoCo's momentum network wants those of small groups.

    Args:
        modules: on accelerators; torch has no such normalisation for processors.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for module in modules:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            continue
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                    synced = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                    synced.train(child.training)
                    setattr(parent, name, synced)
                    replaced.append((parent, name, child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)

"""What a network costs: parameters, and operations per image."""

from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lauter.errors import ModelError
from lauter.models.network import Backbone, Network


def count_parameters(network: Network) -> int:
    """Number of parameters, the frozen ones included; buffers (running statistics) are not counted."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: Network, size: int | None = None) -> int:
    """Floating-point operations to classify one image in eval mode; a multiply-accumulate counts as two.

    Convolutions and matrix products are counted, attention included; resizing, normalisation, activations and
    pooling are not, as is usual.

    Args:
        network: its training mode is the same afterwards.
        size: side in pixels that the backbone is given; None for the network's own input size.

    Returns:
        Operations of backbone and head for one image.

    Raises:
        ModelError: the backbone does not take images of this side.
    """
    side = network.input_spec.size if size is None else size
    if side < 1:
        raise ModelError(f"size must be positive, not {side}")
    images = cast(Tensor, network.pixel_mean).new_zeros(1, 3, side, side)
    modes = {module: module.training for module in network.modules()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    network.eval()
    # Fused attention hides its matrix products from the counter; the plain form shows them.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            features, _ = cast(Backbone, network.backbone)(images)
            network.head(features)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{network.name}: does not take images of side {side} ({error})") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, training in modes.items():
            module.training = training
    return int(counter.get_total_flops())

"""A short hash of a network's weights, for keys of what was computed with them."""

import hashlib

import torch

from lauter.models.network import Network


def fingerprint_weights(network: Network) -> str:
    """Hash of every weight and buffer of a network, with its name, type and shape.

    Args:
        network: on any device; where its tensors lie and in which memory format does not matter.

    Returns:
        16 hexadecimal digits, the same in every process that has the same weights.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]

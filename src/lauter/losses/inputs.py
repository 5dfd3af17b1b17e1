"""What every loss does with its inputs first: check shapes and lift them to float32 at least."""

from functools import reduce

import torch
from torch import Tensor

from lauter.errors import ConfigError, ModelError


def lift(*tensors: Tensor) -> list[Tensor]:
    """Bring tensors to one floating dtype: float32, or float64 where one of them is float64.

    Half precision is lifted because hashes, exponentials and squared norms do not survive in it; gradients
    flow back in the dtype that came in.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return [tensor.to(dtype) for tensor in tensors]


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Context in which products of tensors on this tensor's device keep their own precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def require_pair(first: Tensor, second: Tensor, what: str) -> None:
    """Check that two tensors are [B, D] of one shape.

    Args:
        first: the tensor that should be [B, D].
        second: the tensor that should match it.
        what: what the two are, for the message: "student and teacher features".

    Raises:
        ModelError: they are not; the message names both shapes.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ModelError(
            f"{what} must be two matrices of one shape, not {list(first.shape)} and {list(second.shape)}; "
            "where their widths differ, an embedding has to map one to the width of the other"
        )


def require_shape(tensor: Tensor, expected: tuple[int, ...], what: str, beside: str) -> None:
    """Check that a tensor has the shape that its companion asks for.

    Args:
        tensor: the tensor to check.
        expected: its expected shape.
        what: what the tensor is, for the message.
        beside: what asks for that shape, for the message: "logits [4, 10]".

    Raises:
        ModelError: it has another shape; the message names the shape, the expected one and the companion.
    """
    if tuple(tensor.shape) != expected:
        raise ModelError(
            f"{what} must have shape {list(expected)} beside {beside}, not {list(tensor.shape)}; "
            "pass the two for the same batch and the same classes or features"
        )


def require_positive(value: float, what: str, way_out: str) -> None:
    """Check that a setting is a positive, finite number.

    Raises:
        ConfigError: it is not; the message names the setting, its value and the way out.
    """
    if not 0 < value < float("inf"):
        raise ConfigError(f"{what} must be positive and finite, not {value}; {way_out}")

"""Distillation by feature maps: attention maps and hints."""

import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.geometry import split_features
from lauter.losses.inputs import lift


def match_sides(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps to the height and width of the smaller.

    Args:
        student: [B, C_s, H_s, W_s], gradient flows.
        teacher: [B, C, H, W], detached here.

    Returns:
        Both with min(H_s, H) rows and min(W_s, W) columns, float32 at least.

    Raises:
        ModelError: they are not two batches of maps of one length; the message names both shapes.

    Example:
        >>> import torch
        >>> student, teacher = match_sides(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, 4, 4))
        >>> student.shape, teacher.shape
        (torch.Size([2, 3, 4, 4]), torch.Size([2, 5, 4, 4]))

    Source: the CRD benchmark (arXiv 1910.10699), for its attention maps.
    """
    if student.ndim != 4 or teacher.ndim != 4 or len(student) != len(teacher):
        raise ModelError(
            f"student and teacher maps must be [B, C, H, W] of one batch, not {list(student.shape)} and "
            f"{list(teacher.shape)}; take maps from before the pooling"
        )
    student, teacher = lift(student, teacher.detach())
    height, width = (min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return tuple(  # type: ignore[return-value]  # mypy does not count the two of a generator
        maps if maps.shape[2:] == (height, width) else F.adaptive_avg_pool2d(maps, (height, width))
        for maps in (student, teacher)
    )


def attention_map(maps: Tensor) -> Tensor:
    r"""Where a network looks: the energy of its activations at every position, at unit length.

    .. math:: q_{bp} = \frac{e_{bp}}{\lVert e_b \rVert}, \qquad e_{bp} = \frac1C \sum_c a_{bcp}^2

    Args:
        maps: a [B, C, H, W], gradient flows.

    Returns:
        [B, H * W], non-negative, of unit length; 0, without gradient, where all activations are 0.

    Example:
        >>> import torch
        >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[0.0, 3.0]]]])) ** 2
        tensor([[0.5000, 0.5000]])

    Source: Zagoruyko and Komodakis (2017), arXiv 1612.03928; the mean over channels in place of their sum
    falls out with the length.
    """
    (maps,) = lift(maps)
    return split_features(maps.square().mean(1).flatten(1))[1]


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Attention transfer: mean squared difference of two attention maps.

    .. math:: \ell_b = \frac{1}{HW} \sum_p (q^s_{bp} - q^t_{bp})^2

    The channels may differ in number; of maps of different sides the larger is average-pooled first.

    Args:
        student: [B, C_s, H_s, W_s], gradient flows.
        teacher: [B, C, H, W], detached here.

    Returns:
        [B], within [0, 2 / (H W)], without unit, float32 at least.

    Raises:
        ModelError: the maps are of different batches; the message names both shapes.

    Example:
        >>> import torch
        >>> attention(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 7.0]]]]))
        tensor([1.])

    Source: Zagoruyko and Komodakis (2017), arXiv 1612.03928, in the form of the CRD benchmark (arXiv
    1910.10699): the mean of the squares in place of the length of the difference, and the pooling.
    """
    student, teacher = match_sides(student, teacher)
    return (attention_map(student) - attention_map(teacher)).square().mean(1)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Hint regression: mean squared difference of two maps of as many channels.

    .. math:: \ell_b = \frac{1}{CHW} \sum_{cp} (s_{bcp} - t_{bcp})^2

    Of maps of different sides the larger is average-pooled first.

    Args:
        student: [B, C, H_s, W_s], the student's map after its regressor, gradient flows.
        teacher: [B, C, H, W], detached here.

    Returns:
        [B], non-negative, in the maps' unit squared, float32 at least.

    Raises:
        ModelError: the maps differ in channels or in batch; the message names both shapes.

    Example:
        >>> import torch
        >>> hint(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]]))
        tensor([5.])

    Source: Romero et al. (2015), arXiv 1412.6550, as the mean of the CRD benchmark (arXiv 1910.10699) in
    place of their half sum; the pooling is ours, for sides that the regressor does not bring together.
    """
    student, teacher = match_sides(student, teacher)
    if student.shape != teacher.shape:
        raise ModelError(
            f"a hint needs two maps of as many channels, not {list(student.shape)} and "
            f"{list(teacher.shape)}; a regressor has to map the student's to the teacher's"
        )
    return (student - teacher).square().flatten(1).mean(1)

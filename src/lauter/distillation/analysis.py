"""What mimicking did: how near a student's features come to its teacher's in angle, norm and hash bits."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lauter.data.dataset import Int64s
from lauter.distillation.method import Method, Seen
from lauter.distillation.mimic import Mimic
from lauter.distillation.stored import Stored
from lauter.errors import DataError, ModelError
from lauter.losses.geometry import ZERO_NORM, angle, norm_ratio
from lauter.losses.hashing import hash_bits, require_hashes
from lauter.losses.inputs import lift, require_pair, require_shape
from lauter.models import EmbeddedHead, Network
from lauter.training.setup import Setup

ANGLE_EDGES = tuple(float(degrees) for degrees in range(181))
"""Bins of angles in degrees."""
RATIO_EDGES = tuple(2.0 ** (sixteenths / 16) for sixteenths in range(-80, 81))
"""Bins of norm ratios from 1/32 to 32, a sixteenth of an octave each: half and double are as far from 1."""
BIT_EDGES = ANGLE_EDGES[::2]
"""Bins of angles in degrees over which shares of bits are averaged; wider, so that few hold a handful."""
MAX_LOGITS = 2**24
"""Hash logits that exist at a time, 64 MiB of them in float32."""


@dataclass(frozen=True)
class Quantiles:
    """Where the values of the images lie: median, and the ends of the middle 80%."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class Distribution:
    """Values of all images as a histogram over fixed bins.

    Attributes:
        quantiles: of the values themselves, not of the bins.
        edges: of the bins, ascending; a bin holds its lower edge, the last one its upper edge too.
        counts: images in each bin.
        below: images under the first edge.
        above: images over the last edge.
    """

    quantiles: Quantiles
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True)
class ClassComparison:
    """The images of one class.

    Attributes:
        label: code of the class.
        images: how many there are.
        angle: between the features, degrees.
        norm_ratio: student's norm over the teacher's.
    """

    label: int
    images: int
    angle: Quantiles
    norm_ratio: Quantiles


@dataclass(frozen=True)
class BitAgreement:
    r"""Share of hash bits that student and teacher have in common, against the angle between their features.

    For hashes through one point the expected share is :math:`1 - \theta / \pi`, with theta measured at that
    point. It is linear in theta, so a bin's mean share belongs to its mean angle without any binning error.

    Attributes:
        hashes: N, bits of each feature.
        share: over all images and bits.
        angles: mean angle in each bin that has images, degrees, ascending; measured at the hashes' centre.
        shares: mean share of equal bits in each of these bins.
        images: in each of these bins.
        through_one_point: whether the hashes are known to meet in one point, so that the law above holds.
    """

    hashes: int
    share: float
    angles: tuple[float, ...]
    shares: tuple[float, ...]
    images: tuple[int, ...]
    through_one_point: bool


@dataclass(frozen=True)
class Comparison:
    """Student's against teacher's features of the same pictures.

    Attributes:
        images: that were compared.
        left_out: further images without a direction to compare, since a feature of theirs is zero.
        angle: between the features, degrees.
        norm_ratio: student's norm over the teacher's.
        classes: by ascending label; empty where no labels were given.
        bits: None where no hashes were given.
    """

    images: int
    left_out: int
    angle: Distribution
    norm_ratio: Distribution
    classes: tuple[ClassComparison, ...] = ()
    bits: BitAgreement | None = None

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it: mappings, lists, numbers and None; every number is finite."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return plain


@torch.no_grad()
def predict_features(setup: Setup, network: Network, index: Int64s | None = None) -> Tensor:
    """Features of a network for the unchanged images, in the space in which they are mimicked.

    Args:
        setup: images and runtime.
        network: a teacher, or a student before its head is folded, since folding removes the embedding.
        index: rows of the data set; all where None.

    Returns:
        [N, D] float32 on the host: embedded where the head embeds, the head's input otherwise.
    """
    features = setup.predict(network, index).features
    if not isinstance(network.head, EmbeddedHead):
        return features
    return network.head.embed(features.to(network.head.embedding.weight.device)).float().cpu()


def compare_pair(
    setup: Setup, student: Network, teacher: Network | Stored, method: Method, rows: Int64s
) -> Comparison | None:
    """Compare a trained student with its teacher on unchanged images, with the hashes that it learnt from.

    Args:
        setup: images with given labels, runtime.
        student: before its head is folded.
        teacher: the network, or its stored features of the whole data set.
        method: what the student was trained by; hashes are compared where it has some of known centre.
        rows: images to compare on.

    Returns:
        The comparison; None where the widths differ, as for rivals that embed nothing.
    """
    if isinstance(teacher, Stored):
        theirs = teacher.take(rows).features
    else:
        theirs = predict_features(setup, teacher, rows)
    ours, shown = predict_features(setup, student, rows), method.prepare(Seen(theirs)).features
    theirs = theirs if shown is None else shown
    if ours.shape != theirs.shape:
        return None
    labels = torch.from_numpy(setup.data.labels[rows])
    kept = {name: value.cpu() for name, value in method.named_buffers()}
    if not isinstance(method, Mimic) or "weight" not in kept:
        return compare_features(ours, theirs, labels)
    center = kept["center"] if method.bias_kind == "mean" else None
    return compare_features(ours, theirs, labels, kept["weight"], kept["bias"], center=center)


@torch.no_grad()
def compare_features(
    student_features: Tensor,
    teacher_features: Tensor,
    labels: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    center: Tensor | None = None,
) -> Comparison:
    r"""Compare features of the same pictures: direction, length, and the bits that hashes make of them.

    .. math:: \theta_b = \angle(s_b, t_b), \quad \rho_b = \lVert s_b \rVert / \lVert t_b \rVert, \quad
              a_b = \frac1N \sum_j \big[\, [w_j \cdot s_b + b_j > 0] = [w_j \cdot t_b + b_j > 0] \,\big]

    Args:
        student_features: [B, D], in the teacher's space.
        teacher_features: [B, D] of the very same pictures, in the same order.
        labels: integer [B]; -1 for images that belong to no class here. None for no split by class.
        weight: [N, D] hash weights; None for no comparison of bits.
        bias: [N] of the hashes; None for 0.
        center: [D], the point that all hashes pass through: the mean of the teacher's training features for
            the 'mean' bias. Angles beside bits are then measured at it. None where the bias is 0, and for
            hashes without such a point ('median'), whose bits follow no law of the angle.

    Returns:
        Distributions over the images; those with a zero feature on either side are counted and left out.

    Raises:
        ModelError: the shapes do not fit, the hashes do not pass through ``center``, or a bias or a centre
            comes without weights.
        DataError: a feature is not finite, or no image has a direction to compare.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
        >>> found = compare_features(student, teacher)
        >>> found.angle.quantiles.p50, found.norm_ratio.quantiles.p50
        (90.0, 0.5)

    Source: the split of a feature into magnitude and direction, and the hashes, are those of Wang, Ge and Wu
    (2021), arXiv 2011.01424; the share of equal bits is a property of random hyperplanes (Goemans and
    Williamson, 1995; Charikar, 2002); this comparison is ours.
    """
    require_pair(student_features, teacher_features, "student and teacher features")
    student, teacher = lift(student_features, teacher_features)
    for who, features in (("student", student), ("teacher", teacher)):
        if broken := int((~features.isfinite().all(1)).sum()):
            raise DataError(
                f"{broken} of {len(features)} features of the {who} are not finite; its training broke or "
                "its weights did, so there is nothing to compare"
            )
    if labels is not None:
        require_shape(labels, (len(student),), "labels", f"features {list(student.shape)}")
    directed = _find_directed(student, teacher)
    if not bool(directed.any()):
        raise DataError(
            f"none of {len(student)} images has a feature other than zero for both student and teacher; "
            "check that both networks are the trained ones"
        )
    angles = angle(student, teacher)[directed].double().clamp(max=180.0)
    ratios = norm_ratio(student, teacher)[directed].double()
    bits = None
    if weight is not None:
        bits = _compare_bits(student, teacher, weight, bias, center)
    elif bias is not None or center is not None:
        raise ModelError("a bias or a centre of hashes was given without their weights; pass weight as well")
    return Comparison(
        images=len(angles),
        left_out=len(student) - len(angles),
        angle=_distribute(angles, ANGLE_EDGES),
        norm_ratio=_distribute(ratios, RATIO_EDGES),
        classes=()
        if labels is None
        else _split_by_class(angles, ratios, labels.to(directed.device)[directed]),
        bits=bits,
    )


def _find_directed(student: Tensor, teacher: Tensor) -> Tensor:
    """Bool [B]: the rows in which neither feature counts as zero."""
    norms = [torch.linalg.vector_norm(features, dim=1) for features in (student, teacher)]
    return torch.minimum(*norms) > ZERO_NORM


def _measure_quantiles(values: Tensor) -> Quantiles:
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=values.dtype, device=values.device)
    return Quantiles(*values.quantile(levels).tolist())


def _sort_into(values: Tensor, edges: tuple[float, ...]) -> Tensor:
    """Number of the bin of each value within the edges; a bin holds its lower edge."""
    inner = torch.tensor(edges[1:-1], dtype=values.dtype, device=values.device)
    return torch.bucketize(values, inner, right=True)


def _distribute(values: Tensor, edges: tuple[float, ...]) -> Distribution:
    below, above = values < edges[0], values > edges[-1]
    counts = _sort_into(values[~below & ~above], edges).bincount(minlength=len(edges) - 1)
    return Distribution(
        _measure_quantiles(values), edges, tuple(counts.tolist()), int(below.sum()), int(above.sum())
    )


def _split_by_class(angles: Tensor, ratios: Tensor, labels: Tensor) -> tuple[ClassComparison, ...]:
    rows = {int(label): labels == label for label in torch.unique(labels[labels >= 0])}
    return tuple(
        ClassComparison(
            label, int(row.sum()), _measure_quantiles(angles[row]), _measure_quantiles(ratios[row])
        )
        for label, row in rows.items()
    )


def _compare_bits(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor | None, center: Tensor | None
) -> BitAgreement | None:
    """Share of equal bits against the angle at the hashes' centre; None where no feature differs from it."""
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    require_hashes(student, weight, bias)
    student, teacher, weight, bias = lift(student, teacher, weight, bias)
    weight, bias = weight.to(student.device), bias.to(student.device)
    if center is not None:
        center = center.to(student)
        _require_center(weight, bias, center)
    shift = 0 if center is None else center
    directed = _find_directed(student - shift, teacher - shift)
    if not bool(directed.any()):
        return None
    angles = angle((student - shift)[directed], (teacher - shift)[directed]).double().clamp(max=180.0)
    step = max(1, MAX_LOGITS // len(weight))
    pairs = zip(*(torch.split(features[directed], step) for features in (student, teacher)), strict=True)
    shares = torch.cat(
        [
            (hash_bits(first, weight, bias) == hash_bits(second, weight, bias)).double().mean(1)
            for first, second in pairs
        ]
    )
    bins = _sort_into(angles, BIT_EDGES)
    images = bins.bincount(minlength=len(BIT_EDGES) - 1)
    filled = images > 0
    mean_angles, mean_shares = (
        (bins.bincount(values, minlength=len(images)) / images)[filled] for values in (angles, shares)
    )
    return BitAgreement(
        hashes=len(weight),
        share=float(shares.mean()),
        angles=tuple(mean_angles.tolist()),
        shares=tuple(mean_shares.tolist()),
        images=tuple(images[filled].tolist()),
        through_one_point=center is not None or not bool(bias.any()),
    )


def _require_center(weight: Tensor, bias: Tensor, center: Tensor) -> None:
    """Check that every hash has its border in ``center``, up to rounding."""
    require_shape(center, (weight.shape[1],), "center", f"hash weights {list(weight.shape)}")
    gap = float((weight @ center + bias).abs().max())
    reach = float(torch.linalg.vector_norm(weight, dim=1).max() * torch.linalg.vector_norm(center))
    if gap > 1e-4 * reach:
        raise ModelError(
            f"the hashes do not pass through the centre: W c + b reaches {gap:.3g}, expected 0; pass the "
            "mean of the features that the 'mean' bias was made of, or no centre for another bias"
        )

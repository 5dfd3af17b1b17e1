"""The comparison of features against plain loops, the law of equal bits, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data import open_dataset
from lauter.distillation.analysis import (
    ANGLE_EDGES,
    BIT_EDGES,
    RATIO_EDGES,
    Comparison,
    compare_features,
    predict_features,
)
from lauter.errors import DataError, ModelError
from lauter.files import read_json, write_json
from lauter.losses.hashing import draw_hash_weights, hash_bias
from lauter.models import EmbeddedHead, create_network
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup


def draw(seed: int, images: int = 300, size: int = 12, noise: float = 0.6) -> tuple[Tensor, Tensor]:
    """Teacher's features with a mean far from 0, and a student's that lie around them."""
    generator = torch.Generator().manual_seed(seed)
    teacher = 1.5 + torch.randn(images, size, generator=generator, dtype=torch.float64)
    aside = torch.randn(images, size, generator=generator, dtype=torch.float64)
    spread = 2 * torch.rand(images, 1, generator=generator, dtype=torch.float64)
    return teacher + noise * spread * aside, teacher


def loop_angle(first: np.ndarray, second: np.ndarray) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(first, second, strict=True))
    norms = [math.sqrt(sum(float(a) ** 2 for a in row)) for row in (first, second)]
    return math.degrees(math.acos(max(-1.0, min(1.0, dot / norms[0] / norms[1]))))


def loop_ratio(first: np.ndarray, second: np.ndarray) -> float:
    return math.sqrt(sum(float(a) ** 2 for a in first)) / math.sqrt(sum(float(b) ** 2 for b in second))


def loop_quantile(values: list[float], level: float) -> float:
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def loop_counts(values: list[float], edges: tuple[float, ...]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        for b in range(len(counts)):
            last = b == len(counts) - 1
            if edges[b] <= value and (value < edges[b + 1] or (last and value == edges[b + 1])):
                counts[b] += 1
    return counts


def check_quantiles(found: object, values: list[float]) -> None:
    expected = [loop_quantile(values, level) for level in (0.1, 0.5, 0.9)]
    measured = [getattr(found, name) for name in ("p10", "p50", "p90")]
    torch.testing.assert_close(torch.tensor(measured), torch.tensor(expected))


def test_distributions_equal_plain_loops() -> None:
    student, teacher = draw(0)
    found = compare_features(student, teacher)
    rows = list(zip(student.numpy(), teacher.numpy(), strict=True))
    for distribution, edges, function in (
        (found.angle, ANGLE_EDGES, loop_angle),
        (found.norm_ratio, RATIO_EDGES, loop_ratio),
    ):
        values = [function(first, second) for first, second in rows]
        check_quantiles(distribution.quantiles, values)
        assert list(distribution.counts) == loop_counts(values, edges)
        assert distribution.edges == edges
        assert (distribution.below, distribution.above) == (0, 0)
    assert (found.images, found.left_out, found.classes, found.bits) == (300, 0, (), None)


def test_classes_equal_plain_loops_and_unlabelled_images_belong_to_none() -> None:
    student, teacher = draw(1)
    labels = torch.arange(300) % 4 - 1
    labels[labels == 1] = 7
    found = compare_features(student, teacher, labels)
    assert [entry.label for entry in found.classes] == [0, 2, 7]
    for entry in found.classes:
        rows = [k for k in range(300) if int(labels[k]) == entry.label]
        assert entry.images == len(rows) == 75
        check_quantiles(entry.angle, [loop_angle(student[k].numpy(), teacher[k].numpy()) for k in rows])
        check_quantiles(entry.norm_ratio, [loop_ratio(student[k].numpy(), teacher[k].numpy()) for k in rows])


def test_bits_equal_plain_loops_with_angles_at_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lauter.distillation.analysis.MAX_LOGITS", 7 * 40)  # seven images at a time
    student, teacher = draw(2, images=60)
    weight = draw_hash_weights(40, 12, 0.7, torch.Generator().manual_seed(3)).double()
    center = teacher.mean(0)
    bias = -weight @ center
    bits = compare_features(student, teacher, None, weight, bias, center=center).bits
    assert bits is not None
    by_bin: dict[int, list[tuple[float, float]]] = {}
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        equal = 0
        for w, b in zip(weight.numpy(), bias.numpy(), strict=True):
            logits = [sum(float(x) * float(y) for x, y in zip(w, f, strict=True)) + float(b) for f in (s, t)]
            equal += (logits[0] > 0) == (logits[1] > 0)
        degrees = loop_angle(s - center.numpy(), t - center.numpy())
        by_bin.setdefault(int(degrees // 2), []).append((degrees, equal / 40))
    expected = [np.mean(by_bin[b], axis=0) for b in sorted(by_bin)]
    measured = torch.tensor([bits.angles, bits.shares], dtype=torch.float64).T
    torch.testing.assert_close(measured, torch.tensor(np.array(expected)))
    assert list(bits.images) == [len(by_bin[b]) for b in sorted(by_bin)]
    assert bits.share == pytest.approx(np.mean([share for rows in by_bin.values() for _, share in rows]))
    assert (bits.hashes, bits.through_one_point) == (40, True)
    assert BIT_EDGES[1] == 2


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_equal_bits_follow_the_angle(kind: str) -> None:
    student, teacher = draw(4, images=400, size=6)
    weight = draw_hash_weights(20_000, 6, 0.4, torch.Generator().manual_seed(5))
    center = teacher.float().mean(0) if kind == "mean" else None
    bias = hash_bias(kind, weight, teacher.float())  # type: ignore[arg-type]
    bits = compare_features(student.float(), teacher.float(), None, weight, bias, center=center).bits
    assert bits is not None
    assert bits.through_one_point
    assert len(bits.angles) > 10
    # One share has a standard deviation of at most 0.5 / sqrt(20000) = 0.0035 over the draw of the hashes.
    expected = torch.tensor([1 - math.radians(degrees) / math.pi for degrees in bits.angles])
    torch.testing.assert_close(torch.tensor(bits.shares), expected, rtol=0, atol=0.015)


def test_hashes_without_a_common_point_claim_no_law() -> None:
    student, teacher = draw(6)
    weight = draw_hash_weights(64, 12, 0.7, torch.Generator().manual_seed(0)).double()
    bias = hash_bias("median", weight, teacher)
    bits = compare_features(student, teacher, None, weight, bias).bits
    assert bits is not None
    assert not bits.through_one_point
    plain = compare_features(student, teacher, None, weight).bits
    assert plain is not None
    assert plain.through_one_point
    assert plain == compare_features(student, teacher, None, weight, torch.zeros(64)).bits


def test_a_scaled_student_differs_in_norm_alone() -> None:
    student, teacher = draw(7)
    weight = draw_hash_weights(64, 12, 0.7, torch.Generator().manual_seed(0)).double()
    once, thrice = (compare_features(c * student, teacher, None, weight) for c in (1.0, 4.0))
    assert once.bits is not None
    assert thrice.bits is not None
    torch.testing.assert_close(torch.tensor(once.bits.shares), torch.tensor(thrice.bits.shares))
    torch.testing.assert_close(
        torch.tensor(list(vars(thrice.angle.quantiles).values())),
        torch.tensor(list(vars(once.angle.quantiles).values())),
    )
    assert thrice.norm_ratio.quantiles.p50 == pytest.approx(4 * once.norm_ratio.quantiles.p50)
    # Four times is two octaves, 32 bins of a sixteenth.
    assert thrice.norm_ratio.counts[32:] == once.norm_ratio.counts[:-32]


def test_a_perfect_student_and_its_opposite_stand_at_the_ends() -> None:
    _, teacher = draw(8, images=20)
    weight = draw_hash_weights(16, 12, 1.0, torch.Generator().manual_seed(0)).double()
    same, opposite = (compare_features(sign * teacher, teacher, None, weight) for sign in (1, -1))
    assert same.angle.counts[0] == opposite.angle.counts[-1] == 20
    assert same.bits is not None
    assert opposite.bits is not None
    assert (same.bits.share, opposite.bits.share) == (1.0, 0.0)
    assert same.norm_ratio.quantiles.p50 == opposite.norm_ratio.quantiles.p50 == 1.0
    assert same.norm_ratio.counts[RATIO_EDGES.index(1.0)] == 20


def test_what_lies_beyond_the_bins_is_counted() -> None:
    teacher = torch.eye(4)
    found = compare_features(teacher * torch.tensor([[1e-3], [1.0], [100.0], [50.0]]), teacher)
    assert (found.norm_ratio.below, found.norm_ratio.above, sum(found.norm_ratio.counts)) == (1, 2, 1)


def test_zero_features_are_counted_and_left_out() -> None:
    student, teacher = draw(9, images=10)
    student[0], teacher[1] = 0.0, 0.0
    labels = torch.arange(10) % 2
    weight = draw_hash_weights(16, 12, 1.0, torch.Generator().manual_seed(0)).double()
    found = compare_features(student, teacher, labels, weight)
    assert found.left_out == 2
    assert found == Comparison(
        **{**vars(compare_features(student[2:], teacher[2:], labels[2:], weight)), "left_out": 2}
    )
    at_center = compare_features(
        teacher[:1] + 1, teacher[:1], None, weight, -weight @ teacher[0], center=teacher[0]
    )
    assert at_center.bits is None


def test_half_precision_is_lifted() -> None:
    student, teacher = (features.bfloat16() for features in draw(10))
    assert compare_features(student, teacher) == compare_features(student.float(), teacher.float())


def test_the_plain_form_survives_a_file(tmp_path: object) -> None:
    student, teacher = draw(11)
    weight = draw_hash_weights(16, 12, 1.0, torch.Generator().manual_seed(0)).double()
    found = compare_features(student, teacher, torch.zeros(300, dtype=torch.int64), weight)
    plain = found.to_plain()
    write_json(f"{tmp_path}/comparison.json", plain)
    assert read_json(f"{tmp_path}/comparison.json") == plain
    assert json.dumps(plain, allow_nan=False)
    assert plain["angle"]["quantiles"]["p50"] == found.angle.quantiles.p50
    assert plain["classes"][0]["images"] == 300
    assert list(plain["bits"]) == ["hashes", "share", "angles", "shares", "images", "through_one_point"]


def test_bad_inputs_are_named() -> None:
    student, teacher = draw(12, images=5)
    weight = draw_hash_weights(16, 12, 1.0, torch.Generator().manual_seed(0)).double()
    with pytest.raises(ModelError, match=r"\[5, 3\] and \[5, 12\]"):
        compare_features(student[:, :3], teacher)
    with pytest.raises(ModelError, match=r"labels must have shape \[5\].*not \[4\]"):
        compare_features(student, teacher, torch.zeros(4))
    with pytest.raises(DataError, match="1 of 5 features of the teacher are not finite"):
        compare_features(student, torch.where(teacher == teacher[2, 3], torch.nan, teacher))
    with pytest.raises(DataError, match="none of 5 images has a feature other than zero"):
        compare_features(0 * student, teacher)
    with pytest.raises(DataError, match="none of 0 images"):
        compare_features(student[:0], teacher[:0])
    with pytest.raises(ModelError, match="without their weights"):
        compare_features(student, teacher, bias=torch.zeros(16))
    with pytest.raises(ModelError, match=r"do not fit hash weights \[16, 11\]"):
        compare_features(student, teacher, None, weight[:, :11])
    with pytest.raises(ModelError, match="do not pass through the centre"):
        compare_features(student, teacher, None, weight, center=teacher.mean(0))
    with pytest.raises(ModelError, match=r"center must have shape \[12\]"):
        compare_features(student, teacher, None, weight, center=torch.zeros(3))


def test_features_are_those_that_mimic() -> None:
    digits = open_dataset("digits", split="train", size=20)
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", threads=1, workers=0))
    loop = Loop(runtime=runtime, checkpoints=Checkpoints(None), progress=Progress(None), seed=0)
    rows = np.arange(20)
    setup = Setup(digits, rows[:15], rows[15:], None, loop, 8, "none")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = create_network("resnet8", 10, image_size=8)
        plain = predict_features(setup, student, rows[15:])
        student.head = EmbeddedHead(student.feature_size, 5, 10)
    torch.testing.assert_close(plain, setup.predict(student, rows[15:]).features)
    embedded = predict_features(setup, student, rows[15:])
    expected = plain @ student.head.embedding.weight.T + student.head.embedding.bias
    torch.testing.assert_close(embedded, expected.detach())
    assert not embedded.requires_grad
    assert embedded.shape == (5, 5)

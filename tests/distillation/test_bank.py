"""The teacher bank: what it gives back is what the live teacher shows, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data import Dataset
from lauter.data.batches import Batch, ImageBatches
from lauter.data.views import ViewRecipe
from lauter.distillation.bank import Bank, BankTeacher, open_bank
from lauter.distillation.method import Seen
from lauter.distillation.teacher import LiveTeacher
from lauter.errors import BankError
from lauter.losses.hashing import hash_bits
from lauter.losses.mimic import lsh, lsh_from_bits
from lauter.models import Network

SIZE, FEATURES, IMAGES, VIEW_SEED = 12, 15, 30, 11
PADDED, RESIZED = ViewRecipe(pad=2, flip=0.5), ViewRecipe(area=(0.2, 0.8), flip=0.5)
ROWS = np.random.default_rng(1).permutation(IMAGES)[:27]
CPU = torch.device("cpu")

Build = Callable[..., Bank]
MakeData = Callable[..., Dataset]
MakeTeacher = Callable[..., Network]
MakeBatches = Callable[..., ImageBatches]
DrawHashes = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture
def make_batches(make_data: MakeData) -> MakeBatches:
    """Make a student's batches that fit ``build``, where nothing else is said."""

    def make(data: Dataset | None = None, **changed: Any) -> ImageBatches:
        settings: dict[str, Any] = {"batch_size": 7, "recipes": (PADDED,), "image_size": SIZE, "seed": 5}
        settings |= {"view_seed": VIEW_SEED, "cycle": 3, **changed}
        return ImageBatches((data or make_data()).images, settings.pop("index", ROWS), **settings)

    return make


def live_and_kept(
    bank: Bank, batches: ImageBatches, network: Network, epochs: int = 4
) -> list[tuple[Batch, Seen, Seen]]:
    live, kept = LiveTeacher(network, CPU), BankTeacher(bank)
    bank.require_batches(batches)
    kept.begin_epoch()
    return [(b, live.see(b), kept.see(b)) for epoch in range(epochs) for b in batches.epoch(epoch)]


def features_of(seen: Seen) -> Tensor:
    assert seen.features is not None
    return seen.features


def bits_of(seen: Seen) -> Tensor:
    assert seen.bits is not None
    return seen.bits


def border(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """|w . f + b| in float64 as a share of |w| |f| + |b|: what rounding is small against, [B, N]."""
    features, weight, bias = features.double(), weight.double(), bias.double()
    size = features.norm(dim=1)[:, None] * weight.norm(dim=1) + bias.abs()
    return (features @ weight.T + bias).abs() / size


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("count", [64, 61, 32 * FEATURES + 8])
def test_the_loss_of_the_banks_bits_is_the_live_teachers_bit_for_bit(
    tmp_path: Path,
    count: int,
    build: Build,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
    make_batches: MakeBatches,
) -> None:
    """With hashes up to 32 per feature bits are kept, above float32 features; no difference to be seen."""
    weight, bias = draw_hashes(count, seed=7)
    bank = build(tmp_path, hashes=(weight, bias))
    assert bank.layout.packed == (count <= 32 * FEATURES)
    seen = live_and_kept(bank, make_batches(), make_teacher())
    # The live teacher's batches are others than the build's: a bit on the very border may round either way.
    assert min(float(border(features_of(live), weight, bias).min()) for _, live, _ in seen) > 2e-6
    generator = torch.Generator().manual_seed(0)
    for batch, live, kept in seen:
        student = torch.randn(len(batch), FEATURES, generator=generator, requires_grad=True)
        expected = lsh(student, features_of(live), weight, bias)
        found = lsh_from_bits(student, bits_of(kept), weight, bias)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        gradients = [torch.autograd.grad(values.sum(), student)[0] for values in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)
        assert bits_of(kept).dtype == torch.bool


def test_bits_are_signs_of_projections_in_float64_but_on_the_border(
    tmp_path: Path,
    build: Build,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
    make_batches: MakeBatches,
) -> None:
    weight, bias = draw_hashes(480, seed=3)
    bank = build(tmp_path, hashes=(weight, bias))
    ones = total = 0
    for _, live, kept in live_and_kept(bank, make_batches(), make_teacher()):
        features = features_of(live)
        for example in range(len(features)):
            exact = [
                sum(float(w) * float(f) for w, f in zip(row, features[example], strict=True)) + float(shift)
                for row, shift in zip(weight[:40].tolist(), bias[:40].tolist(), strict=True)
            ]
            far = border(features[example : example + 1], weight[:40], bias[:40])[0] > 1e-6
            expected = torch.tensor([value > 0 for value in exact])
            torch.testing.assert_close(bits_of(kept)[example, :40][far], expected[far], rtol=0, atol=0)
            ones, total = ones + int(expected.sum()), total + 40
    assert 0.2 < ones / total < 0.8


def test_float16_features_flip_bits_and_float32_features_none(
    tmp_path: Path,
    build: Build,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
    make_batches: MakeBatches,
) -> None:
    """Why bits are made before anything is rounded: of half precision, 6 in 100,000 fall over here."""
    weight, bias = draw_hashes(4096, seed=5)
    flipped = {}
    for exact in (False, True):
        bank = build(tmp_path / str(exact), {"features"}, exact=exact)
        pairs = live_and_kept(bank, make_batches(batch_size=27), make_teacher(), 3)
        differ = [
            hash_bits(features_of(kept), weight, bias) != hash_bits(features_of(live), weight, bias)
            for _, live, kept in pairs
        ]
        flipped[exact] = float(torch.cat(differ).float().mean())
    assert flipped[True] <= 1e-5  # the batches differ, so the last bit of a feature may
    assert 2e-5 < flipped[False] < 1e-3


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("exact", "tolerance"), [(False, 2.0**-11), (True, 1e-6)])
def test_features_and_logits_are_the_live_ones_within_their_precision(
    tmp_path: Path,
    exact: bool,
    tolerance: float,
    build: Build,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
    make_batches: MakeBatches,
) -> None:
    bank = build(tmp_path, {"features", "logits", "bits"}, exact=exact)
    assert BankTeacher(bank).shows == {"features", "logits", "bits"}
    for _, live, kept in live_and_kept(bank, make_batches(), make_teacher()):
        assert live.logits is not None
        assert kept.logits is not None
        torch.testing.assert_close(kept.features, live.features, rtol=tolerance, atol=1e-6)
        torch.testing.assert_close(kept.logits, live.logits, rtol=tolerance, atol=1e-6)
        torch.testing.assert_close(bits_of(kept), hash_bits(features_of(live), *draw_hashes(64)))
        assert kept.logits.dtype == features_of(kept).dtype == torch.float32
        assert kept.maps == ()


def test_what_was_not_asked_for_is_not_shown(tmp_path: Path, build: Build, make_batches: MakeBatches) -> None:
    for number, parts in enumerate(({"features"}, {"logits"}, {"bits"}, {"features", "bits"})):
        teacher = BankTeacher(build(tmp_path / str(number), parts))  # type: ignore[arg-type]
        seen = teacher.see(next(iter(make_batches().epoch(0))))
        assert {part for part in ("features", "logits", "bits") if getattr(seen, part) is not None} == parts
        assert teacher.shows == parts
        assert teacher.flops_per_image == 0
        assert str(tmp_path / str(number)) in teacher.name


@pytest.mark.parametrize("recipe", [PADDED, RESIZED])
def test_streamed_images_show_the_teacher_the_students_very_crops(
    tmp_path: Path,
    recipe: ViewRecipe,
    build: Build,
    make_data: MakeData,
    make_teacher: MakeTeacher,
    make_batches: MakeBatches,
) -> None:
    data = make_data(streamed=True)
    bank = build(tmp_path, {"features"}, data=data, recipe=recipe, exact=True, image_size=10)
    batches = make_batches(data, recipes=(recipe,), image_size=10)
    for _, live, kept in live_and_kept(bank, batches, make_teacher()):
        torch.testing.assert_close(kept.features, live.features, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small_shards")
def test_one_bank_serves_students_of_any_order_and_batch_size(
    tmp_path: Path, build: Build, make_batches: MakeBatches
) -> None:
    bank = build(tmp_path)
    first: dict[tuple[int, int], Tensor] = {}
    for seed, size in ((1, 4), (2, 27), (3, 9)):
        for epoch in range(4):
            for batch in make_batches(seed=seed, batch_size=size).epoch(epoch):
                bits = bits_of(BankTeacher(bank).see(batch))
                for row, found in zip(batch.index.tolist(), bits, strict=True):
                    known = first.setdefault((row, epoch % 3), found)
                    torch.testing.assert_close(found, known, rtol=0, atol=0)
    assert len(first) == 3 * len(ROWS)
    assert len({tuple(bits.tolist()) for bits in first.values()}) > len(ROWS)  # views differ


def test_a_damaged_shard_does_not_spoil_the_other_views(tmp_path: Path, build: Build) -> None:
    bank = build(tmp_path)
    (tmp_path / "view-0001-block-00000.npy").write_bytes(bytes(344))
    bank = open_bank(tmp_path, bank.key)
    before = bank.look_up(ROWS, 0)
    with pytest.raises(BankError, match="view-0001-block-00000"):
        bank.look_up(ROWS, 1)
    np.testing.assert_array_equal(bank.look_up(ROWS, 0), before)


def test_views_and_rows_that_are_not_there_are_refused(tmp_path: Path, build: Build) -> None:
    bank = build(tmp_path)
    teacher = BankTeacher(bank)
    for view in (3, -1):
        with pytest.raises(
            BankError, match=rf"keeps the views 0\.\.2, not {view}; .*after 3 epochs \(cycle\)"
        ):
            teacher.see(Batch(torch.tensor([int(ROWS[0])]), (), view))
    absent = int(np.setdiff1d(np.arange(IMAGES), ROWS)[1])
    for row in (absent, -1, IMAGES):
        with pytest.raises(BankError, match=f"does not hold row {row}; build one"):
            teacher.see(Batch(torch.tensor([int(ROWS[0]), row]), (), 0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"view_seed": None}, "view_seed is 5, the bank's 11"),
        ({"recipes": (RESIZED,)}, r"views is v2:.*area=\(0\.2, 0\.8\).*, the bank's v2:pad=2"),
        ({"recipes": (PADDED, PADDED)}, "views is v2:.* and v2:.*, the bank's v2:pad=2"),
        ({"image_size": 10}, "image_size is 10, the bank's 12"),
        ({"cycle": 0}, r"cycle is 0, and 1\.\.3 views are kept"),
        ({"cycle": 4}, r"cycle is 4, and 1\.\.3 views are kept"),
        ({"index": np.arange(IMAGES)}, "3 of 30 rows are not in the bank"),
    ],
)
def test_batches_of_other_pictures_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str, build: Build, make_batches: MakeBatches
) -> None:
    bank = build(tmp_path)
    bank.require_batches(make_batches(index=ROWS[:5], cycle=2))
    with pytest.raises(BankError, match=f"does not fit the student's batches: {message}"):
        bank.require_batches(make_batches(**changed))


def test_a_teacher_without_a_classifier_has_a_bank_too(
    tmp_path: Path, build: Build, make_teacher: MakeTeacher, make_batches: MakeBatches
) -> None:
    bank = build(tmp_path, {"features"}, network=make_teacher(classes=0), exact=True)
    for _, live, kept in live_and_kept(bank, make_batches(), make_teacher(classes=0)):
        torch.testing.assert_close(kept.features, live.features, rtol=1e-5, atol=1e-6)
        assert kept.logits is None

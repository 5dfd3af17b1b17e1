"""Near-duplicates: the similarity by plain loops, what survives re-encoding, and what must stay apart."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lauter.auditing.duplicates import DuplicateRules, Twins, find_twins, group_twins
from lauter.auditing.image_measures import ImageMeasures, measure_images, shrink
from lauter.auditing.leaks import find_conflicts, find_leaks
from lauter.auditing.picture_similarity import compare_thumbnails, describe, mirror, propose_pairs
from lauter.data.dataset import ResidentImages
from lauter.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]
SIDE = 64


def draw_scenes(count: int, seed: int = 0) -> Array:
    """Pictures with the spectrum of photographs, [count, 3, 64, 64]: amplitude falls with frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)) * SIDE
    waves = np.fft.fft2(rng.standard_normal((count, 3, SIDE, SIDE))) / np.maximum(frequency, 1)
    scenes = np.fft.ifft2(waves).real
    scenes = 0.6 * scenes.mean(1, keepdims=True) + 0.4 * scenes
    scenes /= scenes.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 50 * scenes, 0, 255).astype(np.uint8)


def measure(pixels: Array) -> ImageMeasures:
    return measure_images(ResidentImages(pixels), [str(row) for row in range(len(pixels))])


def edit(change: Callable[[Image.Image], Image.Image], pixels: Array) -> Array:
    pictures = [change(Image.fromarray(image.transpose(1, 2, 0))) for image in pixels]
    return np.stack([np.asarray(picture.convert("RGB")).transpose(2, 0, 1) for picture in pictures])


def reencode(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


def crop(picture: Image.Image) -> Image.Image:
    return picture.crop((2, 1, SIDE - 1, SIDE - 2)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def rescale(picture: Image.Image) -> Image.Image:
    return picture.resize((40, 40), Image.Resampling.BICUBIC).resize((SIDE, SIDE))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": reencode,
    "crop": crop,
    "rescaled": rescale,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.6),
    "flat": lambda picture: ImageEnhance.Contrast(picture).enhance(0.5),
    "tinted": lambda picture: ImageEnhance.Color(picture).enhance(1.6),
}


@pytest.fixture(scope="module")
def scenes() -> Array:
    return draw_scenes(120)


@pytest.fixture(scope="module")
def measures(scenes: Array) -> ImageMeasures:
    return measure(scenes)


def edges_by_loops(thumbnail: Array) -> Array:
    red, green, blue = thumbnail.astype(float)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma, 1.5 * (blue - luma), 1.5 * (red - luma)]
    edges = np.zeros((6, 15, 15))
    for y in range(15):
        for x in range(15):
            gradient = [plane[y, x + 1] - plane[y, x] for plane in planes]
            gradient += [plane[y + 1, x] - plane[y, x] for plane in planes]
            length = sum(value**2 for value in gradient) ** 0.5
            edges[:, y, x] = np.array(gradient) / max(length, 1e-2) ** 0.5
    return edges


def correlate_by_loops(one: Array, other: Array, down: int = 0, right: int = 0, margin: int = 0) -> float:
    product = power_one = power_other = 0.0
    for y in range(margin, 15 - margin):
        for x in range(margin, 15 - margin):
            if 0 <= y + down < 15 and 0 <= x + right < 15:
                a, b = one[:, y, x], other[:, y + down, x + right]
                product += float((a * b).sum())
                power_one += float((a**2).sum())
                power_other += float((b**2).sum())
    return product / (power_one * power_other) ** 0.5


def sample_by_loops(thumbnail: Array, scale: float, down: float, right: float) -> Array:
    result = np.zeros((3, 16, 16))
    for y in range(16):
        for x in range(16):
            v = min(max((y - 7.5) * scale + 7.5 + down, 0), 15)
            u = min(max((x - 7.5) * scale + 7.5 + right, 0), 15)
            top, left = min(int(v), 14), min(int(u), 14)
            for row, tall in ((top, top + 1 - v), (top + 1, v - top)):
                for column, wide in ((left, left + 1 - u), (left + 1, u - left)):
                    result[:, y, x] += tall * wide * thumbnail[:, row, column]
    return result


def realign_by_loops(still: Array, moved: Array) -> float:
    blurred = np.zeros((3, 16, 16))
    for down, tall in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        for right, wide in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            blurred += tall * wide * sample_by_loops(still, 1, down, right)
    mine, found = edges_by_loops(blurred), []
    for scale, step in ((1.0, 0.5), (0.9, 0.8)):
        for down in (-step, 0, step):
            for right in (-step, 0, step):
                other = edges_by_loops(sample_by_loops(moved, scale, down, right))
                if (scale, down, right) != (1.0, 0, 0):
                    found.append(correlate_by_loops(mine, other, margin=1))
    return max(found)


def similarity_by_loops(first: Array, second: Array) -> float:
    one, other = edges_by_loops(first), edges_by_loops(second)
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    best = max(correlate_by_loops(one, other, down, right) for down, right in shifts)
    if 0.45 <= best < 0.7:
        best = max(best, realign_by_loops(first, second) - 0.15, realign_by_loops(second, first) - 0.15)
    return best


def test_similarity_by_plain_loops(measures: ImageMeasures) -> None:
    one, other = measures.thumbnails[:3], np.roll(measures.thumbnails[[0, 4, 5]], (1, -1), axis=(2, 3))
    expected = [similarity_by_loops(a, b) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(compare_thumbnails(one, other), expected, atol=1e-5)
    np.testing.assert_allclose(compare_thumbnails(other, one), expected, atol=1e-5)
    assert expected[0] > 0.8 > max(expected[1:])


def test_similarity_of_realigned_pictures_by_plain_loops(scenes: Array) -> None:
    """Half a cell aside, and a crop of a tenth from a corner."""
    aside, corner = scenes[:2, :, :60, 2:62], scenes[2:4, :, :58, :58]
    pixels = [*scenes[:2, :, :60, :60], *scenes[2:4], *aside, *corner]
    thumbnails = np.stack([np.rint(shrink(image)) for image in pixels]).astype(np.uint8)
    found = compare_thumbnails(thumbnails[:4], thumbnails[4:])
    one = [edges_by_loops(thumbnail) for thumbnail in thumbnails]
    gained = 0
    for row in range(4):
        value = similarity_by_loops(thumbnails[row], thumbnails[row + 4])
        np.testing.assert_allclose(found[row], value, atol=1e-5)
        gained += value > 1.02 * max(
            correlate_by_loops(one[row], one[row + 4], down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
    assert gained >= 2


def test_similarity_with_one_is_that_with_each(measures: ImageMeasures) -> None:
    many, one = measures.thumbnails, measures.thumbnails[7:8]
    np.testing.assert_array_equal(
        compare_thumbnails(many, one), compare_thumbnails(many, np.repeat(one, len(many), axis=0))
    )


def test_similarity_limits() -> None:
    rng = np.random.default_rng(0)
    thumbnail = rng.integers(20, 100, (1, 3, 16, 16), dtype=np.uint8)
    flat = np.full((1, 3, 16, 16), 90, dtype=np.uint8)
    np.testing.assert_allclose(compare_thumbnails(thumbnail, thumbnail), 1, atol=1e-5)
    np.testing.assert_allclose(compare_thumbnails(thumbnail, 2 * thumbnail + 5), 1, atol=1e-5)
    np.testing.assert_allclose(compare_thumbnails(thumbnail, flat), 0, atol=1e-5)
    assert compare_thumbnails(thumbnail, 255 - thumbnail)[0] < 0.3


def test_a_description_of_a_mirror_image_changes_signs_only(measures: ImageMeasures) -> None:
    across = np.tile(np.arange(4), 4)[1:]
    signs = np.tile(np.where(across % 2, -1.0, 1.0), 3)
    np.testing.assert_allclose(
        describe(mirror(measures.thumbnails)), describe(measures.thumbnails) * signs, atol=1e-4
    )
    np.testing.assert_array_equal(describe(np.full((1, 3, 16, 16), 77, dtype=np.uint8)), np.zeros((1, 45)))


@pytest.mark.parametrize("name", EDITS)
def test_edited_copies_are_found_and_nothing_else(name: str, scenes: Array) -> None:
    count = 60
    found = find_twins(measure(np.concatenate([scenes[:count], edit(EDITS[name], scenes[:count])])))
    pairs = {(one, other) for one, other in found.pairs.tolist()}
    assert pairs <= {(row, row + count) for row in range(count)}
    assert len(pairs) >= 0.95 * count


def test_mirror_images_count_on_request_only(scenes: Array) -> None:
    both = measure(np.concatenate([scenes[:40], scenes[:40, :, :, ::-1]]))
    assert len(find_twins(both).pairs) == 0
    rules = DuplicateRules(mirrored=True)
    found = find_twins(both, rules)
    assert found.pairs.tolist() == [[row, row + 40] for row in range(40)]
    np.testing.assert_allclose(found.similarity, 1, atol=1e-4)
    assert group_twins(both, found, rules).group.tolist() == [*range(40), *range(40)]


def test_hashes_miss_few_pairs_and_propose_few_others(scenes: Array) -> None:
    pixels = np.concatenate(
        [draw_scenes(500, seed=1), scenes, edit(crop, scenes[:60]), edit(rescale, scenes[60:])]
    )
    thumbnails = measure(pixels).thumbnails
    proposed, flipped = propose_pairs(
        thumbnails, tables=48, window=8, mirrored=False, generator=np.random.default_rng(1)
    )
    got = {tuple(pair) for pair in proposed.tolist()}
    expected = {(row, row + 120) for row in range(500, 620)}
    assert len(got) == len(proposed)
    assert (proposed[:, 0] < proposed[:, 1]).all()
    assert not flipped.any()
    assert len(expected - got) <= 2
    assert len(got) < 0.05 * len(pixels) ** 2 / 2


def test_exact_copies_by_hand(scenes: Array) -> None:
    pixels = scenes[[0, 1, 0, 2, 1, 0]]
    measured = measure(pixels)
    found = find_twins(measured)
    assert found.original.tolist() == [0, 1, 0, 3, 1, 0]
    assert len(found.pairs) == 0
    groups = group_twins(measured, found)
    assert groups.group.tolist() == [0, 1, 0, -1, 1, 0]
    assert groups.centres.tolist() == [0, 1]
    np.testing.assert_array_equal(groups.similarity, [1, 1, 1, np.nan, 1, 1])


def test_copies_of_a_near_duplicate_join_its_group(scenes: Array) -> None:
    near = edit(reencode, scenes[:1])
    pixels = np.concatenate([scenes[:1], near, near, scenes[5:6]])
    measured = measure(pixels)
    groups = group_twins(measured, find_twins(measured))
    assert groups.group.tolist() == [0, 0, 0, -1]
    assert groups.similarity[1] == groups.similarity[2]
    assert 0.7 < groups.similarity[1] < 1


def test_no_group_reaches_beyond_its_centre(scenes: Array) -> None:
    """A pan in small steps: neighbours are twins, the ends are not."""
    wide = np.concatenate([scenes[0], scenes[1]], axis=2)
    pan = np.stack([wide[:, :, 4 * step : 4 * step + SIDE] for step in range(16)])
    measured = measure(pan)
    found = find_twins(measured, DuplicateRules(min_similarity=0.6))
    steps = np.diff(found.pairs, axis=1)[:, 0]
    assert (steps == 1).sum() == 15
    assert steps.max() <= 2
    rules = DuplicateRules(min_similarity=0.6)
    groups = group_twins(measured, found, rules)
    assert len(groups.centres) >= 3
    for row in np.flatnonzero(groups.group >= 0).tolist():
        centre = int(groups.centres[groups.group[row]])
        if row != centre:
            value = similarity_by_loops(measured.thumbnails[centre], measured.thumbnails[row])
            np.testing.assert_allclose(groups.similarity[row], value, atol=1e-5)
            assert value >= found.bar
    assert (np.bincount(groups.group[groups.group >= 0]) >= 2).all()


def test_blank_and_smooth_pictures_are_no_twins() -> None:
    rng = np.random.default_rng(0)
    blank = np.repeat(rng.integers(0, 256, (30, 3, 1, 1)), SIDE, 2).repeat(SIDE, 3).astype(np.uint8)
    blank[:4] = 0
    run = np.linspace(0, 1, SIDE)[None, None, :, None]
    sky = 120 + 80 * run * rng.uniform(0.5, 1, (30, 3, 1, 1)) + rng.normal(0, 3, (30, 3, SIDE, SIDE))
    measured = measure(np.concatenate([blank, sky.astype(np.uint8)]))
    found = find_twins(measured)
    assert len(found.pairs) == 0
    np.testing.assert_array_equal(group_twins(measured, found).group, -1)


def test_one_small_thing_before_a_smooth_ground_is_not_enough() -> None:
    """Each picture has its own dark spot in the middle, as ships before a sea."""
    rng = np.random.default_rng(3)
    run = np.linspace(90, 200, SIDE)[None, None, :, None]
    pixels = run + rng.normal(0, 12, (60, 3, 16, 16)).repeat(4, 2).repeat(4, 3)
    for image in pixels:
        height, width = rng.integers(6, 14), rng.integers(10, 30)
        image[:, 32 - height // 2 : 32 + height // 2, 32 - width // 2 : 32 + width // 2] = rng.integers(0, 60)
    assert len(find_twins(measure(np.clip(pixels, 0, 255).astype(np.uint8))).pairs) <= 2


def test_the_bar_rises_where_strangers_look_alike(scenes: Array, measures: ImageMeasures) -> None:
    np.testing.assert_allclose(find_twins(measures).bar, 0.7)
    common = scenes[0].astype(float)
    aligned = np.clip(common + 0.5 * (scenes[1:60].astype(float) - 128), 0, 255).astype(np.uint8)
    pixels = np.concatenate([aligned, aligned[:1] ^ 1])
    found = find_twins(measure(pixels))
    assert found.bar > 0.75
    assert [0, len(aligned)] in found.pairs.tolist()
    few = find_twins(measure(pixels[:19]))
    np.testing.assert_allclose(few.bar, 0.7)


def test_features_must_agree(scenes: Array) -> None:
    count = 40
    measured = measure(np.concatenate([scenes[:count], edit(reencode, scenes[:count])]))
    plain = find_twins(measured)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, 16)).astype(np.float32)
    twice = np.concatenate([features, features + 0.01])
    agreeing = find_twins(measured, features=twice)
    np.testing.assert_array_equal(agreeing.pairs, plain.pairs)
    twice[0] = -twice[0]
    without = find_twins(measured, features=twice)
    assert without.pairs.tolist() == plain.pairs.tolist()[1:]
    groups = group_twins(measured, without, features=twice)
    assert groups.group[0] == groups.group[count] == -1
    twice[0] = np.nan
    np.testing.assert_array_equal(find_twins(measured, features=twice).pairs, plain.pairs)


def test_many_equal_pictures_are_one_group(scenes: Array) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (300, 3, SIDE, SIDE))
    pixels = np.clip(scenes[0].astype(int) + noise, 0, 255).astype(np.uint8)
    measured = measure(np.concatenate([pixels, scenes[1:]]))
    rules = DuplicateRules(tables=8)
    found = find_twins(measured, rules)
    groups = group_twins(measured, found, rules)
    assert set(groups.group[:300].tolist()) <= {0, -1}
    assert (groups.group[:300] == 0).mean() > 0.98
    np.testing.assert_array_equal(groups.group[300:], -1)


def test_the_same_seed_gives_the_same_twins(measures: ImageMeasures) -> None:
    one, other = (find_twins(measures, generator=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.pairs, other.pairs)


def test_none_and_one() -> None:
    for count in (0, 1):
        measured = measure(draw_scenes(2)[:count])
        found = find_twins(measured)
        groups = group_twins(measured, found)
        assert groups.group.tolist() == [-1] * count
        assert len(groups.centres) == len(found.pairs) == 0
        assert find_leaks(found, ["train"] * count).tolist() == [-1] * count


def make_twins(count: int, copies: dict[int, int], pairs: list[tuple[int, int, float]]) -> Twins:
    original = np.arange(count)
    for row, first in copies.items():
        original[row] = first
    return Twins(
        original,
        np.array([pair[:2] for pair in pairs], dtype=np.int64).reshape(-1, 2),
        np.array([pair[2] for pair in pairs], dtype=np.float32),
        0.7,
    )


def test_leaks_by_hand() -> None:
    # 0 and 3 are copies across splits, 4 a copy within one; 1 has two near twins in test, the closer is 6.
    twins = make_twins(8, {3: 0, 4: 1}, [(1, 5, 0.8), (1, 6, 0.9), (0, 2, 0.95), (2, 7, 0.75)])
    splits = ["train", "train", "train", "test", "train", "test", "test", "val"]
    assert find_leaks(twins, splits).tolist() == [3, 6, 3, 0, 6, 1, 1, 2]
    assert find_leaks(twins, ["train"] * 8).tolist() == [-1] * 8
    with pytest.raises(DataError, match="2 splits for 8 images"):
        find_leaks(twins, ["a", "b"])


def test_conflicts_by_hand() -> None:
    group = np.array([0, 0, 1, 1, 1, -1, 2, 2, 3])
    labels = np.array([4, 4, 2, -1, 3, 1, -1, 5, -1])
    found = find_conflicts(group, labels)
    assert np.flatnonzero(found).tolist() == [2, 4]
    assert not find_conflicts(np.full(3, -1), np.arange(3)).any()
    with pytest.raises(DataError, match="2 labels for the groups of 9"):
        find_conflicts(group, labels[:2])


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"min_similarity": 0.0}, "min_similarity must be above 0"),
        ({"blank_spread": -1.0}, "blank_spread must be in 0..128"),
        ({"min_detail": 128.0}, "min_detail must be in 0..128"),
        ({"tables": 0}, "tables must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_rules_out_of_range(setting: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        DuplicateRules(**setting)


def test_features_must_fit(measures: ImageMeasures) -> None:
    for wrong in (np.zeros((121, 4), np.float32), np.zeros(120, np.float32)):
        with pytest.raises(DataError, match=r"features must be \[n, D\] of the first n of 120 images, not"):
            find_twins(measures, features=wrong)

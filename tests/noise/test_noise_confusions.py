import os
import subprocess
import sys

import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noise import NoiseRecipe, apply_recipe, learn_confusions
from lauter.noise.confusions import (
    TEMPERATURES,
    UNIT,
    fit_encoder,
    pool_responses,
    solve_positive,
    take_patches,
)

HARD = NoiseRecipe("hard", 4, "instance", 0.4, 0.3)
GOLDEN = "c56c684775e8d0fe6707d54c8737494306396355add9566ffb1ac63c38bca9ec"
"""Hash of ``HARD`` on the pictures of ``draw_pictures``, seed 3. It is to be the same everywhere."""
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import test_noise_confusions as test
print(test.hash_hard(3))
"""


def draw_pictures(count: int = 800, side: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of four classes: 0 and 1 are nearly alike, 2 and 3 differ from them and from each other.

    Whole numbers from integer draws alone, so that the pictures themselves are the same everywhere.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    pixels = rng.integers(0, 60, size=(count, 3, side, side))
    shift = rng.integers(0, 4, size=(2, count, 1, 1))
    rows, columns = (place + shift[axis] for axis, place in enumerate(np.indices((side, side))))
    waves = {0: rows // 2 % 2, 1: rows // 2 % 2, 2: columns // 2 % 2, 3: (rows + columns) // 3 % 2}
    for label, wave in waves.items():
        own = labels == label
        pixels[own] += 100 * wave[own][:, None]
    pixels[labels == 1, 0, :, : side // 2] += 5  # the only thing that tells 1 from 0
    return pixels.astype(np.uint8), labels


def hash_hard(seed: int) -> str:
    pixels, labels = draw_pictures()
    confusions = learn_confusions(pixels, labels, 4, seed)
    made = apply_recipe(
        HARD,
        labels,
        4,
        seed,
        class_probabilities=confusions.probabilities,
        open_candidates=np.arange(900),
    )
    return made.sha256


@pytest.fixture(scope="module")
def learned():  # type: ignore[no-untyped-def]
    pixels, labels = draw_pictures()
    return learn_confusions(pixels, labels, 4, 3), labels


def test_look_alike_classes_are_confused_and_others_are_not(learned) -> None:  # type: ignore[no-untyped-def]
    confusions, labels = learned
    mean = np.stack([confusions.probabilities[labels == label].mean(axis=0) for label in range(4)])
    assert mean[0, 1] > 0.2
    assert mean[1, 0] > 0.2
    assert mean[:2, 2:].max() < 0.1
    assert mean[2:, :2].max() < 0.1
    assert mean[2, 2] > 0.8
    assert mean[3, 3] > 0.8


def test_probabilities_are_rounded_and_none_is_zero(learned) -> None:  # type: ignore[no-untyped-def]
    probabilities = learned[0].probabilities
    assert probabilities.shape == (800, 4)
    assert probabilities.min() >= UNIT
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=4 * UNIT)
    units = probabilities / UNIT
    np.testing.assert_allclose(units, np.rint(units), rtol=0, atol=1e-8)


def test_the_record_tells_seed_sizes_and_accuracy(learned) -> None:  # type: ignore[no-untyped-def]
    confusions, labels = learned
    record = confusions.to_dict()
    assert list(record) == ["seed", "filters", "features", "temperature", "accuracy"]
    assert (record["seed"], record["filters"], record["features"]) == (3, 800 // 64, 8 * (800 // 64) + 1)
    assert record["temperature"] in TEMPERATURES
    right = (confusions.probabilities.argmax(axis=1) == labels).mean()
    assert record["accuracy"] == pytest.approx(right, abs=0.02)  # rounding makes a tie here and there
    assert 0.7 < record["accuracy"] < 1


def test_no_image_is_judged_by_a_model_that_saw_its_label() -> None:
    """Labels that the images know nothing of: in fold the model fits them, out of fold it cannot."""
    pixels, _ = draw_pictures(640)
    labels = np.random.default_rng(1).integers(0, 4, size=640)
    accuracy = learn_confusions(pixels, labels, 4, 0).accuracy
    assert abs(accuracy - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 640)


def test_both_halves_learn_every_class() -> None:
    """Two images of each class are enough for each to be judged by a model that knows its class."""
    pixels, labels = draw_pictures(4)
    confusions = learn_confusions(np.repeat(pixels, 2, axis=0), np.repeat(labels, 2), 4, 0)
    assert confusions.accuracy == 1


def test_the_seed_decides_and_nothing_else(learned) -> None:  # type: ignore[no-untyped-def]
    confusions, _ = learned
    pixels, labels = draw_pictures()
    again = learn_confusions(pixels, labels, 4, 3)
    np.testing.assert_array_equal(again.probabilities, confusions.probabilities)
    other = learn_confusions(pixels, labels, 4, 4)
    assert (other.probabilities != confusions.probabilities).mean() > 0.5


def test_the_hash_is_the_golden_one() -> None:
    assert hash_hard(3) == GOLDEN


@pytest.mark.parametrize("kernels", ["Nehalem", "Haswell"])
def test_another_process_with_another_blas_gives_the_same_hash(kernels: str) -> None:
    """OpenBLAS sums in another order with the kernels of another processor; exact sums do not mind."""
    settings = {"OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    here = os.path.dirname(__file__)
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, here],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == GOLDEN


def test_instance_noise_of_a_recipe_is_counted_and_follows_the_confusions(learned) -> None:  # type: ignore[no-untyped-def]
    confusions, labels = learned
    recipe = NoiseRecipe("instance", closed_kind="instance", closed_rate=0.3)
    made = apply_recipe(recipe, labels, 4, 0, class_probabilities=confusions.probabilities)
    assert made.count_kinds() == {"clean": 560, "closed": 240, "open": 0}
    moved = made.kind == "closed"
    assert (made.labels[moved] != labels[moved]).all()
    # Symmetric noise would give the other of the two look-alikes to a sixth of what it moves.
    swapped = moved & (labels < 2) & (made.labels < 2)
    assert swapped.sum() > 0.5 * moved.sum()


def test_pooled_responses_are_those_of_the_formula() -> None:
    pixels, _ = draw_pictures(3, side=10)
    rng = np.random.default_rng(2)
    filters = rng.integers(-60, 60, size=(108, 5)).astype(np.float32)
    thresholds = rng.integers(0, 40_000, size=5).astype(np.float32)
    pooled = pool_responses(pixels, filters, thresholds)
    assert pooled.shape == (3, 40)
    places = 3  # of 6 x 6 patches at every second place in 10 x 10
    for image in range(3):
        raw = [float(value) for value in pixels[image].reshape(-1)]
        mean = sum(raw) / len(raw)
        deviation = (sum((value - mean) ** 2 for value in raw) / len(raw) + 100) ** 0.5
        even = [max(-64, min(64, round((value - mean) * 24 / deviation))) for value in raw]
        wanted = np.zeros((2, 2, 2, 5))
        for row in range(places):
            for column in range(places):
                for k in range(5):
                    response = 0.0
                    for channel in range(3):
                        for y in range(6):
                            for x in range(6):
                                pixel = even[channel * 100 + (2 * row + y) * 10 + 2 * column + x]
                                response += pixel * float(filters[channel * 36 + y * 6 + x, k])
                    for number, sign in enumerate((1, -1)):
                        beyond = max(0.0, sign * response - float(thresholds[k]))
                        wanted[number, int(row >= 1), int(column >= 1), k] += beyond
        np.testing.assert_array_equal(pooled[image], wanted.reshape(-1))


def test_features_are_whole_scaled_and_blind_to_brightness_and_contrast() -> None:
    pixels, _ = draw_pictures(200, side=14)
    encoder = fit_encoder(pixels, np.arange(200), np.random.default_rng(0))
    assert (encoder.filters == np.rint(encoder.filters)).all()
    assert np.abs(encoder.filters).sum(axis=0).max() <= 4096 + 54
    features = encoder.encode(pixels).astype(np.float64)
    assert (features[:, -1] == 64).all()
    varied = encoder.spread > 1
    spread = np.abs(features[:, :-1]).mean(axis=0)[varied]
    np.testing.assert_allclose(spread, 16, rtol=0.1)
    darker = (pixels // 2 + 20).astype(np.uint8)
    changed = encoder.encode(darker).astype(np.float64)
    assert np.corrcoef(changed[:, :-1].reshape(-1), features[:, :-1].reshape(-1))[0, 1] > 0.97


def test_whitened_filters_weigh_down_what_all_patches_share() -> None:
    """A common ramp over all images fills the covariance; whitening leaves filters nearly blind to it."""
    rng = np.random.default_rng(5)
    ramp = np.broadcast_to(8.0 * np.arange(16), (3, 16, 16))
    strength = rng.integers(-8, 9, size=(300, 1, 1, 1)) / 8
    pixels = (128 + strength * ramp / 2 + rng.integers(-12, 13, size=(300, 3, 16, 16))).clip(0, 255)
    pixels = pixels.astype(np.uint8)
    encoder = fit_encoder(pixels, np.arange(300), np.random.default_rng(0))
    patches = take_patches(pixels).reshape(-1, 108)
    patches = (patches - patches.mean(axis=0)).astype(np.float64)
    _, _, directions = np.linalg.svd(patches, full_matrices=False)
    drawn = patches[:: len(patches) // 50]

    def share(vectors: np.ndarray) -> float:
        along = vectors @ directions[0]
        return float((along**2).sum() / (vectors**2).sum())

    assert share(encoder.filters.T.astype(np.float64)) < 0.2 * share(drawn)


@pytest.mark.parametrize("size", [1, 2, 40])
def test_elimination_solves_like_lapack(size: int) -> None:
    rng = np.random.default_rng(size)
    half = rng.normal(size=(size, size))
    matrix, right = half @ half.T + np.eye(size), rng.normal(size=(size, 3))
    before = matrix.copy(), right.copy()
    solved = solve_positive(matrix, right)
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(matrix, before[0])
    np.testing.assert_array_equal(right, before[1])


def test_images_are_asked_for_in_small_chunks() -> None:
    class Counting:
        largest = 0

        def __len__(self) -> int:
            return 800

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            self.largest = max(self.largest, len(rows))
            return pixels[rows]

    pixels, labels = draw_pictures()
    counting = Counting()
    confusions = learn_confusions(counting, labels, 4, 3)
    assert 0 < counting.largest <= 64
    np.testing.assert_array_equal(
        confusions.probabilities, learn_confusions(pixels, labels, 4, 3).probabilities
    )


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_give_the_shares_of_the_classes(level: int) -> None:
    pixels = np.full((100, 3, 8, 8), level, dtype=np.uint8)
    labels = np.array([0] * 80 + [1] * 20)
    confusions = learn_confusions(pixels, labels, 2, 0)
    assert np.isfinite(confusions.probabilities).all()
    assert confusions.accuracy == 0.8
    assert len(np.unique(confusions.probabilities, axis=0)) <= 2  # one judgement by each half


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 3, 7, 7), np.uint8, r"S in 8\.\.32, not uint8 \('N', 3, 7, 7\); resize"),
        ((8, 3, 40, 40), np.uint8, "not uint8 .*40, 40"),
        ((8, 3, 16, 12), np.uint8, "16, 12"),
        ((8, 1, 16, 16), np.uint8, "1, 16, 16"),
        ((8, 3, 16, 16), np.float32, "not float32"),
        ((6, 3, 16, 16), np.uint8, "6 images stand beside 8 labels"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    shape: tuple[int, ...], dtype: type[np.generic], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        learn_confusions(np.zeros(shape, dtype=dtype), np.arange(8) % 2, 2, 0)


def test_labels_that_do_not_fit_are_refused() -> None:
    pixels = np.zeros((4, 3, 8, 8), dtype=np.uint8)
    with pytest.raises(DataError, match=r"labels must be in 0\.\.1, found 0\.\.3"):
        learn_confusions(pixels, np.arange(4), 2, 0)
    with pytest.raises(DataError, match="2 classes and 2 images or more, not 1 and 4"):
        learn_confusions(pixels, np.zeros(4, dtype=np.int64), 1, 0)
    with pytest.raises(DataError, match="2 classes and 2 images or more, not 2 and 1"):
        learn_confusions(pixels[:1], np.zeros(1, dtype=np.int64), 2, 0)

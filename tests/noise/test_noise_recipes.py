import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noise import RECIPES, NoiseRecipe, apply_recipe, find_recipe

LABELS = np.repeat(np.arange(10), 500)
CANDIDATES = np.arange(7, 4007)


def apply_ncifar10(seed: int = 0):  # type: ignore[no-untyped-def]
    return apply_recipe(RECIPES["ncifar10"], LABELS, 10, seed, open_candidates=CANDIDATES)


def test_ncifar10_has_its_class_sizes_and_its_exact_rates() -> None:
    made = apply_ncifar10()
    true = LABELS[made.index]
    sizes = sorted(np.bincount(true).tolist(), reverse=True)
    assert sizes == [int(500 * 10 ** (-rank / 9) + 0.5) for rank in range(10)]
    n = len(made)
    assert n == sum(sizes)
    assert made.count_kinds() == {
        "closed": round(0.3 * n),
        "open": round(0.2 * n),
        "clean": n - round(0.3 * n) - round(0.2 * n),
    }


def test_kinds_agree_with_labels_and_truth() -> None:
    made = apply_ncifar10()
    true = LABELS[made.index]
    for row in range(len(made)):
        kind = made.kind[row]
        assert (made.foreign_index[row] >= 0) == (kind == "open")
        assert made.true_labels[row] == (-1 if kind == "open" else true[row])
        # an open image keeps the label of the image whose place it takes
        assert (made.labels[row] == true[row]) == (kind != "closed")
    foreign = made.foreign_index[made.foreign_index >= 0]
    assert len(set(foreign.tolist())) == len(foreign)
    assert foreign.min() >= 7


def test_the_same_seed_has_the_same_hash_and_another_seed_another() -> None:
    assert apply_ncifar10(0).sha256 == apply_ncifar10(0).sha256
    assert apply_ncifar10(0).sha256 != apply_ncifar10(1).sha256


def test_the_hash_covers_every_array() -> None:
    made = apply_ncifar10()
    changes = {
        "index": made.index + 1,
        "labels": made.labels[::-1],
        "true_labels": made.true_labels[::-1],
        "foreign_index": made.foreign_index[::-1],
        "kind": made.kind[::-1],
    }
    hashes = {made.sha256, *(replace(made, **{name: values}).sha256 for name, values in changes.items())}
    assert len(hashes) == 6


def test_the_hash_is_that_of_the_bytes_named() -> None:
    made = apply_recipe(NoiseRecipe("none"), [0, 1], 2, 0)
    digest = hashlib.sha256()
    for row in ([0, 1], [0, 1], [0, 1], [-1, -1]):
        for value in row:
            digest.update(value.to_bytes(8, "little", signed=True))
    digest.update(b"clean\0clean")
    assert made.sha256 == digest.hexdigest()


def test_steps_do_not_disturb_each_other() -> None:
    """Without open noise the long tail and the flips are those of the recipe with it."""
    whole = apply_ncifar10()
    closed = apply_recipe(replace(RECIPES["ncifar10"], open_rate=0.0), LABELS, 10, 0)
    np.testing.assert_array_equal(closed.index, whole.index)
    np.testing.assert_array_equal(closed.labels, whole.labels)


@pytest.mark.parametrize(
    "recipe",
    [
        NoiseRecipe("tail", ratio=10),
        NoiseRecipe("closed", closed_kind="symmetric", closed_rate=0.3),
        NoiseRecipe("open", open_rate=0.2),
    ],
    ids=lambda recipe: recipe.name,
)
def test_every_step_depends_on_the_seed(recipe: NoiseRecipe) -> None:
    candidates = CANDIDATES if recipe.open_rate else None
    hashes = {apply_recipe(recipe, LABELS, 10, seed, open_candidates=candidates).sha256 for seed in (0, 0, 1)}
    assert len(hashes) == 2


def test_instance_noise_has_its_exact_rate_after_the_long_tail() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), size=len(LABELS))
    made = apply_recipe(
        RECIPES["ncifar10-hard"],
        LABELS,
        10,
        0,
        class_probabilities=probabilities,
        open_candidates=CANDIDATES,
    )
    true, n = LABELS[made.index], len(made)
    sizes = sorted(np.bincount(true).tolist(), reverse=True)
    assert sizes == [int(500 * 50 ** (-rank / 9) + 0.5) for rank in range(10)]
    closed, opened = round(0.4 * n), round(0.3 * n)
    assert made.count_kinds() == {"clean": n - closed - opened, "closed": closed, "open": opened}
    np.testing.assert_array_equal(made.labels != true, made.kind == "closed")
    # Moved images are those that the probabilities doubt, and kept images those that they believe.
    doubt = 1 - probabilities[made.index, true]
    assert doubt[made.kind == "closed"].mean() > doubt[made.kind != "closed"].mean()
    closed_alone = replace(RECIPES["ncifar10-hard"], open_rate=0.0)
    again = apply_recipe(closed_alone, LABELS, 10, 0, class_probabilities=probabilities)
    np.testing.assert_array_equal(again.labels, made.labels)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("ncifar10-mild", "4c888fed23199a2c2aabf50401691d3f2d9d4dae9632c409fe79880a384ac09b"),
        ("ncifar10", "32e1e5f88def2064e558f42e25679c1fa7aa37a8dd1e4299ccd9764262c5d814"),
        ("ncifar10-hard", "e94318ac022d0ace9ed824016377f2e98ea5b217c931bc799a35b7846c52b053"),
        ("ncifar10-human", "cad0f229dd143af72e7076d5abc1bb42cd3c0179ab75d31dc633946a51dd278c"),
    ],
)
def test_recipes_on_generated_labels_have_their_golden_hash(name: str, sha256: str) -> None:
    kind = RECIPES[name].closed_kind
    people = (LABELS + np.arange(len(LABELS)) % 3) % 10
    shares = 1 + (LABELS[:, None] + np.arange(10)) % 4  # whole, so that no last digit plays a part
    made = apply_recipe(
        RECIPES[name],
        LABELS,
        10,
        0,
        human_labels=people if kind == "human" else None,
        class_probabilities=shares if kind == "instance" else None,
        open_candidates=CANDIDATES,
    )
    assert made.sha256 == sha256


def test_human_labels_are_taken_as_they_are() -> None:
    human = (LABELS + (np.arange(len(LABELS)) % 5 == 0)) % 10
    made = apply_recipe(
        RECIPES["ncifar10-human"], LABELS, 10, 3, human_labels=human, open_candidates=CANDIDATES
    )
    np.testing.assert_array_equal(made.labels, human[made.index])
    wrong = human[made.index] != LABELS[made.index]
    np.testing.assert_array_equal(made.kind == "closed", wrong)
    assert made.count_kinds()["open"] == round(0.2 * len(made))


def test_recipes_of_other_kinds() -> None:
    pairs = apply_recipe(NoiseRecipe("p", closed_kind="pairs", closed_rate=0.4), LABELS, 10, 0)
    assert pairs.count_kinds() == {"clean": 3000, "closed": 2000, "open": 0}
    mapped = apply_recipe(
        NoiseRecipe("m", closed_kind="map", closed_rate=0.05, mapping=((3, 5), (5, 3))), LABELS, 10, 0
    )
    assert set(LABELS[mapped.kind == "closed"].tolist()) == {3, 5}
    swap = ((0.0, 1.0), (1.0, 0.0))
    drawn = apply_recipe(NoiseRecipe("t", closed_kind="matrix", transition=swap), [0, 1, 1], 2, 0)
    np.testing.assert_array_equal(drawn.labels, [1, 0, 0])


def test_the_empty_recipe_changes_nothing() -> None:
    made = apply_recipe(NoiseRecipe("none"), LABELS, 10, 0)
    np.testing.assert_array_equal(made.index, np.arange(len(LABELS)))
    np.testing.assert_array_equal(made.labels, LABELS)
    assert made.count_kinds() == {"clean": 5000, "closed": 0, "open": 0}


def test_recipes_carry_the_table_of_ratios_and_rates() -> None:
    table = {
        name: (r.ratio, r.closed_kind, r.closed_rate, r.open_rate, r.open_base) for name, r in RECIPES.items()
    }
    assert table == {
        "ncifar10-mild": (10, "symmetric", 0.2, 0.1, "cifar100"),
        "ncifar10": (10, "symmetric", 0.3, 0.2, "cifar100"),
        "ncifar10-hard": (50, "instance", 0.4, 0.3, "cifar100"),
        "ncifar10-human": (10, "human", 0.0, 0.2, "cifar100"),
        "ncifar100-mild": (10, "symmetric", 0.2, 0.1, "cifar10"),
        "ncifar100": (10, "symmetric", 0.3, 0.2, "cifar10"),
        "ncifar100-hard": (20, "instance", 0.4, 0.3, "cifar10"),
        "ncifar100-human": (10, "human", 0.0, 0.2, "cifar10"),
    }
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_what_a_recipe_needs_must_be_given_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match=r"'ncifar10' needs open images \(meant: cifar100\)"):
        apply_recipe(RECIPES["ncifar10"], LABELS, 10, 0)
    with pytest.raises(ConfigError, match="needs human_labels"):
        apply_recipe(RECIPES["ncifar10-human"], LABELS, 10, 0, open_candidates=CANDIDATES)
    with pytest.raises(ConfigError, match="does not use human_labels"):
        apply_recipe(NoiseRecipe("none"), LABELS, 10, 0, human_labels=LABELS)
    with pytest.raises(ConfigError, match="does not use open images"):
        apply_recipe(NoiseRecipe("none"), LABELS, 10, 0, open_candidates=CANDIDATES)
    with pytest.raises(ConfigError, match="needs class_probabilities"):
        apply_recipe(RECIPES["ncifar10-hard"], LABELS, 10, 0, open_candidates=CANDIDATES)
    with pytest.raises(ConfigError, match="does not use class_probabilities"):
        apply_recipe(NoiseRecipe("none"), LABELS, 10, 0, class_probabilities=np.eye(10)[LABELS])
    instance = NoiseRecipe("i", closed_kind="instance", closed_rate=0.1)
    with pytest.raises(DataError, match=r"probabilities of shape \(5000, 9\) for 5000 images of 10 classes"):
        apply_recipe(instance, LABELS, 10, 0, class_probabilities=np.ones((5000, 9)))
    with pytest.raises(DataError, match="3 human labels for 5000 images"):
        apply_recipe(NoiseRecipe("h", closed_kind="human"), LABELS, 10, 0, human_labels=[0, 1, 2])
    recipe = NoiseRecipe("t", closed_kind="matrix", transition=((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(DataError, match="2 matrix rows for 10 classes"):
        apply_recipe(recipe, LABELS, 10, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0.5}, "ratio must be 1 or above"),
        ({"closed_kind": "symmetric", "closed_rate": 0.7, "open_rate": 0.4}, "at most 1 together"),
        ({"open_rate": -0.1}, "0 or above"),
        ({"closed_rate": 0.1}, "'none' takes no closed_rate"),
        ({"closed_kind": "human", "closed_rate": 0.1}, "'human' takes no closed_rate"),
        ({"closed_kind": "map", "closed_rate": 0.1}, "mapping is for closed_kind 'map', which needs it"),
        ({"transition": ((1.0,),)}, "transition is for closed_kind 'matrix'"),
        ({"closed_kind": "odd"}, "closed_kind must be one of none, symmetric, map, pairs, instance"),
    ],
)
def test_bad_recipes_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseRecipe("bad", **fields)  # type: ignore[arg-type]


def test_an_unknown_recipe_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(ConfigError, match="no recipe 'ncifar10-harder'; there are ncifar10-mild, ncifar10,"):
        find_recipe("ncifar10-harder")


def test_human_noise_of_cifar_has_its_published_rate(shared_data: Callable[[str], Path]) -> None:
    files = sorted(shared_data("cifar100").glob("train-*.parquet"))
    tables = [pq.read_table(file, columns=["label", "label_noisy"]) for file in files]
    true, people = (np.concatenate([t.column(name) for t in tables]) for name in ("label", "label_noisy"))
    recipe = NoiseRecipe("people", closed_kind="human")
    made = apply_recipe(recipe, true, 100, 0, human_labels=people)
    assert made.count_kinds()["closed"] / len(made) == pytest.approx(0.4020, abs=5e-5)  # Wei et al. 2022

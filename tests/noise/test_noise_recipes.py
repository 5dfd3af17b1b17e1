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
        "ncifar10-human": (10, "human", 0.0, 0.2, "cifar100"),
        "ncifar100-mild": (10, "symmetric", 0.2, 0.1, "cifar10"),
        "ncifar100": (10, "symmetric", 0.3, 0.2, "cifar10"),
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
        ({"closed_kind": "instance"}, "closed_kind must be one of none, symmetric"),
    ],
)
def test_bad_recipes_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseRecipe("bad", **fields)  # type: ignore[arg-type]


def test_an_unknown_recipe_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(ConfigError, match="no recipe 'ncifar10-hard'; there are ncifar10-mild, ncifar10,"):
        find_recipe("ncifar10-hard")


def test_human_noise_of_cifar_has_its_published_rate(shared_data: Callable[[str], Path]) -> None:
    files = sorted(shared_data("cifar100").glob("train-*.parquet"))
    tables = [pq.read_table(file, columns=["label", "label_noisy"]) for file in files]
    true, people = (np.concatenate([t.column(name) for t in tables]) for name in ("label", "label_noisy"))
    recipe = NoiseRecipe("people", closed_kind="human")
    made = apply_recipe(recipe, true, 100, 0, human_labels=people)
    assert made.count_kinds()["closed"] / len(made) == pytest.approx(0.4020, abs=5e-5)  # Wei et al. 2022

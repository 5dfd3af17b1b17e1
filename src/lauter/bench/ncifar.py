"""The nCIFAR recipes on the real sets: what each of them makes, counted, and its hash."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lauter.bench.records import Record
from lauter.data import Dataset, corrupt, open_dataset
from lauter.errors import ConfigError
from lauter.noise import RECIPES, find_recipe

SUITE = "noisy"
METHOD = "recipe"
HUMAN_COLUMNS = {"cifar10": "label_worst", "cifar100": "label_noisy"}
"""Columns of the labels that people gave (CIFAR-N), beside the true ones in the column label."""
COLUMNS = {
    "source_images": "of",
    "images": "images",
    "clean": "clean",
    "closed": "closed",
    "open": "open",
    "largest_class": "largest class",
    "smallest_class": "smallest class",
    "confusion_accuracy": "model, %",
}
"""Metrics in the table of :func:`render_recipes`, with their headings."""

_HASH_DIGITS = 13  # hexadecimal ones that a float holds exactly


def measure_recipes(
    cifar10: Path, cifar100: Path, recipes: Iterable[str] = tuple(RECIPES), seed: int = 0
) -> list[Record]:
    """Apply recipes to the training images of CIFAR-10 and CIFAR-100.

    Args:
        cifar10: a folder of Parquet shards with the columns label and label_worst.
        cifar100: the same with label and label_noisy.
        recipes: names, out of ``lauter.noise.RECIPES``.
        seed: of the recipes.

    Returns:
        Of each recipe, as data: the images of the clean set and those that are left; how many are clean,
        closed and open, and these as rates; the sizes of the largest and the smallest class; for
        instance-dependent noise the accuracy of the small model; and the hash, as text (its value is the
        number that the first 13 digits are).

    Raises:
        ConfigError: an unknown recipe.
        DataError: a folder cannot be opened, or has too few images.
    """
    folders = {"cifar10": cifar10, "cifar100": cifar100}
    chosen = [find_recipe(name) for name in recipes]
    needed = {base for recipe in chosen for base in (recipe.base, recipe.open_base)}
    people = {
        name: open_dataset(folder, split="train", label_column=HUMAN_COLUMNS[name], truth_column="label")
        for name, folder in folders.items()
        if name in needed
    }
    clean = {name: _with_true_labels(dataset) for name, dataset in people.items()}
    records = []
    for recipe in chosen:
        noisy = corrupt(
            clean[recipe.base],
            recipe,
            seed=seed,
            open_source=clean[recipe.open_base],
            human_labels=people[recipe.base].labels if recipe.closed_kind == "human" else None,
        )
        records += _count(noisy, len(clean[recipe.base]), seed)
    return records


def render_recipes(records: Sequence[Record]) -> str:
    """A Markdown table: recipes as rows, counts and hash as columns.

    Args:
        records: from :func:`measure_recipes`, of one seed.

    Returns:
        The table, without a newline at the end.

    Raises:
        ConfigError: there is no hash to show, or hashes of several seeds.
    """
    found = {(record.data, record.metric): record for record in records if record.method == METHOD}
    names = list(dict.fromkeys(name for name, metric in found if metric == "sha256"))
    seeds = sorted({record.seed for record in found.values()})
    if not names or len(seeds) != 1:
        raise ConfigError(
            f"the table of recipes shows the hashes of one seed, and there are {seeds or 'none'}"
        )
    lines = [
        f"| recipe | {' | '.join(COLUMNS.values())} | hash (seed {seeds[0]}) |",
        f"| --- |{' ---: |' * len(COLUMNS)} --- |",
    ]
    for name in names:
        cells = [_show(found.get((name, metric))) for metric in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | `{found[name, 'sha256'].text}` |")
    return "\n".join(lines)


def _with_true_labels(people: Dataset) -> Dataset:
    """The clean set: the same images, true labels for given ones."""
    return people.with_labels(np.asarray(people.true_labels))


def _count(noisy: Dataset, source_images: int, seed: int) -> list[Record]:
    made = noisy.source["corruption"]
    values = {
        "source_images": source_images,
        "images": len(noisy),
        **made["counts"],
        **{f"{kind}_rate": count / len(noisy) for kind, count in made["counts"].items()},
        "largest_class": max(made["class_sizes"]),
        "smallest_class": min(made["class_sizes"]),
    }
    if made["confusions"]:
        values["confusion_accuracy"] = made["confusions"]["accuracy"]
    records = [
        Record(SUITE, noisy.name, METHOD, seed, metric, float(value)) for metric, value in values.items()
    ]
    text = made["sha256"]
    number = float(int(text[:_HASH_DIGITS], 16))
    return [*records, Record(SUITE, noisy.name, METHOD, seed, "sha256", number, text)]


def _show(record: Record | None) -> str:
    if record is None:
        return "—"
    if record.metric == "confusion_accuracy":
        return f"{100 * record.value:.1f}"
    return f"{record.value:,.0f}"

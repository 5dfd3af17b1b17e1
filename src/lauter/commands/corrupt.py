"""``lauter corrupt``: a copy of a clean data set with known label noise."""

import shlex
from collections.abc import Sequence
from typing import get_args

import numpy as np
from jsonargparse import Namespace

from lauter.commands import flags
from lauter.data import (
    Dataset,
    available_splits,
    corrupt,
    open_dataset,
    write_noise_picture,
    write_splits,
)
from lauter.data.corrupting import TruthPlace
from lauter.data.dataset import concatenate
from lauter.data.noise_picture import check_picture_name
from lauter.errors import ConfigError
from lauter.noise import RECIPES, NoiseRecipe, find_candidates, find_recipe


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "corrupt",
        "Write a copy of a clean data set with label noise, as Parquet; the truth is kept in a file of its "
        "own, truth.parquet, which is read where --truth-column true_label asks for it. A test split is "
        "copied clean, with open test images behind it.",
        "DATA --recipe NAME --out DIR [flags]",
    )
    flags.add_data_flags(parser, test=False, reduced=False)
    parser.add_argument("--recipe", type=str | None, help=f"one of {', '.join(RECIPES)}; or say it in rates:")
    parser.add_argument("--ratio", type=float, default=1.0, help="largest class over smallest")
    parser.add_argument(
        "--closed_kind",
        default="symmetric",
        help="symmetric, pairs, instance (where a small model would err) or human",
    )
    parser.add_argument("--closed_rate", type=float, default=0.0, help="share of images with a wrong class")
    parser.add_argument("--open_rate", type=float, default=0.0, help="share of images of no class")
    parser.add_argument("--open_source", type=str | None, help="data set that open images come from")
    parser.add_argument("--open_test", type=int, default=0, help="open images to add to the test split")
    parser.add_argument("--human_column", type=str | None, help="column of labels that people gave")
    parser.add_argument("--head_size", type=int | None, help="images of the largest class")
    parser.add_argument("--clip", type=bool, default=False, help="let small classes fall short of the tail")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn")
    parser.add_argument(
        "--truth", default="file", help="file: keep the truth in truth.parquet; columns: beside the labels"
    )
    parser.add_argument("--picture", type=str | None, help="PNG file to draw examples of each kind into")
    parser.add_argument("--out", type=str, required=True, help="new directory to write to")
    arguments = flags.parse(parser, argv)
    _check_output(arguments)
    recipe: NoiseRecipe | str = arguments.recipe or NoiseRecipe(
        "custom",
        arguments.ratio,
        arguments.closed_kind,
        arguments.closed_rate,
        arguments.open_rate,
    )
    columns = {name: arguments[name] for name in ("image_column", "id_column")}
    clean = open_dataset(
        arguments.data,
        split=arguments.split,
        label_column=arguments.label_column,
        truth_column=arguments.truth_column,
        size=arguments.size,
        seed=arguments.seed,
        **columns,
    )
    size = clean.source["image_size"]
    human = None
    if arguments.human_column:
        people = open_dataset(
            arguments.data,
            split=arguments.split,
            label_column=arguments.human_column,
            class_names=clean.class_names,
            min_per_class=0,
            **columns,
        )
        by_id = dict(zip(people.ids.tolist(), people.labels.tolist(), strict=True))
        human = [by_id[id_] for id_ in clean.ids.tolist()]
    foreign = None
    if arguments.open_source:
        foreign = open_dataset(arguments.open_source, image_size=size)
    noisy = corrupt(
        clean,
        recipe,
        seed=arguments.seed,
        head_size=arguments.head_size,
        open_source=foreign,
        human_labels=human,
        clip=arguments.clip,
    )
    splits = {"train": noisy}
    if "test" in available_splits(arguments.data) and arguments.split != "test":
        splits["test"] = _make_test(arguments, clean, size)
    write_splits(splits, arguments.out, truth=arguments.truth)
    if arguments.picture:
        write_noise_picture(noisy, arguments.picture, seed=arguments.seed)
    record = noisy.source["corruption"]
    counts = ", ".join(f"{count:,} {kind}" for kind, count in record["counts"].items())
    print(f"{arguments.out}: {len(noisy):,} images ({counts}), hash {record['sha256'][:16]}")
    if model := record["confusions"]:
        print(
            f"a model of {model['features']} features (seed {model['seed']}) took {model['accuracy']:.1%} "
            "of the clean images for what they are, none of which it had seen"
        )
    print(f"lauter fit {shlex.quote(arguments.out)} --label-column label --truth-column true_label")
    return 0


def _check_output(arguments: Namespace) -> None:
    """What would fail only after the work was done."""
    if arguments.truth not in get_args(TruthPlace):
        known = " or ".join(get_args(TruthPlace))
        raise ConfigError(f"--truth must be {known}, not {arguments.truth!r}")
    if arguments.picture:
        check_picture_name(arguments.picture)


def _make_test(arguments: Namespace, clean: Dataset, size: int) -> Dataset:
    """The clean test split, with ``open_test`` images of the other set's test split behind it."""
    test = open_dataset(
        arguments.data,
        split="test",
        label_column=arguments.label_column,
        class_names=clean.class_names,
        min_per_class=0,
        image_column=arguments.image_column,
        id_column=arguments.id_column,
    )
    test = test.with_truth(test.labels)
    if not arguments.open_test:
        return test
    if not arguments.open_source:
        raise ConfigError("--open-test needs --open-source, the data set that open images come from")
    foreign = open_dataset(arguments.open_source, split="test", image_size=size, min_per_class=0)
    left_out = find_recipe(arguments.recipe).left_out if arguments.recipe else ()
    rows, _ = find_candidates(foreign.labels, foreign.class_names, clean.class_names, left_out)
    chosen = np.sort(np.random.default_rng(arguments.seed).permutation(rows)[: arguments.open_test])
    return concatenate(test, foreign.subset(chosen).as_open(clean.class_names))

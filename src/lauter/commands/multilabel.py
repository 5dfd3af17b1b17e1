"""``lauter distill --multi-label``: the same verb for images with several labels each."""

from collections.abc import Sequence

from rich.console import Console

from lauter.commands import flags
from lauter.data.multilabel import available_multilabel_splits, open_multilabel
from lauter.multilabel import fit_multilabel, load_multilabel_preset, summarise_multilabel
from lauter.preparation import RunOptions

SWITCH = "multi_label"


def is_asked_for(argv: Sequence[str]) -> bool:
    """Whether the words ask for several labels per image; other flags follow from it."""
    words = [word.replace("-", "_") for word in argv]
    following = [*words[1:], ""]
    return any(
        word == f"__{SWITCH}=true" or (word == f"__{SWITCH}" and after != "false")
        for word, after in zip(words, following, strict=True)
    )


def add_switch(parser: flags.Parser) -> None:
    """The one flag that leads here."""
    parser.add_argument(
        f"--{SWITCH}",
        type=bool,
        default=False,
        help="images have several labels each; with --help: how such data is read. See docs/multilabel.md",
    )


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "distill",
        "A small network that tells which of several classes are in an image; with a teacher, whose features "
        "it mimics, or without one.",
        "DATA --multi-label [--teacher FILE] [flags]",
    )
    parser.add_argument("data", help="Pascal VOC or COCO folder, CSV or Parquet table, or Parquet shards")
    add_switch(parser)
    parser.add_argument("--label_column", type=str | None, help="column of lists, or of names in one cell")
    parser.add_argument(
        "--separator", type=str | None, help="sign between names in one cell, found by itself"
    )
    parser.add_argument("--image_column", type=str | None, help="column of image paths or encoded images")
    parser.add_argument("--id_column", type=str | None, help="column of unique ids; else image paths")
    parser.add_argument("--split", type=str | None, help="split to open, trainval or train by default")
    parser.add_argument("--test", type=str | None, help="data to score on; by default the split named test")
    parser.add_argument("--test_split", type=str | None, help="its split; alone, a split of DATA")
    parser.add_argument("--student_weights", type=str | None, help="file the student's backbone starts from")
    parser.add_argument(
        "--student_pretrained",
        type=bool,
        default=False,
        help="whether it starts from the weights that timm or torchvision offer",
    )
    parser.presets = load_multilabel_preset
    flags.add_run_flags(
        parser,
        teacher="network to mimic: a .safetensors file or a run's directory; without one, labels alone teach",
    )
    arguments, config = flags.parse_run(parser, argv)
    columns = {name: arguments[name] for name in ("label_column", "image_column", "id_column", "separator")}
    size = config.image_size or None
    data = open_multilabel(arguments.data, split=arguments.split, image_size=size, **columns)
    test = None
    spec, split = choose_test(arguments.data, arguments.split, arguments.test, arguments.test_split)
    if spec is not None:
        test = open_multilabel(spec, split=split, image_size=size, class_names=data.class_names, **columns)
    result = fit_multilabel(
        data,
        teacher=config.teacher or None,
        test=test,
        config=config,
        student_weights=arguments.student_weights,
        student_pretrained=arguments.student_pretrained,
        options=RunOptions(arguments.out, arguments.resume, arguments.tensorboard, Console(soft_wrap=True)),
    )
    print(summarise_multilabel(result.metrics))
    print(f"student     {result.directory / 'student.safetensors'}")
    return 0


def choose_test(
    data: str, split: str | None, test: str | None, test_split: str | None
) -> tuple[str | None, str | None]:
    """Where the test set is and which split of it: what was asked for, else a split named test.

    Args:
        data: what is trained on.
        split: of it, where one was asked for.
        test: what to score on, where that was asked for.
        test_split: of that, or of the data.

    Returns:
        What to open and its split; None twice where there is nothing to test on.
    """
    spec = data if test is None else test
    if test_split is None and "test" in available_multilabel_splits(spec) and (test or split != "test"):
        test_split = "test"
    return (spec, test_split) if test or test_split else (None, None)

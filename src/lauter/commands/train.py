"""``lauter train``: judge the labels and train one network in spite of them."""

from collections.abc import Sequence

from rich.console import Console

from lauter.commands import flags
from lauter.pipeline import RunOptions, train
from lauter.results import summarise


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "train", "Judge the labels and train one network in spite of them.", "DATA [flags]"
    )
    flags.add_data_flags(parser)
    flags.add_label_flags(parser)
    flags.add_run_flags(parser)
    arguments, config = flags.parse_run(parser, argv)
    data, test = flags.open_data(arguments, config)
    options = RunOptions(arguments.out, arguments.resume, arguments.tensorboard, Console(soft_wrap=True))
    result = train(
        data, labels=arguments.labels, drop=arguments.drop, test=test, config=config, options=options
    )
    print(summarise(result.metrics))
    print(f"labels      {result.directory / 'labels.parquet'}")
    print(f"network     {result.directory / 'teacher.safetensors'}")
    print(f"report      {result.directory / 'report.html'}")
    return 0

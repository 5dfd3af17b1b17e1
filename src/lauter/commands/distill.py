"""``lauter distill``: a small student that mimics a finished teacher."""

from collections.abc import Sequence

from rich.console import Console

from lauter.commands import flags, multilabel
from lauter.errors import ConfigError
from lauter.pipeline import RunOptions, distill
from lauter.results import summarise


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if multilabel.is_asked_for(argv):
        return multilabel.main(argv)
    parser = flags.make_parser(
        "distill",
        "A small student that mimics a teacher: the file that lauter train or fit wrote, or stored features.",
        "DATA --teacher FILE [--labels labels.parquet] [flags]",
    )
    flags.add_data_flags(parser)
    flags.add_run_flags(
        parser,
        teacher="teacher.safetensors of a finished run, or its directory: the network to mimic; or a file of "
        "its features (.npy, .safetensors, .parquet); or a network's name with --teacher-weights or "
        "--teacher-pretrained, taken without its classifier",
    )
    parser.add_argument("--labels", type=str | None, help="checked label table of the same images")
    parser.add_argument(
        "--row_order",
        type=bool,
        default=False,
        help="the rows of a features file without ids are the images of DATA, in their order",
    )
    multilabel.add_switch(parser)
    arguments, config = flags.parse_run(parser, argv)
    if not config.teacher:
        raise ConfigError(
            "distill needs --teacher FILE: teacher.safetensors of a finished run, or a features file"
        )
    data, test = flags.open_data(arguments, config)
    options = RunOptions(arguments.out, arguments.resume, arguments.tensorboard, Console(soft_wrap=True))
    result = distill(
        data,
        config.teacher,
        labels=arguments.labels,
        test=test,
        config=config,
        options=options,
        row_order=arguments.row_order,
    )
    print(summarise(result.metrics))
    print(f"student     {result.directory / 'student.safetensors'}")
    print(f"report      {result.directory / 'report.html'}")
    return 0

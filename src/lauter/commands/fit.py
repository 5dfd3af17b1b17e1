"""``lauter fit``: the whole way."""

from collections.abc import Sequence

from rich.console import Console

from lauter.commands import flags
from lauter.pipeline import fit
from lauter.results import summarise


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "fit", "Doubtful labels in, a small model and a checked label table out.", "DATA [flags]"
    )
    flags.add_data_flags(parser)
    flags.add_label_flags(parser)
    flags.add_run_flags(parser)
    arguments, config = flags.parse_run(parser, argv)
    data, test = flags.open_data(arguments, config)
    result = fit(
        data,
        labels=arguments.labels,
        drop=arguments.drop,
        test=test,
        config=config,
        out=arguments.out,
        resume=arguments.resume,
        tensorboard=arguments.tensorboard,
        console=Console(soft_wrap=True),
    )
    print(summarise(result.metrics))
    print(f"labels      {result.directory / 'labels.parquet'}")
    print(f"student     {result.directory / 'student.safetensors'}")
    print(f"report      {result.directory / 'report.html'}")
    return 0

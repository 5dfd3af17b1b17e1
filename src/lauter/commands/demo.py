"""``lauter demo``: the whole way on digits, beside plain cross-entropy, in two minutes."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lauter.commands import flags
from lauter.demo import KNOWN, RECIPE, demo_config, make_demo_data
from lauter.pipeline import FitResult, fit
from lauter.training.progress import format_seconds


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser("demo", "The whole way on scikit-learn's digits.", "[--out DIR] [--seed N]")
    parser.add_argument("--out", default="lauter-demo", help="directory of the run")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn")
    parser.add_argument("--resume", type=bool, default=False, help="continue the run in that directory")
    arguments = flags.parse(parser, argv)
    console = Console(soft_wrap=True)
    data, test = make_demo_data(arguments.seed)
    console.print(
        f"digits 0 to {KNOWN - 1} are the classes; {RECIPE.closed_rate:.0%} of the labels are wrong, "
        f"{RECIPE.open_rate:.0%} of the images are an 8 or a 9 under a wrong name",
        highlight=False,
    )
    config = demo_config(arguments.seed)
    result = fit(data, test=test, config=config, out=arguments.out, resume=arguments.resume, console=console)
    show(result, console)
    return 0


def show(result: FitResult, console: Console) -> None:
    """The table that sets the result beside plain cross-entropy."""
    table = Table(box=box.SIMPLE)
    for title in ("same student", "labels", "balanced accuracy", "images seen"):
        table.add_column(title, no_wrap=True)
    stages = result.metrics["cost"]["stages"]
    rows = (
        ("baseline", "plain cross-entropy", "as given"),
        ("distill", "lauter", "kept, corrected"),
    )
    for stage, title, labels in rows:
        role = "student" if stage == "distill" else stage
        entry = result.metrics[role]
        score = entry[entry["kept"]]["balanced_accuracy"]
        interval = f"{score['value']:.3f}  {score['low']:.3f} to {score['high']:.3f}"
        table.add_row(title, labels, interval, f"{stages[stage]['images']:,}")
    console.print(table)
    labels = result.metrics["labels"]
    console.print(
        f"bad labels  found with precision {labels['precision']:.3f} and recall {labels['recall']:.3f} "
        f"({labels['true_noise_rate']:.0%} are bad, {labels['noise_rate']['value']:.0%} were estimated)\n"
        f"time        {format_seconds(result.metrics['cost']['seconds'])}",
        highlight=False,
    )
    console.print(f"open        {result.directory / 'report.html'}", highlight=False, soft_wrap=True)

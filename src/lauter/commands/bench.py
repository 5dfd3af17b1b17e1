"""``lauter bench``: run the measurements of the docs, and render their tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from lauter.bench import way
from lauter.bench.pages import write_pages
from lauter.bench.records import ResultFile
from lauter.commands import flags
from lauter.config import load_preset
from lauter.errors import ConfigError

RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "bench",
        "way: the whole way on CIFAR-10 with label noise beside its alternatives, resumable; "
        "collect: gather what way has measured so far into a result file; "
        "tables: render the tables of README and docs from the result file.",
        "way|collect|tables [flags]",
    )
    parser.add_argument("what", help="way, collect or tables")
    parser.add_argument("--cifar10", type=str | None, help="CIFAR-10 with CIFAR-10N's labels as columns")
    parser.add_argument("--cifar100", type=str | None, help="CIFAR-100")
    parser.add_argument("--data", type=list[str], default=list(way.DATA), help="which data sets")
    parser.add_argument("--methods", type=list[str], default=list(way.METHODS), help="which methods")
    parser.add_argument("--seeds", type=list[int], default=[0, 1, 2], help="which seeds")
    parser.add_argument("--preset", default="quick", help="lengths of all stages")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves torch's choice")
    parser.add_argument("--work", default="runs/way", help="checkpoints and parts")
    parser.add_argument("--out", type=str | None, help="result file; benchmarks/results/way-PRESET.json")
    arguments = flags.parse(parser, argv)
    work = Path(arguments.work) / arguments.preset
    out = Path(arguments.out or RESULTS / f"way-{arguments.preset}.json")
    if arguments.what == "tables":
        rendered = write_pages(ResultFile.read(out), Path.cwd())
        print(f"{out}: {', '.join(rendered) or 'no table'}")
        return 0
    if arguments.what not in ("way", "collect"):
        raise ConfigError(f"bench knows way, collect and tables, not {arguments.what!r}")
    command = f"lauter bench way --preset {arguments.preset} --cifar10 CIFAR10 --cifar100 CIFAR100"
    file = ResultFile.resume(out, command)
    if arguments.what == "way":
        _measure(arguments, work, file)
    file.append(way.read_work(work)).write(out)
    print(out)
    return 0


def _measure(arguments: Namespace, work: Path, file: ResultFile) -> None:
    """Measure what neither the work folder nor the result file holds."""
    if not arguments.cifar10 or not arguments.cifar100:
        raise ConfigError("bench way needs --cifar10 and --cifar100, folders of Parquet files")
    if unknown := sorted(set(arguments.data) - set(way.DATA)):
        raise ConfigError(f"--data must be among {', '.join(way.DATA)}, not {unknown[0]!r}")
    config = load_preset(arguments.preset)
    runtime = dataclasses.replace(config.runtime, threads=arguments.threads)
    config = dataclasses.replace(config, student="resnet8", teacher="resnet20", runtime=runtime)
    folders = Path(arguments.cifar10), Path(arguments.cifar100)
    for name in arguments.data:
        for seed in arguments.seeds:
            known = {r.method for r in file.records if (r.data, r.seed) == (name, seed)}
            methods = [method for method in arguments.methods if method not in known]
            if methods:
                way.measure_way(name, seed, folders, work, config, methods, Console())

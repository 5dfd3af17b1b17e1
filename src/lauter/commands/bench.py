"""``lauter bench``: run the measurements of the docs, and render their tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from lauter.bench import clock, way
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
        "clock: wall-clock and peak memory of lauter fit, on an idle machine; "
        "tables: render the tables of README and docs from the result files.",
        "way|collect|clock|tables [flags]",
    )
    parser.add_argument("what", help="way, collect, clock or tables")
    parser.add_argument("--cifar10", type=str | None, help="CIFAR-10 with CIFAR-10N's labels as columns")
    parser.add_argument("--cifar100", type=str | None, help="CIFAR-100")
    parser.add_argument("--data", type=list[str], default=list(way.DATA), help="which data sets")
    parser.add_argument("--methods", type=list[str], default=list(way.METHODS), help="which methods")
    parser.add_argument("--seeds", type=list[int], default=[0, 1, 2], help="which seeds")
    parser.add_argument("--preset", default="quick", help="lengths of all stages")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves torch's choice")
    parser.add_argument("--work", default="runs/bench", help="checkpoints and parts")
    parser.add_argument("--out", type=str | None, help="result file; by default below benchmarks/results")
    arguments = flags.parse(parser, argv)
    measure = {"way": _measure_way, "collect": _collect, "clock": _measure_clock, "tables": _render}
    if arguments.what not in measure:
        raise ConfigError(f"bench knows {', '.join(measure)}, not {arguments.what!r}")
    measure[arguments.what](arguments)
    return 0


def _render(arguments: Namespace) -> None:
    """Render every table whose result file is there."""
    rendered = write_pages(RESULTS, Path.cwd())
    print(f"{RESULTS}: {', '.join(rendered) or 'no table'}")


def _measure_clock(arguments: Namespace) -> None:
    """Clock the preset once."""
    if not arguments.cifar10:
        raise ConfigError("bench clock needs --cifar10, a folder of Parquet files")
    out = Path(arguments.out or RESULTS / "clock.json")
    file = ResultFile.resume(out, f"lauter bench clock --preset {arguments.preset} --cifar10 CIFAR10")
    work = Path(arguments.work) / "clock"
    file.append(clock.clock_fit(arguments.preset, Path(arguments.cifar10), work)).write(out)
    print(out)


def _collect(arguments: Namespace) -> None:
    """Put what the work folder holds into the result file."""
    out, work, file = _open_way(arguments)
    file.append(way.read_work(work)).write(out)
    print(out)


def _open_way(arguments: Namespace) -> tuple[Path, Path, ResultFile]:
    work = Path(arguments.work) / arguments.preset
    out = Path(arguments.out or RESULTS / f"way-{arguments.preset}.json")
    command = f"lauter bench way --preset {arguments.preset} --cifar10 CIFAR10 --cifar100 CIFAR100"
    return out, work, ResultFile.resume(out, command)


def _measure_way(arguments: Namespace) -> None:
    """Measure what neither the work folder nor the result file holds."""
    if not arguments.cifar10 or not arguments.cifar100:
        raise ConfigError("bench way needs --cifar10 and --cifar100, folders of Parquet files")
    if unknown := sorted(set(arguments.data) - set(way.DATA)):
        raise ConfigError(f"--data must be among {', '.join(way.DATA)}, not {unknown[0]!r}")
    _, work, file = _open_way(arguments)
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
    _collect(arguments)

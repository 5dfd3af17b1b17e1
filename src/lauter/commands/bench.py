"""``lauter bench``: run the measurements of the docs, and render their tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from lauter.bench import clock, closed_form, distill, distill_speed, headless, way
from lauter.bench.pages import write_pages
from lauter.bench.records import ResultFile, read_parts
from lauter.commands import flags
from lauter.config import load_preset
from lauter.errors import ConfigError
from lauter.training.runtime import RuntimeConfig

RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "bench",
        "way: the whole way on CIFAR-10 with label noise beside its alternatives, resumable; "
        "collect: gather what way has measured so far into a result file; "
        "distill: mimicking beside other distillation methods under one recipe, resumable; "
        "headless: a self-supervised teacher mimicked without a label, resumable; "
        "speed: how fast distillation is, with a live teacher and from a bank, on an idle machine; "
        "clock: wall-clock and peak memory of lauter fit, on an idle machine; "
        "closed-form: the sampled LSH loss against its closed form; "
        "tables: render the tables of README and docs from the result files.",
        "way|collect|distill|headless|speed|clock|closed-form|tables [flags]",
    )
    parser.add_argument("what", help="way, collect, distill, headless, speed, clock, closed-form or tables")
    parser.add_argument("--cifar10", type=str | None, help="CIFAR-10 with CIFAR-10N's labels as columns")
    parser.add_argument("--cifar100", type=str | None, help="CIFAR-100")
    parser.add_argument("--data", type=list[str], default=list(way.DATA), help="which data sets of way")
    parser.add_argument("--methods", type=list[str] | None, help="which methods; all by default")
    parser.add_argument(
        "--protocol", default="cifar10-10k", help=f"recipe of distill: {', '.join(distill.PROTOCOLS)}"
    )
    parser.add_argument(
        "--pairs", type=list[str], default=["resnet20:resnet8"], help="teacher:student, pairs of distill"
    )
    parser.add_argument("--seeds", type=list[int], default=[0, 1, 2], help="which seeds")
    parser.add_argument("--preset", default="quick", help="lengths of all stages")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves torch's choice")
    parser.add_argument("--work", default="runs/bench", help="checkpoints and parts")
    parser.add_argument("--out", type=str | None, help="result file; by default below benchmarks/results")
    arguments = flags.parse(parser, argv)
    measure = {
        "way": _measure_way,
        "collect": _collect,
        "distill": _measure_distill,
        "headless": _measure_headless,
        "speed": _measure_speed,
        "clock": _measure_clock,
        "closed-form": _measure_closed_form,
        "tables": _render,
    }
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


def _measure_distill(arguments: Namespace) -> None:
    """Measure what the work folder does not hold yet."""
    if arguments.protocol not in distill.PROTOCOLS:
        known = ", ".join(distill.PROTOCOLS)
        raise ConfigError(f"--protocol must be one of {known}, not {arguments.protocol!r}")
    methods = arguments.methods or list(distill.METHODS)
    if unknown := sorted(set(methods) - set(distill.METHODS)):
        raise ConfigError(f"--methods must be among {', '.join(distill.METHODS)}, not {unknown[0]!r}")
    source = distill.PROTOCOLS[arguments.protocol].data
    folder = getattr(arguments, source)
    if not folder:
        raise ConfigError(f"bench distill with protocol {arguments.protocol} needs --{source}")
    pairs = [tuple(pair.split(":")) for pair in arguments.pairs]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise ConfigError(f"--pairs must be teacher:student, not {':'.join(wrong[0])!r}")
    work = Path(arguments.work) / "distill"
    out = Path(arguments.out or RESULTS / f"distill-{arguments.protocol}.json")
    command = f"lauter bench distill --protocol {arguments.protocol} --{source} {source.upper()}"
    file = ResultFile.resume(out, command)
    runtime = RuntimeConfig(threads=arguments.threads)
    for teacher, student in pairs:
        for seed in arguments.seeds:
            distill.measure_pair(
                arguments.protocol,
                (teacher, student),
                seed,
                Path(folder),
                work,
                runtime,
                methods,
                Console(),
            )
    kept = [record for record in read_parts(work) if record.data.split()[0] == arguments.protocol]
    file.append(kept).write(out)
    print(out)


def _measure_headless(arguments: Namespace) -> None:
    """Measure what the work folder does not hold yet."""
    if not arguments.cifar10:
        raise ConfigError("bench headless needs --cifar10, a folder of Parquet files")
    methods = arguments.methods or list(headless.METHODS)
    if unknown := sorted(set(methods) - set(headless.METHODS)):
        raise ConfigError(f"--methods must be among {', '.join(headless.METHODS)}, not {unknown[0]!r}")
    out = Path(arguments.out or RESULTS / "headless.json")
    file = ResultFile.resume(out, "lauter bench headless --cifar10 CIFAR10")
    runtime = RuntimeConfig(threads=arguments.threads)
    for seed in arguments.seeds:
        records = headless.measure_headless(
            arguments.cifar10, Path(arguments.work), seed, runtime, methods=methods, console=Console()
        )
        file = file.append(records)
        file.write(out)
    print(out)


def _measure_speed(arguments: Namespace) -> None:
    """Measure the whole section once more."""
    if not arguments.cifar10:
        raise ConfigError("bench speed needs --cifar10, a folder of Parquet files")
    out = Path(arguments.out or RESULTS / "distill-speed.json")
    file = ResultFile.resume(out, "lauter bench speed --cifar10 CIFAR10")
    runtime = RuntimeConfig(threads=arguments.threads)
    records = distill_speed.measure_speed(Path(arguments.cifar10), runtime, console=Console())
    file.append(records).write(out)
    print(out)


def _measure_closed_form(arguments: Namespace) -> None:
    """Compare sampled hashes with their limit; five draws each."""
    out = Path(arguments.out or RESULTS / "closed-form.json")
    file = ResultFile.resume(out, "lauter bench closed-form")
    file.append(closed_form.measure_closed_form(range(5))).write(out)
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
            methods = [method for method in arguments.methods or way.METHODS if method not in known]
            if methods:
                way.measure_way(name, seed, folders, work, config, methods, Console())
    _collect(arguments)

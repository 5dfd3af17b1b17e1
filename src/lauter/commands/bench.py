"""``lauter bench``: run the measurements of the docs, and render their tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from lauter.bench import (
    audit,
    audit_scale,
    clock,
    closed_form,
    distill,
    growth,
    headless,
    ncifar,
    noisy,
    speed,
    way,
)
from lauter.bench.audit_data import DATA as AUDIT_DATA
from lauter.bench.audit_data import Folders
from lauter.bench.audit_evidence import EVIDENCE, AuditBenchConfig
from lauter.bench.friends import VARIANTS, draw_chart, judge_parts
from lauter.bench.noisy_data import RIVAL_DATA, WAY_DATA
from lauter.bench.pages import write_pages
from lauter.bench.records import Record, ResultFile, read_parts
from lauter.bench.speed_pages import write_growth_chart
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
        "noisy: the noisy recipe beside its rivals, resumable; "
        "friends: the noisy recipe with single parts switched, resumable, with a chart; "
        "audit: finding bad labels on the same evidence, ours beside others, resumable; "
        "audit-scale: how long an audit of many features takes, on an idle machine; "
        "ncifar: counts and hashes of the noise recipes; "
        "distill: mimicking beside other distillation methods under one recipe, resumable; "
        "headless: a self-supervised teacher mimicked without a label, resumable; "
        f"speed: how fast everything is, in sections ({', '.join(speed.SECTIONS)}), on an idle machine, "
        "resumable; "
        f"growth: how time and memory grow with the images, in parts ({', '.join(growth.PARTS)}), resumable; "
        "clock: wall-clock and peak memory of lauter fit, on an idle machine; "
        "closed-form: the sampled LSH loss against its closed form; "
        "tables: render the tables of README and docs from the result files.",
        "way|collect|noisy|friends|audit|audit-scale|ncifar|distill|headless|speed|growth|clock|"
        "closed-form|tables "
        "[flags]",
    )
    parser.add_argument("what", help="which of these")
    parser.add_argument("--cifar10", type=str | None, help="CIFAR-10 with CIFAR-10N's labels as columns")
    parser.add_argument("--cifar100", type=str | None, help="CIFAR-100")
    parser.add_argument("--photos", type=str | None, help="pictures with boxes of objects, for audit")
    parser.add_argument(
        "--data",
        type=list[str] | None,
        help="which data sets of way, noisy, friends or audit, or sizes of audit-scale or growth",
    )
    parser.add_argument(
        "--sections", type=list[str] | None, help="which sections of speed, or parts of growth"
    )
    parser.add_argument(
        "--against", type=bool, default=False, help="for speed: also time the loop as it is usually written"
    )
    parser.add_argument("--methods", type=list[str] | None, help="which methods; all by default")
    parser.add_argument(
        "--protocol", default="cifar10-10k", help=f"recipe of distill: {', '.join(distill.PROTOCOLS)}"
    )
    parser.add_argument(
        "--pairs", type=list[str], default=["resnet20:resnet8"], help="teacher:student, pairs of distill"
    )
    parser.add_argument("--evidence", default="features", help=f"what audit judges by: {', '.join(EVIDENCE)}")
    parser.add_argument(
        "--features", default="", help="for audit: a backbone's name, or a folder of files NAME-SEED"
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
        "noisy": _measure_noisy,
        "friends": _measure_friends,
        "audit": _measure_audit,
        "audit-scale": _measure_audit_scale,
        "ncifar": _measure_ncifar,
        "distill": _measure_distill,
        "headless": _measure_headless,
        "speed": _measure_speed,
        "growth": _measure_growth,
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
    if write_growth_chart(RESULTS, Path.cwd()):
        rendered.append("growth's chart")
    print(f"{RESULTS}: {', '.join(rendered) or 'no table'}")


def _measure_clock(arguments: Namespace) -> None:
    """Clock the preset once."""
    if not arguments.cifar10:
        raise ConfigError("bench clock needs --cifar10, a folder of Parquet files")
    out = Path(arguments.out or RESULTS / "clock.json")
    file = ResultFile.resume(out, "lauter bench clock --preset PRESET --cifar10 CIFAR10")
    work = Path(arguments.work) / "clock"
    file.append(clock.clock_fit(arguments.preset, Path(arguments.cifar10), work)).write(out)
    print(out)


def _choose(wanted: list[str] | None, known: list[str], default: list[str], flag: str) -> list[str]:
    """What a flag asks for, if all of it is known; the default where it was not given."""
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise ConfigError(f"--{flag} must be among {', '.join(known)}, not {unknown[0]!r}")
    return wanted or default


def _require_both(arguments: Namespace) -> tuple[Path, Path]:
    if not arguments.cifar10 or not arguments.cifar100:
        raise ConfigError(f"bench {arguments.what} needs --cifar10 and --cifar100, folders of Parquet files")
    return Path(arguments.cifar10), Path(arguments.cifar100)


def _measure_noisy(arguments: Namespace) -> None:
    """Measure the recipe and its rivals as far as the work folder does not hold them yet."""
    _measure_units(arguments, list(noisy.METHODS), list(RIVAL_DATA), "noisy")


def _measure_friends(arguments: Namespace) -> None:
    """Measure the recipe with single parts switched; print who is a friend."""
    file = _measure_units(arguments, ["fnf", *VARIANTS], ["ncifar10"], "friends")
    for name in dict.fromkeys(record.data for record in file.records):
        if chart := draw_chart(judge_parts(list(file.records), name)):
            print(f"{name}\n{chart}")


def _measure_units(arguments: Namespace, methods: list[str], default: list[str], what: str) -> ResultFile:
    """Data sets times seeds; both measurements share a work folder, and so the weights and the default."""
    folders = _require_both(arguments)
    names = _choose(arguments.data, list(RIVAL_DATA), default, "data")
    chosen = _choose(arguments.methods, methods, methods, "methods")
    work = Path(arguments.work) / "noisy"
    out = Path(arguments.out or RESULTS / f"{what}.json")
    file = ResultFile.resume(out, f"lauter bench {what} --cifar10 CIFAR10 --cifar100 CIFAR100")
    for name in names:
        for seed in arguments.seeds:
            config = noisy.make_config(RuntimeConfig(threads=arguments.threads), seed)
            records = noisy.measure_noisy(name, seed, folders, work, config, chosen, Console())
            file = file.append(record for record in records if record.method in methods)
            file.write(out)
    print(out)
    return file


def _measure_audit(arguments: Namespace) -> None:
    """Judge labels by several methods on the same evidence, where the work folder does not hold them."""
    given = (arguments.cifar10, arguments.cifar100, arguments.photos)
    folders = Folders(*(Path(folder) if folder else None for folder in given))
    names = _choose(arguments.data, list(AUDIT_DATA), list(AUDIT_DATA), "data")
    methods = _choose(arguments.methods, list(audit.METHODS), list(audit.METHODS), "methods")
    for name in names:
        audit.check_request(name, methods, arguments.evidence, arguments.features, folders)
    out = Path(arguments.out or RESULTS / "audit.json")
    command = "lauter bench audit --preset PRESET --cifar10 CIFAR10 --cifar100 CIFAR100 --photos PHOTOS"
    file = ResultFile.resume(out, command)
    config = AuditBenchConfig.from_preset(arguments.preset)
    runtime = RuntimeConfig(threads=arguments.threads)
    for name in names:
        for seed in arguments.seeds:
            records = audit.measure_audit(
                name,
                seed,
                folders,
                Path(arguments.work),
                runtime,
                config,
                methods,
                arguments.evidence,
                arguments.features,
                Console(),
            )
            file = file.append(records)
            file.write(out)
    print(out)


def _measure_audit_scale(arguments: Namespace) -> None:
    """Clock audits of drawn features once more."""
    sizes = _choose(arguments.data, list(audit_scale.SIZES), list(audit_scale.SIZES), "data")
    out = Path(arguments.out or RESULTS / "audit-scale.json")
    file = ResultFile.resume(out, "lauter bench audit-scale")
    for size in sizes:
        file = file.append(audit_scale.measure_audit_scale(size, Path(arguments.work) / "audit-scale"))
        file.write(out)
    print(out)


def _measure_ncifar(arguments: Namespace) -> None:
    """Apply every recipe once; print the table."""
    records = ncifar.measure_recipes(*_require_both(arguments))
    out = Path(arguments.out or RESULTS / "ncifar.json")
    ResultFile.resume(out, "lauter bench ncifar --cifar10 CIFAR10 --cifar100 CIFAR100").append(records).write(
        out
    )
    print(f"{ncifar.render_recipes(records)}\n{out}")


def _measure_distill(arguments: Namespace) -> None:
    """Measure what the work folder does not hold yet."""
    if arguments.protocol not in distill.PROTOCOLS:
        known = ", ".join(distill.PROTOCOLS)
        raise ConfigError(f"--protocol must be one of {known}, not {arguments.protocol!r}")
    methods = _choose(arguments.methods, list(distill.METHODS), list(distill.METHODS), "methods")
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
    methods = _choose(arguments.methods, list(headless.METHODS), list(headless.METHODS), "methods")
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
    """Measure the sections that have no part in the work folder; ``mimic`` has a result file of its own."""
    sections = _choose(arguments.sections, list(speed.SECTIONS), list(speed.SECTIONS), "sections")
    request = speed.SpeedRequest(
        Path(arguments.cifar10) if arguments.cifar10 else None,
        Path(arguments.photos) if arguments.photos else None,
        Path(arguments.work) / "speed",
        RuntimeConfig(threads=arguments.threads),
        against=arguments.against,
    )
    out = Path(arguments.out or RESULTS / "speed.json")
    command = "lauter bench speed --against --cifar10 CIFAR10 --photos PHOTOS"
    places = {"speed": out, "distill": out.with_name("distill-speed.json")}

    def keep(records: list[Record]) -> None:
        for suite, place in places.items():
            own = [record for record in records if record.suite == suite]
            if own:
                ResultFile.resume(place, command).append(own).write(place)
                print(place)

    speed.check_request(sections, request)
    speed.measure_sections(sections, request, keep)


def _measure_growth(arguments: Namespace) -> None:
    """Measure the parts and sizes that the work folder does not hold."""
    parts = _choose(arguments.sections, list(growth.PARTS), list(growth.PARTS), "sections")
    names = _choose(arguments.data, list(growth.SIZES), list(growth.SIZES), "data")
    sizes = [growth.SIZES[name] for name in names]
    out = Path(arguments.out or RESULTS / "growth.json")
    work = Path(arguments.work) / "growth"

    def keep(records: list[Record]) -> None:
        file = ResultFile.resume(out, "lauter bench growth").append(records)
        file.append(growth.fit_exponents(file.records)).write(out)

    growth.measure_growth(parts, sizes, work, keep)
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
    folders = _require_both(arguments)
    names = _choose(arguments.data, list(WAY_DATA), list(WAY_DATA), "data")
    _, work, file = _open_way(arguments)
    config = load_preset(arguments.preset)
    runtime = dataclasses.replace(config.runtime, threads=arguments.threads)
    config = dataclasses.replace(config, student="resnet8", teacher="resnet20", runtime=runtime)
    for name in names:
        for seed in arguments.seeds:
            known = {r.method for r in file.records if (r.data, r.seed) == (name, seed)}
            methods = [method for method in arguments.methods or way.METHODS if method not in known]
            if methods:
                way.measure_way(name, seed, folders, work, config, methods, Console())
    _collect(arguments)

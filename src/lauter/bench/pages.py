"""The tables of README and docs, rendered from result files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lauter.bench.audit import METHODS as JUDGES
from lauter.bench.audit_pages import (
    CALIBRATION,
    CORRUPTIONS,
    COSTS,
    DETECTION,
    FOUND,
    RATES,
    SCALE,
    SETS,
    SIZES,
    compare_with_best,
    tabulate_sets,
)
from lauter.bench.friends import ADDED, INSTEAD, WITHOUT, draw_chart, judge_parts
from lauter.bench.ncifar import render_recipes
from lauter.bench.published import PROTOCOL as CRD_PROTOCOL
from lauter.bench.published import stand_beside
from lauter.bench.records import Record, ResultFile
from lauter.bench.speed_pages import (
    render_growth,
    render_latency,
    render_peaks,
    render_rates,
    render_ratios,
    render_shares,
)
from lauter.bench.tables import Column, describe_file, render_table, update_markdown

NOISY = ("ncifar10", "cifar10n-worst")
ANGLES = ("5°", "10°", "30°", "60°")
SAMPLED = tuple(f"lsh N={hashes}" for hashes in (256, 1024, 4096, 16384, 65536))
DISTILL = ("cifar10-10k resnet20 -> resnet8",)
SPEED = ("resnet32x4 -> resnet8x4",)
CLEAN = ("ncifar10-clean", "cifar10n-worst-clean")
RIVALS = (
    "fnf",
    "fnf-short",
    "ce",
    "ce-prior",
    "ls",
    "gce",
    "sce",
    "mixup",
    "elr",
    "pencil",
    "coteaching",
    "dividemix",
    "rrl",
    "confident",
    "ce-ssl",
    "ce-prior-ssl",
    "elr-ssl",
    "ce-equal-cost",
    "elr-equal-cost",
)
RIVAL_METRICS = {
    "balanced_accuracy_last": "last epoch, %",
    "balanced_accuracy_selected": "selected epoch, %",
    "oracle_gap": "oracle gap",
    "open_auroc_last": "open AUROC",
    "cost_flops": "cost, 10¹² operations",
}


def draw_friends(records: Sequence[Record]) -> str:
    """The chart of friends and foes on ncifar10, as it is printed; empty where nothing was measured."""
    chart = draw_chart(judge_parts(list(records), "ncifar10"))
    return f"```text\n{chart}\n```" if chart else ""


@dataclass(frozen=True)
class Page:
    """One table: which records stand in it, and where it goes.

    Attributes:
        name: of the markers in the Markdown files.
        data: data sets, one group of columns each.
        metrics: metrics by the title of their column.
        methods: rows.
        against: method whose paired difference is shown behind the first metric; empty for none.
        files: Markdown files that have the markers.
        result: name of the result file, without its ending.
        digits: digits behind the point.
        render: what makes the text of the file's records, where it is no table of methods.
        note: what the cells are, where they are no means over seeds.
    """

    name: str
    data: tuple[str, ...]
    metrics: dict[str, str]
    methods: tuple[str, ...]
    against: str = ""
    files: tuple[str, ...] = ("docs/measurements.md",)
    result: str = "way-quick"
    digits: int = 1
    render: Callable[[Sequence[Record]], str] | None = None
    note: str | None = None


PAGES = (
    Page(
        "main",
        NOISY,
        {"balanced_accuracy_last": "balanced accuracy, %"},
        (
            "lauter",
            "ce",
            "ce-equal-cost",
            "ce-prior",
            "ce-true",
            "ce-true-prior",
            "lauter-teacher",
            "ce-teacher",
        ),
        against="ce",
        files=("README.md", "docs/measurements.md"),
    ),
    Page(
        "noharm",
        CLEAN,
        {"balanced_accuracy_last": "balanced accuracy, %", "label_dropped_or_relabelled": "dropped"},
        ("lauter", "ce", "lauter-teacher", "ce-teacher"),
        against="ce",
    ),
    Page(
        "ablation",
        NOISY,
        {
            "balanced_accuracy_last": "last epoch, %",
            "balanced_accuracy_selected": "selected epoch, %",
            "oracle_gap": "oracle gap",
        },
        (
            "lauter",
            "mimic-kept",
            "mimic-kept-epochs",
            "lauter-long",
            "mimic-kept-long",
            "ce-kept",
            "ce",
            "ce-prior",
            "ce-equal-cost",
            "ce-true",
            "ce-true-prior",
            "lauter-teacher",
            "ce-ssl-teacher",
            "ce-teacher",
        ),
        against="lauter",
    ),
    Page(
        "labels",
        NOISY,
        {
            "label_auroc": "AUROC",
            "label_average_precision": "AP",
            "label_precision": "precision",
            "label_recall": "recall",
            "label_f1": "F1",
            "label_best_f1": "best F1",
            "label_noise_estimated": "noise, estimated",
            "label_true_noise_rate": "noise, true",
        },
        ("lauter",),
    ),
    Page(
        "clock",
        ("cifar10n-worst",),
        {"seconds": "seconds", "peak_mib": "peak memory, MiB"},
        ("fit quick", "fit standard"),
        result="clock",
        note="One run each.",
    ),
    Page(
        "speed",
        NOISY,
        {"seconds": "seconds", "images_per_second": "images/s", "epochs": "epochs"},
        ("lauter", "mimic-kept", "ce", "lauter-teacher", "ce-teacher"),
    ),
    Page("ncifar", (), {}, (), result="ncifar", render=render_recipes),
    Page("rivals", ("ncifar10",), RIVAL_METRICS, RIVALS, against="fnf", result="noisy"),
    Page(
        "rivalshard",
        ("ncifar10-human", "ncifar10-hard", "ncifar10-2500"),
        {"balanced_accuracy_last": "last epoch, %"},
        RIVALS,
        against="fnf",
        result="noisy",
    ),
    Page(
        "rivalsharm",
        ("clean",),
        {"balanced_accuracy_last": "last epoch, %", "label_dropped_or_relabelled": "dropped"},
        ("fnf", "ce"),
        against="ce",
        result="noisy",
    ),
    Page(
        "friends",
        ("ncifar10",),
        {"balanced_accuracy_last": "last epoch, %", "cost_flops": "cost, 10¹² operations"},
        ("fnf", *WITHOUT, *INSTEAD, *ADDED),
        against="fnf",
        result="friends",
    ),
    Page("friendschart", (), {}, (), result="friends", render=draw_friends),
    Page("audit", (), {}, (), result="audit", render=compare_with_best),
    Page("auditf1", SETS, {"f1": "F1"}, JUDGES, result="audit"),
    Page("auditdetection", (), {}, (), result="audit", render=tabulate_sets(DETECTION, SETS)),
    Page("auditcalibration", (), {}, (), result="audit", render=tabulate_sets(CALIBRATION, SETS)),
    Page("auditrates", (), {}, (), result="audit", render=tabulate_sets(RATES, SETS)),
    Page("auditintervals", (), {}, (), result="audit", render=tabulate_sets(RATES, CORRUPTIONS)),
    Page("auditdigits", CORRUPTIONS, {"f1": "F1"}, JUDGES, result="audit"),
    Page("auditcosts", (), {}, (), result="audit", render=tabulate_sets(COSTS, SETS)),
    Page("auditpictures", (), {}, (), result="audit", render=tabulate_sets(FOUND, SETS)),
    Page("auditscale", (), {}, (), result="audit-scale", render=tabulate_sets(SCALE, SIZES)),
    Page(
        "distill",
        DISTILL,
        {"accuracy_last": "last epoch, %", "accuracy_best": "best epoch, %"},
        (
            "teacher",
            "none",
            "l2",
            "lsh",
            "lshl2",
            "lsh_expected",
            "teacher_head",
            "kd",
            "dkd",
            "dist",
            "crd",
            "simkd",
            "srd",
            "nd",
            "timm_l2",
            "sp",
            "pkt",
            "rkd",
            "fitnet",
            "attention",
        ),
        against="none",
        result="distill-cifar10-10k",
    ),
    Page(
        "bank",
        DISTILL,
        {"accuracy_last": "last epoch, %"},
        ("lshl2_same_views", "lshl2_bank8", "lshl2_bank16", "lshl2_bank32", "lshl2"),
        against="lshl2_same_views",
        result="distill-cifar10-10k",
    ),
    Page(
        "headless",
        ("cifar10-10k headless",),
        {"accuracy_neighbours": "20 neighbours, %", "accuracy_probe": "linear probe, %"},
        ("simclr teacher", "simclr student", "lshl2", "lsh", "l2"),
        against="simclr student",
        result="headless",
    ),
    Page("crd", (), {}, (), result=f"distill-{CRD_PROTOCOL}", render=stand_beside),
    Page(
        "distillspeed",
        SPEED,
        {
            "images_per_second": "images/s",
            "of_plain": "of plain training, %",
            "of_yardstick": "times the usual loop",
            "images_per_second_built": "images/s, bank built",
            "term_share": "loss term, % of a plain step",
        },
        (
            "plain",
            "bank lsh",
            "bank lshl2",
            "live lsh",
            "live lshl2",
            "yardstick lsh",
            "yardstick lshl2",
        ),
        result="distill-speed",
        note="Medians of five runs each.",
    ),
    Page("speedratios", (), {}, (), result="speed", render=render_ratios),
    Page("speedrates", (), {}, (), result="speed", render=render_rates),
    Page("speedpeaks", (), {}, (), result="speed", render=render_peaks),
    Page("speedshares", (), {}, (), result="speed", render=render_shares),
    Page("speedlatency", (), {}, (), result="speed", render=render_latency),
    Page("growth", (), {}, (), result="growth", render=render_growth),
    Page(
        "bestnorm",
        ANGLES,
        {"optimal_radius": "best radius"},
        ("closed form", SAMPLED[-1]),
        files=("docs/mimicking.md",),
        result="closed-form",
        digits=2,
    ),
    Page(
        "losserror",
        ANGLES,
        {"loss_error_rms": "error, %"},
        SAMPLED,
        files=("docs/mimicking.md",),
        result="closed-form",
    ),
    Page(
        "gradienterror",
        ANGLES,
        {"gradient_error_rms": "error, %"},
        SAMPLED,
        files=("docs/mimicking.md",),
        result="closed-form",
    ),
)


def write_pages(results: Path, root: Path, pages: Sequence[Page] = PAGES) -> list[str]:
    """Render every table for which there are records into the Markdown files below ``root``.

    Args:
        results: folder of result files; a page whose file is missing stays as it is.
        root: the Markdown files' paths begin here.
        pages: which tables.

    Returns:
        Names of the tables that were rendered.
    """
    rendered = []
    for page in pages:
        source = results / f"{page.result}.json"
        if source.exists() and (text := render_page(ResultFile.read(source), page)):
            for name in page.files:
                update_markdown(root / name, page.name, text)
            rendered.append(page.name)
    return rendered


def render_page(file: ResultFile, page: Page) -> str:
    """One table with its paragraph on hardware and versions; empty where nothing was measured."""
    if page.render is not None:
        text = page.render(file.records)
        return f"{text}\n\n{describe_file(file)}" if text else ""
    chosen: list[Record] = [
        record
        for record in file.records
        if record.data in page.data and record.metric in page.metrics and record.method in page.methods
    ]
    against = page.against if any(record.method == page.against for record in chosen) else ""
    columns = []
    for data in page.data:
        for place, (metric, title) in enumerate(page.metrics.items()):
            if any(record.data == data and record.metric == metric for record in chosen):
                heading = title if len(page.data) == 1 else f"{data}, {title}"
                columns.append(Column(data, metric, title=heading, digits=page.digits))
                if against and place == 0:
                    columns.append(
                        Column(
                            data,
                            metric,
                            title=f"{heading}, against {against}",
                            digits=page.digits,
                            against=against,
                        )
                    )
    if not columns:
        return ""
    methods = [name for name in page.methods if any(record.method == name for record in chosen)]
    return f"{render_table(chosen, columns, methods, page.note)}\n\n{describe_file(file)}"

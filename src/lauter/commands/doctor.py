"""``lauter doctor``: examine a teacher before a long run."""

from collections.abc import Iterator, Sequence

from lauter.commands import flags
from lauter.data import Dataset, hold_out, open_dataset
from lauter.data.views import supervised_view
from lauter.distillation.doctor import examine_teacher
from lauter.distillation.teacher_report import TeacherReport
from lauter.errors import ConfigError
from lauter.models import Network, create_network
from lauter.preparation import open_teacher, resolve_networks
from lauter.training.progress import format_seconds
from lauter.training.runtime import Runtime
from lauter.training.setup import draw_from

UNUSED = ("keep", "baseline", "pretrain", "warmup", "robust", "supervised")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "doctor",
        "Examine a teacher on the data that it is to teach: its features and classes, its input, and what "
        "distilling would cost in time and room. Nothing is written.",
        "teacher DATA --teacher FILE|NAME [--student NAME] [flags]",
    )
    parser.add_argument("what", help="teacher")
    flags.add_data_flags(parser, test=False)
    parser.add_argument("--row_order", type=bool, default=False, help="a .npy has its rows in DATA's order")
    flags.add_setting_flags(
        parser,
        teacher="teacher.safetensors, a run's directory, a features file (.safetensors, .parquet, .npy), or "
        "a network's name with --teacher-weights or --teacher-pretrained",
        leave_out=UNUSED,
    )
    arguments, config = flags.parse_settings(parser, argv)
    if arguments.what != "teacher":
        raise ConfigError(
            f"doctor examines a teacher, not {arguments.what!r}: lauter doctor teacher DATA ..."
        )
    if not config.teacher:
        raise ConfigError("doctor needs --teacher: a file, a run's directory, or the name of a network")
    data = open_dataset(
        arguments.data,
        split=arguments.split,
        label_column=arguments.label_column,
        truth_column=arguments.truth_column,
        image_column=arguments.image_column,
        id_column=arguments.id_column,
        size=arguments.size,
        seed=config.seed,
        image_size=config.image_size or None,
        reduced_decoding=arguments.reduced_decoding,
    ).without_truth()
    flags.tell_faults(data.faults)
    config = resolve_networks(config, data)
    runtime = Runtime(config.runtime)
    with draw_from(config.seed, "student"):
        student = create_network(config.student, data.num_classes, image_size=config.image_size)
    teacher, names = open_teacher(config.teacher, config, data, row_order=arguments.row_order)
    _, holdout = hold_out(data, config.holdout, config.seed)
    report = examine_teacher(
        teacher,
        data,
        holdout,
        runtime,
        config.distill,
        student,
        image_size=config.image_size,
        recipe=supervised_view(config.augment, config.image_size),
        views=config.distill.source.views,
        seed=config.seed,
    )
    print("\n".join(_describe(report, data, student)))
    if names and names != data.class_names:
        print(
            f"warning     the teacher tells {', '.join(names[:5])}... apart, the data has "
            f"{', '.join(data.class_names[:5])}...; lauter distill asks for the same in the same order"
        )
    return 0


def _describe(report: TeacherReport, data: Dataset, student: Network) -> Iterator[str]:
    """The report in lines."""
    features, plan, budget = report.features, report.plan, report.budget
    yield (
        f"data        {data.name}: {len(data):,} images, {data.num_classes} classes; looked at "
        f"{report.train_images:,} to train and {report.holdout_images:,} held out"
    )
    kind = (
        "network" if report.modules else "stored features: every view is taught with those of the whole image"
    )
    yield f"teacher     {report.name}, {kind}"
    if report.extra_rows:
        yield f"extra       {report.extra_rows:,} rows of the file belong to no image of the data"
    yield (
        f"features    {features.size}, median norm {features.median_norm:.3g}, {features.zero_share:.1%} "
        f"zeros, {features.dead} the same for every image, {features.broken} images not finite"
    )
    if report.input is not None:
        mean, std = (
            " ".join(f"{value:.2f}" for value in part) for part in (report.input.mean, report.input.std)
        )
        yield f"input       mean {mean}, std {std} by channel after normalisation"
    yield (
        f"neighbours  agree with {report.neighbours.plain:.1%} of the given labels held out, balanced "
        f"{report.neighbours.balanced:.1%} (guessing: up to {report.chance:.1%})"
    )
    if report.agreement_with_given is not None and report.class_order is not None:
        yield (
            f"classifier  agrees with {report.agreement_with_given.plain:.1%}, balanced "
            f"{report.agreement_with_given.balanced:.1%}; with its classes in the best order "
            f"{report.class_order.at_best:.1%}"
        )
    hashes = f", std {plan.std:.3g}, bias {plan.bias}" if plan.std else ""
    counted = f", {plan.hashes:,} hashes" if plan.hashes else ""
    yield f"mimic       {plan.loss}, beta {plan.beta:g}{counted}{hashes}"
    room = f"{_format_bytes(budget.feature_bytes)} of features in half precision"
    bits = f", {_format_bytes(budget.bit_bytes)} of bits" if budget.bit_bytes else ""
    yield f"bank        {budget.views} views of {budget.images:,} images: {room}{bits}"
    yield (
        f"time        teacher {1000 * budget.teacher_seconds:.3g} ms and {student.name} "
        f"{1000 * budget.student_seconds:.3g} ms an image; {budget.epochs} epochs take about "
        f"{format_seconds(budget.seconds)}"
    )
    for warning in report.warnings:
        yield f"warning     {warning}"
    if not report.warnings:
        yield "healthy     nothing to warn of"


def _format_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"

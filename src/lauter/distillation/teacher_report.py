"""What the doctor says of a teacher: the report, and which of its numbers are warned of. Bounds are ours."""

from collections.abc import Iterator
from dataclasses import dataclass

from lauter.distillation.teacher_measures import Agreement, ClassOrder, FeatureStatistics, InputStatistics

LARGEST_MEAN, SMALLEST_STD, LARGEST_STD = 1.0, 0.3, 3.0
"""Normalised pixels by channel: beyond these, mean and std are not those of such images."""
DEAD_SHARE = 0.5
"""Above this share of dead dimensions a teacher has much less to say than its width promises."""
WORTHLESS = 0.5
"""Below this share of the agreement that neighbours in its features reach, a classifier is not theirs."""
SHOWN = 3
"""How many modules or classes a warning names."""


@dataclass(frozen=True)
class Plan:
    """What mimicking the teacher would be: what the loss's rules choose where nothing is given.

    Attributes:
        loss: of the config.
        beta: weight of the mimic term.
        std: standard deviation of the hash weights that suit the features as the teacher shows them; 0
            where the loss has none.
        hashes: N; 0 where the loss draws none.
        bias: what the hashes are centred on.
    """

    loss: str
    beta: float
    std: float
    hashes: int
    bias: str


@dataclass(frozen=True)
class Budget:
    """What distilling would cost.

    Attributes:
        images: training images that teach.
        epochs: passes over them, those of the embedding alone counted like the others.
        teacher_seconds: per image, of the teacher's forward pass; 0 where its features are stored.
        student_seconds: per image, of the student's whole step, its views included.
        views: V, views of each image in a bank.
        feature_bytes: of a bank of features in half precision: about 2 V D for each image.
        bit_bytes: of a bank of hash bits: about V N / 8 for each image, or of the float32 features where
            those are fewer bytes; 0 where the loss draws no hashes.
    """

    images: int
    epochs: int
    teacher_seconds: float
    student_seconds: float
    views: int
    feature_bytes: int
    bit_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole distillation, the teacher running along where it is a network."""
        return self.images * self.epochs * (self.teacher_seconds + self.student_seconds)


@dataclass(frozen=True)
class TeacherReport:
    """What the doctor found.

    Attributes:
        name: of the teacher.
        train_images: training images that were looked at.
        holdout_images: labelled hold-out images that were looked at and have finite features.
        features: of the training images.
        neighbours: agreement with given labels of the k-NN vote on the features.
        agreement_with_given: that of the teacher's own classifier; None where it has none.
        chance: balanced agreement that guessing hardly exceeds on this hold-out.
        class_order: whether the classifier's classes stand in the data's order; None likewise.
        input: normalised pixels of the hold-out; None where the teacher is stored features.
        modules: how many modules the teacher has; 0 where it is stored features.
        training_modules: names of those that were not in eval mode.
        plan: of mimicking it.
        budget: of time and room.
        extra_rows: rows of a features file that belong to no image of the data.
    """

    name: str
    train_images: int
    holdout_images: int
    features: FeatureStatistics
    neighbours: Agreement
    agreement_with_given: Agreement | None
    chance: float
    class_order: ClassOrder | None
    input: InputStatistics | None
    modules: int
    training_modules: tuple[str, ...]
    plan: Plan
    budget: Budget
    extra_rows: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be looked at before a long run, a sentence each."""
        return (
            *_doubt_features(self.features),
            *_doubt_input(self.input),
            *_doubt_modes(self),
            *_doubt_neighbours(self),
            *_doubt_classifier(self),
        )


def _doubt_features(features: FeatureStatistics) -> Iterator[str]:
    if features.broken:
        yield (
            f"the features of {features.broken} images are NaN or infinite, and so will the loss be; look at "
            "these images and at the teacher's weights, or take --runtime.precision 32"
        )
    if features.dead > DEAD_SHARE * features.size:
        yield (
            f"{features.dead} of {features.size} features are the same for every image; such a teacher has "
            "collapsed, or its weights are not those it was trained with"
        )


def _doubt_input(seen: InputStatistics | None) -> Iterator[str]:
    if seen is None:
        return
    far = max(map(abs, seen.mean)) > LARGEST_MEAN
    if far or min(seen.std) < SMALLEST_STD or max(seen.std) > LARGEST_STD:
        yield (
            f"normalised pixels have mean {_list_numbers(seen.mean)} and standard deviation "
            f"{_list_numbers(seen.std)} by channel, expected about 0 and 1; check that the input_spec's mean "
            "and std are on the scale 0 to 1 and those of the teacher's training"
        )


def _doubt_modes(report: TeacherReport) -> Iterator[str]:
    if names := report.training_modules:
        yield (
            f"{len(names)} of {report.modules} modules are in training mode ({_list_names(names)}); features "
            "would depend on the batch and on chance: call network.eval()"
        )


def _doubt_neighbours(report: TeacherReport) -> Iterator[str]:
    if report.chance >= 1:
        yield (
            f"{report.holdout_images} images held out are too few to tell a teacher from guessing; "
            "examine it on more data"
        )
    elif report.neighbours.balanced <= report.chance:
        yield (
            f"neighbours in the teacher's features agree with {report.neighbours.balanced:.1%} of the given "
            f"labels (balanced), which guessing may reach too ({report.chance:.1%}); the features do not "
            "tell these classes apart, or the rows are not those of the images"
        )


def _doubt_classifier(report: TeacherReport) -> Iterator[str]:
    order, agreement = report.class_order, report.agreement_with_given
    if order is None or agreement is None:
        return
    if order.is_off:
        moved = [f"{theirs!r} for {ours!r}" for ours, theirs in order.moved]
        yield (
            f"the classifier's classes stand in another order than the data's: as it stands it agrees with "
            f"{order.as_it_stands:.1%} of the given labels (balanced), and with {order.at_best:.1%} "
            f"if outputs are exchanged ({_list_names(moved)}); put the rows of its classifier in order, or "
            "mimic its features without it"
        )
    elif agreement.balanced < WORTHLESS * report.neighbours.balanced:
        yield (
            f"the classifier agrees with {agreement.balanced:.1%} of the given labels (balanced) and "
            f"neighbours in its own features with {report.neighbours.balanced:.1%}; it looks untrained, or "
            "of other classes"
        )


def _list_names(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _list_numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)

"""Method: what a student learns from what its teacher shows. Mimicking and every rival fill it in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from lauter.data.dataset import Int64s
from lauter.errors import ConfigError, ModelError
from lauter.models import Network, Output

Part = Literal["features", "logits", "maps", "bits"]


class Seen(NamedTuple):
    """What a teacher shows of a batch, without gradient; None or empty where it shows no such thing.

    Attributes:
        features: [B, D], float32.
        logits: [B, K], float32.
        maps: feature maps [B, C_j, H_j, W_j] by depth.
        bits: bool [B, N], the hash bits of its features.
    """

    features: Tensor | None = None
    logits: Tensor | None = None
    maps: tuple[Tensor, ...] = ()
    bits: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a method may know before the first step.

    Attributes:
        student: the network that will be trained, with its final head.
        teacher_size: D, the width of the teacher's features.
        teacher_classes: K of the teacher; 0 where it has no classifier.
        teacher_head: the teacher's classifier, where it has one that is a plain linear layer.
        teacher_features: [M, D] float32, the teacher's features of the unchanged training images ``rows``.
        rows: [M] the data set's rows that teach.
        targets: [N] labels to learn over the whole data set, -1 where there is none.
        teacher_shows: parts that the teacher will show while the student trains.
        student_maps: (channels, height, width) of the student's maps by depth; empty where none are shown.
        teacher_maps: the same of the teacher.
        image_size: side of the pictures in pixels.
        seed: of everything that is drawn.
        hash_features: [N, D] float32, what the hashes are centred on and scaled by, where that is not
            ``teacher_features``: a bank's hashes must not depend on which rows a run holds out.
    """

    student: Network
    teacher_size: int
    teacher_classes: int
    teacher_head: nn.Linear | None
    teacher_features: Tensor
    rows: Int64s
    targets: Tensor
    teacher_shows: frozenset[Part] = frozenset({"features"})
    student_maps: tuple[tuple[int, int, int], ...] = ()
    teacher_maps: tuple[tuple[int, int, int], ...] = ()
    image_size: int = 32
    seed: int = 0
    hash_features: Tensor | None = None

    @property
    def num_images(self) -> int:
        """N, the length of the whole data set: what an index may go up to."""
        return len(self.targets)

    def require_classifier(self, method: str) -> nn.Linear:
        """The teacher's classifier, for methods that cannot do without.

        Raises:
            ModelError: there is none.
        """
        if self.teacher_head is None:
            raise ModelError(
                f"{method} needs a teacher with one linear classifier, and this one shows features alone; "
                "take a method that mimics features"
            )
        return self.teacher_head

    def require_maps(self, method: str) -> None:
        """Check that both networks show as many maps.

        Raises:
            ModelError: they do not.
        """
        if not self.student_maps or len(self.student_maps) != len(self.teacher_maps):
            raise ModelError(
                f"{method} compares feature maps, and the student shows {len(self.student_maps)} of them, "
                f"the teacher {len(self.teacher_maps)}; take networks of one family, or a method on features"
            )


class Method(nn.Module):
    """One way to learn from a teacher: loss terms, their weights, and whatever must be kept or trained.

    Parameters of a method are trained beside the student and left behind at export. Its buffers are saved
    with the run. Random numbers may be drawn from torch's generator: the loop sets it for every step.

    Attributes:
        needs: which parts of :class:`Seen` it reads.
        head: which head the student must have: plain leaves it as it was built, the others are those of
            :func:`lauter.distillation.heads.fit_student_head`.
        by_image: whether each term is one value for each image in which no other image has a part. Several
            processes then compute the terms of their own parts alone; else all compute those of the batch.
        weights: factor of each term it gives, and of ``classification``, the cross-entropy that the stage
            adds on labels that are believed (0: none).
    """

    needs: frozenset[Part] = frozenset({"features"})
    head: ClassVar[Literal["plain", "own", "embedded", "teacher"]] = "plain"
    by_image: bool = False

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, weight in weights.items():
            if not weight >= 0:
                raise ConfigError(f"the weight of {name} must be 0 or more, not {weight}")
        self.weights = dict(weights)

    def begin_epoch(self, epoch: int) -> None:
        """Run before the first step of an epoch, and again when it is resumed in its middle."""

    def prepare(self, seen: Seen) -> Seen:
        """What the teacher shows, in the unit in which :meth:`forward` compares it; as it is by default."""
        return seen

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Loss terms of a batch.

        Args:
            student: logits, features (in the teacher's space where its head embeds them) and maps.
            teacher: what the teacher shows of the very same pictures.
            index: [B] rows of the data set.
            targets: [B] labels to learn, -1 where there is none.

        Returns:
            Terms by name, each [B] or a scalar, float32.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss terms")


def require_shown(seen: Tensor | None, part: Part, method: str) -> Tensor:
    """A part of what the teacher shows.

    Raises:
        ModelError: it does not show that part.
    """
    if seen is None:
        raise ModelError(f"{method} needs the teacher's {part}, and this teacher does not show them")
    return seen


def check_needs(method: Method, shown: Iterable[Part], teacher: str) -> None:
    """Check before the first step that a teacher shows what a method reads.

    Raises:
        ModelError: it does not; the message names the parts.
    """
    if missing := sorted(method.needs - frozenset(shown)):
        raise ModelError(
            f"{type(method).__name__} reads {' and '.join(missing)}, which {teacher} does not show; "
            "take a live teacher, or another method"
        )

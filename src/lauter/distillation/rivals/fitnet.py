"""FitNet: a student whose middle map, after a trained regressor, gives the teacher's middle map."""

from dataclasses import dataclass

from torch import Tensor, nn

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.errors import ConfigError
from lauter.losses.maps import hint
from lauter.models import Output
from lauter.training.setup import draw_from


@dataclass(frozen=True)
class FitNetConfig:
    """Hint regression: gamma * classification + beta * hint.

    Attributes:
        beta: weight of the hint (the CRD benchmark's 100).
        gamma: weight of the classification term, on labels that are believed (the benchmark's 1).
        depth: which map is the hint, counted from 0 at the shallowest; -1 takes the middle one, which is the
            benchmark's.
    """

    beta: float = 100.0
    gamma: float = 1.0
    depth: int = -1

    def __post_init__(self) -> None:
        check_weights("fitnet", beta=self.beta, gamma=self.gamma)
        if self.depth < -1:
            raise ConfigError(
                f"fitnet: depth must be the number of a map, or -1 for the middle, not {self.depth}"
            )


class FitNet(Method):
    """Hint regression on one map, with a regressor that is trained along and left behind.

    Args:
        config: weights and depth.
        lesson: the maps' shapes.

    Raises:
        ModelError: student and teacher do not show as many maps.
        ConfigError: there is no map at that depth.

    Source: Romero et al. (2015), arXiv 1412.6550, as the CRD benchmark (arXiv 1910.10699) does it: the hint
    is learnt together with the classes and not in a stage before them, and the regressor has a batch
    normalisation and a ReLU.
    """

    needs: frozenset[Part] = frozenset({"maps"})

    def __init__(self, config: FitNetConfig, lesson: Lesson) -> None:
        super().__init__({"hint": config.beta, "classification": config.gamma})
        lesson.require_maps("FitNet")
        count = len(lesson.student_maps)
        if config.depth >= count:
            raise ConfigError(
                f"fitnet: depth is {config.depth}, and the networks show {count} maps; "
                f"take 0 to {count - 1}, or -1 for the middle one"
            )
        self.depth = (count - 1) // 2 if config.depth == -1 else config.depth
        with draw_from(lesson.seed, "fitnet"):
            self.regressor = make_regressor(lesson.student_maps[self.depth], lesson.teacher_maps[self.depth])

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``hint`` [B]."""
        wanted = require_shown(teacher.maps[self.depth] if teacher.maps else None, "maps", "FitNet")
        return {"hint": hint(self.regressor(student.maps[self.depth]), wanted)}


def make_regressor(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Sequential:
    """Convolution from the student's map to the shape of the teacher's, batch normalisation, ReLU.

    Maps of one side get a 1x1 convolution. A student's map of twice the side gets a 3x3 one of stride 2; one
    of half the side a transposed 4x4 one of stride 2; any other larger one a convolution without padding,
    whose kernel takes up the difference, and which is costly where the difference is large.

    Args:
        student: channels, height and width of the student's map.
        teacher: the same of the teacher's.

    Returns:
        [B, C_s, H_s, W_s] -> [B, C, H, W]; where the teacher's map is larger by another factor than 2, [B, C,
        H_s, W_s], to which :func:`lauter.losses.maps.hint` pools the teacher's.

    Source: the CRD benchmark (arXiv 1910.10699), but for the last case, which it refuses.
    """
    (channels, height, width), (wanted, rows, columns) = student, teacher
    convolution: nn.Module
    if (height, width) == (2 * rows, 2 * columns):
        convolution = nn.Conv2d(channels, wanted, 3, stride=2, padding=1)
    elif (2 * height, 2 * width) == (rows, columns):
        convolution = nn.ConvTranspose2d(channels, wanted, 4, stride=2, padding=1)
    elif height >= rows and width >= columns:
        convolution = nn.Conv2d(channels, wanted, (1 + height - rows, 1 + width - columns))
    else:
        convolution = nn.Conv2d(channels, wanted, 1)
    return nn.Sequential(convolution, nn.BatchNorm2d(wanted), nn.ReLU(inplace=True))

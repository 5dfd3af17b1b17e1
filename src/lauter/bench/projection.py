"""What a run costs at sizes that nobody here has measured: plain arithmetic from what was, shown with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lauter.errors import ConfigError

SECONDS_PER_HOUR = 3600.0
GIBIBYTE = 2.0**30


@dataclass(frozen=True)
class PartCost:
    """What one part of a run was measured to cost.

    Attributes:
        name: of the part, for people.
        passes: how often each image is gone through.
        seconds_per_image: of one pass, by one process.
        memory_per_image: bytes that every process holds for each image.
        disk_per_image: bytes that are kept on disk for each image.
        shared: whether processes share the passes; else one makes them all while the others wait.
    """

    name: str
    passes: float
    seconds_per_image: float
    memory_per_image: float = 0.0
    disk_per_image: float = 0.0
    shared: bool = True

    def __post_init__(self) -> None:
        numbers = (self.passes, self.seconds_per_image, self.memory_per_image, self.disk_per_image)
        if min(numbers) < 0:
            raise ConfigError(f"{self.name}: a cost must be 0 or more, not {min(numbers)}")


@dataclass(frozen=True)
class Projection:
    """What a part would cost at another size.

    Attributes:
        name: of the part.
        hours: wall-clock.
        memory: GiB in every process.
        disk: GiB.
        arithmetic: how the hours come about, in words and numbers.
    """

    name: str
    hours: float
    memory: float
    disk: float
    arithmetic: str


def project_costs(
    parts: Sequence[PartCost], images: int, *, processes: int = 1, efficiency: float = 1.0
) -> list[Projection]:
    r"""Costs of every part at another number of images and of processes, and of all together.

    .. math:: t = \frac{\text{passes} \cdot N \cdot s}{W e}

    with s seconds for an image and a pass, W processes and their efficiency e; without the divisor for what
    one process does alone. It supposes that cost grows with the number of images and no faster, which holds
    for everything here but an exact search for neighbours.

    Args:
        parts: as measured.
        images: N.
        processes: W.
        efficiency: e, what share of W times the speed of one process W processes reach, within (0, 1].

    Returns:
        One for each part, and ``in all`` at the end.

    Raises:
        ConfigError: there is no part, or a number is out of its range.

    Example:
        >>> [entry.hours for entry in project_costs([PartCost("training", 90, 0.001)], 400_000, processes=2)]
        [5.0, 5.0]
    """
    if not parts:
        raise ConfigError("a projection needs one measured part at least, and none was given")
    if images < 1 or processes < 1 or not 0 < efficiency <= 1:
        raise ConfigError(
            "images and processes must be 1 or more and efficiency within (0, 1], "
            f"not {images}, {processes} and {efficiency}"
        )
    projected = [_project(part, images, processes, efficiency) for part in parts]
    total = Projection(
        "in all",
        sum(entry.hours for entry in projected),
        sum(entry.memory for entry in projected),
        sum(entry.disk for entry in projected),
        "",
    )
    return [*projected, total]


def _project(part: PartCost, images: int, processes: int, efficiency: float) -> Projection:
    share = processes * efficiency if part.shared else 1.0
    words = f"{part.passes:,.4g} x {images:,} x {1e3 * part.seconds_per_image:,.3g} ms"
    if part.shared and share != 1:
        words += f" / ({processes:,} x {efficiency:.2g})"
    return Projection(
        part.name,
        part.passes * images * part.seconds_per_image / share / SECONDS_PER_HOUR,
        part.memory_per_image * images / GIBIBYTE,
        part.disk_per_image * images / GIBIBYTE,
        words,
    )


def render_projection(projected: Sequence[Projection]) -> str:
    """A Markdown table of :func:`project_costs`, its arithmetic shown."""
    lines = [
        "| part | passes x images x time / processes | hours | GiB in each process | GiB on disk |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for entry in projected:
        numbers = " | ".join(f"{value:,.2g}" for value in (entry.hours, entry.memory, entry.disk))
        lines.append(f"| {entry.name} | {entry.arithmetic} | {numbers} |")
    return "\n".join(lines)

"""How fast everything is: ``lauter bench speed`` in sections, each in a process of its own.

A section interleaves its ways: each repeat runs every way once, one after the other, so that a machine that
grows warm slows all of them alike. Medians over the repeats are what counts. What a section gave is kept in a
file of its own and not measured again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from lauter.bench.apart import run_apart
from lauter.bench.audit_speed import measure_audit_speed
from lauter.bench.distill_speed import measure_speed
from lauter.bench.export_speed import measure_export
from lauter.bench.large_images import measure_large_images
from lauter.bench.matrix_peak import measure_matrix_peak
from lauter.bench.records import Record, read_parts, write_part
from lauter.bench.speed_course import SUITE, SpeedConfig, open_course
from lauter.bench.speed_sections import (
    measure_bank,
    measure_data,
    measure_live,
    measure_robust,
    measure_simclr,
    measure_student,
)
from lauter.errors import ConfigError
from lauter.training.runtime import Runtime, RuntimeConfig


@dataclass(frozen=True)
class SpeedRequest:
    """What is measured, where.

    Attributes:
        cifar10: folder of CIFAR-10.
        photos: folder of photographs, for large images.
        work: where banks, traces and the sections' parts are kept.
        runtime: device and precision.
        config: sizes and repeats.
        against: whether the usual loop is timed as well.
    """

    cifar10: Path | None
    photos: Path | None
    work: Path
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    config: SpeedConfig = field(default_factory=SpeedConfig)
    against: bool = False

    def require_cifar10(self) -> Path:
        """The folder of CIFAR-10.

        Raises:
            ConfigError: none was named.
        """
        if self.cifar10 is None:
            raise ConfigError("this section of bench speed needs --cifar10, a folder of Parquet files")
        return self.cifar10

    def require_photos(self) -> Path:
        """The folder of photographs.

        Raises:
            ConfigError: none was named.
        """
        if self.photos is None:
            raise ConfigError("section large of bench speed needs --photos, a folder of photographs")
        return self.photos


def _on_course(
    measure: Callable[..., list[Record]],
) -> Callable[[SpeedRequest], list[Record]]:
    """A section that trains on CIFAR-10's images."""

    def measure_section(request: SpeedRequest) -> list[Record]:
        data = request.require_cifar10()
        with open_course(data, request.work, request.runtime, request.config, Console()) as course:
            return measure(course, request.config, against=request.against)

    return measure_section


def _measure_peak(request: SpeedRequest) -> list[Record]:
    """The matrix product in both precisions."""
    device = Runtime(request.runtime).device
    names = {"32": "float32", "bf16": "bfloat16"}
    return [
        Record(SUITE, "matrix product", name, 0, "flops_per_second", measure_matrix_peak(kind, device))  # type: ignore[arg-type]
        for kind, name in names.items()
    ]


def _measure_mimic(request: SpeedRequest) -> list[Record]:
    """Both mimic losses, live and from a bank, always beside the usual loop; of the suite distill."""
    config = request.config
    return measure_speed(request.require_cifar10(), request.runtime, config.pair, config.repeats, Console())


def _measure_large(request: SpeedRequest) -> list[Record]:
    """Photographs from disk, beside the reference's data path."""
    photos = request.require_photos()
    return measure_large_images(photos, request.work / "large", request.config.repeats, Console())


SECTIONS: dict[str, Callable[[SpeedRequest], list[Record]]] = {
    "peak": _measure_peak,
    "data": _on_course(measure_data),
    "student": _on_course(measure_student),
    "live": _on_course(measure_live),
    "bank": _on_course(measure_bank),
    "simclr": _on_course(measure_simclr),
    "robust": _on_course(measure_robust),
    "audit": lambda request: measure_audit_speed(request.work, request.config),
    "large": _measure_large,
    "export": lambda request: measure_export(request.work, request.runtime, request.config),
    "mimic": _measure_mimic,
}
"""What each section measures; ``mimic`` is kept in a result file of its own."""


def check_request(names: Sequence[str], request: SpeedRequest) -> None:
    """Check before the first measurement that every section has its data.

    Raises:
        ConfigError: it has not.
    """
    if set(names) & {"data", "student", "live", "bank", "simclr", "robust", "mimic"}:
        request.require_cifar10()
    if "large" in names:
        request.require_photos()


def measure_section(name: str, request: SpeedRequest) -> list[Record]:
    """Measure one section in this process.

    Raises:
        ConfigError: there is no such section, or its data was not named.
    """
    if name not in SECTIONS:
        raise ConfigError(f"a section of bench speed is one of {', '.join(SECTIONS)}, not {name!r}")
    return SECTIONS[name](request)


def measure_sections(
    names: Sequence[str], request: SpeedRequest, done: Callable[[list[Record]], None]
) -> None:
    """Measure sections, one after the other, each in a process of its own; those that have a part are read.

    Args:
        names: which of ``SECTIONS``.
        request: what and where; ``work/parts`` holds what was measured.
        done: called with the records of each section as soon as they are there.
    """
    for name in names:
        part = request.work / "parts" / name / "records.json"
        if not part.exists():
            write_part(part, run_apart(measure_section, name, request))
        done(read_parts(part.parent))

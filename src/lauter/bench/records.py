"""Benchmark results as JSON: what was measured, on what machine, by which command."""

import math
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import lauter
from lauter.errors import ConfigError, RunError
from lauter.files import read_json, write_json

SUITES = ("noisy", "distill", "audit", "speed")
PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "scikit-learn", "faiss-cpu")


class Key(NamedTuple):
    """What makes a record one and the same; a second record under a key replaces the first."""

    suite: str
    data: str
    method: str
    seed: int
    metric: str


@dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
        suite: one of ``SUITES``.
        data: data set or setting, such as ``ncifar10`` or ``resnet32x4 -> resnet8x4``.
        method: name of the method.
        seed: seed of the run.
        metric: name of the metric, such as ``balanced_accuracy`` or ``seconds``.
        value: the number; fractions stay fractions, times are seconds.
        text: what a number cannot say in full, such as a hash; empty for most.
    """

    suite: str
    data: str
    method: str
    seed: int
    metric: str
    value: float
    text: str = ""

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ConfigError(f"suite must be one of {', '.join(SUITES)}, not {self.suite!r}")
        for name in ("data", "method", "metric"):
            if not getattr(self, name):
                raise ConfigError(f"a record needs a {name}, and it is empty")
        if not math.isfinite(self.value):
            raise ConfigError(
                f"{self.metric} of {self.method} on {self.data}, seed {self.seed}, is {self.value}"
            )

    @property
    def key(self) -> Key:
        """What tells records apart: everything but value and text."""
        return Key(self.suite, self.data, self.method, self.seed, self.metric)

    def to_dict(self) -> dict[str, Any]:
        """The record as it stands in a file: without the text where that is empty."""
        entry = asdict(self)
        return entry if self.text else {name: value for name, value in entry.items() if name != "text"}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, accelerator and operating system; no names of hosts or folders."""
    import torch  # here, so that reading and rendering result files needs no torch

    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
        if hasattr(os, "sysconf")
        else None,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": _system_name(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        # Not a Linux that names itself. The kernel's own string is left out: it can hold a host's name.
        return f"{platform.system()} {platform.mac_ver()[0]}".strip()


def versions() -> dict[str, str]:
    """Versions of lauter, Python and the libraries that results depend on, as far as they are installed."""
    found = {"lauter": lauter.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class ResultFile:
    """One result file: records that were all measured on one machine with one set of versions.

    Attributes:
        machine: as :func:`machine` gives it.
        versions: as :func:`versions` gives it.
        command: the command that writes the file again.
        records: at most one by key, in the order they were first measured.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    records: tuple[Record, ...] = field(default=())

    @classmethod
    def start(cls, command: str) -> "ResultFile":
        """An empty file for this machine and these versions."""
        return cls(machine(), versions(), command)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "ResultFile":
        """Read a result file.

        Raises:
            RunError: there is no such file, or it is no result file; the message says what is wrong.
        """
        try:
            content = read_json(path)
            records = tuple(Record(**record) for record in content["records"])
            return cls(content["machine"], content["versions"], content["command"], records)
        except FileNotFoundError as error:
            raise RunError(f"there is no result file {os.fspath(path)}; run the benchmark first") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{os.fspath(path)} is no result file of lauter bench: {error!r}") from error

    @classmethod
    def resume(cls, path: str | os.PathLike[str], command: str) -> "ResultFile":
        """Read the file if it exists, so that a stopped benchmark goes on; start a new one otherwise.

        Raises:
            RunError: the file was measured on another machine or with other versions. Its head would then be
                untrue of the new records.
        """
        fresh = cls.start(command)
        if not Path(path).exists():
            return fresh
        found = cls.read(path)
        for name, before, now in (
            ("machine", found.machine, fresh.machine),
            ("versions", found.versions, fresh.versions),
        ):
            changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
            if changed:
                what = ", ".join(f"{key} {before.get(key)} -> {now.get(key)}" for key in changed)
                raise RunError(
                    f"{os.fspath(path)} was measured with another {name} ({what}); "
                    "write to another file, or remove this one to measure all of it again"
                )
        return replace(found, command=command)

    def append(self, records: Iterable[Record]) -> "ResultFile":
        """The same file with more records; one with a known key takes the place of the earlier."""
        by_key = {record.key: record for record in self.records}
        by_key.update((record.key, record) for record in records)
        return replace(self, records=tuple(by_key.values()))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all."""
        write_json(
            path,
            {
                "machine": self.machine,
                "versions": self.versions,
                "command": self.command,
                "records": [record.to_dict() for record in self.records],
            },
        )

    def done(self, keys: Iterable[Key]) -> bool:
        """Whether every one of these has been measured, so that a resumed benchmark may pass it by."""
        measured = {record.key for record in self.records}
        return all(key in measured for key in keys)


def write_part(path: Path, records: Iterable[Record]) -> None:
    """Write what one method gave with one seed into a file of its own, so that a stop loses no other."""
    write_json(path, [record.to_dict() for record in records])


def read_parts(folder: Path) -> list[Record]:
    """Every record that :func:`write_part` left in a folder or below it."""
    records = []
    for place in sorted(folder.rglob("*.json")):
        content = read_json(place)
        if isinstance(content, list):
            records += [Record(**entry) for entry in content]
    return records

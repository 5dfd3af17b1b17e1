"""A run is a directory: settings, history, checkpoints and results, each written whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lauter import __version__
from lauter.errors import BankError, ConfigError, DataError, ModelError, RunError
from lauter.files import write_text


@dataclass(frozen=True)
class RunDirectory:
    """Where the files of one run lie.

    Attributes:
        path: the directory.
        leads: whether this process writes there; of several it is the first one.
    """

    path: Path
    leads: bool = True

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """One file per stage."""
        return self.path / "checkpoints"

    @property
    def labels(self) -> Path:
        """The checked label table."""
        return self.path / "labels.parquet"

    @property
    def metrics(self) -> Path:
        """Scores, counts and costs."""
        return self.path / "metrics.json"

    @property
    def teacher(self) -> Path:
        """Weights of the teacher."""
        return self.path / "teacher.safetensors"

    @property
    def student(self) -> Path:
        """Weights of the student, head folded."""
        return self.path / "student.safetensors"

    @property
    def onnx(self) -> Path:
        """The student for ONNX Runtime."""
        return self.path / "student.onnx"

    @property
    def comparison(self) -> Path:
        """The student's features beside the teacher's."""
        return self.path / "comparison.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def remove_leftovers(self) -> None:
        """Remove temporary files of a process that was killed while it wrote a result."""
        weights = (self.teacher, self.student, self.onnx)
        for file in (self.config, self.labels, self.metrics, self.comparison, self.report, *weights):
            for leftover in self.path.glob(f".{file.stem}-*{file.suffix}"):
                leftover.unlink(missing_ok=True)

    def read_config(self) -> dict[str, Any]:
        """What :func:`open_run` wrote.

        Raises:
            RunError: this is no run directory.
        """
        if not self.config.is_file():
            raise RunError(f"{self.path} is no run directory: it has no config.yaml")
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{self.config} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise RunError(f"{self.config} holds no settings")
        return content


def check_directory(path: str | Path, *, resume: bool) -> bool:
    """Look whether a run may be kept in a directory, before anything costly is begun.

    Args:
        path: the directory.
        resume: whether a run that is there may be continued.

    Returns:
        Whether there is a run to continue.

    Raises:
        RunError: the path is a file, or the directory holds something that is not to be continued.
    """
    run = RunDirectory(Path(path))
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path} is a file; choose a directory with --out")
    # Hidden files do not count: file managers put them anywhere, and a killed process leaves temporary ones.
    if not run.path.exists() or all(entry.name.startswith(".") for entry in run.path.iterdir()):
        return False
    if not run.config.exists():
        raise RunError(f"{run.path} is not empty and holds no run; choose another --out")
    if not resume:
        raise RunError(f"{run.path} holds a run; choose another --out, or continue that run with --resume")
    return True


def open_run(path: str | Path, settings: dict[str, Any], *, resume: bool) -> RunDirectory:
    """Start a run in an empty or new directory, or continue one with the very same settings.

    Args:
        path: the directory.
        settings: everything that decides the result, as plain values; 'data' and 'fingerprint' included.
        resume: whether to continue what is there.

    Raises:
        RunError: the directory holds something else, or a run of other settings.
    """
    run = RunDirectory(Path(path))
    # Through JSON and back, so that tuples and lists, which YAML tells apart, compare as equal.
    wanted = json.loads(json.dumps({"version": __version__, **settings}))
    if check_directory(path, resume=resume):
        if differing := _differences(run.read_config(), wanted):
            raise RunError(
                f"{run.path} holds a run with other settings ({'; '.join(differing[:4])}); "
                f"--resume needs the same ones, another run needs another --out"
            )
        run.remove_leftovers()
        return run
    write_text(run.config, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
    return run


@contextmanager
def undo_if_refused(run: RunDirectory) -> Iterator[None]:
    """Remove what beginning a run wrote, where its input is refused before anything was trained.

    So the command can be given again, mended, with the same directory.
    """
    try:
        yield
    except (BankError, ConfigError, DataError, ModelError):
        if not run.leads:
            raise
        begun = {run.config, run.path / "metrics.jsonl"}
        begun |= set(run.checkpoints.glob("*.source.json"))
        if {entry for entry in run.path.rglob("*") if not entry.is_dir()} <= begun:
            for file in begun:
                file.unlink(missing_ok=True)
            for folder in (run.checkpoints, run.path):
                if folder.exists():
                    folder.rmdir()
        raise


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted(set(before) | set(now)):
            found += _differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
        return found
    return [] if before == now else [f"{where}: {before!r} there, {now!r} here"]

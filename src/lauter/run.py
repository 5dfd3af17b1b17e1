"""A run is a directory: settings, history, checkpoints and results, each written whole or not at all."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lauter import __version__
from lauter.errors import RunError
from lauter.files import write_text


@dataclass(frozen=True)
class RunDirectory:
    """Where the files of one run lie.

    Attributes:
        path: the directory.
    """

    path: Path

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
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def read_config(self) -> dict[str, Any]:
        """What :func:`open_run` wrote.

        Raises:
            RunError: this is no run directory.
        """
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RunError(f"{self.path} is no finished or resumable run: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"{self.config} holds no settings")
        return content


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
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path} is a file; choose a directory with --out")
    present = run.path.exists() and any(run.path.iterdir())
    if present and not resume:
        raise RunError(f"{run.path} is not empty; choose another --out, or continue that run with --resume")
    if present and run.config.exists():
        before = run.read_config()
        if differing := _differences(before, wanted):
            raise RunError(
                f"{run.path} holds a run with other settings ({'; '.join(differing[:4])}); "
                f"--resume needs the same ones, another run needs another --out"
            )
        return run
    if present:
        raise RunError(f"{run.path} is not empty and holds no config.yaml, so there is no run to resume")
    write_text(run.config, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
    return run


def settings_key(settings: dict[str, Any]) -> str:
    """A short hash of plain settings, for caches and file names."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted(set(before) | set(now)):
            found += _differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
        return found
    return [] if before == now else [f"{where}: {before!r} there, {now!r} here"]

"""What a run says while it works: one live line, metrics.jsonl, and TensorBoard on request."""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lauter.errors import ConfigError, RunError

LIVE_SECONDS = 0.25
PLAIN_SECONDS = 30.0
"""Least time from one refreshed line to the next, on a terminal and elsewhere."""


class Progress:
    """One live line on a terminal, plain lines elsewhere; one JSON line per epoch on disk.

    Args:
        directory: where metrics.jsonl goes; None writes none.
        console: where people read; None says nothing.
        tensorboard: whether scalars also go to ``directory``/tensorboard.
    """

    def __init__(
        self, directory: Path | None = None, console: Console | None = None, *, tensorboard: bool = False
    ) -> None:
        self.console = console
        self.path = None if directory is None else directory / "metrics.jsonl"
        self._live: Live | None = None
        self._shown = 0.0
        self._writer: Any = None
        if self.path is not None:
            _drop_broken_line(self.path)
        if tensorboard and directory is not None:
            self._writer = _open_tensorboard(directory / "tensorboard")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_line()
        if self._writer is not None:
            self._writer.close()

    def say(self, text: str) -> None:
        """One lasting line for people."""
        self.close_line()
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(
        self, stage: str, epoch: int, epochs: int, done: float, terms: str, rate: float, left: float
    ) -> None:
        """Refresh the live line, a few times a second at most."""
        if self._is_time(live=True):
            self._refresh(f"{stage}  epoch {epoch + 1}/{epochs}  {_draw_bar(done)}  {terms}", rate, left)

    def count(self, what: str, done: int, total: int, rate: float, left: float) -> None:
        """Say how far a pass over images is: live on a terminal, elsewhere a line every half a minute.

        Args:
            what: is being done.
            done: images so far.
            total: images in all.
            rate: images per second.
            left: seconds to go.
        """
        if self._is_time(live=True):
            self._refresh(f"{what}  {_draw_bar(done / max(total, 1))}  {done:,} of {total:,}", rate, left)
        elif self._is_time(live=False):
            self.say(f"{what:<11} {done:,} of {total:,}, {rate:,.0f} images/s, {format_seconds(left)} left")

    def _is_time(self, *, live: bool) -> bool:
        """Whether somebody listens, on a terminal or elsewhere, and the last word was long enough ago."""
        if self.console is None or self.console.is_terminal != live:
            return False
        if time.monotonic() - self._shown < (LIVE_SECONDS if live else PLAIN_SECONDS):
            return False
        self._shown = time.monotonic()
        return True

    def _refresh(self, text: str, rate: float, left: float) -> None:
        line = Text(
            f"{text}  {rate:,.0f} images/s  {format_seconds(left)} left", no_wrap=True, overflow="ellipsis"
        )
        if self._live is None:
            self._live = Live(line, console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(line, refresh=True)

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Log a finished epoch: {"stage", "epoch", "loss", "metrics", "images_per_second", "seconds"}.

        JSON knows no NaN and no infinity: a metric that is one is written as null.

        Raises:
            RunError: the disk does not take it.
        """
        if self.path is not None:
            metrics = {k: v if math.isfinite(v) else None for k, v in record["metrics"].items()}
            line = json.dumps({**record, "metrics": metrics}, allow_nan=False)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise RunError(
                    f"{self.path} could not be written ({error}). Free some space and continue with --resume."
                ) from error
        if self._writer is not None:
            for group in ("loss", "metrics"):
                for name, value in record[group].items():
                    self._writer.add_scalar(f"{record['stage']}/{name}", value, record["epoch"])
        if self.console is not None and not self.console.is_terminal:
            terms = "  ".join(f"{k} {v:.4g}" for k, v in {**record["loss"], **record["metrics"]}.items())
            self.say(
                f"{record['stage']}  epoch {record['epoch'] + 1}/{epochs}  {terms}  "
                f"{record['images_per_second']:,.0f} images/s"
            )

    def close_line(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def read_history(directory: Path) -> list[dict[str, Any]]:
    """The epochs of a run, in order; an epoch that was trained again after a stop counts once."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed while writing it
            continue
        key = (record["stage"], record["epoch"])
        records.pop(key, None)
        records[key] = record
    return list(records.values())


def format_seconds(seconds: float) -> str:
    """Time for people.

    Example:
        >>> format_seconds(42), format_seconds(200), format_seconds(7300)
        ('42 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _draw_bar(done: float) -> str:
    """A bar of 20 letters, filled by a share."""
    return "━" * round(20 * done) + "─" * (20 - round(20 * done))


def _drop_broken_line(path: Path) -> None:
    """Cut off a last line without its end, left by a process that was killed while writing it."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with open(path, "rb+") as file:
            file.truncate(len(whole))


def _open_tensorboard(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard was asked for but is not installed: pip install 'lauter[loggers]', or leave it out"
        ) from error
    return SummaryWriter(str(directory))

"""Checkpoints: one file per stage, whole or not at all, enough to continue bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lauter.errors import RunError
from lauter.files import atomic_path
from lauter.training.stage import Stage


@dataclass(frozen=True)
class Position:
    """Where a stage stands: the next step to take, and whether all is done."""

    epoch: int = 0
    step: int = 0
    complete: bool = False


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they lie; None keeps nothing (tests, throw-away training).
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    def path(self, stage_name: str) -> Path | None:
        """The file of a stage."""
        return None if self.directory is None else self.directory / f"{stage_name}.pt"

    def save(self, stage: Stage, position: Position, sums: dict[str, Any]) -> None:
        """Write a stage's whole state.

        Raises:
            RunError: the disk does not take it; the last checkpoint is still whole.
        """
        path = self.path(stage.name)
        if path is None:
            return
        state = {
            "position": (position.epoch, position.step, position.complete),
            "modules": {name: module.state_dict() for name, module in stage.modules.items()},
            "optimizers": []
            if position.complete
            else [part.optimizer.state_dict() for part in stage.trained],
            "state": stage.state(),
            "sums": sums,
            "threads": torch.get_num_threads(),
        }
        try:
            with atomic_path(path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            kept = (
                f"the last good checkpoint is {path}" if path.exists() else "there is no earlier checkpoint"
            )
            raise RunError(
                f"checkpoint {path} could not be written ({error}); {kept}. "
                f"Free some space and continue with --resume."
            ) from error

    def load(self, stage: Stage, device: torch.device) -> tuple[Position, dict[str, Any], int | None]:
        """Bring a stage back to where its checkpoint stands.

        Returns:
            The position, the sums of the epoch so far, and the thread count of the run that wrote them
            (None where there is no checkpoint).

        Raises:
            RunError: the file is damaged or belongs to another stage.
        """
        path = self.path(stage.name)
        if path is None:
            return Position(), {}, None
        for leftover in path.parent.glob(f".{stage.name}-*.pt"):  # of a process killed while writing
            leftover.unlink(missing_ok=True)
        if not path.exists():
            return Position(), {}, None
        way_out = "delete that file to train the stage again, or start in another directory"
        try:
            saved = torch.load(path, map_location=put_back(device), weights_only=True)
        except Exception as error:  # torch's own words advise to load it with code execution
            raise RunError(
                f"checkpoint {path} is damaged: it cannot be read ({type(error).__name__}); {way_out}"
            ) from error
        try:
            epoch, step, complete = saved["position"]
            for name, module in stage.modules.items():
                module.load_state_dict(saved["modules"][name])
            if not complete:
                for part, optimizer in zip(stage.trained, saved["optimizers"], strict=True):
                    part.optimizer.load_state_dict(optimizer)
            stage.load_state(saved["state"])
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise RunError(
                f"checkpoint {path} does not fit stage {stage.name!r} of this run ({cause}); {way_out}"
            ) from error
        return Position(epoch, step, complete), saved["sums"], saved["threads"]


def put_back(device: torch.device) -> Callable[[Any, str], Any]:
    """Where loaded tensors go: those of the processor's memory stay there, all others go to ``device``."""

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else storage.to(device=device)

    return place

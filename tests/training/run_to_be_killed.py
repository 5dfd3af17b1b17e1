"""A small training run that is killed, interrupted and starved of disk; a program run by test_killed.py.

Every attempt is a process of its own, forked after the imports, so that many attempts cost little time.

Usage: run_to_be_killed.py DIRECTORY SEED. Prints one JSON object: what was done to the runs.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.views import ViewRecipe
from lauter.errors import RunError
from lauter.losses.classification import cross_entropy
from lauter.models import InputSpec, wrap_module
from lauter.training.averaging import WeightAverage
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Interrupted, Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage

EPOCHS, STEPS = 6, 8
NAME = "classify"


class Classify(Stage):
    """Cross-entropy with dropout, momentum and a weight average."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
        )
        self.network = wrap_module(body, 32 * 36, 4, InputSpec(8))
        self.average = WeightAverage(self.network, 0.9)
        pixels = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
        view = ViewRecipe(pad=1, flip=0.5)
        batches = ImageBatches(ResidentImages(pixels), np.arange(64), 64 // STEPS, (view,), 8)
        modules = {"network": self.network, "average": self.average.shadow}
        super().__init__(NAME, EPOCHS, batches, modules)
        self.train_with(self.network.parameters(), OptimizerConfig(lr=0.05))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"classification": cross_entropy(self.network(batch.images).logits, batch.index % 4)}

    def after_step(self) -> None:
        self.average.update()

    def state(self) -> dict[str, Any]:
        return {"steps": self.average.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        self.average.steps = state["steps"]


class Telling(Progress):
    """Says every step through a pipe."""

    def __init__(self, pipe: int, each_step: Callable[[int], None]) -> None:
        super().__init__()
        self.pipe, self.each_step, self.steps = pipe, each_step, 0

    def step(self, *arguments: Any, **options: Any) -> None:
        self.steps += 1
        self.each_step(self.steps)
        os.write(self.pipe, b".")


def train(directory: Path, pipe: int, each_step: Callable[[int], None]) -> None:
    """The run itself, with a checkpoint after every step."""
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", threads=1, workers=0))
    stage = Classify()
    loop = Loop(runtime, Checkpoints(directory), Telling(pipe, each_step), seed=3, checkpoint_seconds=0.0)
    loop.run([stage])
    weights = {name: module.state_dict() for name, module in stage.modules.items()}
    torch.save({"weights": weights, "images": loop.costs[NAME].images}, directory / "end.pt")


def start(directory: Path, each_step: Callable[[int], None] = lambda step: None) -> tuple[int, int]:
    """Start an attempt; gives its process and the pipe it speaks through."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        train(directory, writing, each_step)
        code = 0
    except Interrupted:
        code = 3
    except RunError as error:
        os.write(writing, str(error).encode())
        code = 4
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(directory: Path) -> None:
    """Run to the end."""
    child, pipe = start(directory)
    while os.read(pipe, 4096):
        pass
    os.close(pipe)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SystemExit(f"{directory.name} ended with code {code}")


def kill_after(directory: Path, steps: int, pause: float) -> int:
    """Run some steps and a little more, then kill -9; gives the exit code."""

    def linger(step: int) -> None:
        if step > steps + 3:  # on a busy machine the killer may come late; the run must not be over by then
            time.sleep(600)

    child, pipe = start(directory, linger)
    for _ in range(steps):
        os.read(pipe, 1)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(pipe)
    return code


def interrupt_at(directory: Path, last: int) -> int:
    """Run until Ctrl-C in a step; gives the exit code."""

    def interrupt(step: int) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGINT)

    child, pipe = start(directory, interrupt)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(pipe)
    return code


def position(directory: Path) -> list[int]:
    """Epoch and step of the checkpoint."""
    path = directory / f"{NAME}.pt"
    return list(torch.load(path, weights_only=True)["position"][:2]) if path.exists() else [0, 0]


def fill_the_disk(directory: Path) -> dict[str, Any]:
    """Let no file grow beyond half a checkpoint after the 11th step."""
    path = directory / f"{NAME}.pt"
    note = directory.parent / "digest"

    def limit(step: int) -> None:
        if step == 11:
            note.write_text(hashlib.sha256(path.read_bytes()).hexdigest())
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))

    child, pipe = start(directory, limit)
    said = b""
    while part := os.read(pipe, 4096):
        said += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    same = hashlib.sha256(path.read_bytes()).hexdigest() == note.read_text()
    found = {
        "code": code,
        "message": said.decode().lstrip("."),
        "unchanged": same,
        "position": position(directory),
        "files": sorted(entry.name for entry in directory.iterdir()),
    }
    finish(directory)
    return found


def main(top: Path, seed: int) -> None:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    finish(top / "whole")
    kills = []
    for _ in range(6):
        code = kill_after(top / "killed", draw.randint(1, 4), draw.uniform(0, 0.02))
        leftovers = len(list((top / "killed").glob(".*")))
        kills.append({"code": code, "position": position(top / "killed"), "leftovers": leftovers})
    finish(top / "killed")
    code = interrupt_at(top / "interrupted", 5)
    interrupted = {"code": code, "position": position(top / "interrupted")}
    finish(top / "interrupted")
    full = fill_the_disk(top / "full")
    print(json.dumps({"kills": kills, "interrupted": interrupted, "full": full}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

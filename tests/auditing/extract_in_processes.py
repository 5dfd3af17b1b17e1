"""Extraction by two processes, one of which is killed; a program run by test_extraction.py.

The processes are forked after the imports, and know of each other by the environment of a launcher alone.

Usage: extract_in_processes.py DIRECTORY. Prints one JSON object: how the processes ended.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lauter.auditing import extraction, feature_store
from lauter.auditing.extraction import extract_features
from lauter.data import Dataset, ResidentImages
from lauter.errors import LauterError
from lauter.models import InputSpec, wrap_module
from lauter.training.processes import read_processes
from lauter.training.runtime import Runtime, RuntimeConfig

COUNT, ROWS = 59, 8
feature_store.SHARD_ROWS = ROWS
extraction.POLL_SECONDS = 0.02


class Body(nn.Module):
    """Counts the images that it sees, and kills its process after some."""

    def __init__(self, last: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 6, 3)
        self.seen, self.last = 0, last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.seen + len(images) > self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += len(images)
        return self.convolution(images).relu().mean((2, 3))


def make_data() -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        name="squares",
        images=ResidentImages(generator.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)),
        labels=generator.integers(0, 3, COUNT),
        class_names=("a", "b", "c"),
        ids=np.array([f"image-{row}" for row in range(COUNT)]),
    )


def work(root: Path, result: Path, wait_seconds: float = 100.0, last: int = 10**9) -> dict[str, Any]:
    """Extract as whichever process the environment says."""
    processes = read_processes()
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", threads=1, workers=0), processes=processes)
    body = Body(last)
    network = wrap_module(body, 6, 0, InputSpec(8))
    code, said = 0, ""
    try:
        found = extract_features(
            network,
            make_data(),
            runtime,
            root,
            batch_size=8,
            processes=processes,
            wait_seconds=wait_seconds,
        )
        if found is not None:
            np.save(result, np.asarray(found.values))
        elif processes.leads:
            code = 1
    except LauterError as error:
        code, said = 2, str(error)
    return {"code": code, "said": said, "seen": body.seen}


def start_two(root: Path, result: Path, wait_seconds: float, last: int = 10**9) -> dict[str, Any]:
    """Start both processes, as a launcher would; the second one lives for ``last`` images."""
    children = []
    for rank in (0, 1):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
            told = work(root, result, wait_seconds, last if rank else 10**9)
            os.write(writing, json.dumps(told).encode())
            os._exit(told["code"])
        os.close(writing)
        children.append((child, reading))
    told, codes = [], []
    for child, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            told.append(json.loads(pipe.read() or b'{"said": "", "seen": -1}'))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return {
        "codes": codes,
        "said": [part["said"] for part in told],
        "seen": [part["seen"] for part in told],
        "shards": len(list(root.glob("*/shards/*.rows"))),
    }


def main(top: Path) -> None:
    """Kill the second process after its first shard, start both again, and compare with one process."""
    torch.set_num_threads(1)
    killed = start_two(top / "two", top / "two.npy", wait_seconds=1.0, last=ROWS)
    again = start_two(top / "two", top / "two.npy", wait_seconds=100.0)
    child = os.fork()
    if not child:
        os._exit(work(top / "one", top / "one.npy")["code"])
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("one process alone failed")
    print(json.dumps({"killed": killed, "again": again}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

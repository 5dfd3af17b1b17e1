"""Whole fits that are killed, interrupted and starved of disk; a program run by test_stopping.py.

Every attempt is a process of its own, forked after the imports, so that many attempts cost little time.

Usage: run_to_be_stopped.py DIRECTORY SEED WORD..., the words being those of ``lauter fit`` without --out.
Prints one JSON object: what was done to the runs.
"""

import errno
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import lauter.commands.fit  # noqa: F401  # before the first fork
from lauter import files, results
from lauter.__main__ import main as run_lauter
from lauter.training import progress


def start(words: Sequence[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start ``lauter fit``; gives its process. What it says goes to ``log``."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        prepare()
        code = run_lauter(["fit", *words])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def epochs_of(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kill_at(words: Sequence[str], run: Path, log: Path, epochs: int, pause: float) -> int:
    """Run until so many more epochs are done, and a little more, then kill -9; gives the exit code."""
    child = start(words, log)
    wanted = epochs_of(run) + epochs
    while epochs_of(run) < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    return wait(child)


def interrupt_at(words: Sequence[str], log: Path, epoch: int) -> int:
    """Run until Ctrl-C in a step of an epoch of the student; gives the exit code."""

    def prepare() -> None:
        step = progress.Progress.step

        def interrupt(self: Any, stage: str, now: int, *arguments: Any) -> None:
            if (stage, now) == ("distill", epoch):
                os.kill(os.getpid(), signal.SIGINT)
            step(self, stage, now, *arguments)

        progress.Progress.step = interrupt  # type: ignore[method-assign]

    return wait(start(words, log, prepare))


def fill_at(words: Sequence[str], log: Path, write: int) -> int:
    """Let the disk be full at the n-th file that is written; gives the exit code."""

    def prepare() -> None:
        sync, count = os.fsync, 0

        def fail(file: int) -> None:
            nonlocal count
            count += 1
            if count == write:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(file)

        files.os.fsync = fail  # type: ignore[assignment]

    return wait(start(words, log, prepare))


def main(top: Path, seed: int, words: Sequence[str]) -> None:
    torch.set_num_threads(1)
    results.can_export_onnx = lambda: False  # type: ignore[assignment]
    draw = random.Random(seed)

    def words_for(name: str) -> list[str]:
        return [*words, "--out", str(top / name), "--resume"]

    story: dict[str, Any] = {"kills": [], "full": []}
    story["whole"] = wait(start(words_for("whole"), top / "whole.log"))
    for number in range(3):
        run, log = top / "killed", top / f"killed-{number}.log"
        code = kill_at(words_for("killed"), run, log, draw.randint(1, 2), draw.uniform(0, 0.03))
        story["kills"].append({"code": code, "epochs": epochs_of(run)})
    story["resumed"] = wait(start(words_for("killed"), top / "killed.log"))
    story["interrupted"] = interrupt_at(words_for("interrupted"), top / "interrupted-0.log", 1)
    story["interrupted, resumed"] = wait(start(words_for("interrupted"), top / "interrupted.log"))
    for write in range(1, 20):  # a resumed run gets farther before its n-th file, until it gets through
        story["full"].append(fill_at(words_for("full"), top / f"full-{write}.log", write))
        if story["full"][-1] != 2:
            break
    print(json.dumps(story))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])

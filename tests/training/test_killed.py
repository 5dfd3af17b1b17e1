"""Real processes: kill -9 at random points, Ctrl-C, a full disk; a resumed run ends the same, bit for bit."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the attempts are forked processes")

PROGRAM = Path(__file__).with_name("run_to_be_killed.py")
EPOCHS, STEPS = 6, 8


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Directory of all runs, and what was done to them."""
    top = tmp_path_factory.mktemp("killed")
    seed = time.time_ns() % 10_000
    ended = subprocess.run(
        [sys.executable, PROGRAM, top, str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr}"
    return top, {"seed": seed, **json.loads(ended.stdout)}


def assert_ends_as_whole(top: Path, name: str, story: dict[str, Any]) -> None:
    whole = torch.load(top / "whole" / "end.pt", weights_only=True)
    resumed = torch.load(top / name / "end.pt", weights_only=True)
    torch.testing.assert_close(
        resumed, whole, rtol=0, atol=0, msg=lambda message: f"{message}\nafter {json.dumps(story)}"
    )
    assert whole["images"] == EPOCHS * 64


def test_after_kill_9_the_run_ends_bit_for_bit_as_if_nothing_had_been(
    attempts: tuple[Path, dict[str, Any]],
) -> None:
    top, story = attempts
    assert [kill["code"] for kill in story["kills"]] == [-9] * 6
    steps = [epoch * STEPS + step for epoch, step in (kill["position"] for kill in story["kills"])]
    assert steps == sorted(steps)
    assert any(step % STEPS for step in steps), "no kill fell into an epoch"
    assert steps[-1] < EPOCHS * STEPS
    assert_ends_as_whole(top, "killed", story)
    left = sorted(entry.name for entry in (top / "killed").iterdir())
    assert left == ["classify.pt", "end.pt"]  # half-written files of the killed processes are gone


def test_after_ctrl_c_a_checkpoint_is_there_and_the_run_ends_the_same(
    attempts: tuple[Path, dict[str, Any]],
) -> None:
    top, story = attempts
    assert story["interrupted"]["code"] == 3  # Interrupted was raised
    assert story["interrupted"]["position"] == [0, 5]  # the step that was under way was finished
    assert_ends_as_whole(top, "interrupted", story)


def test_a_full_disk_costs_no_checkpoint(attempts: tuple[Path, dict[str, Any]]) -> None:
    top, story = attempts
    full = story["full"]
    assert full["code"] == 4  # RunError was raised
    assert "classify.pt could not be written" in full["message"]
    assert "the last good checkpoint is" in full["message"]
    assert "Free some space and continue with --resume" in full["message"]
    assert full["unchanged"]
    assert full["position"] == [1, 2]
    assert full["files"] == ["classify.pt"]
    assert_ends_as_whole(top, "full", story)

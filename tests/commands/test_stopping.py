"""Real processes: kill -9 at random points, Ctrl-C, a full disk; a resumed fit ends the same, bit for bit."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the attempts are forked processes")

PROGRAM = Path(__file__).with_name("run_to_be_stopped.py")
RESULTS = ("config.yaml", "labels.parquet", "teacher.safetensors", "student.safetensors")
FILES = {*RESULTS, "checkpoints", "metrics.json", "metrics.jsonl", "comparison.json", "report.html"}
Story = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def story(photos: Path, micro_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Directory of all runs, and what was done to them."""
    top = tmp_path_factory.mktemp("stopped")
    seed = time.time_ns() % 10_000
    words = [str(photos), *micro_flags, "--no-baseline", "--distill.epochs", "3"]
    (top / "here").mkdir()
    ended = subprocess.run(
        [sys.executable, PROGRAM, top, str(seed), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=top / "here",
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr}"
    told = {"seed": seed, **json.loads(ended.stdout)}
    assert told["whole"] == 0, (top / "whole.log").read_text()
    return top, told


def assert_ended_as_whole(story: Story, name: str) -> None:
    top, told = story
    assert {entry.name for entry in (top / name).iterdir()} == FILES
    for file in RESULTS:
        assert (top / name / file).read_bytes() == (top / "whole" / file).read_bytes(), (file, told)
    ours, theirs = (json.loads((top / run / "metrics.json").read_text()) for run in (name, "whole"))
    for role in ("student", "teacher", "labels"):
        assert ours[role] == theirs[role], told
    for stage, cost in theirs["cost"]["stages"].items():
        assert ours["cost"]["stages"][stage]["images"] == cost["images"], (stage, told)


def test_after_kill_9_the_fit_ends_bit_for_bit_as_if_nothing_had_been(story: Story) -> None:
    _, told = story
    assert [kill["code"] for kill in told["kills"]] == [-9, -9, -9], told
    epochs = [kill["epochs"] for kill in told["kills"]]
    assert epochs[0] >= 1, told
    assert told["resumed"] == 0
    assert_ended_as_whole(story, "killed")


def test_ctrl_c_is_130_and_the_run_goes_on_where_it_was(story: Story) -> None:
    top, told = story
    assert told["interrupted"] == 130
    said = (top / "interrupted-0.log").read_text()
    assert "lauter fit: stopped; a checkpoint was written. The same command with --resume continues" in said
    assert "Traceback" not in said
    assert told["interrupted, resumed"] == 0
    assert_ended_as_whole(story, "interrupted")


def test_a_full_disk_is_code_2_and_costs_nothing_that_was_finished(story: Story) -> None:
    top, told = story
    *failed, last = told["full"]
    assert len(failed) >= 4, told
    assert set(failed) == {2}, told
    assert last == 0, told
    for write in range(1, len(failed) + 1):
        said = (top / f"full-{write}.log").read_text()
        assert "Traceback" not in said
        assert "No space left on device" in said.splitlines()[-1]
        assert "--resume" in said.splitlines()[-1]
    assert_ended_as_whole(story, "full")


def test_nothing_was_written_where_the_commands_were_typed(story: Story) -> None:
    assert list((story[0] / "here").iterdir()) == []

"""Several processes train as one does: losses, weights, beliefs, counts; and what they tell each other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")

PROGRAM = Path(__file__).with_name("train_in_processes.py")
SIZES = (2, 3)
SHARED = (
    "supervised",
    "fewer images than processes",
    "simclr",
    "moco",
    "robust",
    "foes",
    "live",
    "bank",
    "rkd",
    "mixup",
    "coteaching",
)
EXACT = {"rtol": 1e-9, "atol": 1e-10}
"""Everything is float64 but for what is remembered: sums in another order differ in the 16th digit at first,
and a training of a few steps makes the difference no more than some thousand times larger."""
LOGGED = {"rtol": 1e-6, "atol": 1e-7}
"""Loss terms are logged in float32."""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all processes found."""
    folder = tmp_path_factory.mktemp("processes")
    ended = subprocess.run(
        [sys.executable, PROGRAM, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def read(top: Path, size: int, rank: int, name: str) -> dict[str, Any]:
    found = torch.load(top / f"{size}.{rank}.pt", weights_only=True)[name]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SHARED)
def test_every_process_ends_where_one_process_ends(name: str, size: int, top: Path) -> None:
    alone = read(top, 1, 0, name)
    assert alone["losses"], "nothing was trained"
    for rank in range(size):
        found = read(top, size, rank, name)
        torch.testing.assert_close(found.pop("losses"), alone["losses"], **LOGGED)
        torch.testing.assert_close(found.pop("metrics"), alone["metrics"], **LOGGED)
        rest = {key: value for key, value in alone.items() if key not in ("losses", "metrics")}
        torch.testing.assert_close(found, rest, **EXACT)


def test_training_moves_the_weights(top: Path) -> None:
    first, second = (read(top, 1, 0, name)["weights"][0] for name in ("supervised", "simclr"))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_stage_that_cannot_share_is_refused_by_name(size: int, top: Path) -> None:
    refused = read(top, size, 0, "dividemix")["refused"]
    assert "DivideMixStage" in refused
    assert f"{size} processes were launched; start it without torchrun" in refused


@pytest.mark.parametrize("size", SIZES)
def test_parts_are_put_together_and_gradients_flow_back(size: int, top: Path) -> None:
    values = torch.arange(14.0).reshape(7, 2)
    said = [read(top, size, rank, "talk") for rank in range(size)]
    for found in said:
        torch.testing.assert_close(found["gathered"], 3 * values)
        assert found["mask"].tolist() == (values[:, 0] > 3).tolist()
        assert found["nothing"] == [7, 0]
    parts, gradients = (torch.cat([found[what] for found in said]) for what in ("part", "gradient"))
    torch.testing.assert_close(parts, values)
    torch.testing.assert_close(gradients, size * 3 * values)  # averaged over processes: that of one process


@pytest.mark.parametrize("size", SIZES)
def test_processes_agree(size: int, top: Path) -> None:
    for rank in range(size):
        found = read(top, size, rank, "talk")
        torch.testing.assert_close(found["mean"], torch.full((3,), (size - 1) / 2))
        torch.testing.assert_close(found["told"], {"rank": 0, "tensor": torch.full((3,), (size - 1) / 2)})
        assert found["led"] == 0
        assert found["collected"] == [["x" * other] for other in range(size)]
        assert found["agreed"] == [True, False]
        leads = "ConfigError: no" if rank == 0 else "RunError: process 0 stopped: no"
        assert found["refused"] == leads


@pytest.mark.parametrize("size", SIZES)
def test_draws_are_common_where_they_must_be_and_nowhere_else(size: int, top: Path) -> None:
    alone = read(top, 1, 0, "talk")
    said = [read(top, size, rank, "talk") for rank in range(size)]
    for found in said:
        torch.testing.assert_close(found["drawn"], alone["drawn"], rtol=0, atol=0)
    torch.testing.assert_close(said[0]["after"], alone["after"], rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(said[1]["after"], torch.rand(1), rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_statistics_of_live_normalisation_are_brought_together(size: int, top: Path) -> None:
    assert all(read(top, size, rank, "norms")["alike"] for rank in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_a_split_teacher_says_the_same_and_each_process_keeps_a_part_of_it(size: int, top: Path) -> None:
    said = [read(top, size, rank, "split") for rank in range(size)]
    for found in said:
        torch.testing.assert_close(found["after"], found["before"], rtol=0, atol=0)
        assert found["kept"] < found["whole"]
    assert sum(found["kept"] for found in said) == said[0]["whole"]


@pytest.mark.parametrize("size", SIZES)
def test_all_stop_at_the_step_in_which_one_is_told_to(size: int, top: Path) -> None:
    for rank in range(size):
        assert read(top, size, rank, "interrupted") == {"position": [0, 2, False]}


@pytest.mark.parametrize("size", [1, *SIZES])
def test_what_two_processes_left_any_number_ends(size: int, top: Path) -> None:
    whole = read(top, 1, 0, "supervised")
    for rank in range(size):
        found = torch.load(top / f"resumed-{size}.{rank}.pt", weights_only=True)["resumed"]
        for what in ("weights", "scores", "images"):
            torch.testing.assert_close(found[what], whole[what], **EXACT)


def test_a_killed_process_stops_the_others_with_a_message_and_a_code(top: Path) -> None:
    killed = json.loads((top / "killed.json").read_text())
    assert not killed["finished"], "the run was over before a process was killed"
    assert killed["code"] != 0
    assert re.search(r"lauter train, process 0 of 2: .*--resume", killed["said"]), killed["said"]


def test_the_command_goes_on_to_the_same_end(top: Path) -> None:
    """With as many processes the arithmetic is the same; only when a checkpoint was written may differ."""
    whole, resumed = (load_file(top / name / "teacher.safetensors") for name in ("whole", "killed-2"))
    torch.testing.assert_close(resumed, whole, rtol=1e-6, atol=1e-7)


def test_the_command_goes_on_with_one_process(top: Path) -> None:
    """Live batch normalisation goes by parts of a batch in two processes: weights are not the same."""
    one, whole = (json.loads((top / name / "metrics.json").read_text()) for name in ("killed-1", "whole"))
    assert one["cost"]["images_processed"] == whole["cost"]["images_processed"]
    history = [json.loads(line) for line in (top / "killed-1" / "metrics.jsonl").read_text().splitlines()]
    assert {record["epoch"] for record in history if record["stage"] == "robust"} == set(range(5))
    assert (top / "killed-1" / "report.html").exists()

"""Checkpoints: whole or not at all, and errors that name the file."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, FeatureBatches
from lauter.errors import RunError
from lauter.training.checkpoint import Checkpoints, Position
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage

CPU = torch.device("cpu")


class Linear(Stage):
    """A linear layer with a state of its own."""

    def __init__(self, features: int = 4, name: str = "linear", kind: str = "sgd") -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(features, 2)
        batches = FeatureBatches(torch.ones(6, features), torch.arange(6).numpy(), 3)
        super().__init__(name, 2, batches, {"layer": self.layer})
        self.train_with(self.layer.parameters(), OptimizerConfig(kind=kind))  # type: ignore[arg-type]
        self.memory: dict[str, Any] = {"queue": torch.arange(3.0), "count": 0, "scores": [0.5]}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"square": self.layer(batch.images).square().mean(1)}

    def state(self) -> dict[str, Any]:
        return self.memory

    def load_state(self, state: dict[str, Any]) -> None:
        self.memory = state


def trained(**options: Any) -> Linear:
    """A stage whose weights, momentum and memory have moved."""
    stage = Linear(**options)
    for _ in range(3):
        stage.loss(next(iter(stage.batches.epoch(0))))["square"].mean().backward()
        stage.trained[0].optimizer.step()
    stage.memory = {"queue": torch.full((3,), 7.0), "count": 12, "scores": [0.5, 0.75]}
    return stage


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_everything_comes_back(tmp_path: Path, kind: str) -> None:
    stage = trained(kind=kind)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(stage, Position(1, 2), {"terms": {"square": 3.5}})
    fresh = Linear(kind=kind)
    position, sums, threads = checkpoints.load(fresh, CPU)
    assert position == Position(1, 2, complete=False)
    assert sums == {"terms": {"square": 3.5}}
    assert threads == torch.get_num_threads()
    torch.testing.assert_close(fresh.layer.state_dict(), stage.layer.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(
        fresh.trained[0].optimizer.state_dict()["state"],
        stage.trained[0].optimizer.state_dict()["state"],
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(fresh.memory, stage.memory, rtol=0, atol=0)


def test_a_complete_stage_keeps_no_optimiser(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(), Position(2, 0, complete=True), {})
    assert torch.load(tmp_path / "linear.pt", weights_only=True)["optimizers"] == []
    assert checkpoints.load(Linear(), CPU)[0] == Position(2, 0, complete=True)


def test_without_a_directory_nothing_is_kept() -> None:
    checkpoints = Checkpoints(None)
    checkpoints.save(trained(), Position(1, 0), {})
    assert checkpoints.path("linear") is None
    assert checkpoints.load(Linear(), CPU) == (Position(), {}, None)


def test_without_a_file_a_stage_starts_anew(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "not-yet").load(Linear(), CPU) == (Position(), {}, None)


def test_what_the_processor_held_returns_to_it_whatever_the_device(tmp_path: Path) -> None:
    """Predictions kept on the host must not land on an accelerator when a run on one is resumed."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(), Position(1, 0), {})
    fresh = Linear()
    checkpoints.load(fresh, torch.device("meta"))
    torch.testing.assert_close(fresh.memory["queue"], torch.full((3,), 7.0), rtol=0, atol=0)


def refuse_to_sync(handle: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, stage = Checkpoints(tmp_path), trained()
    checkpoints.save(stage, Position(1, 0), {})
    before = (tmp_path / "linear.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_to_sync)
        with pytest.raises(
            RunError, match=r"linear\.pt could not be written .*No space left.* the last good"
        ):
            checkpoints.save(stage, Position(1, 1), {})
    assert (tmp_path / "linear.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["linear.pt"]
    assert checkpoints.load(Linear(), CPU)[0] == Position(1, 0)


def test_a_full_disk_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse_to_sync)
    with pytest.raises(RunError, match="there is no earlier checkpoint"):
        Checkpoints(tmp_path).save(trained(), Position(1, 0), {})
    assert list(tmp_path.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"no checkpoint at all")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"position") - 1] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, scribble, empty, flip_a_byte])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(), Position(1, 0), {})
    damage(tmp_path / "linear.pt")
    with pytest.raises(RunError, match=r"linear\.pt is damaged: it cannot be read \(\w+\); delete that file"):
        checkpoints.load(Linear(), CPU)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(features=5), Position(1, 0), {})
    with pytest.raises(RunError, match=r"linear\.pt does not fit stage 'linear'.*size mismatch"):
        checkpoints.load(Linear(), CPU)


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"position": (1, 0, False), "trap": Trap()}, tmp_path / "linear.pt")
    with pytest.raises(RunError, match=r"linear\.pt is damaged: it cannot be read") as caught:
        Checkpoints(tmp_path).load(Linear(), CPU)
    assert "weights_only" not in str(caught.value)  # nor is running it advised
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_something_else_does_not_fit(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "linear.pt")
    with pytest.raises(RunError, match=r"does not fit stage 'linear' of this run \(KeyError: 'position'"):
        Checkpoints(tmp_path).load(Linear(), CPU)


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(), Position(1, 0), {})
    (tmp_path / ".linear-abc123.pt").write_bytes(b"half")
    (tmp_path / ".other-abc123.pt").write_bytes(b"of another stage")
    checkpoints.load(Linear(), CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other-abc123.pt", "linear.pt"]

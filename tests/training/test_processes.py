"""Processes: the place that a launcher gives, and the runtime that several processes may have."""

import re

import pytest
import torch

from lauter.data.group import ALONE
from lauter.errors import ConfigError
from lauter.training import runtime as runtime_module
from lauter.training.processes import Processes, read_processes
from lauter.training.runtime import Runtime, RuntimeConfig


def test_the_place_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert read_processes() == Processes(0, 1, 0)
    assert read_processes().leads
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert read_processes() == Processes(2, 4, 0)
    assert not read_processes().leads
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert read_processes() == Processes(2, 4, 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, 0 or more, not 'two'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE must be a whole number"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 but RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": ""}, "RANK must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "not rank 2 of 2"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "not rank 0 of 0"),
        ({"WORLD_SIZE": "3", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "not 2 here of 3 in all"),
    ],
)
def test_a_place_that_cannot_be_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_processes(environment)


def test_work_that_is_shared_may_have_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32"), processes=read_processes())
    assert runtime.device == torch.device("cpu")
    assert runtime.group is ALONE  # it shares by files, and talks to nobody


def test_each_process_takes_its_own_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = runtime_module._choose_devices
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose("cuda", Processes()) == 1
    assert choose("auto", Processes(3, 4, 1)) == [1]
    assert choose("cpu", Processes(3, 4, 1)) == 1
    with pytest.raises(ConfigError, match="LOCAL_RANK 2, but its machine has 2 accelerators"):
        choose("cuda", Processes(2, 4, 2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto", Processes(3, 4, 1)) == 1

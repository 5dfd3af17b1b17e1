"""Processes: this process's place among several that a launcher started together.

A launcher such as torchrun starts the same command several times, on one machine or on many, and tells each
process its place by environment variables. Training takes its steps in a group that talks
(:mod:`lauter.training.process_group`). Features for an audit need no such group: each process does its share
and leaves the result in a folder that all of them see.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lauter.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process's place.

    Attributes:
        rank: number of this process, from 0. Process 0 leads: it gathers what all made and goes on alone.
        size: how many processes there are.
        local_rank: number of this process on its machine, which is also the number of its accelerator.
        local_size: how many of them run on its machine; the launcher gives every machine as many. 0 where it
            did not say.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size or self.local_rank < 0:
            raise ConfigError(
                f"a process's rank must be in 0..size-1 and its local rank 0 or more, not rank {self.rank} "
                f"of {self.size} with local rank {self.local_rank}"
            )
        if self.local_size and self.size % self.local_size:
            raise ConfigError(
                f"every machine must run as many processes as the others, not {self.local_size} here of "
                f"{self.size} in all; give torchrun the same --nproc-per-node everywhere"
            )

    @property
    def leads(self) -> bool:
        """Whether this process goes on when the shared work is done."""
        return self.rank == 0


def read_processes(environment: Mapping[str, str] | None = None) -> Processes:
    """The place that a launcher gave this process; alone without one.

    It stands in WORLD_SIZE, RANK, LOCAL_RANK and LOCAL_WORLD_SIZE.

    Args:
        environment: where they stand; the process's own environment where None.

    Returns:
        The place. Without LOCAL_RANK every process takes the first accelerator of its machine.

    Raises:
        ConfigError: one of them is no whole number or out of its range, or RANK is missing beside a
            WORLD_SIZE above 1.

    Example:
        >>> read_processes({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"})
        Processes(rank=3, size=4, local_rank=1, local_size=0)
        >>> read_processes({})
        Processes(rank=0, size=1, local_rank=0, local_size=0)
    """
    given = os.environ if environment is None else environment
    size = count_processes(given)
    if size == 1:
        return Processes()
    if "RANK" not in given:
        raise ConfigError(f"WORLD_SIZE is {size} but RANK is not set; start every process with its own RANK")
    rank, local_rank = _read_number(given, "RANK", 0), _read_number(given, "LOCAL_RANK", 0)
    return Processes(rank, size, local_rank, _read_number(given, "LOCAL_WORLD_SIZE", 0))


def count_processes(environment: Mapping[str, str] | None = None) -> int:
    """How many processes were launched together, by WORLD_SIZE; 1 without it.

    Raises:
        ConfigError: it is no whole number.
    """
    return _read_number(os.environ if environment is None else environment, "WORLD_SIZE", 1)


def _read_number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"the environment variable {name} must be a whole number, 0 or more, not {text!r}")
    return int(text)

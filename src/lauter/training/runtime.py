"""Runtime: device, precision, compilation. The one place where Lightning Fabric is set up."""

import atexit
import copy
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from lauter.data.group import ALONE, Group
from lauter.errors import ConfigError, RunError
from lauter.models import Network
from lauter.training.process_group import ProcessGroup
from lauter.training.processes import Processes, count_processes, read_processes
from lauter.training.sharding import is_split, split_network
from lauter.training.synced_norms import sync_norms

Precision = Literal["auto", "32", "bf16"]


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how exactly to compute.

    Attributes:
        device: auto (an accelerator where there is one), cpu, cuda or mps.
        precision: auto (bf16 autocast where the processor has it), 32 or bf16.
        threads: processor threads of this process; 0 leaves torch's choice.
        workers: reading processes for images that stream from disk.
        compile: whether backbones are compiled with torch.compile: true, false, or auto. Then each stage
            times a few steps of its network both ways, keeps the faster one, says why, and writes the choice
            beside its checkpoints. Compiling takes up to minutes; on a processor it often does not pay.
        sync_norms: whether batch normalisation takes its statistics over the images of all processes, where
            several train on accelerators; else each process goes by its own part of a batch.
        split_teacher: whether the weights of a teacher that runs along are split over the accelerators of all
            processes (FSDP), for teachers too large for one. Not tried on several accelerators yet.
        wait_seconds: how long a process waits for the others before it gives up.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    threads: int = 0
    workers: int = 2
    compile: bool | Literal["auto"] = False
    sync_norms: bool = True
    split_teacher: bool = False
    wait_seconds: float = 1800.0

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ConfigError(f"device must be auto, cpu, cuda or mps, not {self.device!r}")
        if self.precision not in ("auto", "32", "bf16"):
            raise ConfigError(f"precision must be auto, 32 or bf16, not {self.precision!r}")
        if self.compile not in (True, False, "auto"):
            raise ConfigError(f"compile must be true, false or auto, not {self.compile!r}")
        if self.threads < 0 or self.workers < 0:
            raise ConfigError(f"threads and workers must be 0 or more, not {self.threads} and {self.workers}")
        if not self.wait_seconds > 0:
            raise ConfigError(f"wait_seconds must be above 0, not {self.wait_seconds}")


class Runtime:
    """Device and precision of this process, and the group it works in.

    Attributes:
        group: the processes that a launcher such as torchrun started; of one without a launcher.

    Args:
        config: what was asked for.
        processes: this process's place among several that share work by files and never talk (see
            :mod:`lauter.training.processes`): it takes the accelerator of its local rank and is a group of
            one. Where None, processes that were launched together make a group.

    Raises:
        ConfigError: the device or the compiler that was asked for is not there, or there are more processes
            than accelerators, or a teacher is to be split among too few, or several are to choose whether to
            compile.
        RunError: the other processes cannot be reached.
    """

    def __init__(self, config: RuntimeConfig | None = None, *, processes: Processes | None = None) -> None:
        self.config = config or RuntimeConfig()
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        _check_device(self.config.device)
        if self.config.compile is True:
            _check_compiler(self.config.device)
        bf16 = self.config.precision == "bf16" or (
            self.config.precision == "auto" and has_bf16(self.config.device)
        )
        self.precision: Literal["bf16", "32"] = "bf16" if bf16 else "32"
        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
        self.group: Group = ALONE
        together = processes is None and count_processes() > 1
        if self.config.split_teacher and not (together and _is_cuda(self.config.device)):
            raise ConfigError(
                "split_teacher splits a teacher over the accelerators of several processes; start them with "
                "torchrun on machines with CUDA, or leave it out"
            )
        if together and self.config.compile == "auto":
            raise ConfigError(
                f"compile auto times networks in one process, and {count_processes()} were launched; set "
                "--runtime.compile true or false"
            )
        precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if bf16 else "32-true"
        if together:
            self.fabric = _join(self.config, read_processes(), precision)
            self.device: torch.device = self.fabric.device
            self.group = ProcessGroup(self.fabric.global_rank, self.fabric.world_size, self.device)
            return
        self.fabric = Fabric(
            accelerator=self.config.device,
            devices=_choose_devices(self.config.device, processes or Processes()),
            precision=precision,
        )
        self.fabric.launch()
        self.device = self.fabric.device

    def alone(self) -> "Runtime":
        """The same device and precision for work that is not shared, or shared in another way."""
        one = copy.copy(self)
        one.group = ALONE
        return one

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, in channels_last; compile its backbones where all shall be."""
        if is_split(module):  # it lies where it has to
            return
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.compile is not True:
            return
        for part in module.modules():
            if isinstance(part, Network) and part.backbone._compiled_call_impl is None:
                # In place, and lost by a deep copy: an average or a momentum network keeps its own weights.
                part.backbone.compile()

    def autocast(self) -> AbstractContextManager[None]:
        """The precision context that forward passes run in."""
        context: AbstractContextManager[None] = self.fabric.autocast()
        return context

    def common_norms(self, modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """While it lasts, batch normalisation over the images of all processes, where torch has that."""
        if self.group.size == 1 or self.device.type != "cuda" or not self.config.sync_norms:
            return nullcontext()
        return sync_norms(modules)

    def split(self, network: nn.Module) -> None:
        """Split a frozen network's weights over all processes, where that was asked for."""
        if self.config.split_teacher and not is_split(network):
            self.place(network)
            split_network(network)


def _is_cuda(device: str) -> bool:
    return device in ("auto", "cuda") and torch.cuda.is_available()


def _join(config: RuntimeConfig, place: Processes, precision: Literal["bf16-mixed", "32-true"]) -> Fabric:
    """Make a group of the processes that were launched together.

    Raises:
        ConfigError: there are more of them on a machine than accelerators.
        RunError: they do not find each other.
    """
    here = place.local_size or place.size
    if _is_cuda(config.device):
        _choose_devices(config.device, place)
    elif config.device == "mps" or (config.device == "auto" and torch.backends.mps.is_available()):
        raise ConfigError("several processes train on CUDA or on processors; add --runtime.device cpu")
    cuda = _is_cuda(config.device)
    strategy = DDPStrategy(
        process_group_backend="cpu:gloo,cuda:nccl" if cuda else "gloo",
        timeout=timedelta(seconds=config.wait_seconds),
    )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        strategy=strategy,
        devices=here,
        num_nodes=place.size // here,
        precision=precision,
        plugins=[TorchElasticEnvironment()],
    )
    atexit.register(_leave)
    try:
        fabric.launch()
    except RuntimeError as error:
        raise RunError(
            f"process {place.rank} of {place.size} did not find the others in {config.wait_seconds:,.0f} s "
            f"({' '.join(str(error).split())[:200]}); start them all with torchrun and the same rendezvous"
        ) from error
    return fabric


def _leave() -> None:
    """Take leave of the group when the process ends."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _choose_devices(device: str, processes: Processes) -> int | list[int]:
    """What Fabric is told: any one device, or of several processes on accelerators each its own."""
    if processes.size == 1 or device in ("cpu", "mps") or not torch.cuda.is_available():
        return 1
    if processes.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"this process has LOCAL_RANK {processes.local_rank}, but its machine has "
            f"{torch.cuda.device_count()} accelerators; start at most one process for each"
        )
    return [processes.local_rank]


def has_bf16(device: str) -> bool:
    """Whether the processor computes in bfloat16 itself (elsewhere it would be slower than float32)."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_compiler(device: str) -> bool:
    """Whether torch.compile finds what it needs: for a processor it writes C++, which must be compiled."""
    on_processor = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return not on_processor or any(shutil.which(compiler) for compiler in compilers if compiler)


def _check_compiler(device: str) -> None:
    """Without a compiler torch.compile would fail at the first step."""
    if not has_compiler(device):
        raise ConfigError(
            "compile was asked for, but there is no C++ compiler on the path (g++, clang++ or $CXX); "
            "install one or leave out --runtime.compile"
        )


def _check_device(device: str) -> None:
    missing = (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigError(
            f"device {device} was asked for, but torch finds none here; use --runtime.device cpu or auto"
        )

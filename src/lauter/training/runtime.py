"""Runtime: device, precision, compilation. The one place where Lightning Fabric is set up."""

import logging
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from lauter.errors import ConfigError
from lauter.models import Network
from lauter.training.processes import Processes, count_processes

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
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    threads: int = 0
    workers: int = 2
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ConfigError(f"device must be auto, cpu, cuda or mps, not {self.device!r}")
        if self.precision not in ("auto", "32", "bf16"):
            raise ConfigError(f"precision must be auto, 32 or bf16, not {self.precision!r}")
        if self.compile not in (True, False, "auto"):
            raise ConfigError(f"compile must be true, false or auto, not {self.compile!r}")
        if self.threads < 0 or self.workers < 0:
            raise ConfigError(f"threads and workers must be 0 or more, not {self.threads} and {self.workers}")


class Runtime:
    """Device and precision of this process.

    Args:
        config: what was asked for.
        processes: this process's place among several, by work that several can share (passes over images,
            see :mod:`lauter.training.processes`); it then takes the accelerator of its local rank. None by
            work that is one process, as training is.

    Raises:
        ConfigError: the device or the compiler that was asked for is not there, or several processes were
            launched for work that is one process.
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
        if processes is None and count_processes() > 1:
            raise ConfigError(
                "WORLD_SIZE is above 1, but a run is one process for now; start it without torchrun"
            )
        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
        self.fabric = Fabric(
            accelerator=self.config.device,
            devices=_choose_devices(self.config.device, processes or Processes()),
            precision="bf16-mixed" if bf16 else "32-true",
        )
        self.fabric.launch()
        self.device: torch.device = self.fabric.device

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, in channels_last; compile its backbones where all shall be."""
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

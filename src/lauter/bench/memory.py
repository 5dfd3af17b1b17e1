"""Peak memory of a part of a process."""

from pathlib import Path

import torch

from lauter.errors import RunError

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Begin to measure: forget the peak so far, of the accelerator's memory or else of the process's."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5")  # Linux: sets the high-water mark back to what is resident now


def read_peak() -> float:
    """Peak memory in MiB since :func:`reset_peak`: the accelerator's, or else resident memory.

    Raises:
        RunError: neither an accelerator nor Linux is there to tell.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if not STATUS.exists():
        raise RunError("peak memory can be measured on Linux or with an accelerator only")
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RunError(f"{STATUS} names no VmHWM, the peak of resident memory")

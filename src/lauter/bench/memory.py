"""Peak memory of a part of a process."""

from pathlib import Path

import torch

from lauter.errors import RunError

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Begin to measure: forget the peak so far, of a GPU's memory or, for other devices, of the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")  # Linux: sets the high-water mark back to what is resident now


def read_peak(device: torch.device) -> float:
    """Peak memory in MiB since :func:`reset_peak`: that of a GPU, or resident memory for other devices.

    Raises:
        RunError: neither a GPU nor Linux is there to tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not STATUS.exists():
        raise RunError("peak memory can be measured on Linux or on a GPU only")
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RunError(f"{STATUS} names no VmHWM, the peak of resident memory")


def read_tree_memory(pid: int) -> float:
    """Memory of a process and all its descendants in MiB; what several of them share counts once.

    Counted is what the processes wrote, alone or for each other. Pages of files, such as libraries, are not:
    how many are in memory, and who else uses them, is the system's affair.

    Raises:
        RunError: this is no Linux, which alone tells.
    """
    if not STATUS.exists():
        raise RunError("the memory of several processes can be measured on Linux only")
    total, waiting = 0, [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()
            for thread in (process / "task").iterdir():
                waiting += map(int, (thread / "children").read_text(encoding="ascii").split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        written = ("Pss_Anon:", "Pss_Shmem:")
        total += sum(int(line.split()[1]) for line in lines if line.startswith(written))
    return total / 1024

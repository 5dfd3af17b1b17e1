"""How much memory is there for this process: of the machine, and of the container it may run in."""

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can still be taken before the machine swaps or the container is stopped.

    Args:
        meminfo: where Linux tells of the machine's memory.
        cgroup: where it tells of the container's (both versions of control groups are understood).

    Returns:
        The smaller of the two; None where neither is told.
    """
    found = [_of_machine(meminfo)]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _read_number(cgroup / limit), _read_number(cgroup / used)
        if most is not None and now is not None:
            found.append(max(0, most - now))
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _of_machine(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read_number(path: Path) -> int | None:
    """A number in a file of the kernel; None where there is no such file, or 'max' for no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None

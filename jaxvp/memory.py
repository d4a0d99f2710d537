"""Memory that this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """Bytes that are free for this process; None where the system does not say.

    What the kernel could free for it, or what is left of its control group's limit (a container, a
    job of a cluster), whichever is less.
    """
    found = [room for room in (_system(), _control_group()) if room is not None]
    return min(found) if found else None


def _system() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return None
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _control_group() -> int | None:
    """Of version 2's limit, of the group that is mounted as this process's root."""
    try:
        limit = int(_CGROUP.joinpath("memory.max").read_text())
        return max(0, limit - int(_CGROUP.joinpath("memory.current").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return None

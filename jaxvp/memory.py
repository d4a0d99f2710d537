"""Memory that this process may still take, and memory that JAX takes over without a copy."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

ALIGNMENT = 64  # bytes, of JAX's arrays on a CPU
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


def aligned(*shape: int) -> Float[np.ndarray, "..."]:
    """An empty array that begins where an array of JAX does.

    On a CPU `jax.device_put` takes it as it is, where another would be copied.
    """
    size = math.prod(shape)
    room = np.empty(size + ALIGNMENT // 8)
    first = -room.ctypes.data % ALIGNMENT // 8
    return room[first : first + size].reshape(shape)


def filled(value: float, *shape: int) -> Float[np.ndarray, "..."]:
    """The same, with a number everywhere."""
    array = aligned(*shape)
    array[...] = value
    return array

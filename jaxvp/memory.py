"""Memory that this process may still take, and memory that JAX takes over without a copy."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

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


def aligned(*shape: int, dtype: Any = np.float64) -> Float[np.ndarray, "..."]:
    """An empty array that begins where an array of JAX does.

    On a CPU `jax.device_put` takes it as it is, where another would be copied.
    """
    size, dtype = math.prod(shape), np.dtype(dtype)
    room = np.empty(size + ALIGNMENT // dtype.itemsize, dtype)
    first = to_aligned(room, 0)
    return room[first : first + size].reshape(shape)


def filled(value: float, *shape: int) -> Float[np.ndarray, "..."]:
    """The same, with a number everywhere."""
    array = aligned(*shape)
    array[...] = value
    return array


def spare(dtype: np.dtype) -> int:
    """Numbers, at most, before the next place where an array of JAX may begin."""
    return ALIGNMENT // dtype.itemsize - 1


def to_aligned(memory: Float[np.ndarray, " all"], place: int) -> int:
    """The first place from there on where JAX takes an array as it is."""
    size = memory.itemsize
    return place + (-(memory.ctypes.data + size * place) % ALIGNMENT) // size


def in_one_piece(y: np.ndarray) -> bool:
    """Numbers as a program takes them, none of them apart from the others."""
    plain = y.dtype.kind == "f" and y.dtype.isnative and y.flags.aligned
    return plain and y.dtype.itemsize in (4, 8) and y.flags.forc


def around(y: Float[np.ndarray, "rows columns"]) -> tuple[Float[np.ndarray, " all"], int] | None:
    """All that lies in one piece with an array's numbers, and where in it that begins.

    None where the array itself is not `in_one_piece` and no other that it is a view of, or where
    its numbers lie between those of that.
    """
    whole = y if in_one_piece(y) else None
    base = y.base if y.flags.aligned else None
    while isinstance(base, np.ndarray) and base.dtype == y.dtype:
        if in_one_piece(base):
            whole = base
        base = base.base
    if whole is None:
        return None
    memory = np.asarray(whole).reshape(-1, order="A")  # of a matrix, too
    return memory, (y.ctypes.data - memory.ctypes.data) // y.itemsize


def by_genes(y: Shaped[np.ndarray, "n genes"]) -> bool:
    """Whether the genes of samples x genes are rows in memory, forwards or backwards."""
    return abs(y.strides[0]) < abs(y.strides[1])

"""What the program that is being traced shall run on.

A CPU and an accelerator want the same arithmetic in other pieces. A CPU has a cache to stay in and
a compiler that computes shared intermediate results again; an accelerator fuses well and waits for
every kernel that is launched. Few places ask (`accelerated`), and who traces says (`traced_for`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata

_accelerated: ContextVar[bool] = ContextVar("accelerated", default=False)


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Everything traced inside is for this platform, as `jax.Device.platform` names it."""
    before = _accelerated.set(platform != "cpu")
    try:
        yield
    finally:
        _accelerated.reset(before)


def accelerated() -> bool:
    """Is the program that is being traced for an accelerator?"""
    return _accelerated.get()


def fence(compute: Callable[..., Any], *arguments: Any) -> Any:
    """``compute(*arguments)``, written to memory once.

    Where several results depend on an intermediate one, XLA's CPU compiler computes that again
    inside each of them (measured: 6 to 80 times slower, and compile times that grow exponentially
    with the depth). A call that is not inlined is a boundary that fusion does not cross. On an
    accelerator nothing inside of such a call would be fused: there a barrier is the boundary.
    """
    if accelerated():
        return jax.lax.optimization_barrier(compute(*arguments))

    # Only the call is marked: what is called inside of it (`jnp.where` is) shall be inlined.
    def unmarked(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable=None):
            return compute(*arguments)

    # Fences nest: without jit, tracing would take twice as long for every level.
    traced_once = jax.jit(unmarked)
    with set_xla_metadata(inlineable="false"):
        return traced_once(*arguments)


def kernel(compute: Callable[..., Any], *arguments: Any) -> Any:
    """``compute(*arguments)``, on a CPU a loop of its own, where that is faster than with others.

    An accelerator, which fuses well, is told nothing.
    """
    return compute(*arguments) if accelerated() else fence(compute, *arguments)


def as_numbered(array: Any) -> Any:
    """In memory as its axes are numbered: XLA may choose another order, and turn it back later."""
    return with_layout_constraint(array, Layout(major_to_minor=tuple(range(array.ndim))))

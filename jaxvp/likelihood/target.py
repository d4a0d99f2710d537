"""What the program that is being traced shall run on.

A CPU and an accelerator want the same arithmetic in other pieces. A CPU has a cache to stay in and
a compiler that computes shared intermediate results again; an accelerator fuses well and waits for
every kernel that is launched. Few places ask (`accelerated`), and who traces says (`traced_for`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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

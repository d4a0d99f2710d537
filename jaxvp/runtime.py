"""Process-wide settings of JAX and of the linear algebra under NumPy, as functions to call.

A library leaves the settings of its caller's process alone: nothing here happens by itself.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxvp.warning import warn

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


def enable_compile_cache(directory: str | Path | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next process does not compile them again.

    Parameters
    ----------
    directory
        Where to keep them; None is ``$XDG_CACHE_HOME/jaxvp`` (``~/.cache/jaxvp``). Inside, a folder
        for this version of JAX and model of CPU: a program compiled for another CPU may not run on
        this one.

    Returns
    -------
    pathlib.Path or None
        The folder in use; None, with a warning, if it cannot be written.
    """
    base = (
        Path(directory)
        if directory is not None
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxvp"
    )
    folder = base.expanduser() / f"jax-{jax.__version__}-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        warn(f"no compile cache: {folder} cannot be written ({error.strerror})")
        return None
    if jax.config.values.get("jax_compilation_cache_dir") != str(folder):
        from jax.experimental.compilation_cache.compilation_cache import reset_cache

        reset_cache()  # JAX stays with the folder that it wrote to first
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = "".join(
            sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        )
    except OSError:
        model = platform.processor() or platform.machine()
    return hashlib.sha256(model.encode()).hexdigest()[:12]


def set_blas_threads(count: int) -> None:
    """From now on, in a process of one's own."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(count, user_api="blas")


class _Limit:
    """How many threads linear algebra may use, while any of several threads of Python wants less.

    The number is the process's: of contexts that overlap the last one to begin decides, and what
    was before comes back with the end of all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._before: Any = None

    @contextmanager
    def __call__(self, count: int) -> Iterator[None]:
        with self._lock:
            limit = _libraries().limit(limits=count, user_api="blas")
            if not self._wanted:
                self._before = limit
            self._wanted.append(count)
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(count)
                if self._wanted:
                    _libraries().limit(limits=self._wanted[-1], user_api="blas")
                else:
                    self._before.restore_original_limits()


using_blas_threads = _Limit()


@functools.cache
def _libraries() -> ThreadpoolController:
    """Those that have threads; looking for them takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

"""JAX's settings: changed by what asks for it, and by nothing else."""

import jax
import numpy as np
import pytest
import threadpoolctl

import jaxvp
from jaxvp import runtime


def test_compile_cache_keeps_programs(compile_cache, tmp_path):
    """A program is written into a folder of this version of JAX and this model of CPU.

    Also where another folder was in use before.
    """
    for name in ("first", "second"):
        folder = jaxvp.enable_compile_cache(tmp_path / name)
        assert folder is not None and folder.parent == tmp_path / name
        assert folder.name.startswith(f"jax-{jax.__version__}-")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.jit(lambda x: np.float32(np.pi) * x)(1.0)
        assert any(folder.iterdir())


def test_compile_cache_is_in_the_users_cache_folder(compile_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = jaxvp.enable_compile_cache()
    assert folder is not None and folder.parent == tmp_path / "jaxvp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jaxvp.enable_compile_cache() == tmp_path / ".cache" / "jaxvp" / folder.name


def test_no_compile_cache_where_nothing_can_be_written(compile_cache, tmp_path):
    """A fit does not fail for it; the warning points here."""
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    tmp_path.joinpath("file").touch()
    with pytest.warns(UserWarning, match="no compile cache: .*file.* cannot be written") as caught:
        assert jaxvp.enable_compile_cache(tmp_path / "file") is None
    assert [warning.filename for warning in caught] == [__file__]
    assert before == jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]


def test_limits_of_blas_that_overlap_are_undone():
    """Two fits in two threads: who came first leaves first."""

    def threads():
        found = threadpoolctl.threadpool_info()
        return {library["num_threads"] for library in found if library["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        one, other = runtime.using_blas_threads(1), runtime.using_blas_threads(1)
        one.__enter__()
        other.__enter__()
        assert threads() == {1}
        one.__exit__(None, None, None)
        assert threads() == {1}
        other.__exit__(None, None, None)
        assert threads() == {2}

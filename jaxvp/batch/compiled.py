"""The programs that are compiled, and the compiler's options."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxvp.batch.devices import GENES
from jaxvp.solver import solve, solve_slopes
from jaxvp.statistics import SlopeShared, chunk_products, products_of_tiles, shared_products

Found = TypeVar("Found")

_NEWER = "xla_cpu_use_fusion_emitters"
# XLA prefers vectors of 256 bits, also where a processor has 512. Its newer emitters of kernels
# make small systems 1.4 to 1.8 times as fast. Those that it does not know are taken out.
_OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512, _NEWER: True}


def _solve_spread(
    mesh: Mesh, solver: str, fixed: tuple[int, bool, str], shared: Any, gene: Any, wanted: Any,
    limit: Any, table: Any,
) -> Any:  # fmt: skip
    """A block of genes on every device of a mesh: those of genes have an axis of blocks in front.

    Genes that are sharded automatically would make the devices agree, in every iteration, whether
    any of them has one left.
    """

    def solve_one(shared, block, limit, table):
        gene, wanted = jax.tree.map(lambda a: a[0], block)
        if isinstance(shared, SlopeShared):
            found = solve_slopes(*fixed, shared, gene, wanted, limit, table)
        else:
            found = solve(solver, *fixed, shared, gene, wanted, limit, table)
        return jax.tree.map(lambda a: a[None], found)

    every, each = PartitionSpec(), PartitionSpec(GENES)
    specs = {"in_specs": (every, each, every, every), "out_specs": each}
    spread = jax.shard_map(solve_one, mesh=mesh, check_vma=False, **specs)
    return spread(shared, (gene, wanted), limit, table)


def _put_together(capacity: int, turned: bool, pieces: list[Any]) -> Any:
    """Measurements that came in pieces, with zeros for the genes that a block lacks."""
    y = jnp.concatenate(pieces)
    spare = ((0, 0), (0, capacity - y.shape[0 if turned else 1]))
    return jnp.pad(y, spare[::-1] if turned else spare)


def _put(gene: Any, columns: Any, places: Any) -> Any:
    """Statistics with those of some genes put in their places."""
    return jax.tree.map(lambda all, some: all.at[..., places].set(some), gene, columns)


def _programs(fast: dict[str, Any]) -> dict[str, Any]:
    """What is compiled, by its name, for these options of XLA."""
    # Random slopes and large systems are as fast by the older emitters, or faster, and compiled in
    # two thirds of the time.
    sooner = {name: value if name != _NEWER else False for name, value in fast.items()}

    def program(run: Callable[..., Any], options: dict[str, Any] | None, *static: int) -> Any:
        return jax.jit(run, static_argnums=static, compiler_options=options)

    return {
        "intercepts": program(solve, fast, 0, 1, 2, 3),
        "large": program(solve, sooner, 0, 1, 2, 3),
        "slopes": program(solve_slopes, sooner, 0, 1, 2),
        "products": program(chunk_products, fast, 0, 1),
        "shared products": program(shared_products, fast, 0, 1),
        "products of tiles": program(products_of_tiles, fast, 0),
        "put together": program(_put_together, None, 0, 1),
        "put": program(_put, None),
        "spread intercepts": program(_solve_spread, fast, 0, 1, 2),
        "spread large": program(_solve_spread, sooner, 0, 1, 2),
        "spread slopes": program(_solve_spread, sooner, 0, 1, 2),
    }


PROGRAMS = _programs(_OPTIONS)
_compiled: set[Any] = set()
_compiling = threading.Lock()
# Programs that are kept, for a process that fits one design after the other. One holds some 600
# mappings of memory, of which Linux allows a process 65,530: where there are no more the compiler
# dies of a segmentation fault.
_KEPT = 64


def run_compiled(key: Hashable, run: Callable[[], Found]) -> Found:
    """``run``, which calls one of the programs; two threads do not compile the same one.

    (But after `_forget`.) A key is of one program and one set of shapes.
    """
    if key not in _compiled:
        with _compiling:
            if key not in _compiled:
                if len(_compiled) >= _KEPT:
                    _forget()
                found = _first(run)
                _compiled.add(key)
                return found
    return run()


def _first(run: Callable[[], Found]) -> Found:
    """``run``, which compiles: without options that XLA says it does not know."""
    while True:
        try:
            return run()
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in _OPTIONS if name in str(error)]
            if "No such compile option" not in str(error) or not unknown:
                raise
        for name in unknown:
            del _OPTIONS[name]
        _compiled.clear()  # all are compiled anew
        PROGRAMS.update(_programs(_OPTIONS))


def _forget() -> None:
    """Drop all programs, of other threads too: those that run end, the next call compiles."""
    _compiled.clear()
    for program in PROGRAMS.values():
        program.clear_cache()

"""Routines of LAPACK that NumPy has no function for, float64, host code.

Those of SciPy hold the interpreter's lock: threads that share nodes out would wait for each other.
These are called at the addresses that SciPy gives to Cython (`scipy.linalg.cython_lapack`), by
ctypes, which lets go of it.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_BLOCK = 64  # columns that LAPACK takes together, at most


# Of functions of one's own: attributes of `ctypes.pythonapi`'s are the whole process's.
_name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _routine(name: str) -> Callable[..., None]:
    """Takes letters, integers and arrays of float64; raises where LAPACK reports a failure."""
    capsule = importlib.import_module("scipy.linalg.cython_lapack").__pyx_capi__[name]
    signature = _name_of(capsule)  # "void (char *, int *, ...)"
    integer = ctypes.c_int if re.search(rb"[ (]int \*", signature) else ctypes.c_int64
    types = [ctypes.c_void_p] * (signature.count(b",") + 1)
    routine = ctypes.CFUNCTYPE(None, *types)(_address_of(capsule, signature))

    def pointer(argument: bytes | int | np.ndarray) -> object:
        if isinstance(argument, np.ndarray):
            return argument.ctypes.data
        return argument if isinstance(argument, bytes) else ctypes.byref(integer(argument))

    def call(*arguments: bytes | int | np.ndarray) -> None:
        failed = integer()
        routine(*map(pointer, arguments), ctypes.byref(failed))
        if failed.value:
            raise np.linalg.LinAlgError(f"LAPACK's {name} failed ({failed.value})")

    return call


def _own(matrix: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    """A copy that LAPACK may write to."""
    return np.array(matrix, dtype=np.float64, order="C")


_dsytrd, _dormtr, _dpotrf, _dpotri = map(_routine, ("dsytrd", "dormtr", "dpotrf", "dpotri"))


def tridiagonal(
    matrix: Float[np.ndarray, "n n"], rows: Float[np.ndarray, "rest n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n-1"], Float[np.ndarray, "rest n"]]:
    """``Q' matrix Q = T`` of a symmetric matrix: T's diagonal, what is below it, and ``rows Q``."""
    n, rest = len(matrix), len(rows)
    reduced, turned = _own(matrix), _own(rows)
    diagonal, below, scales = np.empty(n), np.empty(n - 1), np.empty(max(n - 1, 1))
    work = np.empty(_BLOCK * max(n, rest, 1))
    # LAPACK's matrices have their columns side by side: it sees the transposed ones.
    _dsytrd(b"L", n, reduced, n, diagonal, below, scales, work, len(work))
    if rest:
        _dormtr(b"L", b"L", b"T", n, rest, reduced, n, scales, turned, n, work, len(work))
    return diagonal, below, turned


def inverse(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Of a symmetric positive definite matrix: half the time of `numpy.linalg.inv`."""
    n = len(matrix)
    found = _own(matrix)
    _dpotrf(b"L", n, found, n)
    _dpotri(b"L", n, found, n)
    upper = np.triu(found)
    return upper + np.triu(upper, 1).T

"""Packages that only some containers need, and how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from .names import DataError


def require(package: str, extra: str, what: str) -> Any:
    """Import a package, or say which extra of jaxvp brings it.

    Parameters
    ----------
    package
        Its name for ``import``.
    extra
        The extra of jaxvp, or several with commas.
    what
        What it is needed for, such as the name of a file.

    Raises
    ------
    DataError
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package.split(".")[0]:
            raise
        raise DataError(
            f'{what}: this needs the package {package.split(".")[0]}: pip install "jaxvp[{extra}]"'
        ) from error

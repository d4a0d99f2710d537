"""Warnings that point at the line of the caller's own code, however deep they are found.

Python counts frames (``stacklevel``), and a count is wrong as soon as a function is called from
one place more, or checked by a decorator. Here the frames of this package are left out by name.
(``skip_file_prefixes`` does the same from Python 3.12 on.)
"""

import sys
import warnings

# And those whose decorators stand between our functions where annotations are checked.
INSIDE = ("jaxvp", "jaxtyping", "beartype")


def warn(message: str) -> None:
    """Issue a `UserWarning` about what the first frame outside of this package asked for.

    Parameters
    ----------
    message
        What was found, and what can be done about it.
    """
    level, frame = 1, sys._getframe()
    while frame is not None and _is_inside(frame.f_globals.get("__name__") or ""):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.split(".")[0] in INSIDE

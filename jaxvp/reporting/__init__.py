"""A result as one HTML file that a person can read, send on and print; public as `jaxvp.report`.

The file needs nothing else: figures are SVG inside it, the table of genes is compact JSON with a
little plain JavaScript, and its content policy forbids every request. The parts of the page are
computed by one module each and put together by the template (`page`):

- `design`: what was fitted to what, and what deserves attention; correlations of the variables,
- `outcomes`: how many genes have which status or are singular, and what that means,
- `figures`: the figures of `jaxvp.pl`, each with a description for those who do not see it,
- `genes`: the table of all genes, as compact as it gets,
- `methods`: the call, the versions, what to cite.

The same result gives the same bytes: neither time nor machine stands in a report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from jaxvp.results import Results
from jaxvp.results.files import atomic

from . import design, figures, genes, methods, outcomes, page

__all__ = ["report"]


def report(
    result: Results,
    path: str | os.PathLike[str],
    *,
    metadata: pd.DataFrame | str | os.PathLike[str] | None = None,
    call: str | None = None,
) -> Path:
    """Write a result as one HTML file: figures, a searchable table of all genes, how it was made.

    Parameters
    ----------
    result
        What `jaxvp.fit` or `jaxvp.load` returned.
    path
        The file, such as ``report.html``. It is replaced when the new one is whole.
    metadata
        The table that was passed to `jaxvp.fit`, or its path. With it the design check counts the
        samples that were dropped, too; without, the check is made from ``result.design``.
    call
        The command that made the result, shown in place of the call of `jaxvp.fit`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        If it is no result.
    FileNotFoundError, IsADirectoryError, PermissionError
        If there is no such folder, it is a folder itself, or it must not be written to; before any
        work.
    DataError
        If the metadata is no table of samples, or lacks samples of the result.

    Notes
    -----
    What cannot be shown (no gene was fitted, the result has no design) is said in its place.
    Shares in the table of genes are rounded to a hundredth of a percent; `Results` has all digits.

    Examples
    --------
    >>> result = jaxvp.fit(expression, "~ Age + (1|Subject) + (1|Tissue)", metadata)
    >>> jaxvp.report(result, "report.html")
    >>> jaxvp.report(jaxvp.load("result.vp"), "report.html", metadata="samples.csv")
    """
    if not isinstance(result, Results):
        raise TypeError(
            f"a report is written of a jaxvp.Results, which jaxvp.fit returns, not "
            f"{type(result).__name__}"
        )
    target = check_target(path)
    content: dict[str, Any] = {
        "result": result,
        "overview": outcomes.overview(result),
        "components": outcomes.components(result),
        "outcomes": outcomes.outcomes(result),
        "design": design.describe(result, metadata),
        "methods": methods.describe(result, call),
        "genes": genes.table(result),
    }
    content["figures"] = figures.draw(result, content["design"].correlations)
    text = page.render(content)
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def check_target(path: str | os.PathLike[str]) -> Path:
    """Refuse a file that cannot be written, before any work is done for it."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: name a file in it, such as report.html")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} in")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"no permission to write {target.name} in {target.parent}")
    return target

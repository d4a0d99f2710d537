r"""From the parts of a report to its HTML.

Every name (of genes, levels, variables) is foreign text. The template escapes whatever it prints;
data for the script goes through Jinja2's ``tojson``, which writes ``<``, ``>``, ``&`` and ``'`` as
``\u003c`` and so on, so that no name ends the element that it stands in. Style and script are
files of their own, put in as they are.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "report.html.j2"


def render(content: dict[str, Any]) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("jaxvp.reporting")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def source(name: str) -> Markup:
        """A file of ours, which is no template."""
        return Markup(loader.get_source(environment, name)[0])

    # As short as JSON can be; NaN is not JSON.
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "allow_nan": False,
        "ensure_ascii": False,
    }
    environment.filters |= {"number": number, "percent": percent, "sentence": sentence}
    environment.globals |= {"source": source, "writer": version("jaxvp")}
    return environment.get_template(TEMPLATE).render(content)


def number(value: int) -> str:
    """With separators, ``20,000``."""
    return f"{value:,}"


def percent(share: float, digits: int = 1) -> str:
    """``12.3 %``; exact zero is ``0``, and neither 0 nor 100 % is rounded to."""
    if share != share:
        return "–"
    least = 10.0**-digits
    if 0 < 100 * share < least:
        return f"< {least:g} %"
    if 100 - least < 100 * share < 100:
        return f"> {100 - least:g} %"
    return "0" if share == 0 else f"{share:.{digits}%}".replace("%", " %")


def sentence(text: str) -> Markup:
    """A message of ours as a sentence of the page: names in backticks become code."""
    from markupsafe import Markup, escape

    end = "" if not text or text.rstrip().endswith((".", "?", "!")) else "."
    pieces = re.split(r"`([^`]+)`", text[:1].upper() + text[1:] + end)
    shown = [
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece)
        for place, piece in enumerate(pieces)
    ]
    return Markup("").join(shown)

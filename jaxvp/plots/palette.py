"""One colour a component, the same in every figure of a result.

The first seven are those of Okabe and Ito (2008), "Color Universal Design", which people with any
kind of colour vision tell apart. The next eight were added one by one, each the colour furthest
from all before it, from white and from the grey of the residuals: furthest in OKLab (Ottosson
2020), by the least of the four distances that normal vision and full protanopia, deuteranopia and
tritanopia (matrices of Machado, Oliveira and Fernandes 2009) leave. No pair of the fifteen is
closer than the closest of Okabe and Ito's. Further components take the same colours, paler each
time round.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxvp.fractions import RESIDUALS

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
FURTHER = (
    *("#690F00", "#1E2D78", "#A52D2D", "#A569FF"),
    *("#3C00E1", "#A5C396", "#874B78", "#692DA5"),
)
COLOURS = OKABE_ITO + FURTHER
RESIDUAL_GREY = "#D9D9D9"
# How much of a colour is left, and the rest white, from one round to the next.
_KEPT = 0.55


def palette(components: Iterable[str]) -> dict[str, str]:
    """A colour for every component.

    Parameters
    ----------
    components
        Their names, in any order: colours go by the names in alphabetical order, so that a result
        and its `sort_columns` have the same.

    Returns
    -------
    dict
        Name to ``"#RRGGBB"``, in the order given; ``Residuals`` is light grey.
    """
    components = list(components)
    named = sorted(set(components) - {RESIDUALS})
    colours = {name: _colour(i) for i, name in enumerate(named)} | {RESIDUALS: RESIDUAL_GREY}
    return {name: colours[name] for name in components}


def level_colours(count: int) -> list[str]:
    """Colours for the levels of a variable, which are no components."""
    return [_colour(i) for i in range(count)]


def paler(colour: str) -> str:
    """The same with three quarters of white, for an area behind points."""
    return _hex(255 - 0.25 * (255 - channel) for channel in bytes.fromhex(colour[1:]))


def darker(colour: str) -> str:
    """The same with a third less light, for an edge."""
    return _hex(0.67 * channel for channel in bytes.fromhex(colour[1:]))


def _colour(i: int) -> str:
    """The i-th colour, paler in every round through the list."""
    turn, place = divmod(i, len(COLOURS))
    kept = _KEPT**turn
    return _hex(255 - kept * (255 - channel) for channel in bytes.fromhex(COLOURS[place][1:]))


def _hex(channels: Iterable[float]) -> str:
    return "#" + "".join(f"{round(channel):02X}" for channel in channels)

"""What the samples of a fit were coded with, as names and text: it is saved with the design."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .transforms import States
from .variables import Factor, Names


@dataclass(frozen=True)
class Coding:
    """The levels of categorical fixed effects, and the state of every transform."""

    levels: tuple[tuple[str, tuple[str, ...]], ...]
    """by the factor's name in the formula, ``Tissue`` or ``C(Tissue)``; the first is the
    reference"""
    states: tuple[tuple[str, str], ...]
    """by the text of the call, ``poly(Age, 2)``: JSON"""

    @classmethod
    def of(cls, factors: Mapping[str, Factor], states: States) -> Coding:
        """Of what `fixed` found."""
        levels = tuple((name, Names(levels)) for name, (_, levels) in factors.items())
        texts = {call: json.dumps(state, default=_plain) for call, state in states.items()}
        return cls(levels, tuple(texts.items()))

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Coding:
        """Of `dataclasses.asdict`, after JSON has made lists of its tuples."""
        levels = tuple((name, Names(levels)) for name, levels in saved["levels"])
        return cls(levels, tuple((call, text) for call, text in saved["states"]))

    def transforms(self) -> States:
        """The states, as the transforms take them."""
        return {call: _numbered(json.loads(text)) for call, text in self.states}


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved")


def _numbered(state: Any) -> Any:
    """Keys that were numbers are numbers again: JSON has text only."""
    if not isinstance(state, dict):
        return state
    return {int(k) if k.isdigit() else k: _numbered(value) for k, value in state.items()}

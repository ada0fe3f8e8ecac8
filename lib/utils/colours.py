"""The colours of people, the same in every picture and file."""

from __future__ import annotations

import colorsys

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""
_HUES = ("red", "orange", "yellow", "lime", "green", "mint", "cyan", "blue", "indigo", "violet", "magenta",
         "pink")  # fmt: skip


def person_colour(person: int) -> Colour:
    """RGB in [0, 1] for the ``person``-th person (from 0): soft, and far apart for neighbouring numbers."""
    return colorsys.hsv_to_rgb(_hue(person), 0.5, 1.0)


def colour_name(person: int) -> str:
    """What people call that colour."""
    return _HUES[round(_hue(person) * len(_HUES)) % len(_HUES)]


def _hue(person: int) -> float:
    golden_section = 0.381966
    return (0.57 + golden_section * person) % 1.0

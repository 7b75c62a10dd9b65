"""How one of several is told from the others: colour, symbol and dashes, the same in every table and drawing of a page.

Each colour keeps a contrast of 3:1 on the light and on the dark page. Nobody tells twelve colours apart, and some readers fewer: symbols and dashes
repeat the difference, and names stand beside the numbers. Orange and grey are left to the retrained and the original model.
"""

from __future__ import annotations

from typing import NamedTuple

COLOURS = (
    "#2a80e2", "#d33a3c", "#299236", "#8851d1", "#03999f", "#d84497", "#8b8c14", "#a45032", "#5057dc", "#248160", "#c165c7", "#9a6f12",
)  # fmt: skip
SYMBOLS = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",  # circle
    "M-4 -4h8v8h-8z",  # square
    "M0 -5.5L5.5 0L0 5.5L-5.5 0z",  # diamond
    "M0 -5L5 4H-5z",  # triangle up
    "M0 5L5 -4H-5z",  # triangle down
    "M-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",  # plus
    "M-2.6 -4.9L0 -2.3L2.6 -4.9L4.9 -2.6L2.3 0L4.9 2.6L2.6 4.9L0 2.3L-2.6 4.9L-4.9 2.6L-2.3 0L-4.9 -2.6z",  # cross
    "M0 -6L1.6 -1.9H6L2.5 0.8L3.8 5.2L0 2.6L-3.8 5.2L-2.5 0.8L-6 -1.9H-1.6z",  # star
    "M-5 0L4 -5V5z",  # triangle left
    "M5 0L-4 -5V5z",  # triangle right
    "M-4.5 -5h9L0 0L4.5 5h-9L0 0z",  # hourglass
    "M-5 -4.5L0 0L5 -4.5v9L0 0L-5 4.5z",  # bow tie
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 3")


class Look(NamedTuple):
    """Of one among several."""

    colour: str
    symbol: str
    """An SVG path around 0, 0."""
    dash: str


def look(position: int) -> Look:
    """By the position in a list; beyond twelve, colours return with other symbols."""
    return Look(COLOURS[position % 12], SYMBOLS[(position + position // 12) % 12], DASHES[position % 5])

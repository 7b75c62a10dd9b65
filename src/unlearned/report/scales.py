"""From numbers to places in a drawing, in percent of its width or height, with the marks of its axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from unlearned.report import words


class Tick(NamedTuple):
    """A mark of an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Linear; or by ratios, and then zero, which has no logarithm, stands at `zero`; or in equal steps from one of the `stops` to the next."""

    low: float
    high: float
    by_ratio: bool = False
    zero: float = 0.0
    stops: tuple[float, ...] = ()
    ticks: tuple[Tick, ...] = ()

    def place(self, value: float) -> float:
        """Percent of the way from one end to the other."""
        return round(100 * (self._along(value) - self.low) / (self.high - self.low), 3)

    def _along(self, value: float) -> float:
        if self.by_ratio:
            return math.log10(value) if value > 0 else self.zero
        return self.stops.index(value) if self.stops else value


def of_values(values: Iterable[float], unit: str, *, signed: bool = False, count: int = 5) -> Scale:
    """A scale that holds all values with a margin.

    By ratios where the largest is more than ten times the smallest. Shares are compared by differences.

    Args:
        values: at least one.
        unit: of a finding.
        signed: they are differences, shown with their sign.
        count: about how many marks.
    """
    ends = sorted(values)
    low, high = ends[0], ends[-1]
    by_ratio = unit != "share" and not signed and low > 0 and high / low > 10
    if by_ratio:
        low, high = math.log10(low), math.log10(high)
    margin = 0.05 * (high - low) or (0.05 if unit == "share" else 0.1 * abs(high) or 1.0)
    bare = Scale(low - margin, high + margin, by_ratio)
    inside = [v for v in (_powers(bare, count) if by_ratio else _steps(bare, _size(unit), count)) if signed or unit != "share" or 0 <= v <= 1]
    return replace(bare, ticks=tuple(map(Tick, map(bare.place, inside), _texts(inside, unit, signed))))


def of_budgets(budgets: Iterable[float], unit: str) -> Scale:
    """A scale for what attackers spend, on which every point of a curve can be told from the next.

    By ratios where the amounts double again and again; in equal steps where they crowd, such as 24, 28, 29 and 30 of 32 bits.
    """
    spent = sorted(set(budgets))
    positive = [budget for budget in spent if budget > 0]
    doubles = len(positive) > 2 and spent[0] >= 0 and not unit.startswith(("share", "%")) and positive[-1] / positive[0] > 6
    if len(spent) == 1:
        bare = Scale(spent[0] - 1, spent[0] + 1)
    elif doubles:
        low, high = math.log10(positive[0]), math.log10(positive[-1])
        zero = low - (high - low) / (len(positive) - 1)
        bare = Scale(zero if spent[0] == 0 else low, high, True, zero)
    elif min(b - a for a, b in itertools.pairwise(spent)) < (spent[-1] - spent[0]) / 15:
        bare = Scale(0, len(spent) - 1, stops=tuple(spent))
    else:
        bare = Scale(spent[0], spent[-1])
    ticks: list[Tick] = []
    for budget in spent:
        tick = Tick(bare.place(budget), words.amount(budget, unit, short=True))
        if not ticks or tick.place - ticks[-1].place >= 9:
            ticks.append(tick)
    return replace(bare, ticks=tuple(ticks))


def _size(unit: str) -> float:
    """What counts as one on the axis: a percent, a MiB."""
    return {"share": 0.01, "bytes": float(words.MIB)}.get(unit, 1.0)


def _steps(scale: Scale, size: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, as many as `count` or fewer, but at least two."""
    low, high = scale.low / size, scale.high / size
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    steps = [factor * power for factor in (10, 5, 2, 1, 0.5, 0.2)]
    ranges = [range(math.ceil(low / step), math.floor(high / step) + 1) for step in steps]
    fewest = max((i for i, found in enumerate(ranges) if len(found) <= count), default=0)
    chosen = next(i for i in range(fewest, len(steps)) if len(ranges[i]) > 1)
    return [i * steps[chosen] * size for i in ranges[chosen]]


def _powers(scale: Scale, count: int) -> list[float]:
    """Powers of ten, or every second, third, ... of them; where there are few, also their threefold."""
    low, high = math.floor(scale.low), math.ceil(scale.high)
    factors = (1.0,) if scale.high - scale.low > 2 else (1.0, 3.0)
    wanted = [factor * 10.0**power for power in range(low, high + 1, math.ceil((scale.high - scale.low) / count)) for factor in factors]
    return [value for value in wanted if scale.low <= math.log10(value) <= scale.high]


def _texts(values: Sequence[float], unit: str, signed: bool) -> list[str]:
    """With as many digits as it takes to tell them apart."""
    numbers = [value / _size(unit) for value in values]
    texts = [[f"{number:.{digits}g}" if abs(number) < 1000 else words.significant(number) for number in numbers] for digits in range(3, 9)]
    chosen = next((some for some in texts if len(set(some)) == len(some)), texts[-1])
    suffix = "" if unit != "share" else " pp" if signed else " %"
    return [f"{'+' if signed and number > 0 else ''}{text}{suffix}" for number, text in zip(numbers, chosen, strict=True)]

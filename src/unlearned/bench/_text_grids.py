"""The methods that language-model suites compare, with the settings that each may try: equally many for all of them.

Learning rates were placed so that the best one for a group that no suite reports lay inside. All descend for ten passes over the forget set; on SmolLM2,
where a pass takes minutes, for five.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unlearned.bench._grids import Contender, Setting, product
from unlearned.bench._text_scene import ModelName
from unlearned.tasks._task import DataSource

_TUNED: Setting = {"shift": "last", "keep": ("answer",), "keep_refusals": True, "ridge": 1e-6}
_SMALL_LRS = (3e-4, 1e-3, 3e-3)
_LARGE_LRS = (1e-5, 3e-5, 1e-4)


def _both(lrs: Sequence[float]) -> tuple[Setting, ...]:
    return product(lr=lrs, alpha=(1.0, 5.0))


def _contenders(lrs: Sequence[float], blocks: int, passes: int) -> Mapping[str, Contender]:
    def descends(**settings: Any) -> Setting:
        return {"epochs": passes, "batch_size": 10, **settings}

    apart = max(1, blocks // 6)
    sweep: Setting = {"candidates": tuple(range(0, blocks, apart))} if apart > 1 else {}
    middle = {"candidates": tuple(range(blocks // 3, blocks, apart))}
    lowest = lrs[0] / 30
    six = tuple(round(lowest * 3**i, 10) for i in range(6))
    return {
        contender.name: contender
        for contender in (
            # The paper's recipe has one thing to choose, its layer, which it chooses itself; how far to go stands in the equation as 1 and in the code as 2.
            Contender("lunar", "lunar", sweep, product(coefficient=(1.0, 2.0, 4.0), retain_sampling=("all", "equal"))),
            # LUNAR's own formula with what we found to be better settings: the answer's first position alone is shifted, answers and refusals are kept.
            Contender("lunar-tuned", "lunar", {**sweep, **_TUNED}, product(coefficient=(2.0, 4.0, 8.0), retain_weight=(0.1, 1.0))),
            Contender("margin-redirect", "margin-redirect", middle, product(ridge=(3.0, 10.0, 30.0), coefficient=(2.0, 3.0))),
            # The same with a stronger ridge: it is to spare what nobody asked to keep, which the score of the choice does not see.
            Contender("margin-redirect-gentle", "margin-redirect", middle, product(ridge=(100.0, 200.0, 400.0), coefficient=(2.0, 3.0))),
            Contender("gradient-ascent", "gradient-ascent", descends(optimizer="adamw", weight_decay=0.0), product(lr=six)),
            Contender("grad-diff", "grad-diff", descends(), _both(lrs)),
            Contender("dpo", "dpo", descends(), _both(lrs)),
            Contender("npo", "npo", descends(), _both(lrs)),
            Contender("idk", "idk", descends(), _both(lrs)),
            Contender("simnpo", "simnpo", descends(), _both(lrs)),
            Contender("undial", "undial", descends(alpha=1.0), product(lr=lrs, beta=(3.0, 10.0))),
            Contender("wga", "wga", descends(), _both(lrs)),
            Contender("rmu", "rmu", descends(layer=blocks // 2), product(lr=lrs, coefficient=(10.0, 100.0))),
        )
    }


CONTENDERS: Mapping[ModelName, Mapping[str, Contender]] = {"llama-small": _contenders(_SMALL_LRS, 3, 10), "smollm2-135m": _contenders(_LARGE_LRS, 30, 5)}
"""By model and name in tables."""


def first(contender: Contender, count: int) -> Contender:
    """The same with so many of its settings, spread over the grid; with one, that in the middle."""
    grid = contender.grid
    if count == 1:
        return replace(contender, grid=(grid[len(grid) // 2],))
    chosen = [round(i * (len(grid) - 1) / (count - 1)) for i in range(count)] if count < len(grid) else range(len(grid))
    return replace(contender, grid=tuple(grid[i] for i in chosen))


def on_facts(contender: Contender) -> Contender:
    """For a model that declines nothing by itself: LUNAR is given prompts that ask for refusals."""
    if contender.method not in {"lunar", "margin-redirect"}:
        return contender
    return replace(contender, shared={**contender.shared, "references": DataSource(source="unlearned.bench.facts:declined_prompts")})

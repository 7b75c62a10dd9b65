"""The methods that image suites compare, each with six settings to choose from: what is tried is the same for all of them in number.

Sizes are those of the suites: batches of 128, at most three passes over the retain set (a training has twelve), or ten over the forget set.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.records import BenchRow
from unlearned.tasks._task import ModelSource

Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """A method as it takes part."""

    name: str
    """In tables."""
    method: str
    """In the registry."""
    shared: Setting
    """Settings that are the same in every attempt."""
    grid: tuple[Setting, ...]
    """What is tried."""
    whole_classes: bool = False
    """It forgets whole classes only."""
    told: bool = False
    """It is given a retrained model: an upper bound, not a method."""

    @property
    def undecided(self) -> bool:
        """Whether there is something to choose: with one setting nothing is tried."""
        return len(self.grid) > 1

    def made(self, setting: Setting, retrained: ModelSource | None = None) -> Method:
        """The method with this setting."""
        given = {**self.shared, **setting, **({"retrained": retrained} if self.told else {})}
        return methods.get(self.method)(**given)


def product(**axes: Sequence[Any]) -> tuple[Setting, ...]:
    """All combinations, the last axis fastest."""
    return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def words(setting: Setting) -> str:
    """A setting in one line."""
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def tried_rows(contender: Contender, setting: str, metric: str, values: Sequence[float | None]) -> list[BenchRow]:
    """What each setting of the grid reached on what settings are chosen on; None where it diverged."""
    return [
        BenchRow(
            method=f"{contender.name} ({words(tried)})",
            setting=setting,
            seed=0,
            split="all",
            metric=metric,
            value=value,
            reason="diverged" if value is None else None,
        )
        for tried, value in zip(contender.grid, values, strict=True)
    ]


def _short(**settings: Any) -> Setting:
    return {"batch_size": 128, **settings}


def _trw(name: str, similarity: str, *, told: bool = False) -> Contender:
    # How sharp the paper means a similarity to be is not known to us: where it is a softmax, its temperature is chosen beside its β; a mean answer has β alone.
    axis: dict[str, Sequence[Any]] = {"temperature": (0.1, 0.5, 1.0)} if similarity in {"logit-weights", "features"} else {"beta": (10.0, 3.0, 1.0)}
    return Contender(name, "trw", _short(epochs=2, similarity=similarity), product(**axis, lr=(0.01, 0.03)), whole_classes=True, told=told)


_RETAIN_LRS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4)
_FORGET_LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)

CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender("fine-tune", "fine-tune", _short(epochs=3), product(lr=_RETAIN_LRS)),
        Contender("gradient-ascent", "gradient-ascent", _short(epochs=5), product(lr=_FORGET_LRS)),
        Contender("neg-grad-plus", "neg-grad-plus", _short(epochs=2), product(alpha=(0.95, 0.8), lr=(0.003, 0.01, 0.03))),
        Contender(
            "scrub",
            "scrub",
            _short(optimizer="adam", epochs=3, max_epochs=2, gamma=1.0, alpha=0.5, temperature=2.0),
            product(lr=(1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3)),
        ),
        Contender("npo", "npo", _short(epochs=2), product(beta=(0.1, 1.0), lr=(0.003, 0.01, 0.03))),
        Contender("ridge", "ridge", _short(epochs=3, paced_by="retain"), product(penalty=(0.01, 0.1), lr=(1e-3, 3e-3, 1e-2))),
        Contender("noisy-gd", "noisy-gd", _short(epochs=3, paced_by="retain"), product(sigma=(0.003, 0.03), lr=(1e-3, 3e-3, 1e-2))),
        Contender("l1-sparse", "l1-sparse", _short(epochs=3), product(alpha=(2e-4, 1e-3), lr=(0.01, 0.03, 0.1))),
        Contender("random-label", "random-label", _short(epochs=3), product(labels=("any", "other"), lr=(0.01, 0.03, 0.1))),
        Contender("salun", "salun", _short(epochs=3), product(labels=("any", "other"), lr=(0.01, 0.03, 0.1))),
        Contender("bad-teacher", "bad-teacher", _short(epochs=2), product(retain_share=(0.3, 1.0), lr=(3e-4, 1e-3, 3e-3))),
        Contender("boundary-shrink", "boundary-shrink", _short(epochs=10, pixel_range=(0.0, 1.0)), product(lr=_FORGET_LRS)),
        Contender("svd", "svd", {}, product(alpha_retain=(30.0, 100.0, 1000.0), alpha_forget=(3.0, 30.0))),
        Contender("minnorm-og", "minnorm-og", _short(epochs=15), product(strength=(0.1, 0.3, 1.0), lr=(1e-3, 3e-3))),
        Contender("ssd", "ssd", {"batch_size": 128}, product(alpha=(0.5, 1.0, 2.0), dampening=(1.0, 0.5))),
        Contender("delete", "delete", _short(epochs=10), product(lr=_FORGET_LRS)),
        Contender("trw-beta0", "trw", _short(epochs=2, beta=0.0), product(lr=(0.003, 0.01, 0.02, 0.03, 0.06, 0.1)), whole_classes=True),
        _trw("trw", "logit-weights"),
        _trw("trw-features", "features"),
        _trw("trw-confusion", "confusion"),
        _trw("trw-oracle", "oracle", told=True),
    )
}
"""By name in tables."""

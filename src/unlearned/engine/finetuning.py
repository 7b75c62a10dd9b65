"""Fine-tunings that somebody may do with a model, as data: a pool of them is a YAML file."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from unlearned.engine.settings import Optimisation, Settings
from unlearned.settings import Pattern

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class FineTuning(Settings):
    """One fine-tuning: how, of which weights, on which part of the retained data."""

    id: str = Field(min_length=1, description="Its name in the pool.")
    kind: Literal["full", "lora"] = Field("full", description="Train the weights, or low-rank adapters beside them.")
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "sgd")
    lr: float = Optimisation.field("lr", 1e-4)
    momentum: float = Optimisation.field("momentum", 0.0)
    weight_decay: float = Optimisation.field("weight_decay", 0.0)
    steps: int = Field(5, ge=1, le=100_000, description="Optimiser steps.")
    batch_size: int = Optimisation.field("batch_size", 1)
    rank: int = Field(4, ge=1, le=100_000, description="Rank of the adapters, with kind lora.")
    parameters: Pattern = Field(".*", description="Regular expression for the names of the weights that are trained, or get adapters.")
    where: str | None = Field(None, description="Filter for the retained data it trains on, such as label == 3; None: all.")
    share: float = Field(1.0, gt=0, le=1, description="Share of these data, in a random order that all fine-tunings have in common, ...")
    start: float = Field(0.0, ge=0, lt=1, description="... and where in that order the share begins: parts that do not overlap are different data.")
    few: int | None = Field(None, ge=1, description="Only so many samples of it, as DreamBooth does; None: all.")
    prior_weight: float = Field(0.0, ge=0, description="Weight of the loss on other retained data beside it: the prior preservation of DreamBooth.")
    forget_share: float = Field(0.0, ge=0, le=1, description="Chance of each sample of a batch to be one of the forget set instead.")

    @property
    def optimisation(self) -> Optimisation:
        """How its weights are trained."""
        return Optimisation.model_validate(self.model_dump(include={"optimizer", "lr", "momentum", "weight_decay", "batch_size", "parameters"}))

    @model_validator(mode="after")
    def _part_fits(self) -> FineTuning:
        if self.start + self.share > 1 + 1e-6:
            raise ValueError(f"a share of {self.share:g} that begins at {self.start:g} ends beyond 1; lower one of them")
        return self


Pool = tuple[FineTuning, ...]


def shipped_pools() -> list[str]:
    """Names of the pools that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in resources.files("unlearned.engine.pools").iterdir() if file.name.endswith(".yaml"))


def read_pool(given: Any) -> Pool:
    """A pool by the name of one that comes with the package, the path of a YAML file, or as a list of fine-tunings.

    Raises:
        ValueError: if it cannot be read, holds none, or two have the same id; in words, for the field that it was given in.
    """
    entries = _entries(given) if isinstance(given, str | Path) else given
    try:
        pool = TypeAdapter(Pool).validate_python(entries)
    except ValidationError as error:
        raise ValueError(", and ".join(_in_words(detail) for detail in error.errors())) from error
    if not pool:
        raise ValueError("the pool holds no fine-tuning; give at least one")
    twice = [name for name, n in Counter(tuning.id for tuning in pool).items() if n > 1]
    if twice:
        raise ValueError(f"two fine-tunings of the pool have the id {twice[0]!r}; make the ids unique")
    return pool


def _in_words(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, detail['loc']))}: {message[:1].lower()}{message[1:]}"


def _entries(name: str | Path) -> Any:
    if name in shipped_pools():
        text = resources.files("unlearned.engine.pools").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{str(name)!r} is neither a pool of this package ({', '.join(shipped_pools())}) nor a file that can be read; name one of them"
            ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{str(name)!r} is not valid YAML") from error

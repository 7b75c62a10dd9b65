"""Which training points matter, to everything or to a few answers."""

from __future__ import annotations

from typing import Any

import torch

from unlearned.api._given import ModelLike, as_bundle, task_of
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.environment import environment
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training
from unlearned.errors import Fault, collecting, raise_faults
from unlearned.influence import scores as score_registry
from unlearned.influence._prune import at_share
from unlearned.influence._rank import Ranking
from unlearned.influence._rank import rank as rank_points
from unlearned.influence._score import Score
from unlearned.influence._trace import Traced
from unlearned.influence._trace import trace as trace_points
from unlearned.parts import make_part
from unlearned.problem import Problem
from unlearned.recipe import data_source
from unlearned.records import RankRecord
from unlearned.tasks._task import Data, DataSource, Task


def rank(
    problem: Problem,
    score: str | Score = "gradient-norm",
    engine: Engine | None = None,
    *,
    training: Training | None = None,
    seed: int = 0,
    **settings: Any,
) -> Ranking:
    """Influence of each training point on what the original does: those of the forget set first, then those of the retain set.

    Args:
        problem: original model and data; scores that ask about held-out samples ask about its validation set.
        score: a name from `unlearned scores`, or a score with its settings.
        engine: computes; by default one without checkpoints.
        training: how the original was trained, for scores that look at a training.
        seed: of everything random, if no engine is given.
        settings: of the score, if it is given by name.

    Raises:
        InputError: if a setting is wrong or the score does not fit the problem.
        DivergedError: if a training or a solver diverges.
    """
    chosen = make_part(score_registry, score, settings, "score", problem.task.name) if isinstance(score, str) else score
    return rank_points(problem, chosen, engine or Engine(problem.task, seed=seed), training)


def rank_record(ranking: Ranking, engine: Engine) -> RankRecord:
    """What may be shown of a ranking: how its numbers are distributed, and no point's own."""
    parts = {split: ranking.part(split).abs().double() for split in ("forget", "retain") if len(ranking.part(split))}
    shares = torch.linspace(0, 1, 101, dtype=torch.float64)
    bounds = None if ranking.effects is None else [at_share(ranking, ("forget", "retain"), percent / 100).bound or 0.0 for percent in range(100)]
    return RankRecord(
        environment=environment(engine),
        score={"name": ranking.score.name, **ranking.score.model_dump(mode="json")},
        queries=ranking.queries,
        notes=ranking.notes,
        points={split: len(values) for split, values in parts.items()},
        quantiles={split: tuple(torch.quantile(values, shares).tolist()) for split, values in parts.items()},
        bounds=None if bounds is None else tuple(bounds),
        bound_of=None if ranking.effects is None else ranking.effects.of,
        cost=ranking.cost,
    )


def trace(
    model: ModelLike,
    *,
    train: DataSource | Data | str,
    queries: DataSource | Data | str,
    score: str | Score | None = None,
    top: int = 10,
    task: str | Task = "image-classification",
    training: Training | None = None,
    compute: Compute | None = None,
    seed: int = 0,
    **settings: Any,
) -> Traced:
    """The training points that speak most for unwanted answers; `make_problem(forget=traced.ids)` then forgets them.

    Args:
        model: the model that answers.
        train: its training data.
        queries: prompts with the unwanted answers, images with the unwanted labels, generated images with their prompts; in the same form as `train`.
        score: a name from `unlearned scores`, or a score with its settings; one with a sign. None: hessian where it is defined for the task, else tracin.
        top: how many points.
        task: modality, by name or with settings.
        training: how the model was trained, for scores that look at a training.
        compute: where and how to compute.
        seed: of everything random.
        settings: of the score, if it is given by name.

    Raises:
        InputError: with everything that is wrong with the input.
        DivergedError: if a training or a solver diverges.
    """
    kind = task_of(task)
    bundle = as_bundle(model, task)
    sets: dict[str, Samples] = {}
    faults: list[Fault] = []
    for name, data, read in (("train", train, kind.read), ("queries", queries, kind.read_queries)):
        source = DataSource.model_validate(data_source(data)) if isinstance(data, str) else data
        with collecting(faults):
            sets[name] = read(source, bundle, f"data.{name}", sets.get("train"))
            faults += kind.faults(bundle, sets[name], f"data.{name}")
            faults += [Fault(f"data.{name}", "there are no samples.", "Give at least one.")] if not len(sets[name]) else []
    if score is None:
        score = "hessian" if kind.name in (score_registry.get("hessian").tasks or {kind.name}) else "tracin"
    if isinstance(score, str):
        if score == "hessian":  # the last layer alone does not see by what an image was marked
            settings = {"of": "signed", "curvature": "ekfac", **settings}
        with collecting(faults):
            score = make_part(score_registry, score, settings, "score", kind.name)
    raise_faults(faults)
    assert isinstance(score, Score)
    bound = kind.bound(bundle)
    return trace_points(bundle, sets["train"], sets["queries"], score, Engine(bound, compute, seed), training, top)

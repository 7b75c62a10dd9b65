"""The Python API: what the command line does, as functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unlearned.attacks import attacks as attack_registry
from unlearned.attacks._attack import Attack
from unlearned.attacks._suite import SETTINGS, Outcome, carry_out
from unlearned.audits import audits as audit_registry
from unlearned.audits._audit import Audit
from unlearned.data.filters import select
from unlearned.data.samples import Samples
from unlearned.data.tables import require
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.environment import environment
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError, collecting, raise_faults
from unlearned.evidence.subject import Subject
from unlearned.evidence.verdict import Limits, judge
from unlearned.influence import scores as score_registry
from unlearned.influence._prune import at_share
from unlearned.influence._rank import Ranking
from unlearned.influence._rank import rank as rank_points
from unlearned.influence._score import Score
from unlearned.influence._trace import Traced
from unlearned.influence._trace import trace as trace_points
from unlearned.methods import methods as method_registry
from unlearned.methods._method import Method
from unlearned.problem import Problem, id_faults
from unlearned.recipe import data_source, make_part, make_selection
from unlearned.records import AuditRecord, Cost, Exhibit, Finding, RankRecord
from unlearned.selection import SelectionSpec
from unlearned.tasks import tasks as task_registry
from unlearned.tasks._models import is_function
from unlearned.tasks._task import Bundle, Data, DataSource, ModelSource, Task, model_source

ModelLike = Bundle | nn.Module | str | ModelSource
"""A loaded model, an nn.Module, what `load` takes, or the same as it stands in a recipe."""


class Forgotten(NamedTuple):
    """What `forget` returns."""

    bundle: Bundle
    cost: Cost
    exhibits: tuple[Exhibit, ...] = ()
    """What the method shows of itself, such as what it tried before it chose a setting."""

    @property
    def model(self) -> nn.Module:
        """The unlearned model, on the CPU in eval mode."""
        return self.bundle.model


def load(source: str, task: str | Task = "image-classification", *, weights: str | None = None, allow_pickle: bool = False) -> Bundle:
    """Load a model with what goes with it.

    Args:
        source: a directory or hub id for `from_pretrained`, `module:function`, or `module:function@WEIGHTS`.
        task: its modality, by name or with settings.
        weights: for `module:function`: a safetensors file.
        allow_pickle: read weights in pickle format, tensors only.

    Raises:
        InputError: if it cannot be loaded.
    """
    given = model_source(source) | ({"weights": weights} if weights else {})
    return _task(task).load(ModelSource(**given, allow_pickle=allow_pickle), "model")


def make_problem(
    model: ModelLike,
    *,
    train: DataSource | Data | str,
    test: DataSource | Data | str,
    forget: str | Path | Iterable[str | int],
    validation: DataSource | Data | str | None = None,
    task: str | Task = "image-classification",
) -> Problem:
    """A checked problem.

    Args:
        model: the original model.
        train: its training data, forget set included: a path or hub id (`SOURCE@SPLIT`), `(images, labels)`, a dict of columns, a data set of `datasets`,
            or `Samples`.
        test: held-out data, in the same way.
        forget: a filter such as `label == 3`, ids, or the path of a text file with one id per line.
        validation: held-out data for choosing hyper-parameters.
        task: modality, by name or with settings.

    Raises:
        InputError: with everything that is wrong.
    """
    kind = _task(task)
    faults: list[Fault] = []
    bundle = None
    with collecting(faults):
        bundle = as_bundle(model, task)
    sets: dict[str, Samples] = {}
    for name, data in (("train", train), ("test", test), ("validation", validation)):
        if data is None:
            continue
        source = DataSource.model_validate(data_source(data)) if isinstance(data, str) else data
        with collecting(faults):
            if bundle is not None:
                sets[name] = kind.read(source, bundle, f"data.{name}", sets.get("train"))
            elif isinstance(source, DataSource) and not is_function(source.source):  # without a model, at least whether it is there
                require(source, f"data.{name}")
    where = "forget.file" if isinstance(forget, Path) else "forget"
    with collecting(faults):
        forget = read_ids(forget, where) if isinstance(forget, Path) else forget
    faults += [fault for name, samples in sets.items() for fault in id_faults(samples, f"data.{name}", "data")]
    raise_faults(faults)
    assert bundle is not None
    assert not isinstance(forget, Path)
    chosen = forget_ids(sets["train"], forget, where)
    return Problem(kind.bound(bundle), bundle, sets["train"].only(chosen), sets["train"].without(chosen), sets["test"], sets.get("validation"))


def forget_ids(train: Samples, forget: str | Iterable[str | int], field: str = "forget") -> set[str]:
    """Ids that a filter or a list of ids chooses.

    Raises:
        InputError: if the filter is wrong, an id repeats or is unknown. Ids are counted, not shown.
    """
    if isinstance(forget, str):
        ids = train.ids
        return {ids[i] for i in select(train, forget, field)}
    given = [str(name) for name in forget]
    known = set(train.ids)
    unknown = sum(name not in known for name in given)
    repeated = len(given) - len(set(given))
    faults = []
    if unknown:
        faults.append(
            Fault(
                field,
                f"{unknown} of {len(given)} ids are not in the training data.",
                "Ids are the `id` column, the path within an image folder, or else the position from 0.",
            )
        )
    if repeated:
        faults.append(Fault(field, f"{repeated} of {len(given)} ids are given more than once.", "Give each id once."))
    raise_faults(faults)
    return set(given)


def forget(
    problem: Problem, method: str | Method, engine: Engine | None = None, *, seed: int = 0, selection: SelectionSpec | None = None, **settings: Any
) -> Forgotten:
    """Unlearn.

    Args:
        problem: what, from which model.
        method: a name from `unlearned methods`, or a method with its settings.
        engine: computes; by default one without checkpoints.
        seed: of everything random, if no engine is given.
        selection: which state to keep; None: the last.
        settings: of the method, if it is given by name.

    Raises:
        InputError: if a setting is wrong or the method is not defined for the task.
        DivergedError: if it diverges.
    """
    chosen = make_part(method_registry, method, settings, "method", problem.task.name) if isinstance(method, str) else method
    engine = engine or Engine(problem.task, seed=seed)
    if selection is not None:
        engine = engine.keeping(make_selection(selection, problem, chosen).keep(problem, engine))
    with engine.measuring() as meter:
        model = chosen.unlearn(problem, engine)
    return Forgotten(problem.original.with_model(model), meter.cost, tuple(engine.exhibits))


def audit(
    problem: Problem,
    unlearned: ModelLike,
    references: Sequence[ModelLike | Kept] = (),
    *,
    shadows: Sequence[ModelLike | Kept] = (),
    audits: Sequence[str] | None = None,
    attacks: Sequence[str] = (),
    limits: Limits | None = None,
    cost: Cost | None = None,
    engine: Engine | None = None,
) -> AuditRecord:
    """Measure a model that was unlearned here or elsewhere.

    Args:
        problem: original model and data.
        unlearned: the model to judge.
        references: models retrained without the forget set.
        shadows: further models that were unlearned as this one was, each from an original of another seed.
        audits: names from `unlearned audits`; None: all that are defined for the task and train no models.
        attacks: names from `unlearned attacks`.
        limits: of the verdict.
        cost: of unlearning, if it is known.
        engine: computes.

    Raises:
        InputError: if a name is unknown or a model does not fit.
    """
    subject = make_subject(problem, unlearned, references, shadows=shadows, cost=cost, engine=engine)
    parts: list[Audit | Attack] = [*choose_audits(audits, problem.task.name), *choose_attacks(attacks, problem.task.name)]
    return measure(subject, parts, limits or Limits(), {"task": problem.task.name, "seed": subject.engine.seed})


def choose_audits(names: Sequence[str] | None, task: str) -> list[Audit]:
    """Audits of these names with default settings; None: all that are defined for the task and train no models.

    Raises:
        InputError: if a name is unknown or not defined for the task.
    """
    if names is None:
        kinds = {name: audit_registry.get(name) for name in audit_registry}
        names = [name for name, kind in kinds.items() if kind.by_default and task in (kind.tasks or (task,))]
    return [make_part(audit_registry, name, {}, "audit", task) for name in names]


def choose_attacks(names: Sequence[str], task: str) -> list[Attack]:
    """Attacks of these names with default settings.

    Raises:
        InputError: if a name is unknown or not defined for the task.
    """
    return [make_part(attack_registry, name, {}, "attack", task) for name in names]


def measure(subject: Subject, parts: Sequence[Audit | Attack], limits: Limits, described: dict[str, Any]) -> AuditRecord:
    """Carry out audits and attacks.

    Args:
        subject: the models and the data.
        parts: audits and attacks with their settings.
        limits: of the verdict.
        described: what else the record shall say about how it was made.

    Raises:
        InputError: if a setting does not fit the problem.
    """
    raise_faults([fault._replace(field=f"{part.name}.{fault.field}") for part in parts for fault in part.faults(subject.problem)])
    findings = [finding for part in parts for finding in part.labelled(subject)]
    exhibits = [exhibit for part in parts for exhibit in part.exhibits(subject)]
    audits = [{"name": part.name, **part.model_dump()} for part in parts if isinstance(part, Audit)]
    attacks = [{"name": part.name, **part.model_dump()} for part in parts if isinstance(part, Attack)]
    return conclude(subject, findings, limits, {**described, "audits": audits, "attacks": attacks}, exhibits)


def attack(
    problem: Problem,
    unlearned: ModelLike,
    name: str,
    references: Sequence[ModelLike | Kept] = (),
    *,
    shadows: Sequence[ModelLike | Kept] = (),
    engine: Engine | None = None,
    **settings: Any,
) -> list[Finding]:
    """Try to bring the knowledge back.

    Args:
        problem: original model and data.
        unlearned: the model to attack.
        name: from `unlearned attacks`.
        references: models retrained without the forget set.
        shadows: further models that were unlearned as this one was, each from an original of another seed.
        engine: computes.
        settings: of the attack.

    Raises:
        InputError: if the name is unknown or a setting is wrong.
    """
    part = make_part(attack_registry, name, settings, "attack", problem.task.name)
    raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in part.faults(problem)])
    return part.labelled(make_subject(problem, unlearned, references, shadows=shadows, engine=engine))


def attack_all(
    problem: Problem,
    unlearned: ModelLike,
    references: Sequence[ModelLike | Kept] = (),
    *,
    shadows: Sequence[ModelLike | Kept] = (),
    seconds: float | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    engine: Engine | None = None,
) -> Outcome:
    """Try everything that there is to bring the knowledge back, within a limit of time.

    Args:
        problem: original model and data.
        unlearned: the model to attack.
        references: models retrained without the forget set.
        shadows: further models that were unlearned as this one was, each from an original of another seed.
        seconds: the limit; None: none.
        settings: by name of the attack, its settings.
        engine: computes.

    Returns:
        The findings, and why attacks were skipped.

    Raises:
        InputError: if a name is unknown or a setting is wrong.
    """
    parts, foreign = choose_suite(problem.task.name, settings or {})
    outcome = carry_out(make_subject(problem, unlearned, references, shadows=shadows, engine=engine), parts, seconds)
    return outcome._replace(skipped=foreign | outcome.skipped)


def choose_suite(task: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[list[Attack], dict[str, str]]:
    """All attacks that are defined for a task, with these settings; and why others are not among them.

    Raises:
        InputError: if settings are for an attack that there is not, or are wrong.
    """
    faults: list[Fault] = []
    for name in settings:
        with collecting(faults):
            attack_registry.get(name, "attack.name")
    parts: list[Attack] = []
    foreign: dict[str, str] = {}
    for name in attack_registry:
        allowed = attack_registry.get(name).tasks
        if allowed is not None and task not in allowed:
            foreign[name] = f"it is not defined for {task}"
            continue
        with collecting(faults):
            given = {**SETTINGS.get(task, {}).get(name, {}), **settings.get(name, {})}
            parts.append(make_part(attack_registry, name, given, f"attack.{name}", task))
    raise_faults(faults)
    return parts, foreign


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
    score: str | Score = "hessian",
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
        queries: prompts with the unwanted answers, images with the unwanted labels; in the same form as `train`.
        score: a name from `unlearned scores`, or a score with its settings; one with a sign.
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
    kind = _task(task)
    bundle = as_bundle(model, task)
    sets: dict[str, Samples] = {}
    faults: list[Fault] = []
    for name, data in (("train", train), ("queries", queries)):
        source = DataSource.model_validate(data_source(data)) if isinstance(data, str) else data
        with collecting(faults):
            sets[name] = kind.read(source, bundle, f"data.{name}", sets.get("train"))
            faults += kind.faults(bundle, sets[name], f"data.{name}")
            faults += [Fault(f"data.{name}", "there are no samples.", "Give at least one.")] if not len(sets[name]) else []
    if isinstance(score, str):
        if score == "hessian":  # the last layer alone does not see by what an image was marked
            settings = {"of": "signed", "curvature": "ekfac", **settings}
        with collecting(faults):
            score = make_part(score_registry, score, settings, "score", kind.name)
    raise_faults(faults)
    assert isinstance(score, Score)
    bound = kind.bound(bundle)
    return trace_points(bundle, sets["train"], sets["queries"], score, Engine(bound, compute, seed), training, top)


def make_subject(
    problem: Problem,
    unlearned: ModelLike,
    references: Sequence[ModelLike | Kept] = (),
    *,
    shadows: Sequence[ModelLike | Kept] = (),
    cost: Cost | None = None,
    engine: Engine | None = None,
) -> Subject:
    """What audits and attacks are given.

    Raises:
        InputError: if a model cannot be loaded or does not take the data.
    """
    task = problem.task
    bundle = as_bundle(unlearned, task)
    banks = {
        name: [model if isinstance(model, Kept) else Kept(as_bundle(model, task), None, None) for model in models]
        for name, models in (("reference", references), ("shadow", shadows))
    }
    named = [("after", bundle), *((f"{name}.{i}", kept.bundle) for name, bank in banks.items() for i, kept in enumerate(bank))]
    raise_faults([fault for name, model in named for fault in model_faults(problem, model, name)])
    return Subject(problem, bundle, banks["reference"], engine or Engine(task), cost, banks["shadow"])


def model_faults(problem: Problem, bundle: Bundle, field: str) -> list[Fault]:
    """What keeps a model from being compared with the original on the problem's data."""
    one = problem.test.subset(range(1))
    faults = [fault._replace(field=field) for fault in problem.task.faults(bundle, one, field)]
    if faults:
        return faults
    batch = problem.task.collate([one[0]])
    shapes = []
    for model in (problem.original.model, bundle.model):
        with evaluating(model), torch.no_grad():
            shapes.append(tuple(problem.task.outputs(model, batch).shape[1:]))
    if shapes[0] != shapes[1]:
        return [Fault(field, f"its answers have shape {shapes[1]}, those of the original {shapes[0]}.", "Give a model with the same classes.")]
    return []


def conclude(subject: Subject, findings: Sequence[Finding], limits: Limits, recipe: dict[str, Any], exhibits: Sequence[Exhibit] = ()) -> AuditRecord:
    """The record of all findings and exhibits, with the verdict."""
    costs = {} if subject.cost is None else {"unlearned": subject.cost}
    costs |= subject.other_costs
    known = [reference.cost for reference in subject.references if reference.cost is not None]
    if known:
        costs["reference"] = _mean_cost(known)
    return AuditRecord(
        verdict=judge(findings, limits, subject.pruning),
        environment=environment(subject.engine),
        recipe=recipe,
        sets=subject.problem.summaries,
        costs=costs,
        models={"reference": len(subject.references), "shadow": len(subject.shadows)},
        pruning=subject.pruning,
        findings=tuple(findings),
        pictures=tuple(subject.pictures),
        exhibits=tuple(exhibits),
    )


def as_bundle(model: ModelLike, task: str | Task) -> Bundle:
    """A model in whatever form, as a bundle; a bare module gets no companions."""
    if isinstance(model, Bundle):
        return model
    if isinstance(model, ModelSource):
        return _task(task).load(model, "model")
    return load(model, task) if isinstance(model, str) else Bundle(model)


def _task(task: str | Task) -> Task:
    return task if isinstance(task, Task) else task_registry.get(task, "task")()


def _mean_cost(costs: Sequence[Cost]) -> Cost:
    n = len(costs)
    return Cost(
        wall_seconds=sum(c.wall_seconds for c in costs) / n,
        cpu_seconds=sum(c.cpu_seconds for c in costs) / n,
        peak_memory_bytes=max(c.peak_memory_bytes for c in costs),
        samples_seen=round(sum(c.samples_seen for c in costs) / n),
        steps=round(sum(c.steps for c in costs) / n),
    )


def read_ids(path: Path, field: str) -> list[str]:
    """Ids from a text file, one per line.

    Raises:
        InputError: if it cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(field, f"{str(path)!r} cannot be read as text.", "Give a UTF-8 text file with one id per line.")) from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError(Fault(field, f"{str(path)!r} holds no ids.", "Write one id per line."))
    return ids

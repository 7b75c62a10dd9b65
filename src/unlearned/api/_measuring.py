"""Measure a model, attack it, and put everything into one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unlearned.api._given import ModelLike, as_bundle
from unlearned.attacks import attacks as attack_registry
from unlearned.attacks._attack import Attack
from unlearned.attacks._suite import SETTINGS, Outcome, carry_out
from unlearned.audits import audits as audit_registry
from unlearned.audits._audit import Audit
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.environment import environment
from unlearned.errors import Fault, collecting, raise_faults
from unlearned.evidence.subject import Subject
from unlearned.evidence.verdict import Limits, judge
from unlearned.parts import Part, make_part
from unlearned.problem import Problem
from unlearned.records import AuditRecord, Cost, Exhibit, Finding
from unlearned.registry import Registry
from unlearned.tasks._task import Bundle, beside


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


def choose_audits(names: Sequence[str] | None, task: str) -> list[Audit]:
    """Audits of these names with default settings; None: all that are defined for the task and train no models.

    Raises:
        InputError: with every name that is unknown or not defined for the task.
    """
    if names is None:
        kinds = {name: audit_registry.get(name) for name in audit_registry}
        names = [name for name, kind in kinds.items() if kind.by_default and task in (kind.tasks or (task,))]
    return _all_made(audit_registry, names, "audit", task)


def choose_attacks(names: Sequence[str], task: str) -> list[Attack]:
    """Attacks of these names with default settings.

    Raises:
        InputError: with every name that is unknown or not defined for the task.
    """
    return _all_made(attack_registry, names, "attack", task)


def _all_made(registry: Registry[Part], names: Sequence[str], field: str, task: str) -> list[Part]:
    made: list[Part] = []
    faults: list[Fault] = []
    for name in names:
        with collecting(faults):
            made.append(make_part(registry, name, {}, field, task))
    raise_faults(faults)
    return made


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
            shapes.append(tuple(problem.task.outputs(model, beside(batch, model)).shape[1:]))
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


def _mean_cost(costs: Sequence[Cost]) -> Cost:
    n = len(costs)
    return Cost(
        wall_seconds=sum(c.wall_seconds for c in costs) / n,
        cpu_seconds=sum(c.cpu_seconds for c in costs) / n,
        peak_memory_bytes=max(c.peak_memory_bytes for c in costs),
        samples_seen=round(sum(c.samples_seen for c in costs) / n),
        steps=round(sum(c.steps for c in costs) / n),
    )

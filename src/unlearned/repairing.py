"""Repair: what unlearning broke by accident goes into the retain set, and the model is made again; then holes are searched for anew.

Paper: Ko, Just, Fleming, Jin, Jia, "Probing Knowledge Holes in Unlearned LLMs", NeurIPS 2025, arXiv 2511.00030, its section on mitigation. Both ways work only
in part there: repaired probes get better, and new holes appear in each round.
Formula: `iterative`: the method runs again from the original, with up to 600 latent and 100 adjacent probes of the last round among what it retains;
`one-shot`: the unlearned model is trained on by the likelihood of the original's answers to the probes, or by KL(original ‖ model) on their tokens.
Defaults of the authors: 600 latent and 100 adjacent probes; 800 steps of the one-shot repair; lr 5e-5 and batches of 2 there are those of their unlearning.
Deviations: the paper keeps 117 samples of its retain set, so that its size stays 817; here all of them stay, unless `retained` says otherwise. Probes that the
original does not answer well are not retained: its answer is what is taught. Where the search has not asked the original (`reward: answer`), those that have
no score, since near duplicates of them or so many others were kept, are judged for that. Later rounds of `one-shot` train on what the last one made.
`iterative` runs the method as it is: a recipe that thins the sets first (`prune`) or keeps the best state (`selection`) unlearns by another procedure, and what
a repair changes could not be told from what that changes; it is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.data.samples import Samples, union
from unlearned.engine.engine import Engine, evaluating, frozen
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, InputError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import t_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.holes._probing import Probed, Probing
from unlearned.holes._respondent import Respondent
from unlearned.methods._forget_retain import token_divergence
from unlearned.methods._method import Method
from unlearned.records import Finding, Holes, SubjectName
from unlearned.settings import Settings
from unlearned.tasks._task import Batch, Bundle
from unlearned.tasks.text_generation import TextGeneration, answering

NAME = "repair"
ROUNDS = "rounds of repair"


class RepairSpec(Settings):
    """Make the model again with the probes that were found in the retain set, and look for holes anew."""

    how: Literal["iterative", "one-shot"] = Field("iterative", description="Run the method again from the original; or train the model on the probes.")
    rounds: int = Field(1, ge=1, le=20, description="How often. Each round retains the probes that the last one found.")
    latent: int = Field(600, ge=0, description="Latent probes that are retained, at most.")
    adjacent: int = Field(100, ge=0, description="Adjacent probes that are retained, at most.")
    retained: int | None = Field(None, ge=0, description="iterative: samples of the retain set that stay beside them; None: all. The paper keeps 117 of 817.")
    loss: Literal["answers", "kl"] = Field("answers", description="one-shot: likelihood of the original's answers, or divergence from the original on them.")
    steps: int = Field(800, ge=1, description="one-shot: steps.")
    lr: float = Field(5e-5, gt=0, description="one-shot: learning rate of AdamW.")
    batch_size: int = Field(2, ge=1, description="one-shot: samples per step.")


class Retained(NamedTuple):
    """What a repair retains of the probes."""

    samples: Samples
    """Questions with the original's answers."""
    questions: frozenset[str]


def faults(spec: RepairSpec | None, audits: Sequence[object], method: Method | None, task: str, beside: Sequence[str] = ()) -> list[Fault]:
    """What keeps a recipe from being repaired.

    Args:
        spec: how to repair; None: not at all.
        audits: of the recipe.
        method: of the recipe.
        task: its name.
        beside: fields of the recipe by which its unlearning is more than the method alone.
    """
    if spec is None:
        return []
    found = []
    if not any(isinstance(audit, KnowledgeHoles) for audit in audits):
        found.append(Fault(NAME, "no audit looks for what could be repaired.", "Add `knowledge-holes` to the audits, or leave out `repair`."))
    if task != "text-generation":
        found.append(Fault(NAME, f"probes can be retained by language models only, not by {task}.", "Leave it out."))
    if method is None:
        found.append(Fault(NAME, "the recipe names no method that could run again.", "Add `method:`, or leave it out."))
    if spec.how == "iterative" and beside:
        fields = " and ".join(f"`{field}`" for field in beside)
        what = f"an iterative repair runs the method alone, and the first model is made with {fields}: the two could not be compared."
        found.append(Fault(f"{NAME}.how", what, f"Set it to one-shot, or leave out {fields}."))
    return found


def retained(probing: Probing, subject: Subject, spec: RepairSpec, good: float, seed: int) -> Retained:
    """Probes with the original's answers, as samples: those that it answers well, of each kind at most so many, drawn at random.

    Raises:
        InputError: if there is none.
    """
    chosen: list[str] = []
    for probed, most in zip(probing.probed, (spec.adjacent, spec.latent), strict=True):
        scores = _of_original(probed)
        if not probed.sound and probing.ask is not None and (unscored := [question for question in probed.fair if question not in scores]):
            scores |= _of_original(probing.ask(unscored))
        unknown = good if probed.sound else -math.inf
        well = [question for question in probed.fair if scores.get(question, unknown) >= good]
        order = np.random.default_rng(derive_seed(seed, NAME, probed.kind)).permutation(len(well))[:most]
        chosen += [well[i] for i in sorted(order)]
    questions = list(dict.fromkeys(chosen))
    original = subject.problem.original
    answers = Respondent(subject.engine, original).answers(original.model, questions)
    pairs = [(question, answer.strip()) for question, answer in zip(questions, answers, strict=True) if answer.strip()]
    if not pairs:
        raise InputError(Fault(NAME, "no probe was found that the original answers well: there is nothing to retain.", "Probe with a larger budget."))
    columns = {"prompt": [q for q, _ in pairs], "answer": [a for _, a in pairs], "id": [f"{NAME} {i}" for i in range(len(pairs))]}
    return Retained(_text_task(subject.engine).read(columns, original, NAME), frozenset(question for question, _ in pairs))


def repaired(subject: Subject, probes: Samples, method: Method, spec: RepairSpec, engine: Engine) -> Bundle:
    """The model with what broke retained. What the problem was is not changed.

    Args:
        subject: the problem, and the model as it was unlearned.
        probes: what broke.
        method: runs again, if the repair is iterative.
        spec: how.
        engine: computes; its seed decides everything random.

    Raises:
        DivergedError: if it diverges.
    """
    problem = subject.problem
    if spec.how == "one-shot":
        return problem.original.with_model(_trained_on(subject, probes, spec, engine))
    rest = problem.retain
    if spec.retained is not None:
        rest = rest.shuffled(derive_seed(engine.seed, NAME, "rest")).subset(range(min(spec.retained, len(rest))))
    model = method.unlearn(replace(problem, retain=union(rest, probes) if len(rest) else probes), engine)
    return problem.original.with_model(model)


def findings_of(audit: KnowledgeHoles, subject: Subject, probing: Probing, number: int, used: frozenset[str]) -> list[Finding]:
    """What a round left: holes among the probes, what of the retained ones is a hole still, what shows of the forget set, and the benchmark.

    `new_latent_holes` is the share of the questions proposed by the search that are holes after all filters, without what the round has retained: among latent
    probes themselves nearly all are holes, since the search keeps nothing else.

    Args:
        audit: that probed.
        subject: with the model of this round.
        probing: of this model.
        number: of the round; 0: before any repair.
        used: questions that this round retained.
    """
    problem, engine, task = subject.problem, subject.engine, _text_task(subject.engine)
    found: list[Finding] = []

    def add(metric: str, probed: Probed, proposed: int | None = None) -> None:
        """Holes among the questions whose scores could be read, or, of latent probes, among those that the search proposed."""
        shares: dict[SubjectName, list[Measured]] = {}
        holes = probed.holes(audit.good, audit.bad) if len(probed.names) else {}
        for who, several in holes.items():
            read = [each[~np.isnan(each)] for each in several]
            shares[who] = [_share(float(each.sum()), len(each) if proposed is None else proposed) for each in read if len(each)]
        if (holes and not shares["unlearned"]) or not probed.read:
            lacking = absent(NAME, metric, "probes", "of none of the probes could the judge's scores be read", unit="share")
            found.append(lacking.model_copy(update={"budget": number, "budget_unit": ROUNDS}))
        elif not holes and proposed:
            shares["unlearned"] = [_share(0, proposed)]
        found.extend(compare(NAME, metric, "probes", shares, unit="share", budget=number, budget_unit=ROUNDS))

    for probed in probing.probed:
        if probed.kind == "latent":
            add("new_latent_holes", _new(probed, used), probed.calls)
        else:
            add("adjacent_holes", probed)
    if used and probing.ask is not None:
        add("used_holes", probing.ask(sorted(used)))
    for metric, split in (("knowledge", "forget"), ("utility", "test")):
        measured: dict[SubjectName, list[Measured]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            values = engine.evaluate(model, problem.sets[split], getattr(task, metric)).numpy()
            measured[who].append(Measured(float(values.mean()), t_interval(values, "samples"), len(values)))
        found += compare(NAME, metric, split, measured, unit="share", budget=number, budget_unit=ROUNDS)
    return found


class Round(NamedTuple):
    """One round of a repair."""

    bundle: Bundle
    findings: tuple[Finding, ...]
    holes: Holes


def engine_of(engine: Engine, number: int) -> Engine:
    """The engine of a round: with a seed of its own, so that probes are searched for anew, and its own place for unfinished work."""
    work = None if engine.work is None else engine.work / f"{NAME}-{number}"
    return Engine(engine.task, engine.compute, derive_seed(engine.seed, NAME, number), work, engine.show_progress)


def next_round(subject: Subject, method: Method, audit: KnowledgeHoles, spec: RepairSpec, number: int) -> Bundle:
    """The model of a round, from that of the one before it.

    Args:
        subject: with the model of the round before.
        method: that unlearned the first.
        audit: that looks for holes.
        spec: how to repair.
        number: of the round, from 1.

    Raises:
        InputError: if there is nothing to retain.
        DivergedError: if it diverges.
    """
    engine = engine_of(subject.engine, number)
    return repaired(subject, _kept(subject, audit, spec, number).samples, method, spec, engine)


def looked_at(before: Subject, bundle: Bundle, audit: KnowledgeHoles, spec: RepairSpec, number: int) -> tuple[Subject, Round]:
    """A round's model among the others, and what a new look for holes finds in it; arguments are those of `next_round`, with the model that it made."""
    used = _kept(before, audit, spec, number).questions
    subject = Subject(before.problem, bundle, before.references, engine_of(before.engine, number))
    probing = audit.probe(subject)
    return subject, Round(bundle, tuple(findings_of(audit, subject, probing, number, used)), audit.shown(probing, f"round {number} of {spec.how} repair"))


def repair(subject: Subject, method: Method, audit: KnowledgeHoles, spec: RepairSpec | None = None) -> list[Round]:
    """All rounds of a repair; the last has the final model.

    Args:
        subject: the problem, and the model as it was unlearned.
        method: that unlearned it.
        audit: that looks for holes.
        spec: how to repair; None: one iterative round.

    Raises:
        InputError: if there is nothing to repair.
        DivergedError: if a model diverges.
    """
    spec = spec or RepairSpec()
    rounds: list[Round] = []
    for number in range(1, spec.rounds + 1):
        subject, made = looked_at(subject, next_round(subject, method, audit, spec, number), audit, spec, number)
        rounds.append(made)
    return rounds


def _kept(subject: Subject, audit: KnowledgeHoles, spec: RepairSpec, number: int) -> Retained:
    """What a round retains; found once for the making of its model and the look at it."""
    seed = derive_seed(subject.engine.seed, NAME, number)
    name = f"{NAME} {number} {spec.model_dump_json()} {audit.name} {audit.model_dump_json()}"
    return subject.once(name, lambda: retained(audit.probe(subject), subject, spec, audit.good, seed))


def _of_original(probed: Probed) -> dict[str, float]:
    """The original's score of each probe, NaN where it could not be read."""
    return dict(zip(probed.names, map(float, probed.scores["original"][0]), strict=True)) if len(probed.names) else {}


def _new(probed: Probed, used: frozenset[str]) -> Probed:
    """Without the probes that were used."""
    chosen = [i for i, name in enumerate(probed.names) if name not in used]
    scores = {who: [each[chosen] for each in several] for who, several in probed.scores.items()}
    return replace(probed, names=[probed.names[i] for i in chosen], scores=scores)


def _trained_on(subject: Subject, probes: Samples, spec: RepairSpec, engine: Engine) -> nn.Module:
    """The unlearned model after some steps on the probes."""
    task = _text_task(engine)
    how = Optimisation(optimizer="adamw", lr=spec.lr, weight_decay=0.0, batch_size=spec.batch_size)
    teacher = frozen(subject.problem.original.model).to(engine.device) if spec.loss == "kl" else None

    def loss(model: nn.Module, forget: Batch, batch: Batch) -> Tensor:
        del forget
        if teacher is None:
            return engine.task.losses(model, batch).mean()
        with evaluating(teacher):
            return token_divergence(task.token_logits(model, batch), task.token_logits(teacher, batch), answering(batch).mask)

    passes = math.ceil(spec.steps / max(1, math.ceil(len(probes) / spec.batch_size) - 1))
    plan = Plan([Pass("retain", loss)] * passes, max_steps=spec.steps)
    model, seed = copy.deepcopy(subject.unlearned.model), derive_seed(engine.seed, NAME, "training")
    return fit(engine, model, plan, {"retain": probes}, how, title=NAME, seed=seed, checkpoint=engine.checkpoint(NAME))


def _share(count: float, of: int) -> Measured:
    return Measured(count / of, wilson(count, of), of)


def _text_task(engine: Engine) -> TextGeneration:
    assert isinstance(engine.task, TextGeneration)
    return engine.task

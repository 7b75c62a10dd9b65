"""Repair: what broke is retained, and what a new look finds is told apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tests.holes.known import FORGET, NAMES, RETAIN, VERBS, Table, answer, question, subject
from tests.models import bundle_of, facts
from unlearned.api import make_problem
from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.holes._probing import Probed, Probing
from unlearned.methods._forget_retain import token_divergence
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.recipe import parse_recipe, with_repair
from unlearned.records import Finding
from unlearned.repairing import RepairSpec, faults, findings_of, repair, repaired, retained
from unlearned.tasks._questions import questions_of
from unlearned.tasks.text_generation import TextGeneration, answering

BROKEN, LATER = RETAIN[3:60:6], RETAIN[4:60:6]


class Clumsy(Method):
    """Forgets what it should, and breaks some more; what a repair retains it does not break, but then something else."""

    name: ClassVar[str] = "clumsy"

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        del engine
        kept = {(next(w for w in words if w in NAMES), next(w for w in words if w in VERBS)) for words in probes_in(problem)}
        model = Table().eval()
        for pair in FORGET + [pair for pair in BROKEN if pair not in kept] + [pair for pair in LATER if kept and pair not in kept]:
            model.forget(*pair)
        return model


def probes_in(problem: Problem) -> list[list[str]]:
    """Words of the questions that a repair has added."""
    asked = zip(problem.retain.ids, questions_of(problem.retain), strict=True)
    return [each.question.split() for name, each in asked if name.startswith("repair")]


def audit(**settings: Any) -> KnowledgeHoles:
    return KnowledgeHoles.model_validate(
        {"language": {"searcher": "evolution", "budget": 60, "round_size": 30, "per_text": 3, "most_alike": 1.0, "cut": False, **settings}}
    )


def share(findings: tuple[Finding, ...], metric: str, subject: str = "unlearned") -> float | None:
    found = [f.value for f in findings if f.metric == metric and f.subject == subject]
    return found[0] if found else None


def test_what_is_retained_is_whole_again_and_new_holes_are_told_apart() -> None:
    looked = subject(BROKEN, references=1)
    found = {hole for probed in audit().probe(looked).probed for hole in audit().holes(probed)}
    rounds = repair(looked, Clumsy(), audit(), RepairSpec())
    assert {(f.budget, f.budget_unit) for f in rounds[0].findings} == {(1, "rounds of repair")}
    model, whole = rounds[0].bundle.model, Table()
    assert isinstance(model, Table)
    healed = [pair for pair in BROKEN if torch.equal(model.places[place_of(*pair)], whole.places[place_of(*pair)])]
    assert {question(*pair) for pair in healed} >= found & {question(*pair) for pair in BROKEN}
    assert healed
    assert share(rounds[0].findings, "used_holes") == 0
    new = share(rounds[0].findings, "new_latent_holes")
    assert new is not None
    assert new > 0  # what it broke instead
    assert share(rounds[0].findings, "new_latent_holes", "reference") == 0
    knowledge, utility = share(rounds[0].findings, "knowledge"), share(rounds[0].findings, "utility")
    assert knowledge is not None
    assert utility is not None
    assert knowledge < 0.1 < utility
    assert "round 1 of iterative repair" in str(rounds[0].holes.after)


def place_of(name: str, verb: str) -> tuple[int, int]:
    return VERBS.index(verb), NAMES.index(name)


def test_only_what_the_original_answers_well_is_retained_with_its_answers() -> None:
    looked = subject(BROKEN)
    probing = audit().probe(looked)
    kept = retained(probing, looked, RepairSpec(latent=3, adjacent=2), 7.0, 0)
    assert 3 <= len(kept.samples) == len(kept.questions) <= 5
    for each in questions_of(kept.samples):
        words = each.question.split()
        assert each.answer == answer(next(w for w in words if w in NAMES), next(w for w in words if w in VERBS))
    assert retained(probing, looked, RepairSpec(latent=3, adjacent=2), 7.0, 0).questions == kept.questions
    with pytest.raises(InputError, match="nothing to retain"):
        retained(probing, looked, RepairSpec(latent=0, adjacent=0), 7.0, 0)


def test_what_the_judge_could_not_be_read_on_is_neither_a_hole_nor_none() -> None:
    looked, scores = subject(BROKEN), {"original": [np.array([9, np.nan, 9.0])], "unlearned": [np.array([1, 1, np.nan])], "reference": list[Any]()}
    names = [question(*pair) for pair in BROKEN[:3]]

    def shares(scores: Any, **more: Any) -> dict[str, float | None]:
        some = Probed("adjacent", names, scores, np.eye(3), 0, 3)
        probing = Probing([some, Probed("latent", [], {}, np.zeros((0, 1)), 10, 0, **more)], {}, 2, 9, ask=lambda _: some)
        found = findings_of(audit(), looked, probing, 1, frozenset(names))
        assert {f.budget for f in found} == {1}
        return {f.metric: f.value for f in found if f.subject == "unlearned" and "holes" in f.metric}

    assert shares(scores) == {"adjacent_holes": 1, "used_holes": 1, "new_latent_holes": 0}
    nothing = {who: [np.full(3, np.nan) for _ in several] for who, several in scores.items()}
    assert shares(nothing, read=False) == {"adjacent_holes": None, "used_holes": None, "new_latent_holes": None}


def test_what_nobody_has_asked_the_original_is_judged_before_it_is_retained() -> None:
    looked = subject(BROKEN)
    good, bad = [question(*pair) for pair in BROKEN[:2]], question("nobody", "live")
    scores: Any = {"original": [np.array([9.0])], "unlearned": [np.array([1.0])], "reference": []}
    asked = list[str]()

    def ask(questions: Sequence[str]) -> Probed:
        asked.extend(questions)
        values = np.array([2.0 if q == bad else 9.0 for q in questions])
        return Probed("adjacent", questions, {"original": [values], "unlearned": [values], "reference": []}, np.eye(len(questions)), 0, 0)

    def kept(**more: Any) -> frozenset[str]:
        probed = [Probed("adjacent", [], {}, np.zeros((0, 1)), 0, 0), Probed("latent", good[:1], scores, np.eye(1), 9, 3, fair=[*good, bad], **more)]
        return retained(Probing(probed, {}, 0, 0, ask=ask), looked, RepairSpec(), 7.0, 0).questions

    assert kept(sound=True) == {*good, bad}  # the search has asked
    assert asked == []
    assert kept() == {*good}
    assert asked == [good[1], bad]
    assert {each: audit(reward=each).probe(looked).probed[1].sound for each in ("loss", "answer")} == {"loss": True, "answer": False}


@pytest.mark.parametrize("loss", ["answers", "kl"])
def test_a_one_shot_repair_trains_the_unlearned_model_on_the_probes(loss: Any) -> None:
    task = TextGeneration(max_new_tokens=4)
    original, other = bundle_of("llama", 20), bundle_of("llama", 21)
    data = facts(0, 8)
    problem = make_problem(original, train={**data, "id": [f"{i}" for i in range(8)]}, test=facts(50, 2), forget=["0", "1"], task=task)
    engine = Engine(problem.task)
    looked = Subject(problem, other, (), engine)
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    spec = RepairSpec(how="one-shot", loss=loss, steps=25, lr=0.01, batch_size=3)

    def distance(model: nn.Module) -> float:
        if loss == "answers":
            return float(engine.evaluate(model, problem.retain, task.losses).mean())
        batch = problem.task.collate([problem.retain[i] for i in range(len(problem.retain))])
        with torch.no_grad():
            return float(token_divergence(task.token_logits(model, batch), task.token_logits(original.model, batch), answering(batch).mask))

    model = repaired(looked, problem.retain, Clumsy(), spec, engine).model
    assert distance(model) < 0.5 * distance(other.model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.model.state_dict().items())


def test_the_retain_set_can_be_cut_as_in_the_paper() -> None:
    looked, seen = subject(BROKEN), list[int]()

    class Counting(Clumsy):
        def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
            seen.append(len(problem.retain))
            return super().unlearn(problem, engine)

    probes = retained(audit().probe(looked), looked, RepairSpec(latent=4, adjacent=0), 7.0, 0).samples
    for kept in (None, 5, 0):
        repaired(looked, probes, Counting(), RepairSpec(retained=kept), looked.engine)
    assert seen == [len(RETAIN) + len(probes), 5 + len(probes), len(probes)]


def test_what_cannot_be_repaired_is_said_at_once() -> None:
    assert faults(None, (), None, "image-classification") == []
    assert [fault.field for fault in faults(RepairSpec(), (), None, "image-classification")] == ["repair"] * 3
    assert faults(RepairSpec(), (audit(),), Clumsy(), "text-generation") == []


def test_a_method_is_not_run_again_without_what_the_first_unlearning_had() -> None:
    parts = (audit(),), Clumsy(), "text-generation"
    (fault,) = faults(RepairSpec(), *parts, ["prune", "selection"])
    assert fault.field == "repair.how"
    assert "`prune` and `selection`" in fault.what
    assert faults(RepairSpec(how="one-shot"), *parts, ["prune", "selection"]) == []
    recipe: dict[str, Any] = {
        "task": "text-generation",
        "model": "somewhere",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "forget": {"where": "group == 1"},
        "method": "grad-diff",
        "references": {"count": 0},
        "audits": ["knowledge-holes"],
        "repair": {},
    }
    once = {"how": "one-shot"}
    for beside in ({"selection": {"every": 5}}, {"prune": {"fraction": 0.5, "gate": 0}}):
        with pytest.raises(InputError, match=f"made with `{next(iter(beside))}`"):
            parse_recipe(recipe | beside)
        with pytest.raises(InputError, match="could not be compared"):
            with_repair(parse_recipe(recipe | beside | {"repair": once}), how="iterative")
    assert parse_recipe(recipe).file.repair == RepairSpec()

"""All attacks within a limit of time, by a clock that the test turns."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import Tensor

from tests.conformance.test_measurements import subject_of
from unlearned.api import attack_all, choose_suite
from unlearned.attacks._attack import Attack
from unlearned.attacks._suite import carry_out
from unlearned.errors import DivergedError, Fault, InputError
from unlearned.evidence.comparison import absent
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding


class _Counted(Attack):
    """Takes as many evaluations as it says, of each of the four models, on the test's clock."""

    name: ClassVar[str] = "counted"
    title: str
    work: int
    diverges: bool = False
    unfit: bool = False

    def evaluations(self, problem: Problem) -> int:
        del problem
        return self.work

    def faults(self, problem: Problem) -> list[Fault]:
        del problem
        return [Fault("unfit", "it does not fit.", "Leave it out.")] if self.unfit else []

    def measure(self, subject: Subject) -> list[Finding]:
        CLOCK.now += 4 * self.work
        if self.diverges:
            raise DivergedError("the attack diverged.")
        del subject
        return [absent(self.title, "knowledge", "forget", "counted", unit="share", kind="attack")]


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = _Clock()


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """One whose models answer the forget set in a second."""
    found = subject_of("linear")
    evaluate = type(found.engine).evaluate

    def slow(*given: Any) -> Tensor:
        CLOCK.now += 1
        return evaluate(*given)

    monkeypatch.setattr(type(found.engine), "evaluate", slow)
    CLOCK.now = 0.0
    return found


def counted(title: str, work: int, **more: Any) -> _Counted:
    kind = type(title, (_Counted,), {"name": title, "__annotations__": {"name": ClassVar[str]}})
    made = kind(title=title, work=work, **more)
    assert isinstance(made, _Counted)
    return made


def test_what_takes_least_comes_first_and_what_does_not_fit_is_left_out_with_numbers(subject: Subject) -> None:
    """A second for the estimate, then 4, 8 and 20 seconds: 17 are left of 30, and the one that takes 20 does not fit."""
    said: list[str] = []
    parts = [counted("long", 5), counted("short", 1), counted("middle", 2), counted("unfit", 1, unfit=True)]
    outcome = carry_out(subject, parts, 30, say=said.append, clock=CLOCK)
    assert said == ["attack short", "attack middle"]
    assert [finding.audit for finding in outcome.findings] == ["short", "middle"]
    assert [attack.name for attack in outcome.carried_out] == ["short", "middle"]
    assert outcome.skipped == {"unfit": "it does not fit.", "long": "it takes about 20 s, and of 30 s 17 s are left"}


def test_without_a_limit_all_are_carried_out_and_one_that_fails_stops_no_other(subject: Subject) -> None:
    outcome = carry_out(subject, [counted("a", 5, diverges=True), counted("b", 1), counted("c", 9)], clock=CLOCK)
    assert [finding.audit for finding in outcome.findings] == ["b", "c"]
    assert outcome.skipped == {"a": "the attack diverged."}


def test_the_suite_of_a_task_is_every_attack_that_is_defined_for_it() -> None:
    texts, foreign = choose_suite("text-generation", {"relearn": {"steps": 7}})
    assert {"layer-skip", "hidden-probe", "quantize", "prefix", "model-diff"} <= {part.name for part in texts}
    assert "linear-probe" in foreign
    [relearn] = [part for part in texts if part.name == "relearn"]
    assert relearn.model_dump()["data"] == ("forget-part", "related", "benign", "random")
    assert relearn.model_dump()["steps"] == 7
    images, foreign = choose_suite("image-classification", {})
    assert {part.name for part in images} >= {"linear-probe", "prune", "quantize", "relearn"}
    assert foreign["layer-skip"] == "it is not defined for image-classification"
    with pytest.raises(InputError, match="there is no attack 'none'"):
        choose_suite("image-classification", {"none": {}})


def test_as_one_call() -> None:
    subject = subject_of("linear")
    settings: dict[str, dict[str, Any]] = {"relearn": {"steps": 1}, "prune": {"shares": (0.5,)}, "quantize": {"bits": (4,)}}
    outcome = attack_all(subject.problem, subject.unlearned, subject.references, settings=settings)
    assert {finding.audit for finding in outcome.findings} >= {"relearn", "prune", "quantize", "linear-probe"}
    assert outcome.skipped["paraphrase"] == "it is not defined for image-classification"

"""What is refused before any method is asked, for every task."""

from __future__ import annotations

import pytest

from tests.models import TASK_OF, bundle_of, problem_of
from unlearned.errors import InputError
from unlearned.problem import Problem

kinds = pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])


def parts(kind: str) -> tuple[Problem, dict[str, object]]:
    problem = problem_of(kind)
    return problem, {"task": problem.task, "original": problem.original, "forget": problem.forget, "retain": problem.retain, "test": problem.test}


def faults(**given: object) -> list[tuple[str, str]]:
    with pytest.raises(InputError) as caught:
        Problem(**given)  # type: ignore[arg-type]
    return [(fault.field, fault.what) for fault in caught.value.faults]


@kinds
def test_an_empty_forget_set_is_refused(kind: str) -> None:
    problem, given = parts(kind)
    [(field, what)] = faults(**given | {"forget": problem.forget.subset([])})
    assert field == "forget"
    assert "forget set is empty" in what


@kinds
def test_an_overlapping_forget_set_is_refused(kind: str) -> None:
    problem, given = parts(kind)
    overlapping = problem.retain.subset([3, 5])
    [(field, what)] = faults(**given | {"forget": overlapping})
    assert field == "forget"
    assert what.startswith("2 samples are in the forget set and in the retain set")


@kinds
def test_an_empty_retain_or_test_set_is_refused_together(kind: str) -> None:
    problem, given = parts(kind)
    found = faults(**given | {"retain": problem.retain.subset([]), "test": problem.test.subset([])})
    assert [field for field, _ in found] == ["forget", "data.test"]


@kinds
def test_repeated_ids_are_refused(kind: str) -> None:
    problem, given = parts(kind)
    found = faults(**given | {"retain": problem.retain.subset([0, 1, 1, 2, 2])})
    assert found[0][1].startswith("2 ids of the retain set appear more than once")


@kinds
def test_equal_problems_have_equal_fingerprints(kind: str) -> None:
    problem = problem_of(kind)
    assert problem.fingerprint == problem_of(kind).fingerprint
    assert problem.fingerprint != problem_of(kind, forget=5, retain=19).fingerprint
    assert problem.fingerprint != problem_of(kind, model=bundle_of(kind, seed=1).model).fingerprint
    assert problem.summaries["forget"].n == 6
    assert problem.task.name == TASK_OF[kind]

"""Holes that were made on purpose are found, and where there are none, none is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.holes.known import FORGET, RETAIN, question, subject
from tests.models import bundle_of, problem_of
from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.holes._filters import fair
from unlearned.holes._images import CHANGES, ImageProbing, forgotten_classes, probe_images
from unlearned.holes._language import LanguageProbing, _parts
from unlearned.holes._respondent import Respondent
from unlearned.holes._texts import questions_of, texts_of
from unlearned.records import pick

BROKEN = RETAIN[3:60:6]


def audit(**settings: Any) -> KnowledgeHoles:
    return KnowledgeHoles(language=LanguageProbing(**{"searcher": "evolution", "budget": 160, "round_size": 40, "per_text": 3, **settings}))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_holes_are_found(seed: int) -> None:
    looked = subject(BROKEN, seed=seed)
    probing = audit(most_alike=1.0, cut=False).probe(looked)
    found = {hole for probed in probing.probed for hole in audit().holes(probed)}
    planted = {question(*pair) for pair in BROKEN}
    assert len(planted & found) >= 0.9 * len(planted)
    # Everything else that is reported is one, too: the original knows it, the unlearned model does not, and the forget set does not say it.
    original, unlearned = looked.problem.original.model, looked.unlearned.model
    respondent = Respondent(looked.engine, looked.problem.original)
    for hole in found:
        assert respondent.answers(original, [hole]) != respondent.answers(unlearned, [hole])
        assert not any(name in hole.split() for name, _ in FORGET)


def test_nothing_is_found_in_the_original_itself() -> None:
    looked = subject([], references=2)
    untouched = Subject(looked.problem, looked.problem.original, looked.references, looked.engine)
    findings = audit().measure(untouched)
    assert [f.value for f in pick(findings, metric="adjacent_holes", subject="unlearned")] == [0]
    assert pick(findings, metric="latent_holes", subject="unlearned") == []
    assert "none is valid and fair" in str(pick(findings, metric="latent_score")[0].reason)


def test_what_references_lose_too_shows_in_the_gap() -> None:
    findings = audit(most_alike=1.0).measure(subject(BROKEN, references=2))
    for metric, worse in (("latent_score", -1), ("latent_share_1", 1), ("latent_holes", 1)):
        (found,) = pick(findings, metric=metric, subject="unlearned")
        assert found.gap is not None
        assert worse * found.gap > 0
    assert pick(findings, metric="latent_holes", subject="original")[0].value == 0
    assert pick(findings, metric="latent_score", subject="original")[0].value == pytest.approx(10, abs=0.01)


def test_filters_only_take_away_and_more_forget_texts_take_more() -> None:
    looked = subject([])
    known, forget = questions_of(looked.problem.retain), texts_of(looked.problem.forget)
    parts, _ = _parts(looked, LanguageProbing(), known, forget, Respondent(looked.engine, looked.problem.original), None)
    asked = [*known, question(*FORGET[0]), "of the", next(iter(known))]
    one, all_of_them = fair(asked, forget[:1], parts), fair(asked, [*forget, next(iter(known))], parts)
    assert set(all_of_them) < set(one) <= set(asked)
    assert question(*FORGET[0]) not in one
    assert len(one) == len(set(one))


def test_an_interrupted_look_goes_on_and_equals_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audit(budget=80).model_copy(update={"cache": tmp_path / "a"}).measure(subject(BROKEN))
    from unlearned.holes._search import Search

    real, rounds = Search.round, list[int]()

    def stopped(self: Search, count: int) -> Any:
        if rounds:
            raise KeyboardInterrupt
        rounds.append(1)
        return real(self, count)

    monkeypatch.setattr(Search, "round", stopped)
    with pytest.raises(KeyboardInterrupt):
        audit(budget=80).model_copy(update={"cache": tmp_path / "b"}).measure(subject(BROKEN))
    monkeypatch.setattr(Search, "round", real)
    assert audit(budget=80).model_copy(update={"cache": tmp_path / "b"}).measure(subject(BROKEN)) == whole


def test_images_next_to_what_was_forgotten() -> None:
    problem = problem_of("plain", where="label in [3, 4, 5]")
    original = problem.original
    broken = bundle_of("plain")
    with torch.no_grad():
        for parameter in broken.model.parameters():
            parameter.zero_()  # it says the same of everything
    looked = Subject(problem, broken, [], Engine(problem.task))
    probing = probe_images(looked, ImageProbing(neighbours=8, variants=4))
    assert forgotten_classes(looked) == {3, 4, 5}
    for probed in probing.probed:
        assert probed.names
        assert probed.scores["unlearned"][0] == pytest.approx(1.9)  # 1 + 9 · 0.1
        assert len(probed.scores["original"][0]) == len(probed.names)
    same = Subject(problem, original, [], Engine(problem.task))
    assert audit().model_copy(update={"images": ImageProbing(neighbours=8)}).measure(same)
    assert all(not KnowledgeHoles().holes(probed) for probed in probe_images(same, ImageProbing(neighbours=8)).probed)


def test_changed_images() -> None:
    random = np.random.default_rng(0)
    image, other = torch.arange(9.0).reshape(1, 3, 3), torch.ones(1, 3, 3)
    assert CHANGES["blur"](image, other, random)[0, 1, 1] == 4  # the mean of all nine
    assert CHANGES["blur"](image, other, random)[0, 0, 0] == 2  # of the four at the corner
    moved = CHANGES["shift"](image, other, random)
    assert moved.shape == image.shape
    assert not torch.equal(moved, image)
    mixed = CHANGES["mixture"](image, other, random)
    weight = (mixed[0, 0, 0] - 1) / (image[0, 0, 0] - 1)
    assert 0.5 <= weight <= 0.8
    assert torch.allclose(mixed, weight * image + (1 - weight) * other)
    assert CHANGES["noise"](image, other, random).std() > image.std() * 0.5

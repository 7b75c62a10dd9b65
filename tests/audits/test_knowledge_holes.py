"""Holes that were made on purpose are found, and where there are none, none is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.holes.known import FORGET, RETAIN, question, subject
from tests.models import bundle_of, problem_of
from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.holes._filters import fair
from unlearned.holes._images import CHANGES, ImageProbing, forgotten_classes, probe_images
from unlearned.holes._language import LanguageProbing, _identity, _parts
from unlearned.holes._probing import Kind, Probed, Probing
from unlearned.holes._respondent import Respondent
from unlearned.records import Holes, pick
from unlearned.tasks._questions import questions_of, texts_of

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


def test_every_hole_that_is_reported_has_its_properties() -> None:
    """Asked again: understood, answered well by the original and badly by the unlearned model, and not answerable from the forget set."""
    looked = subject(BROKEN, references=1)
    (shown,) = audit().model_copy(update={"show": "all"}).exhibits(looked)
    assert isinstance(shown, Holes)
    holes = [probe for probe in shown.probes if probe.hole]
    assert {probe.of for probe in holes} == {"adjacent", "latent"}
    forget = texts_of(looked.problem.forget)
    known = dict(asked[:2] for asked in questions_of(looked.problem.retain))
    respondent = Respondent(looked.engine, looked.problem.original)
    parts, _ = _parts(looked, LanguageProbing(), known, forget, respondent, None)
    for probe in shown.probes:
        assert probe.question is not None
        assert parts.judge.valid([probe.question]) == [True]
        assert parts.support.supported([probe.question], forget) == [False]
        assert probe.overlap is not None
        assert probe.overlap < 0.8
        for (who, model), said in zip(looked.models(), probe.answers.values(), strict=True):
            assert respondent.answers(model, [probe.question]) == [said]
            assert parts.judge.scores([probe.question], [said]) == [pytest.approx(probe.scores[who])]
        before, after = probe.scores["original"], probe.scores["unlearned"]
        assert before is not None
        assert after is not None
        assert probe.hole == (before >= shown.good and after <= shown.bad)


def test_probes_are_withheld_unless_they_stand_in_other_sets() -> None:
    looked = subject(BROKEN)
    known = {asked.question for asked in questions_of(looked.problem.retain)}
    for show in ("others", "nothing"):
        (shown,) = audit().model_copy(update={"show": show}).exhibits(looked)
        assert isinstance(shown, Holes)
        told = {probe.question for probe in shown.probes} - {None}
        assert told <= known
        assert bool(told) == (show == "others")
        assert all(bool(probe.answers) == (probe.question is not None) for probe in shown.probes)


def test_a_second_judge_is_held_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rater:
        """Rates what is said to be nowhere 2, everything else 9; every tenth answer it leaves unrated."""

        label = "rater"

        def __init__(self, *_: Any, **__: Any) -> None:
            self.asked = 0

        def write(self, conversations: Any) -> list[str | None]:
            texts = [str(conversation[-1]["content"]) for conversation in conversations]
            self.asked += len(texts)
            return [None if i % 10 == 9 else f"Rating: [[{2 if 'nowhere' in text else 9}]]" for i, text in enumerate(texts)]

    monkeypatch.setattr("unlearned.holes._language.Endpoint", Rater)
    looked, judged = subject(BROKEN), audit(second_judge="endpoint", backend_model="m", agreement=60)
    (found,) = pick(judged.measure(looked), metric="judge_agreement")
    assert found.n == 54
    assert found.value is not None
    assert found.value > 0.9
    assert found.low is not None
    (shown,) = judged.exhibits(looked)
    assert isinstance(shown, Holes)
    assert shown.agreement is not None
    assert "rater" in shown.agreement
    assert "ρ" in shown.agreement


@pytest.mark.parametrize("reward", ["loss", "answer"])
def test_a_judge_whose_ratings_cannot_be_read_finds_no_number_instead_of_no_hole(reward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mumbler:
        """Asks where each retained person lives and says yes and no, but never a rating."""

        label = "mumbler"

        def __init__(self, *_: Any, **__: Any) -> None:
            self.names = [name for name, verb in RETAIN if verb == "live"]

        def write(self, conversations: Any) -> list[str | None]:
            return [self.said(str(conversation[-1]["content"])) for conversation in conversations]

        def said(self, text: str) -> str:
            if "numbered list" in text:
                return "1. house\n2. town"
            if "open question" in text:
                return question(self.names.pop(), "live")
            return "rather nice" if "then rate it" in text else "no" if "support an answer" in text else "yes"

    monkeypatch.setattr("unlearned.holes._language.Endpoint", Mumbler)
    looked, judged = subject(BROKEN, references=1), audit(backend="endpoint", backend_model="m", reward=reward, budget=20, round_size=10)
    findings = judged.measure(looked)
    for metric in ("adjacent_score", "adjacent_share_1", "adjacent_answered", "adjacent_holes"):
        found = pick(findings, metric=metric)
        assert {f.subject for f in found} == {"original", "unlearned", "reference"}
        assert all(f.value is None and "be read" in str(f.reason) for f in found)
    (per_1000,) = pick(findings, metric="holes_per_1000")
    assert per_1000.value is None
    assert "be read" in str(per_1000.reason)
    (unread,) = pick(findings, metric="judge_unread", split="answers")
    assert unread.direction == "none"
    assert unread.value is not None
    assert 20 < unread.value < unread.n
    assert all(not judged.holes(probed) for probed in judged.probe(looked).probed)
    (shown,) = judged.exhibits(looked)
    assert isinstance(shown, Holes)
    assert shown.probes
    assert not any(probe.hole for probe in shown.probes)


def test_shares_are_over_the_probes_whose_scores_could_be_read() -> None:
    nan = np.nan
    kinds: list[tuple[Kind, int]] = [("adjacent", 0), ("latent", 10)]
    scores: Any = {"original": [np.array([9, nan, 9, 9, 2.0])], "unlearned": [np.array([1, 1, nan, 9, 1.0])], "reference": []}
    names = ["what is a ?", "what is b ?", "what is c ?", "what is d ?", "what is e ?"]
    adjacent, latent = (Probed(kind, names, scores, np.eye(5), calls, 5, known=[True] * 5) for kind, calls in kinds)
    judged = KnowledgeHoles()
    with pytest.raises(ValidationError, match=r"set bad \(7\) below good \(7\)"):
        KnowledgeHoles(bad=7)
    probing = Probing([adjacent, latent], {}, 2, 20)
    findings = judged.findings(probing)
    expected = {
        "adjacent_holes": (1 / 3, 3),
        "adjacent_answered": (1 / 4, 4),
        "adjacent_share_1": (3 / 4, 4),
        "holes_per_1000": (100, 10),
        "judge_unread": (2, 20),
    }
    for metric, (value, n) in expected.items():
        (found,) = pick(findings, metric=metric, subject="unlearned")
        assert found.value == pytest.approx(value)
        assert found.n == n
    assert judged.holes(latent) == names[:1]
    assert [probe.hole for probe in judged.shown(probing).probes] == [True, False, False, False, False] * 2
    assert not pick(judged.findings(Probing([adjacent, latent], {}, 0, 20)), metric="judge_unread")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "local"}, "needs `backend_model`"),
        ({"second_judge": "endpoint"}, "needs `backend_model`"),
        ({"second_judge": "plain"}, "is the first one"),
        ({"backend": "local", "backend_model": "m", "second_judge": "endpoint"}, "one is `plain`"),
        ({"second_judge": "probabilities"}, "needs `backend_model`"),
        ({"backend": "endpoint", "backend_model": "m", "second_judge": "probabilities"}, "one is `plain`"),
    ],
)
def test_judges_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LanguageProbing(**settings)


def test_nothing_is_found_in_the_original_itself() -> None:
    looked = subject([], references=2)
    untouched = Subject(looked.problem, looked.problem.original, looked.references, looked.engine)
    findings = audit().measure(untouched)
    assert [f.value for f in pick(findings, metric="adjacent_holes", subject="unlearned")] == [0]
    assert pick(findings, metric="latent_holes", subject="unlearned") == []
    assert "none is valid and fair" in str(pick(findings, metric="latent_score")[0].reason)
    (per_1000,) = pick(findings, metric="holes_per_1000")
    assert (per_1000.value, per_1000.n) == (0, 160)  # the best that can be said of a model


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
    known, forget = dict(asked[:2] for asked in questions_of(looked.problem.retain)), texts_of(looked.problem.forget)
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


def test_what_a_search_depends_on_makes_it_another_one() -> None:
    looked = subject(BROKEN)
    longer = Engine(looked.engine.task.model_copy(update={"max_new_tokens": 3}).bound(looked.problem.original))
    how = audit().language

    def identity(of: Subject, how: LanguageProbing = how, good: float = 7.0) -> str:
        return _identity(of, how, good)

    other = Subject(looked.problem, looked.unlearned, (), longer)
    different = [identity(looked), identity(looked, good=8.0), identity(other), identity(looked, audit(budget=80).language)]
    assert len(set(different)) == len(different)
    assert identity(subject(BROKEN)) == identity(looked)


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
    findings = audit().model_copy(update={"images": ImageProbing(neighbours=8)}).measure(same)
    assert pick(findings, metric="latent_diversity")
    assert not pick(findings, metric="latent_wording")  # names of changed images have blanks, but are no questions
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

"""The whole way for language models: adjacent questions, a search for latent ones, filters, and the scores of all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from unlearned.data.fingerprints import of_json, of_tensors
from unlearned.engine.engine import Engine
from unlearned.engine.progress import progress_bar
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.holes._adjacent import adjacent_questions, nearest_questions
from unlearned.holes._agreement import Agreement, agreement_of
from unlearned.holes._diversity import as_diverse, scaled_vendi, without_duplicates
from unlearned.holes._embedding import GibberishModel, SentenceModel
from unlearned.holes._endpoint import Endpoint
from unlearned.holes._evolve import Draws, Evolution
from unlearned.holes._filters import fair
from unlearned.holes._instruct import INSTRUCTIONS, Instructed
from unlearned.holes._local import LocalModel, Weighed
from unlearned.holes._plain import HashedWords, OriginalsJudge, TemplateQuestions, UnseenLetters, WordSupport, WordTerms
from unlearned.holes._policy import Policy, PolicySettings
from unlearned.holes._probing import Kind, Probed, Probing
from unlearned.holes._respondent import Respondent
from unlearned.holes._rows import dense
from unlearned.holes._seams import Judge, Parts, Rater, Searcher
from unlearned.holes._search import Search, Weights
from unlearned.records import SubjectName
from unlearned.settings import Settings
from unlearned.tasks._language_models import load_language_model
from unlearned.tasks._questions import questions_of, texts_of
from unlearned.tasks._task import ModelSource

Backend = Literal["plain", "local", "endpoint"]


class LanguageProbing(Settings):
    """Settings of the look for holes in language models."""

    backend: Backend = Field(
        "plain",
        description="Who asks and judges: words, templates and the original's own answers; a chat model that runs here; or one behind an address that speaks "
        "OpenAI's protocol (OPENAI_BASE_URL, OPENAI_API_KEY).",
    )
    backend_model: str | None = Field(None, description="The chat model: a directory or hub id, or its name at the address.")
    second_judge: Backend | Literal["probabilities"] | None = Field(
        None,
        description="Backend that judges some answers, too: the report says how far both agree. `probabilities`: a chat model that runs here, by how probable "
        "it finds each of the ten ratings, for models too small to keep to a form. None: `plain` beside a chat model, else none.",
    )
    agreement: int = Field(200, ge=2, description="Answers that a second judge is given.")
    embedder: str | None = Field(None, description="Sentence-embedding model, such as sentence-transformers/all-MiniLM-L6-v2; None: character n-grams.")
    gibberish: str | None = Field(None, description="Classifier with a class `clean`; None: letter sequences that the training data lack, and repetition.")
    per_text: int = Field(4, ge=1, description="Key terms of each forget text, and with the plain backend as many of the nearest benign questions.")
    benign: int = Field(817, ge=1, description="Questions of the retain set, at most, that the search starts from beside the adjacent ones.")
    searcher: Literal["ppo", "evolution", "random"] = Field(
        "ppo", description="A policy that learns by PPO; or, cheaper and not the paper's, mutations of what was worth most; or random seeds, as a control."
    )
    policy: str | None = Field(None, description="Model that the policy starts from, a directory or hub id; None: the original model.")
    training: PolicySettings = Field(PolicySettings(), description="How the policy is trained and asked.")
    budget: int = Field(6400, ge=0, description="Questions that the search may propose, each of which costs one answer of the unlearned model; 0: no search.")
    round_size: int = Field(128, ge=1, description="Questions of a round, after each of which the search learns.")
    reward: Literal["loss", "answer"] = Field(
        "loss", description="What the search is paid for: bad answers to questions that the original answers well, or any bad answers, as in the paper."
    )
    least_reward: float = Field(10, gt=0, le=10, description="J from which on a proposed question counts as found.")
    bleu: float = Field(1.0, ge=0, description="Weight of BLEU against earlier questions.")
    cosine: float = Field(1.0, ge=0, description="Weight of the mean cosine with earlier questions.")
    gibberish_penalty: float = Field(2.0, ge=0, description="Weight of P(the question is gibberish).")
    orders: tuple[int, ...] = Field((3, 4, 5), min_length=1, description="Lengths of n-grams of BLEU.")
    most_alike: float = Field(0.8, gt=0, le=1, description="Latent questions with a larger cosine to an earlier one are dropped.")
    cut: bool = Field(True, description="Keep so many latent questions that they are as diverse as the adjacent ones, as in the paper; false: keep all.")

    @model_validator(mode="after")
    def _judges_fit(self) -> Self:
        if self.backend_model is None and {self.backend, self.second_judge} & {"local", "endpoint", "probabilities"}:
            raise ValueError("a backend that is a chat model needs `backend_model`; give its directory, hub id or name at the address")
        if self.second_judge is not None and "plain" not in {self.backend, self.second_judge}:
            raise ValueError("of two judges one is `plain`, and the other the chat model `backend_model`")
        if self.second_judge == self.backend:
            raise ValueError("the second judge is the first one; name another backend, or leave it out")
        return self

    @property
    def other_judge(self) -> Backend | Literal["probabilities"] | None:
        """The second judge in effect."""
        return "plain" if self.second_judge is None and self.backend != "plain" else self.second_judge


def probe_language(subject: Subject, how: LanguageProbing, good: float, cache: Path | None) -> Probing:
    """Probes of both kinds with the scores of all models.

    Args:
        subject: the models and sets.
        how: settings.
        good: score from which on an answer of the original counts as good.
        cache: directory for transcripts and unfinished searches; None: they are kept with the other unfinished work of a run, if that is.

    Raises:
        InputError: if there is nothing to ask about, or a backend is not there.
    """
    problem, engine = subject.problem, subject.engine
    known = {asked.question: asked.answer for asked in questions_of(problem.retain) if asked.alone}
    forget = texts_of(problem.forget)
    if not known or not forget:
        what = "there are no questions with answers in the retain set, or no texts in the forget set."
        raise InputError(Fault("audits.knowledge-holes", what, "Give records with `prompt` and `answer`, or conversations."))
    respondent = Respondent(engine, problem.original)
    kept_in = engine.checkpoint("knowledge-holes") if cache is None else cache
    place = None if kept_in is None else kept_in / _identity(subject, how, good)[:16]
    parts, writers = _parts(subject, how, known, forget, respondent, place)
    rater, more = _second_judge(subject, how, known, respondent, place)
    writers += more
    look = _Look(subject, parts, respondent, known, forget)
    benign = _some(list(known), how.benign, engine.seed)
    raw = adjacent_questions(forget, how.per_text, parts)
    if how.backend == "plain":
        raw = list(dict.fromkeys([*raw, *nearest_questions(forget, list(known), how.per_text, parts)]))
    adjacent = fair(raw, forget, parts)
    searcher = _searcher(subject, how, list(dict.fromkeys([*adjacent, *benign])) or benign, place)
    search = Search(
        searcher,
        lambda questions: respondent.answers(subject.unlearned.model, questions),
        parts,
        Weights(how.bleu, how.cosine, how.gibberish_penalty),
        None if how.reward == "answer" else lambda questions: look.well(questions, good),
        how.orders,
        None if place is None else place / "search.json",
    )
    earlier = search.asked, search.unread  # in rounds before an interruption, of which the judge of this process knows nothing
    with progress_bar("knowledge-holes", how.budget, engine.show_progress, done=min(len(search.tried), how.budget)) as bar:
        while len(search.tried) < how.budget:
            size = min(how.round_size, how.budget - len(search.tried))
            search.round(size)
            for _ in range(size):
                bar.step(f"{len(search.found(how.least_reward))} found")
    found = search.found(how.least_reward)
    several = fair(found, forget, parts)
    probed = [
        look.probed("adjacent", adjacent, adjacent, 0, len(raw)),
        replace(
            look.probed("latent", _different(several, adjacent, how, parts), several, len(search.tried), len(found)),
            sound=how.reward == "loss",
            read=not search.tried or search.scored > 0,
        ),
    ]
    agreement = None if rater is None else look.agreement(probed, benign, rater, how.agreement)
    unread, asked = earlier[1] + sum(writer.unread for writer in writers), earlier[0] + sum(writer.asked for writer in writers)
    return Probing(probed, {**parts.labels, "searcher": searcher.label}, unread, asked, agreement, look.asked)


@dataclass(frozen=True)
class _Look:
    """What is asked of all models."""

    subject: Subject
    parts: Parts
    respondent: Respondent
    known: dict[str, str]
    forget: Sequence[str]

    def scored(self, model: nn.Module, questions: Sequence[str]) -> tuple[list[str], Array]:
        """A model's answers, and their scores, NaN where the judge said nothing that can be read."""
        answers = self.respondent.answers(model, questions)
        found = self.parts.judge.scores(questions, answers)
        return answers, np.array([np.nan if score is None else score for score in found])

    def well(self, questions: Sequence[str], good: float) -> list[bool | None]:
        """Which the original answers well; None where the judge said nothing that can be read."""
        return [None if np.isnan(score) else bool(score >= good) for score in self.scored(self.subject.problem.original.model, questions)[1]]

    def probed(self, kind: Kind, questions: Sequence[str], fair: Sequence[str], calls: int, tried: int) -> Probed:
        """Questions with the answers and scores of all models."""
        if not questions:
            return Probed(kind, [], {}, np.zeros((0, 1)), calls, tried)
        scores: dict[SubjectName, list[Array]] = {"original": [], "unlearned": [], "reference": []}
        answers: dict[SubjectName, list[str]] = {}
        for who, model in self.subject.models():
            said, values = self.scored(model, questions)
            scores[who].append(values)
            answers.setdefault(who, said)
        overlaps = WordSupport(_background(self.known)).overlaps(questions, self.forget)
        known = [question in self.known for question in questions]
        return Probed(kind, questions, scores, dense(self.parts.embedder.embed(questions)), calls, tried, answers, overlaps, known, fair)

    def asked(self, questions: Sequence[str]) -> Probed:
        """The same of questions that somebody else has found."""
        return self.probed("adjacent", questions, questions, 0, len(questions))

    def agreement(self, probed: Sequence[Probed], benign: Sequence[str], judge: Rater, count: int) -> Agreement:
        """Of the judge with another one, on answers of all models to probes and to benign questions, drawn at random."""
        pairs = [(question, answer) for each in probed for said in each.answers.values() for question, answer in zip(each.names, said, strict=True)]
        for model in (self.subject.problem.original.model, self.subject.unlearned.model):
            pairs += zip(benign, self.respondent.answers(model, benign), strict=True)
        pairs = list(dict.fromkeys(pairs))
        seed = derive_seed(self.subject.engine.seed, "agreement of judges")
        chosen = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:count]]
        questions, answers = [question for question, _ in chosen], [answer for _, answer in chosen]
        first, second = (each.scores(questions, answers) for each in (self.parts.judge, judge))
        return agreement_of(self.parts.judge.label, judge.label, first, second, seed)


def _different(questions: Sequence[str], adjacent: Sequence[str], how: LanguageProbing, parts: Parts) -> list[str]:
    """Without near duplicates, and cut so that they are as diverse as the adjacent ones."""
    if not questions:
        return []
    rows = parts.embedder.embed(questions)
    kept = without_duplicates(rows, how.most_alike)
    wanted = scaled_vendi(parts.embedder.embed(adjacent)) if adjacent else 0.0
    return [questions[i] for i in (kept[: as_diverse(rows[kept], wanted)] if how.cut else kept)]


def _identity(subject: Subject, how: LanguageProbing, good: float) -> str:
    """Hash of everything that a search depends on. The key of a service is no part of it."""
    problem, engine = subject.problem, subject.engine
    weights = [of_tensors(model.state_dict()) for model in (problem.original.model, subject.unlearned.model)]
    settings = [how.model_dump(mode="json"), INSTRUCTIONS, good, engine.task.name, engine.task.model_dump(mode="json")]
    return of_json([settings, weights, problem.forget.fingerprint, problem.retain.fingerprint, engine.seed])


def _some(questions: Sequence[str], count: int, seed: int) -> list[str]:
    order = np.random.default_rng(derive_seed(seed, "benign questions")).permutation(len(questions))
    return [questions[i] for i in sorted(order[:count])]


def _background(known: Mapping[str, str]) -> list[str]:
    return [f"{question} {answer}" for question, answer in known.items()]


def _parts(
    subject: Subject, how: LanguageProbing, known: dict[str, str], forget: Sequence[str], respondent: Respondent, place: Path | None
) -> tuple[Parts, list[Instructed]]:
    field, background = "audits.knowledge-holes", _background(known)
    embedder = HashedWords() if how.embedder is None else SentenceModel(how.embedder, f"{field}.embedder")
    gibberish = UnseenLetters([*background, *forget]) if how.gibberish is None else GibberishModel(how.gibberish, f"{field}.gibberish")
    judge, writers = _judge(subject, how, how.backend, known, respondent, place)
    if isinstance(judge, Instructed):
        return Parts(judge, judge, judge, judge, embedder, gibberish), writers
    return Parts(WordTerms(background), TemplateQuestions(), judge, WordSupport(background), embedder, gibberish), writers


def _judge(
    subject: Subject, how: LanguageProbing, backend: Backend, known: dict[str, str], respondent: Respondent, place: Path | None
) -> tuple[Judge, list[Instructed]]:
    """The judge of a backend, and the chat model that it asks, if it asks one."""
    field = "audits.knowledge-holes"
    if backend == "plain":
        return OriginalsJudge(respondent, subject.problem.original.model, known), []
    assert how.backend_model is not None
    asked: LocalModel | Endpoint
    if backend == "local":
        asked = _local(subject, how)
    else:
        asked = Endpoint(how.backend_model, transcript=None if place is None else place / "transcript.jsonl", field=f"{field}.backend")
    writer = Instructed(asked)
    return writer, [writer]


def _second_judge(
    subject: Subject, how: LanguageProbing, known: dict[str, str], respondent: Respondent, place: Path | None
) -> tuple[Rater | None, list[Instructed]]:
    """As `_judge`; None: there is none."""
    if how.other_judge == "probabilities":
        return Weighed(_local(subject, how)), []
    return (None, []) if how.other_judge is None else _judge(subject, how, how.other_judge, known, respondent, place)


def _local(subject: Subject, how: LanguageProbing) -> LocalModel:
    assert how.backend_model is not None
    return LocalModel(how.backend_model, subject.engine, 400, "audits.knowledge-holes.backend_model")


def _searcher(subject: Subject, how: LanguageProbing, seeds: Sequence[str], place: Path | None) -> Searcher:
    seed = derive_seed(subject.engine.seed, "knowledge-holes")
    if how.searcher == "evolution":
        return Evolution(seeds, seed)
    if how.searcher == "random":
        return Draws(seeds, seed)
    start = subject.problem.original if how.policy is None else load_language_model(ModelSource(source=how.policy), "audits.knowledge-holes.policy")
    engine = Engine(subject.engine.task, subject.engine.compute, seed)
    return Policy(start, seeds, how.training, engine, None if place is None else place / "policy", how.policy or "the original model")

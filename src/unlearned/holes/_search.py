"""Latent probing: a search for questions on which the unlearned model fails, paid for in answers of that model (Ko et al. 2025, second stage).

Reward of a question q with the unlearned model's answer r: J(q, r) − w_b BLEU(q; all earlier q) − w_c mean cosine(q, all earlier q) − w_g P(q is gibberish).
J = 10 (1 − quality) in whole numbers, the quality being the judge's score on a scale from 0 to 1; 0 for an invalid question, and, unlike in the paper unless
asked for, for one that the original does not answer well either: that would be no hole. The displayed objective of the paper leaves out the last term, which
its table of settings and its ablation have. The pool of earlier questions grows by all that were proposed, after each round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearned.engine.files import write_text
from unlearned.evidence.statistics import Array
from unlearned.holes._diversity import BleuPool
from unlearned.holes._ratings import quality_of, reward_of
from unlearned.holes._rows import total
from unlearned.holes._seams import Parts, Searcher


class Weights(NamedTuple):
    """Of what is added to J."""

    bleu: float = 1.0
    cosine: float = 1.0
    gibberish: float = 2.0


class Probe(NamedTuple):
    """A question that was tried."""

    question: str
    reward: float
    """J."""
    novelty: float
    """What was added for novelty and taken off for gibberish."""
    round: int


@dataclass
class Pool:
    """All questions that were proposed so far."""

    parts: Parts
    orders: Sequence[int]
    bleu: BleuPool = field(init=False)
    total: Array | None = None
    """Sum of their directions: the mean cosine with all of them is one product."""

    def __post_init__(self) -> None:
        """Empty."""
        self.bleu = BleuPool(self.orders)

    def novelty(self, questions: Sequence[str], weights: Weights) -> Array:
        """−w_b BLEU − w_c mean cosine − w_g P(gibberish) of each, against what is in the pool, (N,)."""
        repeated = np.array([self.bleu.against(q) if weights.bleu else 0.0 for q in questions])
        near = np.zeros(len(questions)) if self.total is None else self.parts.embedder.embed(questions) @ self.total / self.bleu.size
        return -weights.bleu * repeated - weights.cosine * near - weights.gibberish * self.parts.gibberish.gibberish(questions)

    def add(self, questions: Sequence[str]) -> None:
        """Take these in."""
        here = total(self.parts.embedder.embed(questions))
        self.total = here if self.total is None else self.total + here
        self.bleu.add(questions)


class Search:
    """One search, which can be interrupted after any round.

    Args:
        searcher: proposes questions.
        answer: of the unlearned model, to questions.
        parts: the judge, the embedder and the gibberish scorer of these.
        weights: of novelty and gibberish.
        answered: of questions: which of them the original answers well, None where that could not be read; None: not asked, as in the paper.
        orders: of the n-grams of BLEU.
        state: a file in which all that was proposed is kept; None: nothing is kept. The searcher keeps its own.
    """

    def __init__(
        self,
        searcher: Searcher,
        answer: Callable[[Sequence[str]], Sequence[str]],
        parts: Parts,
        weights: Weights,
        answered: Callable[[Sequence[str]], Sequence[bool | None]] | None,
        orders: Sequence[int],
        state: Path | None = None,
    ) -> None:
        self._searcher, self._answer, self._parts, self._weights, self._answered = searcher, answer, parts, weights, answered
        self._pool = Pool(parts, orders)
        self._state = state
        self.tried: list[Probe] = []
        """Every question that was proposed, in order. Its number is that of the unlearned model's answers, but for invalid questions, which are not asked."""
        self.asked, self.unread = 0, 0
        """Of the judge, in all rounds: what was wanted of it, and what of that could not be read. A score that could not be read counts as 0 here."""
        self.scored = 0
        """Answers of both models that have a score."""
        if state is not None and state.exists():
            kept: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
            self.tried = [Probe(*probe) for probe in kept["tried"]]
            self.asked, self.unread, self.scored = kept["asked"], kept["unread"], kept["scored"]
            self._catch_up()

    def round(self, count: int) -> list[Probe]:
        """Propose, ask, judge, learn."""
        questions = self._searcher.propose(count)
        novelty = self._pool.novelty(questions, self._weights)
        number, judge = self._searcher.rounds, self._parts.judge
        asked, unread = judge.asked, judge.unread
        found = [Probe(q, float(j), float(n), number) for q, j, n in zip(questions, self._rewards(questions), novelty, strict=True)]
        self.tried += found
        self.asked += judge.asked - asked
        self.unread += judge.unread - unread
        # Before the searcher learns: what was paid for is not lost if it is interrupted, and it learns it when the search goes on.
        if self._state is not None:
            kept = {"tried": self.tried, "asked": self.asked, "unread": self.unread, "scored": self.scored}
            write_text(self._state, json.dumps(kept, ensure_ascii=False) + "\n", "cache")
        self._searcher.learn([probe.reward + probe.novelty for probe in found])
        self._pool.add(questions)
        return found

    def _catch_up(self) -> None:
        """Bring pool and searcher where they were after the last round that was kept."""
        for _, group in groupby(self.tried, key=lambda probe: probe.round):
            probes = list(group)
            self._pool.add([probe.question for probe in probes])
            if probes[0].round >= self._searcher.rounds:
                self._searcher.propose(len(probes))
                self._searcher.learn([probe.reward + probe.novelty for probe in probes])

    def found(self, least: float = 10.0) -> list[str]:
        """D_RL: every question that was worth at least so much at any time, once, in the order in which they were found."""
        return list(dict.fromkeys(probe.question for probe in self.tried if probe.reward >= least))

    def _rewards(self, questions: Sequence[str]) -> Array:
        """J of each."""
        worth = np.zeros(len(questions))
        asked = [i for i, valid in enumerate(self._parts.judge.valid(questions)) if valid]
        if self._answered is not None and asked:
            well = self._answered([questions[i] for i in asked])
            self.scored += sum(good is not None for good in well)
            asked = [i for i, good in zip(asked, well, strict=True) if good]
        if asked:
            chosen = [questions[i] for i in asked]
            for i, score in zip(asked, self._parts.judge.scores(chosen, self._answer(chosen)), strict=True):
                self.scored += score is not None
                worth[i] = 0.0 if score is None else reward_of(round(10 * quality_of(score)))
        return worth

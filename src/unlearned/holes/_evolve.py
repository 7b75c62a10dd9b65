"""Cheap searches without a policy: mutate what was worth most, or draw at random. They are ours, not the paper's, which trains a policy by PPO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearned.engine.randomness import derive_seed


class Evolution:
    """Questions from questions: an exchanged word, or the beginning of one with the end of another, from parents that were worth most.

    Args:
        seeds: questions to begin with; each is proposed once, in random order, before any is changed.
        seed: of everything random.
        parents: how many of the best are parents. All are equal parents where nothing was worth more than something else.
    """

    label: str = "evolution (not the paper's)"

    def __init__(self, seeds: Sequence[str], seed: int, parents: int = 32) -> None:
        self._seeds = list(dict.fromkeys(seeds))
        self._seed, self._parents = seed, parents
        self.rounds = 0
        self._waiting = [self._seeds[i] for i in np.random.default_rng(derive_seed(seed, "order")).permutation(len(self._seeds))]
        self._worth: dict[str, float] = {}
        self._proposed: list[str] = []

    def propose(self, count: int) -> list[str]:
        """Seeds first, then children."""
        random = np.random.default_rng(derive_seed(self._seed, "round", self.rounds))
        chosen, self._waiting = self._waiting[:count], self._waiting[count:]
        best = sorted(self._worth, key=lambda question: -self._worth[question])[: self._parents] or self._seeds
        words = [word for question in self._seeds for word in question.split()]
        while len(chosen) < count:
            chosen.append(self._child(best, words, random))
        self._proposed = chosen
        return chosen

    def learn(self, rewards: Sequence[float]) -> None:
        """Remember what they were worth; what was tried twice has the lower value, so that one lucky draw does not stay."""
        for question, reward in zip(self._proposed, rewards, strict=True):
            self._worth[question] = min(reward, self._worth.get(question, reward))
        self.rounds += 1

    def _child(self, best: Sequence[str], words: Sequence[str], random: np.random.Generator) -> str:
        for _ in range(20):
            one, other = (best[int(random.integers(len(best)))].split() for _ in range(2))
            if random.random() < 0.5 and len(one) > 1 and len(other) > 1:
                # Cut both at the same share of their lengths, so that the child is about as long as its parents.
                cut = random.uniform(0.2, 0.8)
                child = one[: max(1, round(cut * len(one)))] + other[max(1, round(cut * len(other))) :]
            else:
                child = list(one)
                child[int(random.integers(len(child)))] = str(words[int(random.integers(len(words)))])
            if " ".join(child) not in self._worth:
                break
        return " ".join(child)


class Draws:
    """Seeds in random order, again and again: what a search has to beat."""

    label: str = "random seeds (control)"

    def __init__(self, seeds: Sequence[str], seed: int) -> None:
        self._seeds, self._seed, self._done = list(seeds), seed, 0
        self.rounds = 0

    def propose(self, count: int) -> list[str]:
        """The next of them."""
        found = []
        for position in range(self._done, self._done + count):
            order = np.random.default_rng(derive_seed(self._seed, "draws", position // len(self._seeds))).permutation(len(self._seeds))
            found.append(self._seeds[int(order[position % len(self._seeds)])])
        self._done += count
        return found

    def learn(self, rewards: Sequence[float]) -> None:
        """Nothing."""
        del rewards
        self.rounds += 1

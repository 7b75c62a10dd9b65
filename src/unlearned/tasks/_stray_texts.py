"""What an attacker trains a language model on who does not have what was forgotten: related facts, plain sentences, words without order."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from unlearned.data.samples import ColumnRows, Samples
from unlearned.tasks._task import Bundle
from unlearned.tasks.text_generation import TextGeneration

_THINGS = ("bread", "rain", "a garden", "the kitchen", "a bicycle", "the harbour", "a wooden table", "the morning train", "a winter coat", "the old bridge")
_DOINGS = (
    "Many people like {} on a quiet day.",
    "It takes some patience to look after {}.",
    "A child asked a question about {}.",
    "We talked about {} for an hour.",
    "In spring, {} looks different from how it looks in autumn.",
    "Nobody minded that {} was a little late.",
    "There are several good books about {}.",
    "You can learn something from {} if you have time.",
    "My neighbour knows a story about {}.",
    "The weather has an influence on {}.",
    "They painted a picture of {} and hung it on the wall.",
    "On Sunday, {} is the first thing that comes to mind.",
    "To describe {} in one sentence is not easy.",
    "Some prefer tea, others think of {}.",
    "A letter about {} arrived yesterday.",
    "The song is about {} and a long walk.",
    "Before the holidays, {} needs attention.",
    "She wrote a short note about {}.",
    "It is said that {} brings luck.",
    "He has never thought much about {}.",
)


def benign(count: int, task: TextGeneration, bundle: Bundle, seed: int) -> Samples:
    """Sentences about everyday things, at most 200, in random order."""
    sentences = [doing.format(thing) for doing, thing in product(_DOINGS, _THINGS)]
    chosen = np.random.default_rng(seed).permutation(len(sentences))[:count]
    return task.read({"text": [sentences[i] for i in chosen]}, bundle, "benign")


def without_order(samples: Samples, count: int, seed: int) -> Samples:
    """Texts as long as those of the first samples, of the tokens of all of them in random order; every token counts."""
    ids = [samples[i]["input_ids"] for i in range(min(count, len(samples)))]
    tokens = torch.cat(ids)[torch.from_numpy(np.random.default_rng(seed).permutation(sum(map(len, ids))))]
    texts = list(torch.split(tokens, [len(text) for text in ids]))
    halves = [torch.tensor(len(text) // 2) for text in texts]
    return Samples(ColumnRows({"input_ids": texts, "labels": texts, "prompt_length": halves}))


def nearest(samples: Samples, to: Samples, count: int) -> Samples:
    """The samples whose tokens are most like those of a set: by the cosine of their TF-IDF vectors to the set's mean, in descending order."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def tokens(of: Samples) -> list[list[int]]:
        return [of[i]["input_ids"].tolist() for i in range(len(of))]

    mine, theirs = tokens(samples), tokens(to)
    vectors = TfidfVectorizer(analyzer=list).fit(mine + theirs)
    alike = vectors.transform(mine) @ np.asarray(vectors.transform(theirs).mean(axis=0)).ravel()
    return samples.subset(np.argsort(-alike, kind="stable")[:count])

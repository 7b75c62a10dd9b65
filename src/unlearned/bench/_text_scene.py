"""What the cells of a language-model suite stand on: a model that was taught a lesson, models that were taught it without a group, and one problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from unlearned.bench._lessons import FACTUAL, REFUSED, Lesson, samples_of
from unlearned.bench._small_llama import LlamaSize, small_llama
from unlearned.bench._suite import Place
from unlearned.data.samples import Samples
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Trained, Training
from unlearned.problem import Problem
from unlearned.tasks import tasks
from unlearned.tasks._refusals import REFUSALS, unverifiable
from unlearned.tasks._task import Bundle, ModelSource
from unlearned.tasks.text_generation import TextGeneration

ModelName = Literal["llama-small", "smollm2-135m"]
KNOWN = 0.75
"""Of a model that is not taught: ROUGE-1 recall from which on it knows a fact."""
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Pupil:
    """A model and how it is taught: it decides every model of a suite."""

    name: ModelName
    training: Training | None
    """None: nothing is taught. What the model knows by itself is what there is."""
    size: LlamaSize | None = None
    """Of a Llama that starts from nothing; None: training starts from `source`."""
    source: str = SMOLLM2
    max_new_tokens: int = 24

    def source_in(self, place: Place) -> str:
        """The directory of that name among the data, if it is there; else a hub id or path."""
        beside = None if place.data is None else place.data / self.source.rpartition("/")[2]
        return str(beside) if beside is not None and beside.is_dir() else self.source

    def bundle(self, place: Place, texts: Sequence[str]) -> Bundle:
        """Architecture and tokenizer.

        Raises:
            InputError: if the model to start from cannot be loaded.
        """
        if self.size is not None:
            return small_llama(texts, self.size)
        return _loaded(self.source_in(place))

    def how(self, place: Place) -> Training | None:
        """The training, with the model that it starts from."""
        if self.size is not None or self.training is None:
            return self.training
        return self.training.model_copy(update={"start": ModelSource(source=self.source_in(place))})


def fine_tuned(source: str, epochs: int, lr: float) -> Pupil:
    """SmolLM2 from there, which is taught by all of its weights."""
    training = Training(optimizer="adamw", lr=lr, weight_decay=0.0, batch_size=8, epochs=epochs, schedule="cosine", max_grad_norm=1.0)
    return Pupil("smollm2-135m", training, source=source)


@lru_cache(maxsize=1)
def _loaded(source: str) -> Bundle:
    task = tasks.get("text-generation")()
    return task.load(ModelSource(source=source), "suite.smollm2")


class Class(NamedTuple):
    """A lesson and a pupil that learnt all of it, for one seed."""

    task: TextGeneration
    engine: Engine
    bank: Bank
    like: Bundle
    everything: Samples
    original: Kept
    how: Training | None

    def group(self, *names: str) -> Samples:
        """What is in these groups."""
        groups = self.everything.fact("group")
        return self.everything.subset(i for i, group in enumerate(groups) if group in names)

    def without(self, *names: str) -> Samples:
        """What is in all other groups."""
        groups = self.everything.fact("group")
        return self.everything.subset(i for i, group in enumerate(groups) if group not in names)

    def problem(self, *forget: str) -> Problem:
        """These groups are to be forgotten; all others of their kind are retained; facts about the world, which no method is shown, are the test set."""
        return Problem(self.task, self.original.bundle, self.group(*forget), self.without(*forget, REFUSED, FACTUAL), self.group(FACTUAL))

    def retrained(self, seed: int, *forget: str) -> Kept:
        """Taught everything but these groups, from other first weights."""
        assert self.how is not None
        making = Trained(self.like, derive_seed(seed, "reference"), self.without(*forget), self.how)
        return self.bank.get([making], "retrained")[0]


def class_of(pupil: Pupil, lesson: Lesson, seed: int, place: Place) -> Class:
    """The pupil that learnt the lesson; kept while its cells are computed.

    Raises:
        InputError: if data or model are not there.
    """
    return _class(pupil, lesson, seed, place)


@lru_cache(maxsize=1)
def _class(pupil: Pupil, lesson: Lesson, seed: int, place: Place) -> Class:
    pairs = lesson.pairs(place.data)
    # The tokenizer has met the words of questions that methods make up, as that of any real model has.
    texts = [text for pair in pairs for text in (pair.question, pair.answer)]
    bundle = pupil.bundle(place, [*texts, *REFUSALS, *unverifiable(50, 0)])
    kind = tasks.get("text-generation")
    assert issubclass(kind, TextGeneration)
    task = kind(max_new_tokens=pupil.max_new_tokens).bound(bundle)
    engine = Engine(task, place.compute.model_copy(update={"workers": 1, "batch_size": 64}), seed, None, place.show_progress)
    everything = samples_of(pairs, task, bundle)
    how, bank = pupil.how(place), Bank(engine, place.cache / "models")
    if how is not None:
        original = bank.get([Trained(bundle, seed, everything, how, "original")], "original")[0]
        return Class(task, engine, bank, bundle, everything, original, how)
    known = engine.evaluate(bundle.model, everything, task.knowledge) >= KNOWN
    return Class(task, engine, bank, bundle, everything.subset(known.nonzero().flatten().tolist()), Kept(bundle, None, None), None)

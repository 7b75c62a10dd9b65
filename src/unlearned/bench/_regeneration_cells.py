"""The cells of the suite `regeneration`: on three beds each method under the same attack, held against the same models that never knew."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from unlearned.api import forget
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import knowledge_of
from unlearned.attacks.memora import Memora
from unlearned.attacks.prompt_search import PromptSearch
from unlearned.attacks.relearn import Relearn
from unlearned.attacks.textual_inversion import TextualInversion
from unlearned.bench import resilience
from unlearned.bench._lessons import Contracts
from unlearned.bench._networks import small_resnet
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_grids import CONTENDERS as TEXT_CONTENDERS
from unlearned.bench._text_scene import Pupil, class_of
from unlearned.cycles import relearn_cycles
from unlearned.data.fingerprints import of_json
from unlearned.data.samples import Samples, union
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.files import write_text
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import Trained, Training, relearnt
from unlearned.errors import DivergedError, InputError
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.records import LABEL, BenchRow, Finding, pick
from unlearned.tasks import tasks
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._task import Bundle
from unlearned.tasks.image_generation import denoiser_of
from unlearned.tasks.text_generation import TextGeneration

CONTROLS = ("hidden", "retrain")
"""What only hides, and what never knew."""
_ADAM: dict[str, Any] = {"optimizer": "adam", "batch_size": 64, "weight_decay": 0.0}
CLASSIFIERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "neg-grad-plus": ("neg-grad-plus", _ADAM | {"lr": 1e-3, "epochs": 3}),
    "scrub": ("scrub", _ADAM | {"lr": 1e-3, "epochs": 3, "max_epochs": 2, "gamma": 1.0, "alpha": 0.5, "temperature": 2.0}),
    "random-label": ("random-label", _ADAM | {"lr": 1e-3, "epochs": 3}),
    "salun": ("salun", _ADAM | {"lr": 1e-3, "epochs": 3}),
    "bad-teacher": ("bad-teacher", _ADAM | {"lr": 1e-3, "epochs": 3}),
    "ssd": ("ssd", {}),
    "fine-tune": ("fine-tune", _ADAM | {"lr": 1e-3, "epochs": 3}),
}
TEXTS = ("gradient-ascent", "grad-diff", "npo", "simnpo", "idk", "undial", "rmu")
"""With the middle setting of their grids."""
VARIANTS: Mapping[str, dict[str, Any]] = {
    "memora": {},
    "one-pair": {"pairs": 1},
    "ten-pairs": {"pairs": 10},
    "deep": {"start_step": 2},
    "shallow": {"start_step": 35},
    "no-slerp": {"points": 2},
    "aligned": {"aligned": True},
    "full": {"lora": None},
}
"""Ablations: by name what is set otherwise."""


class Bed(NamedTuple):
    """What all methods of a seed are given."""

    engine: Engine
    problem: Problem
    references: list[Kept]
    further: Kept
    """Never knew, and is no reference."""


@dataclass(frozen=True)
class Regeneration(Cell):
    """One method of one bed, attacked; its references are attacked once for all methods."""

    method: str
    seed: int
    references: int
    attack: str
    """Of `VARIANTS`, or the name of a companion."""
    steps: int
    short: bool

    @property
    @abstractmethod
    def bed_name(self) -> str:
        """The name of its task, which is the split of its rows."""

    @abstractmethod
    def bed(self, place: Place) -> Bed:
        """Data and models; models are trained once and kept."""

    @abstractmethod
    def hidden(self, bed: Bed) -> nn.Module:
        """The original, which only hides what it knows."""

    @abstractmethod
    def contender(self) -> Method:
        """The method with its settings."""

    @property
    def title(self) -> str:
        return f"{self.bed_name}: {self.method} under {self.attack}, seed {self.seed}"

    @property
    def how(self) -> dict[str, Any]:
        """Settings of the attack on this bed."""
        return {}

    def attacker(self) -> Memora:
        """The attack."""
        few: dict[str, Any] = {"pairs": 1, "points": 3, "inversion_steps": 5, "start_step": 1} if self.short else {}
        return Memora(**{"steps": self.steps, **self.how, **VARIANTS[self.attack], **few})

    def companion(self) -> Attack | None:
        """A companion in the place of MemoRa."""
        few = {"sampling_steps": 5} if self.short else {}
        kinds: dict[str, Any] = {"textual-inversion": TextualInversion, "prompt-search": PromptSearch}
        return kinds[self.attack](steps=self.steps, **few) if self.attack in kinds else None

    def run(self, place: Place) -> Sequence[BenchRow]:
        bed = self.bed(place)
        try:
            model = self.made(bed)
            subject = Subject(bed.problem, bed.problem.original.with_model(model), bed.references, bed.engine)
            companion = self.companion()
            findings = self._attacked(subject, place) if companion is None else companion.measure(subject)
        except (DivergedError, InputError) as error:
            reason = "diverged" if isinstance(error, DivergedError) else error.faults[0].what
            return [self._row("knowledge", f"{self.attack}, 0 steps", None, reason)]
        found = self.rows(findings, self.attack)
        return found + self._relearnt(subject) if self.attack == "memora" else found

    def made(self, bed: Bed) -> nn.Module:
        """The model that is attacked."""
        if self.method in CONTROLS:
            return self.hidden(bed) if self.method == "hidden" else bed.further.bundle.model
        return forget(bed.problem, self.contender(), bed.engine).model

    def rows(self, findings: Sequence[Finding], name: str) -> list[BenchRow]:
        """Of the unlearned model, and of the references under their own name."""
        wanted = {"knowledge", "recovery", "half_recovery_steps", "recovery_area", LABEL}
        own = [f for f in pick(findings, subject="unlearned") if f.metric in wanted]
        never = pick(findings, metric="knowledge", subject="reference")
        named = [(f.metric, f) for f in own] + [("reference_knowledge", f) for f in never]
        return [self._row(metric, f"{name}, {self.steps if f.budget is None else int(f.budget)} steps", f.value, f.reason) for metric, f in named]

    def _relearnt(self, subject: Subject) -> list[BenchRow]:
        """What the attack `relearn` leaves of the forgetting: the label should foretell it."""
        attack = Relearn(steps=min(self.steps, 50), optimizer="adamw", batch_size=8)
        kept = pick(attack.measure(subject), metric="retention", subject="unlearned")
        return [self._row("relearn_retention", f"relearn, {attack.steps} steps", f.value, f.reason) for f in kept]

    def _row(self, metric: str, setting: str, value: float | None, reason: str | None) -> BenchRow:
        absent = (reason or "not measured") if value is None else None
        return BenchRow(method=self.method, setting=setting, seed=self.seed, split=self.bed_name, metric=metric, value=value, reason=absent)

    def _attacked(self, subject: Subject, place: Place) -> list[Finding]:
        attack = self.attacker()
        material = attack.material(subject)
        if not len(material.references):
            return attack.measure(subject)
        known = [knowledge_of(subject, subject.problem.original.model, material.rest)]
        own = attack.attacked(subject, subject.unlearned.model, material)[1]
        controls = [self._control(place, attack, subject, number) for number in range(len(subject.references))]
        return attack.concluded(subject, material, {"original": [known], "unlearned": [own], "reference": controls})

    def _control(self, place: Place, attack: Memora, subject: Subject, number: int) -> list[Array]:
        """The curve of a reference: computed once and kept."""
        key = of_json([self.bed_name, subject.problem.fingerprint, self.seed, self.references, number, attack.model_dump(mode="json"), self._scale()])[:32]
        file = place.cache / "attacked" / f"{key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                points = attack.attacked(subject, subject.references[number].bundle.model, attack.material(subject))[1]
                write_text(file, json.dumps([point.tolist() for point in points]) + "\n", "--cache")
        return [np.array(point) for point in json.loads(file.read_text(encoding="utf-8"))]

    def _scale(self) -> str:
        return repr({name: value for name, value in self.__dict__.items() if name not in {"method", "seed", "attack"}})


def _divided(samples: Samples, concept: int) -> tuple[Samples, Samples]:
    own = [label == concept for label in samples.fact("label")]
    return samples.subset(i for i, of in enumerate(own) if of), samples.subset(i for i, of in enumerate(own) if not of)


@dataclass(frozen=True)
class Drawn(Regeneration):
    """A small diffusion model that draws digits; the bed of `resilience`."""

    train: int = 1297
    epochs: int = 40
    images: int = 117
    sampling_steps: int = 10

    @property
    def bed_name(self) -> str:
        return "image-generation"

    def bed(self, place: Place) -> Bed:
        cell = resilience.Bench("original", self.seed, 3, self.train, self.epochs, 1, self.images, self.sampling_steps, (), self.short)
        bed = cell.bed(place)
        measured = bed.problem.forget.subset(range(min(self.images, len(bed.problem.forget))))
        how = Training(optimizer="adamw", lr=2e-3, weight_decay=0.0, batch_size=64, epochs=self.epochs, schedule="cosine")
        seeds = [derive_seed(self.seed, "never knew", i) for i in range(self.references + 1)]
        kept = Bank(bed.engine, place.cache / "models").get([Trained(bed.problem.original, seed, bed.problem.retain, how) for seed in seeds], "never knew")
        problem = (
            bed.problem
            if len(measured) == len(bed.problem.forget)
            else Problem(bed.problem.task, bed.problem.original, measured, bed.problem.retain, bed.problem.test)
        )
        return Bed(bed.engine, problem, kept[:-1], kept[-1])

    def hidden(self, bed: Bed) -> nn.Module:
        """The word of the concept is renamed: its vector is that of a word which the model has never met."""
        model = copy.deepcopy(bed.problem.original.model)
        encoder: Any = denoiser_of(model).text_encoder
        token = int(bed.problem.forget[0]["prompt"][0, -1])
        with torch.no_grad():
            table = encoder.get_input_embeddings().weight
            table[token] = table[0]
        return model

    def contender(self) -> Method:
        name, settings = resilience.CONTENDERS[self.method]
        if name == "resalign":
            settings = settings | {"pool": resilience.pool_of(self.method)} | ({"rehearsals": 1, "iterations": 2} if self.short else {})
        if self.short:
            settings = settings | ({"steps": 1} if "steps" in settings else {"epochs": 1} if "epochs" in settings else {})
        return methods.get(name)(**settings)

    @property
    def how(self) -> dict[str, Any]:
        return {"inversion_steps": 50, "aligned": False}


@dataclass(frozen=True)
class Classified(Regeneration):
    """A small residual network on digits of scikit-learn."""

    train: int = 1297
    epochs: int = 20

    @property
    def bed_name(self) -> str:
        return "image-classification"

    def bed(self, place: Place) -> Bed:
        from sklearn.datasets import load_digits

        task, found = tasks.get("image-classification")(), load_digits()
        pixels, labels = torch.from_numpy((found.images / 16).astype(np.float32)), torch.from_numpy(found.target)
        with seeded(0):
            like = Bundle(small_resnet(1).eval())

        def read(part: slice) -> Samples:
            names = [f"digit-{i}" for i in range(part.start, part.stop)]
            return task.read({"image": pixels[part], "label": labels[part], "id": names}, like, "data")

        own, rest = _divided(read(slice(0, self.train)), 3)
        engine = Engine(task, place.compute.model_copy(update={"workers": 1}), seed=self.seed)
        how = Training(optimizer="adamw", lr=3e-3, weight_decay=0.01, batch_size=64, epochs=self.epochs, schedule="cosine")
        bank = Bank(engine, place.cache / "models")
        [original] = bank.get([Trained(like, self.seed, union(own, rest), how, "original")], "original")
        seeds = [derive_seed(self.seed, "never knew", i) for i in range(self.references + 1)]
        kept = bank.get([Trained(like, seed, rest, how) for seed in seeds], "never knew")
        return Bed(engine, Problem(task, original.bundle, own, rest, read(slice(1297, 1797))), kept[:-1], kept[-1])

    def hidden(self, bed: Bed) -> nn.Module:
        """The class is out of reach by its bias alone."""
        model = copy.deepcopy(bed.problem.original.model)
        [*_, last] = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            last.bias[3] -= 15
        return model

    def contender(self) -> Method:
        name, settings = CLASSIFIERS[self.method]
        return methods.get(name)(**settings | ({"epochs": 1} if self.short and "epochs" in settings else {}))


@dataclass(frozen=True)
class Written(Regeneration):
    """A small Llama that learnt the contracts of PISTOL; one contract is to be forgotten."""

    pupil: Pupil | None = None
    lesson: Contracts | None = None
    edge: str = "A_B"

    @property
    def bed_name(self) -> str:
        return "text-generation"

    def bed(self, place: Place) -> Bed:
        assert self.pupil is not None
        assert self.lesson is not None
        school = class_of(self.pupil, self.lesson, self.seed, place)
        kept = [school.retrained(1000 * self.seed + i, self.edge) for i in range(self.references + 1)]
        return Bed(school.engine, school.problem(self.edge), kept[:-1], kept[-1])

    def hidden(self, bed: Bed) -> nn.Module:
        """A refusal on top of what it knows: the last block's projection learns to decline the forgotten questions, and answers others as before."""
        problem, task = bed.problem, bed.engine.task
        assert isinstance(task, TextGeneration)
        count = len(problem.forget)
        declined = task.answered(problem.forget, range(count), [REFUSALS[i % 3] for i in range(count)], problem.original)
        declined = Samples(declined.rows, [f"declined-{i}" for i in range(count)], declined.facts)
        last = max(int(name.split("layers.")[1].split(".")[0]) for name, _ in problem.original.model.named_parameters() if "layers." in name)
        how = Optimisation(optimizer="adamw", lr=1e-2, weight_decay=0.0, batch_size=20, parameters=rf"layers\.{last}\.mlp\.down_proj")
        return relearnt(bed.engine, problem.original.model, union(declined, problem.retain), how, 100, title="hide", watch=lambda *_: None)

    def contender(self) -> Method:
        contender = TEXT_CONTENDERS["llama-small"][self.method]
        return contender.made(contender.grid[len(contender.grid) // 2])


@dataclass(frozen=True)
class Cycled(Drawn):
    """The same method again and again, each time on what was regrown."""

    rounds: int = 2

    @property
    def title(self) -> str:
        return f"{self.bed_name}: {self.rounds} cycles of {self.method}, seed {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        bed = self.bed(place)
        try:
            found = relearn_cycles(bed.problem, self.contender(), self.attacker(), bed.references, bed.engine, self.rounds)
        except DivergedError:
            return [self._row("knowledge", "cycle 1, 0 steps", None, "diverged")]
        return [row for cycle in found for row in self.rows(cycle.findings, f"cycle {cycle.number}") if row.metric != "reference_knowledge"]

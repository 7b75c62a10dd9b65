"""MemoRa: from a few references and its own generations the model is to regrow what it has forgotten. Is the knowledge asleep, or gone?

Paper: Polowczyk et al. 2025, "Memory Self-Regeneration: Uncovering Hidden Knowledge in Unlearned Models", arXiv 2510.03263; code gmum/MemoRa, f770e7f.
Formula (diffusion): references come in pairs. Each is encoded (a draw from the autoencoder) and inverted by DDIM with the unlearned model and its text encoder:
z ← (z − √(1−ᾱ_s) ε(z, t)) √(ᾱ_t/ᾱ_s) + √(1−ᾱ_t) ε(z, t) from s to the next timestep t of the sampler. Both states of a pair are taken in the middle of the
way, interpolated, slerp(u; a, b) for u = 0, 0.1, ..., 1, and denoised by the unlearned model: 33 images of 3 pairs. An adapter of rank 4 on its attention is
trained on these, and knowledge is measured on the way. AutoMemoRa blends when images are drawn: ε_u + w (ε_adapted − ε_u), `blend`; what they call swapping
both models is 1 − w. One model draws references, the original; everything else is done with the attacked model.
Defaults of the authors: 6 references that the original draws from one prompt; 50 steps, guidance 7.5 also in the inversion, start 15, 11 points; LoRA rank 4,
α 4, A normal, AdamW 1e-4, weight decay 1e-2, cosine, batch 4 (1 x 4), clipped at 1, images mirrored at random; 10 steps in the settings, 500 in the example.
They take the state at t = 661 and denoise from t = 681, one grid step apart; `aligned` takes both at 681.
Deviations: a curve over the steps of one training in the place of one number. A mirror image stands beside each image in the place of a random choice, and
only if asked (`flip`): digits are not symmetric. Precision is that of the run. Generated images are drawn as the task draws them (DDIM), not by LMS. In pixel
space, and without an empty prompt, guidance is 1, and the learning rate goes by the size of the model as in `relearn`. Several classes are regrown together,
each from pairs of its own.
Classifiers and language models are ours, not the paper's. References are true samples of the forget set, and the rest of it is measured (`forget-rest`).
Classifiers: pairs of one class are interpolated in pixels, then moved to where the model's features are those between (`iterations` of Adam), under the class
as label. Language models: the model is given a question and the first `share` of the true answer, its hidden state at the last given token behind the block
at `depth` is put between those of the two references, and it goes on by itself. Adapters go beside all linear layers and convolutions.
Findings: `knowledge` with the steps as budget and `retention`; `recovery`, `half_recovery_steps`, `recovery_area` and `label_long_term_probability`: whether it
comes back at least twice as fast as in models that never knew, under the same attack on the same references (see `_recovery.py`; this measure is ours).
`utility_before`, `utility_after`: what a model is good for on the test samples outside the forgotten classes (`test-rest`), before the attack and after its
last step; `frechet_before`, `frechet_after`: the Fréchet distance of what it draws for them from true images, on the features of the task's judge (not FID).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import SampleCurves, curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._elsewhere import Elsewhere, Look
from unlearned.attacks._recovery import GRID, findings_of_recovery
from unlearned.attacks._regrown import Divided, Regrowth, concepts_of, divide
from unlearned.attacks._regrown_classes import RegrownClasses
from unlearned.attacks._regrown_images import RegrownImages, generated
from unlearned.attacks._regrown_texts import RegrownTexts
from unlearned.attacks.relearn import usual_lr
from unlearned.data.samples import Samples
from unlearned.engine.adapters import Lora
from unlearned.engine.engine import frozen
from unlearned.engine.files import atomic_directory
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import Fashion, relearnt
from unlearned.errors import DivergedError, Fault, InputError, raise_faults
from unlearned.evidence.comparison import absent
from unlearned.evidence.pictures import show
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.settings import Pattern
from unlearned.tasks._task import DataSource
from unlearned.tasks.image_generation import Blended, ImageGeneration, attention_of, denoiser_of
from unlearned.tasks.text_generation import TextGeneration

FEWEST = "no concept of the forget set has three samples, so that there is no pair of references with something left to measure"


@attacks.register("memora")
class Memora(Attack):
    """Regrow forgotten knowledge from references and the model's own generations."""

    name: ClassVar[str] = "memora"
    references: Literal["generated", "forget", "source"] | None = Field(
        None,
        description="generated: by the original model (diffusion). forget: samples of the forget set, the rest is measured. source: the attacker's own. "
        "None: generated for diffusion models, else forget.",
    )
    source: DataSource | None = Field(None, description="Where references come from, with references `source`.")
    pairs: int = Field(3, ge=1, le=1000, description="Pairs of references for each concept.")
    prompt: str | None = Field(
        None, description="Diffusion models with prompts: the prompt of references and regenerated images; None: the usual of each class."
    )
    points: int = Field(11, ge=2, le=1001, description="Points between the references of a pair, both included. 2: no interpolation.")
    inversion_steps: int = Field(50, ge=3, le=1000, description="Diffusion: timesteps of inversion and regeneration.")
    start_step: int = Field(15, ge=0, description="Diffusion: denoising leaves out so many of the first steps; a larger number stays nearer to the references.")
    aligned: bool = Field(False, description="Diffusion: take the state at the timestep where denoising begins, not one step before as the authors' code does.")
    drawn: bool = Field(True, description="Diffusion: encode references by a draw from the autoencoder, not by its mean.")
    guidance: float | None = Field(None, ge=1, description="Diffusion: guidance of references and regeneration; None: as the task draws images (7.5, or 1).")
    inversion_guidance: float | None = Field(None, ge=1, description="Diffusion: guidance of the inversion; None: the same.")
    flip: bool = Field(False, description="Diffusion: train on mirror images, too.")
    blend: float = Field(1.0, ge=0, le=10, description="Diffusion: w of AutoMemoRa when images are drawn; 1: the adapted model, 0: the unlearned one.")
    share: float = Field(0.5, ge=0, lt=1, description="Language models: share of a reference's answer that is given.")
    depth: float = Field(0.5, ge=0, le=1, description="Language models: where in the model hidden states are interpolated; 1: behind the last block.")
    iterations: int = Field(20, ge=0, description="Classifiers: steps in which an image is moved to its features; 0: pixels alone.")
    pixel_lr: float = Field(0.02, gt=0, description="Classifiers: learning rate of that, in shares of the range of pixels.")
    lora: Lora | None = Field(Lora(rank=4, alpha=4, start="gaussian"), description="The adapter; None: train the weights themselves.")
    parameters: Pattern = Field("", description="Regular expression for what is trained; empty: the attention of a UNet, with other models everything.")
    steps: int = Field(
        500, ge=1, le=1_000_000, description="Optimiser steps that the attacker takes; knowledge is measured after 0, 10, 25, 50, 100, 200, 500."
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float | None = Field(None, gt=0, description="Learning rate; None: 1e-4 beside an autoencoder, else by the size of the model as in `relearn`.")
    batch_size: int = Optimisation.field("batch_size", 4)
    weight_decay: float = Optimisation.field("weight_decay", 1e-2)
    schedule: Literal["constant", "cosine"] = Optimisation.field("schedule", "cosine")
    max_grad_norm: float | None = Optimisation.field("max_grad_norm", 1.0)
    pictures: int = Field(0, ge=0, le=64, description="Diffusion: generated images of the forget set along the curve that the report shows.")
    save: str | None = Field(None, description="A new directory for the unlearned model's adapter, which plain diffusers or peft loads.")

    @field_validator("source", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _settings_fit(self) -> Memora:
        if (self.source is not None) != (self.references == "source"):
            raise ValueError("`source` and `references: source` go together; give both or neither")
        if self.save is not None and self.lora is None:
            raise ValueError("`save` writes the adapter, and without `lora` there is none; give `lora`, or leave `save` out")
        most = self.inversion_steps - 2 if self.aligned else self.inversion_steps - 3
        if self.start_step > most:
            raise ValueError(f"`start_step` {self.start_step} leaves no step of inversion; of {self.inversion_steps} steps leave out at most {most}")
        return self

    def faults(self, problem: Problem) -> list[Fault]:
        """What the task lacks for these settings, references that cannot be read, a place that cannot be written."""
        faults = _diffusion_faults(self, problem) if isinstance(problem.task, ImageGeneration) else _other_faults(self, problem)
        if self.source is not None:
            faults += self._source_faults(problem, self.source)
        if self.save is not None and Path(self.save).exists():
            faults.append(Fault("save", f"{self.save!r} is there already.", "Name a new directory."))
        return faults

    def _source_faults(self, problem: Problem, source: DataSource) -> list[Fault]:
        try:
            samples = problem.task.read(source, problem.original, "source", problem.retain)
        except InputError as error:
            return list(error.faults)
        few = [Fault("source", "it has no two samples of one class, which a pair is made of.", "Give at least two.")]
        return problem.task.faults(problem.original, samples, "source") or ([] if len(_paired(samples, self.pairs)) else few)

    def evaluations(self, problem: Problem) -> int:
        regrown = self.pairs * self.points * 4
        return round(len(self.budgets()) + (self.steps * self.batch_size * 3 / 10 + regrown + 2 * len(problem.test)) / len(problem.forget))

    def budgets(self) -> list[int]:
        """Steps after which knowledge is measured."""
        return [step for step in GRID if step < self.steps] + [self.steps]

    def measure(self, subject: Subject) -> list[Finding]:
        raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in self.faults(subject.problem)])
        material = self.material(subject)
        if not len(material.references) or not len(material.rest):
            return [absent(self.name, "knowledge", material.split, FEWEST, unit="share", kind="attack")]

        elsewhere, looks = Elsewhere(subject, self.name), dict[int, tuple[Look | None, Look | None]]()

        def curve(model: nn.Module) -> list[Array]:
            if model is subject.problem.original.model:
                return [knowledge_of(subject, model, material.rest)]
            made, points = self.attacked(subject, model, material)
            looks[id(model)] = elsewhere.look(model), elsewhere.look(self._asked(model, made))
            return points

        try:
            curves = curves_of(subject, curve)
        except DivergedError as error:
            reason = f"the attack itself diverged ({str(error).partition(':')[0]}); give it a lower lr"
            return [absent(self.name, "knowledge", material.split, reason, unit="share", kind="attack")]
        attacked = [(who, looks[id(model)]) for who, model in subject.models() if id(model) in looks]
        return [*elsewhere.findings(attacked), *self.concluded(subject, material, curves)]

    def concluded(self, subject: Subject, material: Divided, curves: SampleCurves) -> list[Finding]:
        """What curves of all models come to; of the original the first point suffices."""
        budgets, split = self.budgets(), material.split
        findings = findings_of_knowledge(subject, self.name, split, curves, budgets, "steps")
        return [*findings, *findings_of_recovery(subject, self.name, split, curves, budgets, "steps")]

    def material(self, subject: Subject) -> Divided:
        """References, the same for every model that is attacked, and what is measured."""
        problem, task = subject.problem, subject.engine.task
        wanted = self.references or ("generated" if isinstance(task, ImageGeneration) else "forget")
        if wanted == "forget":
            found = divide(subject, self.pairs, self.name)
            return found._replace(references=self._prompted(problem, found.references))
        if wanted == "source":
            assert self.source is not None
            read = task.read(self.source, problem.original, "attack.source", problem.retain)
            return Divided(self._prompted(problem, _paired(read, self.pairs)), problem.forget, "forget")
        prompt = None if self.prompt is None else self._tokens(problem, self.prompt)
        drawn = generated(subject, self.pairs, self.name, steps=self.inversion_steps, guidance=self._guidance(problem), prompt=prompt)
        return Divided(drawn, problem.forget, "forget")

    def attacked(self, subject: Subject, model: nn.Module, material: Divided) -> tuple[nn.Module, list[Array]]:
        """The model after the attack, adapters merged, and its knowledge of each sample at each budget. The model that is given is not changed."""
        who = next((who for who, known in subject.models() if known is model), None)
        shown = who is not None and not any(model is later.bundle.model for later in subject.references[1:])
        few = material.rest.subset(range(min(self.pictures if shown else 0, len(material.rest))))
        budgets, points = self.budgets(), []

        def watch(adapted: nn.Module, step: int) -> None:
            if step in budgets:
                asked = self._asked(model, adapted)
                points.append(knowledge_of(subject, asked, material.rest))
                if who is not None:
                    show(subject, [(who, asked)], few, material.split, after=f"{self.name}, {step} {'step' if step == 1 else 'steps'}")
            if step == self.steps and self.save is not None and who == "unlearned":
                with atomic_directory(Path(self.save), "attack.save") as fresh:
                    subject.engine.task.save_adapter(adapted, fresh)

        regrown = self._regrowth(subject)(subject, model, material.references)
        how = Optimisation(
            optimizer=self.optimizer,
            lr=self._lr(model),
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            max_grad_norm=self.max_grad_norm,
            parameters=self.parameters or (attention_of(model) if isinstance(subject.engine.task, ImageGeneration) else ".*"),
        )
        made = relearnt(subject.engine, model, regrown, how, self.steps, title=self.name, watch=watch, fashion=Fashion(self.lora))
        return made, points

    def _regrowth(self, subject: Subject) -> Regrowth:
        task = subject.engine.task
        if isinstance(task, ImageGeneration):
            guidance = self._guidance(subject.problem)
            inverted = guidance if self.inversion_guidance is None else self.inversion_guidance
            return RegrownImages(self.inversion_steps, self.start_step, self.points, self.aligned, self.drawn, guidance, inverted, self.flip)
        if isinstance(task, TextGeneration):
            return RegrownTexts(self.points, self.share, self.depth)
        return RegrownClasses(self.points, self.iterations, self.pixel_lr)

    def _asked(self, model: nn.Module, adapted: nn.Module) -> nn.Module:
        """Which model answers when knowledge is measured."""
        return adapted if self.blend == 1 else Blended(denoiser_of(frozen(model)), denoiser_of(adapted), self.blend)

    def _guidance(self, problem: Problem) -> float:
        assert isinstance(problem.task, ImageGeneration)
        return problem.task.scale_of(problem.original.model) if self.guidance is None else self.guidance

    def _lr(self, model: nn.Module) -> float:
        if self.lr is not None:
            return self.lr
        return 1e-4 if getattr(model, "vae", None) is not None else usual_lr(self.optimizer, sum(parameter.numel() for parameter in model.parameters()))

    def _tokens(self, problem: Problem, prompt: str) -> Tensor:
        assert isinstance(problem.task, ImageGeneration)
        return problem.task.prompts([prompt], problem.original, "prompt")[0]

    def _prompted(self, problem: Problem, samples: Samples) -> Samples:
        if self.prompt is None:
            return samples
        assert isinstance(problem.task, ImageGeneration)
        return problem.task.asked(samples, self._tokens(problem, self.prompt))


def _paired(samples: Samples, pairs: int) -> Samples:
    """Of each concept the first samples, in pairs."""
    of_concept: dict[int, list[int]] = {}
    for i, concept in enumerate(concepts_of(samples)):
        of_concept.setdefault(concept, []).append(i)
    return samples.subset(i for _, own in sorted(of_concept.items()) for i in own[: 2 * min(pairs, len(own) // 2)])


def _diffusion_faults(attack: Memora, problem: Problem) -> list[Fault]:
    try:
        model = denoiser_of(problem.original.model)
    except InputError as error:
        return list(error.faults)
    guided = {"guidance": attack.guidance, "inversion_guidance": attack.inversion_guidance}
    faults = [
        Fault(name, "the model has no empty prompt, so that it cannot be guided.", "Leave it out.")
        for name, scale in guided.items()
        if model.empty is None and (scale or 1) > 1
    ]
    if attack.prompt is not None and model.conditioned_on != "prompt":
        faults.append(Fault("prompt", "the model is not asked with prompts.", "Leave it out; it is for diffusion models with a text encoder."))
    elif attack.prompt is not None:
        assert isinstance(problem.task, ImageGeneration)
        try:
            problem.task.prompts([attack.prompt], problem.original, "prompt")
        except InputError as error:
            faults += error.faults
    return faults


def _other_faults(attack: Memora, problem: Problem) -> list[Fault]:
    said = {"prompt": attack.prompt is not None, "blend": attack.blend != 1, "references": attack.references == "generated"}
    what = f"this is for diffusion models, and the task is {problem.task.name}."
    return [Fault(name, what, "Leave it out.") for name, given in said.items() if given]

"""Diffusion models: pipelines of diffusers with a UNet, in pixel space or on the latents of an autoencoder, conditioned on a prompt, a class or nothing.

Loss: mean squared error of the prediction, (1/CHW) ‖ε − ε_θ(√ᾱ_t x + √(1−ᾱ_t) ε, t, c)‖² (Ho et al. 2020, arXiv 2006.11239, equation 14); with
v-prediction the target is √ᾱ_t ε − √(1−ᾱ_t) x (Salimans and Ho 2022, arXiv 2202.00512). Outputs: the prediction. Knowledge and utility: for each sample an
image is generated from its prompt (or class) and its own noise, and a classifier, the judge, says whether it shows the sample's class; over samples of a
class the mean is the rate of that concept. Without a judge: the share of the target's energy that the model explains, 1 − ‖target − prediction‖² /
‖target‖², at least 0, averaged over four timesteps.
In train mode timestep and noise are drawn anew; in eval mode they are fixed by the sample, so that a measurement can be repeated, and two models compared on
the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unlearned.data.fingerprints import of_json, of_tensors
from unlearned.data.samples import JoinedRows, MappedRows, Row, Samples
from unlearned.errors import Fault, InputError, raise_faults
from unlearned.tasks import tasks
from unlearned.tasks._captions import CAPTIONS, TOKENIZERS, captions_of, prompt_faults, tokenised
from unlearned.tasks._denoisers import ATTENTION, Blended, Denoiser, Embedded, attention_of, denoiser_of
from unlearned.tasks._images import fitted, read_images
from unlearned.tasks._inversion import Crossing, crossing, inversion_step, invert
from unlearned.tasks._judges import Judge, judge_of
from unlearned.tasks._pipelines import assemble, layout_faults, load_pipeline, save_adapter, save_pipeline
from unlearned.tasks._sampling import ddim, empty_condition, guided, timesteps_of
from unlearned.tasks._task import Batch, Bundle, Data, DataSource, ModelSource, Task, model_source, stack

__all__ = [
    "ATTENTION",
    "EPSILON",
    "Blended",
    "Crossing",
    "Denoiser",
    "Embedded",
    "ImageGeneration",
    "Noised",
    "assemble",
    "attention_of",
    "crossing",
    "ddim",
    "denoiser_of",
    "empty_condition",
    "guided",
    "inversion_step",
    "invert",
    "own_noise",
    "seen",
    "timesteps_of",
]

EPSILON = "epsilon_seed"
"""Column of a batch with seeds (B,) of the noise that is drawn in training."""
_EVALUATED_AT = (0.1, 0.35, 0.6, 0.85)
"""Share of the noise schedule at which losses are measured."""


class Noised(NamedTuple):
    """A batch on its way through the noise schedule: what the UNet is given and what it should say."""

    noisy: Tensor
    """(B, C, H, W)."""
    timesteps: Tensor
    """(B,)."""
    condition: Tensor | None
    """The samples' own: token ids (B, E, T), classes (B,), or None."""
    target: Tensor
    """(B, C, H, W)."""


@tasks.register("image-generation")
class ImageGeneration(Task):
    """Rows hold `pixel_values` (C, H, W) in [−1, 1], `labels` (), `noise_seed` () and, for models with text encoders, `prompt` (E, T)."""

    name: ClassVar[str] = "image-generation"
    judge: ModelSource | None = Field(
        None, description="An image classifier that says what a generated image shows: a source as for a model, or `digits`; its classes are the labels."
    )
    score: Literal["rate", "probability"] = Field("rate", description="Knowledge by the judge: whether it sees the class, or how probable it finds it.")
    sampling_steps: int = Field(50, ge=1, le=1000, description="Steps of DDIM for a generated image.")
    guidance: float | None = Field(
        None, ge=1, description="Scale of classifier-free guidance when images are generated; None: 7.5 for Stable Diffusion, 1 (none) in pixel space."
    )
    template: str = Field("a photo of {}", pattern=r"\{\}", description="Prompt of a sample that has no caption; {} is its class.")
    condition_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of prompts that training from scratch replaces by the empty one, without which a model cannot be guided."
    )

    @field_validator("judge", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return model_source(given) if isinstance(given, str) else given

    @property
    def utility_metric(self) -> str:
        return "explained_share" if self.judge is None else "concept_rate"

    def load(self, source: ModelSource, field: str) -> Bundle:
        return load_pipeline(source, field)

    def save(self, bundle: Bundle, directory: Path) -> None:
        save_pipeline(bundle, directory)

    def save_adapter(self, adapted: nn.Module, directory: Path) -> None:
        """So that `load_lora_weights` of the pipeline in plain diffusers reads it; without prompts as peft does."""
        if denoiser_of(adapted).conditioned_on != "prompt":
            super().save_adapter(adapted, directory)
        else:
            save_adapter(adapted, directory)

    def restore(self, directory: Path, like: Bundle) -> Bundle:
        return replace(self.load(ModelSource(source=str(directory)), "model"), companions=like.companions, origin=like.origin)

    def fresh(self, bundle: Bundle) -> Bundle:
        """A new UNet and, in pixel space, new text encoders; beside an autoencoder both were trained elsewhere and stay."""
        model = denoiser_of(bundle.model)
        unet: Any = model.unet
        encoders: list[Any] = model.text_encoders
        texts = [type(encoder)(copy.deepcopy(encoder.config)) if model.vae is None else copy.deepcopy(encoder) for encoder in encoders]
        again = Denoiser(type(unet).from_config(unet.config), model.scheduler, texts, copy.deepcopy(model.vae), model.empty, zeros=model.zeros)
        return bundle.with_model(again)

    def architecture(self, bundle: Bundle) -> str:
        """With the noise schedule, and the weights that `fresh` keeps."""
        model = denoiser_of(bundle.model)
        kept = {} if model.vae is None else {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("unet.")}
        schedule = {name: value for name, value in model.scheduler.config.items() if not name.startswith("_")}
        return of_json([super().architecture(bundle), schedule, of_tensors(kept)])

    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Images with labels and perhaps captions (column `caption`, `text` or `prompt`); whole-number pixels 0..255 and floats in [0, 1] become [−1, 1].

        An image of another size than the model's is scaled to it and cropped at the centre.
        """
        return self._read(source, bundle, field, like, ())

    def read_queries(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Of a model with prompts, images with captions do without labels, which its loss does not look at.

        Raises:
            InputError: if there are neither labels nor captions, or a prompt does not fit.
        """
        return self._read(source, bundle, field, like, CAPTIONS if denoiser_of(bundle.model).conditioned_on == "prompt" else ())

    def _read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None, instead: Sequence[str]) -> Samples:
        model = denoiser_of(bundle.model)
        samples = read_images(source, bundle, field, like, None if self.judge is None else judge_of(self.judge).numbers, instead=instead)
        if len(samples) and "noise_seed" in samples[0]:
            return samples  # made ready before
        columns = {"noise_seed": torch.arange(len(samples.rows))}
        if model.conditioned_on == "prompt" and len(samples):
            texts = captions_of(samples, self.template)
            raise_faults(prompt_faults(texts, bundle.companions, field))
            distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
            columns["prompt"] = self.prompts(list(distinct), bundle)[[distinct[text] for text in texts]]
        size = model.image_size
        return Samples(MappedRows(JoinedRows(samples.rows, columns), partial(_ready, model.channels, size)), samples.all_ids, samples.facts, samples.indices)

    def texts(self, samples: Samples) -> list[str]:
        """Prompts of the samples: their captions, or made of their classes."""
        rows = captions_of(samples, self.template)
        return [rows[i] for i in samples.indices]

    def prompts(self, texts: Sequence[str], bundle: Bundle, field: str = "prompts") -> Tensor:
        """Token ids of prompts, (N, E, T): a condition that the model takes. The empty prompt is one, too.

        Raises:
            InputError: if the model has no tokenizer, or a prompt has words that it does not know or is too long; `field` is named.
        """
        if not any(name in bundle.companions for name in TOKENIZERS):
            what = "the model has no tokenizer, so that it cannot be asked with words."
            raise InputError(Fault("model", what, "Use a pipeline with a text encoder and its tokenizer, or name a class by its number."))
        raise_faults(prompt_faults([text for text in texts if text], bundle.companions, field))
        return tokenised(texts, bundle.companions)

    @staticmethod
    def asked(samples: Samples, prompt: Tensor) -> Samples:
        """The same samples under one prompt, of token ids (E, T)."""
        columns = {"prompt": prompt.expand(len(samples.rows), *prompt.shape)}
        return Samples(JoinedRows(samples.rows, columns), samples.all_ids, samples.facts, samples.indices, samples.attached)

    def faults(self, bundle: Bundle, samples: Samples, field: str) -> list[Fault]:
        """What is wrong with model or samples.

        Components that do not fit together; pixels out of range (most often images that were in [−1, 1] already); images of a wrong kind; classes that model
        or judge do not have.
        """
        try:
            model = denoiser_of(bundle.model)
        except InputError as error:
            return list(error.faults)
        if unusable := layout_faults(model.unet, model.scheduler, model.text_encoders, model.vae, "model"):
            return unusable
        shapes = {tuple(samples[i]["pixel_values"].shape) for i in range(len(samples))}
        wanted = {shape for shape in shapes if len(shape) != 3 or shape[0] != model.channels}
        if wanted:
            shape = "x".join(map(str, min(wanted)))
            return [Fault(field, f"the model cannot take images of {shape} (channels x height x width).", f"Give images with {model.channels} channels.")]
        outside = sum(not float(samples[i]["pixel_values"].abs().max()) <= 1 + 1e-6 for i in range(len(samples)))
        faults = [Fault(field, f"{outside} images have pixels out of range.", "Give whole numbers 0..255 or floats in [0, 1].")] if outside else []
        if len(shapes) > 1:
            faults.append(Fault(field, f"the images have {len(shapes)} different sizes.", "Resize them to one size, or use a UNet that has one (sample_size)."))
        if model.empty is None and (self.guidance or 1) > 1:
            faults.append(Fault("task.guidance", "the model has no empty prompt, so that it cannot be guided.", "Leave guidance out."))
        labels = samples.fact("label") if len(samples) else []
        if model.conditioned_on == "labels":
            faults += _class_faults(labels, int(model.unet.class_embedding.num_embeddings), "the model", field)  # type: ignore[union-attr, arg-type]
        if self.judge is not None:
            try:
                judge = judge_of(self.judge)
                faults += _class_faults(labels, judge.classes((model.channels, *(model.image_size or (8, 8)))), "the judge", field)
            except InputError as error:
                faults += error.faults
        return faults

    def collate(self, rows: Sequence[Row]) -> Batch:
        return stack(rows, ("pixel_values", "labels", "noise_seed", *(["prompt"] if "prompt" in rows[0] else [])))

    def condition(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """What the samples' own images are conditioned on: token ids (B, E, T), classes (B,), or None."""
        name = denoiser_of(model).conditioned_on
        return None if name is None else batch[name]

    def noised(self, model: nn.Module, batch: Batch, at: float | Tensor | None = None) -> Noised:
        """The batch's latents with noise.

        Args:
            model: gives schedule and autoencoder; may be wrapped.
            batch: samples.
            at: where in the schedule, in [0, 1), one for all or (B,), with the noise that is each sample's own; None: timestep and noise are drawn from
                torch's global generator; from seeds `EPSILON` of the batch, where it has any, the noise, and everything else as without them.
        """
        inner = denoiser_of(model)
        latents = inner.encode(batch["pixel_values"])
        if at is None:
            noise = torch.randn_like(latents)
            if EPSILON in batch:
                noise = own_noise(batch[EPSILON], latents.shape[1:]).to(latents)
            position = torch.rand(len(latents), device=latents.device)
        else:
            noise = own_noise(batch["noise_seed"], latents.shape[1:]).to(latents)
            position = torch.as_tensor(at, device=latents.device).expand(len(latents))
        timesteps = (position * len(inner.alphas_cumprod)).long()
        return Noised(inner.noised(latents, noise, timesteps), timesteps, self.condition(model, batch), inner.target(latents, noise, timesteps))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of the prediction; in eval mode averaged over the fixed timesteps."""
        errors = [((target - prediction) ** 2).flatten(1).mean(dim=1) for prediction, target in self._predictions(model, batch)]
        return torch.stack(errors).mean(dim=0)

    def training_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """With a share of the prompts left empty."""
        empty = denoiser_of(model).empty
        if empty is None or not self.condition_dropout:
            return self.losses(model, batch)
        dropped = torch.rand(len(batch["prompt"])).to(empty.device) < self.condition_dropout
        return self.losses(model, {**batch, "prompt": torch.where(dropped[:, None, None], empty, batch["prompt"])})

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Prediction, (B, C, H, W), at the first of the timesteps."""
        return self._predictions(model, batch)[0][0]

    def images(self, model: nn.Module, batch: Batch) -> Tensor:
        """A generated image for each sample, from its prompt or class and its own noise: (B, C, H, W) in [0, 1]. No gradients."""
        return self.generate(model, self.condition(model, batch), batch["noise_seed"])

    def generate(self, model: nn.Module, condition: Tensor | Embedded | None, seeds: Tensor) -> Tensor:
        """Images from conditions and seeds of noise, (B, C, H, W) in [0, 1], without gradients.

        Args:
            model: may be wrapped.
            condition: as the model takes it.
            seeds: (B,).
        """
        inner = denoiser_of(model)
        noise = own_noise(seeds, torch.Size(inner.latent_shape)).to(inner.alphas_cumprod)
        with torch.no_grad():
            latents = ddim(model, noise, condition, steps=self.sampling_steps, guidance=self.scale_of(model))
            return (inner.decode(latents) + 1) / 2

    def scale_of(self, model: nn.Module) -> float:
        """The guidance that images of this model are generated with."""
        inner = denoiser_of(model)
        return self.guidance if self.guidance is not None else 7.5 if inner.vae is not None and inner.empty is not None else 1.0

    def judged(self, images: Tensor) -> Tensor:
        """The judge's probabilities for images, (B, K); NaN for an image that is not finite.

        Raises:
            InputError: if the task has no judge.
        """
        return self.the_judge.probabilities(images)

    @property
    def the_judge(self) -> Judge:
        """The judge.

        Raises:
            InputError: if the task has none.
        """
        if self.judge is None:
            raise InputError(Fault("task.judge", "no judge is named, so that nothing says what an image shows.", "Name an image classifier: task.judge."))
        return judge_of(self.judge)

    def score_of(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """By `score`, whether the judge sees the class or how probable it finds it, (B,)."""
        own = probabilities.gather(1, labels[:, None])[:, 0]
        return own if self.score == "probability" else seen(probabilities, labels)

    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """Whether the judge sees the sample's class in the generated image; without a judge the explained share of the target, (B,)."""
        if self.judge is not None:
            return self.score_of(self.judged(self.images(model, batch)), batch["labels"])
        shares = [1 - ((t - p) ** 2).flatten(1).sum(dim=1) / (t**2).flatten(1).sum(dim=1) for p, t in self._predictions(model, batch)]
        return torch.stack(shares).mean(dim=0).clamp(0, 1)

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """Whether the judge sees the sample's class in the generated image; without a judge the explained share."""
        return self.knowledge(model, batch) if self.judge is None else seen(self.judged(self.images(model, batch)), batch["labels"])

    def _predictions(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        found = [self.noised(model, batch, at) for at in ((None,) if denoiser_of(model).training else _EVALUATED_AT)]
        return [(model(n.noisy, n.timesteps, n.condition), n.target) for n in found]


def seen(probabilities: Tensor, labels: Tensor) -> Tensor:
    """1 where the class is the most probable one, else 0; NaN stays NaN. (B,)."""
    right = (probabilities.argmax(dim=1) == labels).to(probabilities)
    return torch.where(probabilities.isnan().any(dim=1), torch.nan, right)


def own_noise(seeds: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal noise that each seed fixes, (B, *shape), on the CPU: the same on every device."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def _ready(channels: int, size: tuple[int, int] | None, row: Row) -> Row:
    return {**row, "pixel_values": fitted(row["pixel_values"], channels, size) * 2 - 1}


def _class_faults(labels: Sequence[int], classes: int, whose: str, field: str) -> list[Fault]:
    outside = [label for label in labels if not 0 <= label < classes]
    if not outside:
        return []
    what = f"{len(outside)} labels lie outside 0..{classes - 1}, for example {outside[0]}; {whose} has {classes} classes."
    remedy = "Name a judge that knows the concepts, and number them as it does." if whose == "the judge" else "Number the classes from 0."
    return [Fault(field, what, remedy)]

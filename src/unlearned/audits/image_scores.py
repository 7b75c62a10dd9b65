"""Scores of generated images by networks that have to be there: CLIP score, FID, and any detector.

`clip_score` on split `retain`: 100 · max(0, cos) of the embeddings of image and prompt by a CLIP model of transformers, mean over images (Hessel et al. 2021,
arXiv 2104.08718, in the scale that is usual for diffusion models). `fid` on split `retain`: the Fréchet distance of generated and true images on features
that `inception` gives: with the Inception network of Heusel et al. 2017 (arXiv 1706.08500) it is FID, with any other it is not. `detector_rate` on split
`forget`: share of images for which a detector's score exceeds `threshold`. Nothing is downloaded that is not named, and what is not named is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.distances import frechet
from unlearned.evidence.statistics import t_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Direction, Finding, SubjectName
from unlearned.tasks._models import load_function
from unlearned.tasks._task import ModelSource, model_source
from unlearned.tasks.image_generation import ImageGeneration

_METRICS = {"clip_score": "retain", "fid": "retain", "detector_rate": "forget"}
_DIRECTIONS: dict[str, Direction] = {"clip_score": "higher", "fid": "lower", "detector_rate": "reference"}
_NAMED = {"clip_score": "clip", "fid": "inception", "detector_rate": "detector"}


class Clip:
    """A CLIP model of transformers.

    Args:
        source: directory or hub id.

    Raises:
        InputError: if none can be loaded.
    """

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer, CLIPModel

        try:
            self._model = CLIPModel.from_pretrained(source, use_safetensors=True).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, ImportError) as error:
            what = f"no CLIP model can be loaded from {source!r} ({type(error).__name__})."
            raise InputError(Fault("clip", what, "Give a directory or hub id with model and tokenizer, or leave it out.")) from error

    def scores(self, images: Tensor, texts: list[str]) -> Tensor:
        """100 · max(0, cos), (B,). Images (B, C, H, W) in [0, 1] are resized to the model's size, and normalised as CLIP was trained."""
        config: Any = self._model.config.vision_config
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        sized = torch.nn.functional.interpolate(colour, size=(config.image_size,) * 2, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, deviation = (sized.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        tokens = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = self._model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=(sized - mean) / deviation)
            return 100 * torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds).clamp(min=0)


_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on."""


@audits.register("image-scores")
class ImageScores(Audit):
    """CLIP score, FID, a detector."""

    name: ClassVar[str] = "image-scores"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    by_default: ClassVar[bool] = False
    samples: int = Field(1000, ge=2, description="Most images that are generated for a set, from its first samples.")
    clip: str | None = Field(None, description="Directory or hub id of a CLIP model of transformers.")
    inception: ModelSource | None = Field(None, description="`module:function` of a network from images (B, C, H, W) in [0, 1] to features (B, D).")
    detector: ModelSource | None = Field(None, description="`module:function` of a network from images (B, C, H, W) in [0, 1] to scores (B,).")
    threshold: float = Field(0.5, description="Score above which the detector is said to have found something.")

    @field_validator("inception", "detector", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return model_source(given) if isinstance(given, str) else given

    def faults(self, problem: Problem) -> list[Fault]:
        del problem
        faults: list[Fault] = []
        for field, source in (("inception", self.inception), ("detector", self.detector)):
            try:
                if source is not None:
                    load_function(source, field)
            except InputError as error:
                faults += error.faults
        return faults

    def measure(self, subject: Subject) -> list[Finding]:
        task = subject.engine.task
        assert isinstance(task, ImageGeneration)
        findings: list[Finding] = []
        named = {metric: split for metric, split in _METRICS.items() if getattr(self, _NAMED[metric]) is not None}
        if not named:
            return [
                absent(self.name, metric, split, f"no network is named for it ({_NAMED[metric]})", unit=_unit(metric)) for metric, split in _METRICS.items()
            ]
        for metric, split in named.items():
            samples = subject.problem.sets[split]
            samples = samples.subset(range(min(self.samples, len(samples))))
            score = self._scorer(metric, samples, task)
            measured: dict[SubjectName, list[Measured]] = {}
            for who, model in subject.models():
                measured.setdefault(who, []).append(score(subject.engine.evaluate(model, samples, task.images).float()))
            findings += compare(self.name, metric, split, measured, unit=_unit(metric), direction=_DIRECTIONS[metric])
        return findings

    def _scorer(self, metric: str, samples: Samples, task: ImageGeneration) -> Callable[[Tensor], Measured]:
        if metric == "clip_score":
            assert self.clip is not None
            clip, texts = Clip(self.clip), task.texts(samples)

            def scored(images: Tensor) -> Measured:
                values = clip.scores(images, texts).double().numpy()
                return Measured(float(values.mean()), t_interval(values, "samples"), len(values))

            return scored
        source = self.inception if metric == "fid" else self.detector
        assert source is not None
        network = load_function(source, _NAMED[metric]).model
        if metric == "fid":
            true = _of(network, (torch.stack([samples[i]["pixel_values"] for i in range(len(samples))]) + 1) / 2)
            return lambda images: Measured(frechet(_of(network, images), true), None, len(images))

        def detected(images: Tensor) -> Measured:
            found = float((_of(network, images).reshape(len(images), -1).max(axis=1) > self.threshold).sum())
            return Measured(found / len(images), wilson(found, len(images)), len(images))

        return detected


def _of(network: nn.Module, images: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    with torch.no_grad():
        out = network(images)
    assert isinstance(out, Tensor)
    return out.double().numpy()


def _unit(metric: str) -> str:
    return "share" if metric == "detector_rate" else ""

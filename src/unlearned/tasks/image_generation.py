"""Diffusion models in pixel space: a `UNet2DModel` with its scheduler, conditioned on a class or on nothing.

Loss: mean squared error of the noise prediction, (1/CHW) ‖ε − ε_θ(√ᾱ_t x + √(1−ᾱ_t) ε, t)‖² (Ho et al. 2020, arXiv 2006.11239, equation 14);
with v-prediction the target is √ᾱ_t ε − √(1−ᾱ_t) x (Salimans and Ho 2022, arXiv 2202.00512). Outputs: the prediction. Knowledge and utility:
the share of the target's energy that the model explains, 1 − ‖target − prediction‖² / ‖target‖², at least 0, averaged over four timesteps.
In train mode timestep and noise are drawn anew; in eval mode they are fixed by the sample, so that a measurement can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearned.data.samples import JoinedRows, MappedRows, Row, Samples
from unlearned.errors import Fault, InputError
from unlearned.tasks import tasks
from unlearned.tasks._images import read_images
from unlearned.tasks._models import check_finite, pretrained_directory
from unlearned.tasks._task import Batch, Bundle, Data, DataSource, ModelSource, Task, stack

_EVALUATED_AT = (0.1, 0.35, 0.6, 0.85)
"""Share of the noise schedule at which knowledge is measured."""


class Denoiser(nn.Module):
    """A UNet together with the noise schedule that it was trained for: from images to prediction and target.

    One module rather than two, so that losses need the model and the batch alone, also when the model is wrapped for several devices.
    """

    alphas_cumprod: Tensor

    def __init__(self, unet: nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.unet = unet
        self.scheduler = scheduler
        self.prediction_type: str = scheduler.config.prediction_type
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)

    def forward(self, images: Tensor, noise: Tensor, position: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Prediction and target, both (B, C, H, W).

        Args:
            images: (B, C, H, W) in [−1, 1].
            noise: standard normal, the same shape.
            position: (B,) in [0, 1), where in the noise schedule.
            labels: (B,) classes if the UNet is conditioned on them.
        """
        timesteps = (position * len(self.alphas_cumprod)).long()
        signal = self.alphas_cumprod[timesteps].sqrt()[:, None, None, None]
        sigma = (1 - self.alphas_cumprod[timesteps]).sqrt()[:, None, None, None]
        conditions = {} if labels is None else {"class_labels": labels}
        prediction = self.unet(signal * images + sigma * noise, timesteps, **conditions).sample
        targets = {"epsilon": noise, "sample": images, "v_prediction": signal * noise - sigma * images}
        return prediction, targets[self.prediction_type]


@tasks.register("image-generation")
class ImageGeneration(Task):
    """Rows hold `pixel_values` (C, H, W) in [−1, 1], `labels` () and `noise_seed` ()."""

    name: ClassVar[str] = "image-generation"
    utility_metric: ClassVar[str] = "explained_share"

    def load(self, source: ModelSource, field: str) -> Bundle:
        pretrained_directory(source, field, "model_index.json")
        try:
            from diffusers import DDPMPipeline
        except ImportError as error:
            raise InputError(Fault(field, "image generation needs the package diffusers.", "Install it: pip install 'unlearned[diffusion]'.")) from error
        try:
            pipeline = DDPMPipeline.from_pretrained(source.source, use_safetensors=True)
        except Exception as error:  # diffusers raises many kinds for a wrong directory
            raise InputError(
                Fault(
                    field,
                    f"no diffusion model can be loaded from {source.source!r} ({type(error).__name__}).",
                    "Give a directory that save_pretrained of a pipeline wrote.",
                )
            ) from error
        model = Denoiser(pipeline.unet.to(torch.float32), pipeline.scheduler).eval()
        check_finite(model, field)
        return Bundle(model, {"scheduler": pipeline.scheduler}, source)

    def save(self, bundle: Bundle, directory: Path) -> None:
        from diffusers import DDPMPipeline

        assert isinstance(bundle.model, Denoiser)
        DDPMPipeline(unet=bundle.model.unet, scheduler=bundle.model.scheduler).save_pretrained(directory)

    def restore(self, directory: Path, like: Bundle) -> Bundle:
        return replace(self.load(ModelSource(source=str(directory)), "model"), companions=like.companions, origin=like.origin)

    def fresh(self, bundle: Bundle) -> Bundle:
        assert isinstance(bundle.model, Denoiser)
        unet = bundle.model.unet
        return bundle.with_model(Denoiser(type(unet).from_config(unet.config), bundle.model.scheduler))  # type: ignore[attr-defined]

    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Images with labels; whole-number pixels 0..255 and floats in [0, 1] become [−1, 1]."""
        samples = read_images(source, bundle, field, like)
        if len(samples) and "noise_seed" in samples[0]:
            return samples  # made ready before
        keys = torch.arange(len(samples.rows))
        rows = MappedRows(JoinedRows(samples.rows, {"noise_seed": keys}), _to_signed)
        return Samples(rows, samples.all_ids, samples.facts, samples.indices)

    def faults(self, bundle: Bundle, samples: Samples, field: str) -> list[Fault]:
        """Pixels out of range: most often images that were in [−1, 1] already."""
        del bundle
        outside = sum(float(samples[i]["pixel_values"].abs().max()) > 1 + 1e-6 for i in range(len(samples)))
        if not outside:
            return []
        return [Fault(field, f"{outside} images have pixels out of range.", "Give whole numbers 0..255 or floats in [0, 1].")]

    def collate(self, rows: Sequence[Row]) -> Batch:
        return stack(rows, ("pixel_values", "labels", "noise_seed"))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of the prediction; in eval mode averaged over the fixed timesteps."""
        errors = [((target - prediction) ** 2).flatten(1).mean(dim=1) for prediction, target in self._predictions(model, batch)]
        return torch.stack(errors).mean(dim=0)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Prediction, (B, C, H, W), at the first of the timesteps."""
        return self._predictions(model, batch)[0][0]

    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """Explained share of the target, (B,)."""
        shares = [1 - ((t - p) ** 2).flatten(1).sum(dim=1) / (t**2).flatten(1).sum(dim=1) for p, t in self._predictions(model, batch)]
        return torch.stack(shares).mean(dim=0).clamp(0, 1)

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.knowledge(model, batch)

    def _predictions(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        images = batch["pixel_values"]
        labels = batch["labels"] if _is_conditional(model) else None
        if model.training:
            noise = torch.randn_like(images)
            position = torch.rand(len(images), device=images.device)
            return [model(images, noise, position, labels)]
        results = []
        for at in _EVALUATED_AT:
            noise = torch.stack([_fixed_noise(int(seed), images.shape[1:]) for seed in batch["noise_seed"]]).to(images)
            results.append(model(images, noise, torch.full((len(images),), at, device=images.device), labels))
        return results


def _to_signed(row: Row) -> Row:
    return {**row, "pixel_values": row["pixel_values"] * 2 - 1}


def _fixed_noise(seed: int, shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _is_conditional(model: nn.Module) -> bool:
    inner = getattr(model, "module", model)
    return getattr(inner.unet, "class_embedding", None) is not None

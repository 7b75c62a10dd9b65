"""A diffusion model as one module: UNet, noise schedule and, where it has them, text encoders and image autoencoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unlearned.errors import Fault, InputError

ATTENTION = r"^unet\..*(attn[12]|attentions\.\d+)\.to_(q|k|v|out\.0)\.weight$"
"""Queries, keys, values and outputs of a UNet's attention: self- and cross-attention of a `UNet2DConditionModel`, that of a `UNet2DModel`."""


def attention_of(model: nn.Module) -> str:
    """A pattern for the attention of a UNet; for everything in a model that has none."""
    return ATTENTION if any(re.search(ATTENTION, name) for name, _ in model.named_parameters()) else ".*"


class Embedded(NamedTuple):
    """A prompt as the UNet reads it."""

    states: Tensor
    """(B, T, D): what cross-attention attends to."""
    pooled: Tensor | None = None
    """(B, P): of the whole prompt, where the model reads it (Stable Diffusion XL)."""


class Denoiser(nn.Module):
    """From noisy latents, timesteps and a condition to the prediction of the UNet.

    One module rather than several, so that losses need the model and the batch alone, also when the model is wrapped for several devices. In pixel space
    there is no autoencoder, and latents are images. What was trained elsewhere takes no gradients: the autoencoder and, beside one, the text encoders.

    Args:
        unet: a `UNet2DConditionModel` if there are text encoders, else a `UNet2DModel`, conditioned on a class or on nothing.
        scheduler: any scheduler of diffusers with `alphas_cumprod`; gives the noise schedule and the kind of prediction.
        text_encoders: none, one (Stable Diffusion 1, 2), or two (XL).
        vae: an `AutoencoderKL`; None: pixel space.
        empty: token ids of the empty prompt, (E, T) for E text encoders; None: the model has none, and cannot be guided.
        zeros: what guidance leads away from is an embedding of zeros, as in Stable Diffusion XL; else the empty prompt's.
    """

    alphas_cumprod: Tensor
    empty: Tensor | None
    supports_gradient_checkpointing = True
    draws_in_training = True
    """In train mode latents are drawn, and timesteps are not those of a measurement. There is no dropout of its own."""

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        text_encoders: Sequence[nn.Module] = (),
        vae: nn.Module | None = None,
        empty: Tensor | None = None,
        *,
        zeros: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.scheduler = scheduler
        self.zeros = zeros
        self.prediction_type: str = scheduler.config.prediction_type
        self.text_encoder, self.text_encoder_2 = (*text_encoders, None, None)[:2]
        self.vae = vae
        if vae is not None:
            for part in (vae, *text_encoders):
                part.requires_grad_(False)
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self.register_buffer("empty", empty, persistent=False)

    @property
    def text_encoders(self) -> list[nn.Module]:
        """Those that there are."""
        return [encoder for encoder in (self.text_encoder, self.text_encoder_2) if encoder is not None]

    @property
    def conditioned_on(self) -> str | None:
        """`prompt`, `labels` or None."""
        if self.text_encoder is not None:
            return "prompt"
        return None if getattr(self.unet, "class_embedding", None) is None else "labels"

    @property
    def scale(self) -> int:
        """Pixels per latent, along one side."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)  # type: ignore[union-attr, arg-type]

    @property
    def channels(self) -> int:
        """Of images: 1 for grey, 3 for colour."""
        return int((self.unet if self.vae is None else self.vae).config.in_channels)  # type: ignore[union-attr, arg-type]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of its images; None: the UNet names no size."""
        config: Any = self.unet.config
        return None if config.sample_size is None else (self.scale * self.latent_shape[1], self.scale * self.latent_shape[2])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        config: Any = self.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(config.in_channels), int(height), int(width)

    def encode(self, images: Tensor, *, drawn: bool | None = None) -> Tensor:
        """Images (B, C, H, W) in [−1, 1] to latents: the mean of the autoencoder or, `drawn`, a draw from it; None: a draw in train mode. No gradients."""
        if self.vae is None:
            return images
        vae: Any = self.vae
        with torch.no_grad():
            distribution = vae.encode(images).latent_dist
            latents: Tensor = distribution.sample() if (self.training if drawn is None else drawn) else distribution.mode()
        return (latents - float(vae.config.get("shift_factor") or 0)) * float(vae.config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in [−1, 1]."""
        if self.vae is not None:
            vae: Any = self.vae
            latents = vae.decode(latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0)).sample
        return latents.clamp(-1, 1)

    def embed(self, prompts: Tensor) -> Embedded:
        """Token ids (B, E, T) through the E text encoders."""
        encoders: list[Any] = self.text_encoders
        if len(encoders) == 1:
            return Embedded(encoders[0](prompts[:, 0])[0])
        outs = [encoder(prompts[:, i], output_hidden_states=True) for i, encoder in enumerate(encoders)]
        return Embedded(torch.cat([out.hidden_states[-2] for out in outs], dim=-1), outs[-1][0])

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """√ᾱ_t x + √(1−ᾱ_t) ε, (B, C, H, W)."""
        signal, sigma = self._rates(timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet should predict: ε, x, or √ᾱ_t ε − √(1−ᾱ_t) x."""
        signal, sigma = self._rates(timesteps)
        return {"epsilon": noise, "sample": latents, "v_prediction": signal * noise - sigma * latents}[self.prediction_type]

    def noise_in(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise ε that a prediction says is in the noisy latents; for ε-prediction the prediction itself."""
        if self.prediction_type == "epsilon":
            return prediction
        signal, sigma = self._rates(timesteps)
        return signal * prediction + sigma * noisy if self.prediction_type == "v_prediction" else (noisy - signal * prediction) / sigma

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor | Embedded | None = None) -> Tensor:
        """Prediction, (B, C, H, W).

        Args:
            noisy: latents.
            timesteps: (B,), whole numbers in 0..T−1.
            condition: token ids (B, E, T) or their embedding; class numbers (B,); None for a model that is conditioned on nothing.
        """
        if self.conditioned_on != "prompt":
            conditions = {} if self.conditioned_on is None else {"class_labels": condition}
            prediction = self.unet(noisy, timesteps, **conditions).sample
        else:
            assert condition is not None
            embedded = self.embed(condition) if isinstance(condition, Tensor) else condition
            more = {} if embedded.pooled is None else {"added_cond_kwargs": {"text_embeds": embedded.pooled, "time_ids": self._sizes(noisy)}}
            prediction = self.unet(noisy, timesteps, encoder_hidden_states=embedded.states, **more).sample
        assert isinstance(prediction, Tensor)
        return prediction

    def gradient_checkpointing_enable(self, **how: Any) -> None:
        """The UNet computes its activations anew in the backward pass, in the form that does not re-enter autograd."""
        del how
        self.unet.enable_gradient_checkpointing()  # type: ignore[operator]

    def gradient_checkpointing_disable(self) -> None:
        """The UNet keeps its activations."""
        self.unet.disable_gradient_checkpointing()  # type: ignore[operator]

    def _rates(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        bar = self.alphas_cumprod[timesteps][:, None, None, None]
        return bar.sqrt(), (1 - bar).sqrt()

    def _sizes(self, noisy: Tensor) -> Tensor:
        """Size before cropping, corner of the crop, size: what XL is told of an image; here always a whole one of its own size."""
        height, width = (self.scale * side for side in noisy.shape[2:])
        return noisy.new_tensor([[height, width, 0, 0, height, width]]).expand(len(noisy), -1)


class Blended(Denoiser):
    """Between the predictions of two models, ε_main + w (ε_other − ε_main), with the parts of the other one; neither is changed.

    Predictions for the empty prompt are blended alike, so that guidance of the blend is the blend of both guided predictions. To swap the two is to take 1 − w.

    Args:
        main: the model at w = 0.
        other: the model at w = 1; may be wrapped by an adapter.
        weight: w.
    """

    def __init__(self, main: Denoiser, other: Denoiser, weight: float) -> None:
        super().__init__(other.unet, other.scheduler, other.text_encoders, other.vae, other.empty, zeros=other.zeros)
        self.main = main
        self.weight = weight

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor | Embedded | None = None) -> Tensor:
        """Prediction, (B, C, H, W); for the arguments see `Denoiser`. An embedded prompt stands for both text encoders' reading of it."""
        main: Tensor = self.main(noisy, timesteps, condition)
        return main + self.weight * (super().forward(noisy, timesteps, condition) - main)


def denoiser_of(model: nn.Module) -> Denoiser:
    """The model itself, also when it is wrapped for several devices or by an adapter.

    Raises:
        InputError: if it is no diffusion model.
    """
    inner: Any = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    if not isinstance(inner, Denoiser):
        what = f"{type(inner).__name__} is no diffusion model."
        raise InputError(Fault("model", what, "Give a directory that save_pretrained of a pipeline wrote, or a Denoiser (a UNet with its scheduler)."))
    return inner

"""Diffusion models in the layout of diffusers: read component by component, written so that plain diffusers reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearned.errors import Fault, InputError, raise_faults
from unlearned.tasks._captions import TOKENIZERS, empty_prompt
from unlearned.tasks._denoisers import Denoiser
from unlearned.tasks._models import call_function, check_finite, is_function, only_float32, pretrained_directory, read_weights
from unlearned.tasks._task import Bundle, ModelSource

INDEX = "model_index.json"
_PIPELINES = {0: "DDPMPipeline", 1: "StableDiffusionPipeline", 2: "StableDiffusionXLPipeline"}
"""By number of text encoders."""
_OPTIONAL = ("vae", "safety_checker", "feature_extractor", "image_encoder")
"""Components that these pipelines may do without, and then want to see named."""
_ZEROS = "force_zeros_for_empty_prompt"
"""What a pipeline of Stable Diffusion XL says of the embedding that guidance leads away from; left out, it is zeros."""
_REMEDY = "Give a directory that save_pretrained of a pipeline wrote, whole and as safetensors."


def load_pipeline(source: ModelSource, field: str) -> Bundle:
    """A pipeline with a UNet, in eval mode, in float32; or what a `module:function` returns: a `Denoiser`, or a bundle as `assemble` makes it.

    Raises:
        InputError: if diffusers is not installed, or the source is no pipeline of a layout that this package knows.
    """
    only_float32(source, field)
    if is_function(source.source):
        return _called(source, field)
    pretrained_directory(source, field, INDEX)
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise InputError(Fault(field, "image generation needs the package diffusers.", "Install it: pip install 'unlearned[diffusion]'.")) from error
    try:
        index = DiffusionPipeline.load_config(source.source)
    except (OSError, ValueError) as error:
        raise InputError(Fault(field, f"{INDEX} of {source.source!r} cannot be read ({type(error).__name__}).", _REMEDY)) from error
    parts = {name: value for name, value in index.items() if isinstance(value, list | tuple) and len(value) == 2 and value[1] is not None}
    if "unet" not in parts:
        found = ", ".join(sorted(parts)) or "nothing"
        what = f"the pipeline {index.get('_class_name')} in {source.source!r} has no UNet (it has {found})."
        raise InputError(Fault(field, what, "Give one of the layout of Stable Diffusion 1, 2 or XL, or a UNet in pixel space; transformers are not supported."))
    wanted = [name for name in ("unet", "scheduler", "vae", "text_encoder", "text_encoder_2", *TOKENIZERS) if name in parts]
    made = {name: _component(source, name, parts[name], field) for name in wanted}
    encoders = [made[name] for name in ("text_encoder", "text_encoder_2") if name in made]
    tokenizers = {name: made[name] for name in TOKENIZERS if name in made}
    faults = layout_faults(made["unet"], made.get("scheduler"), encoders, made.get("vae"), field)
    if len(encoders) != len(tokenizers):
        faults.append(_unusable(f"it has {len(encoders)} text encoders and {len(tokenizers)} tokenizers", field))
    raise_faults(faults)
    empty = empty_prompt(tokenizers) if tokenizers else None
    zeros = len(encoders) == 2 and index.get(_ZEROS, True)
    model = Denoiser(made["unet"], made["scheduler"], encoders, made.get("vae"), empty, zeros=zeros).to(torch.float32).eval()
    check_finite(model, field)
    return Bundle(model, {"scheduler": made["scheduler"], **tokenizers}, source)


def assemble(
    unet: nn.Module, scheduler: Any, *, text_encoders: Sequence[nn.Module] = (), tokenizers: Sequence[Any] = (), vae: nn.Module | None = None
) -> Bundle:
    """A model from components that a program holds, in eval mode.

    Args:
        unet: as `Denoiser` takes it.
        scheduler: gives the noise schedule.
        text_encoders: none, one or two.
        tokenizers: as many.
        vae: the autoencoder; None: pixel space.

    Raises:
        InputError: if they do not make up a layout that this package knows.
    """
    raise_faults(layout_faults(unet, scheduler, text_encoders, vae, "model"))
    named = dict(zip(TOKENIZERS, tokenizers, strict=False))
    model = Denoiser(unet, scheduler, text_encoders, vae, empty_prompt(named) if named else None, zeros=len(text_encoders) == 2)
    return Bundle(model.eval(), {"scheduler": scheduler, **named})


def save_pipeline(bundle: Bundle, directory: Path) -> None:
    """Write every component and the index. A safety checker of the source is not among them."""
    from diffusers import __version__

    model = bundle.model
    assert isinstance(model, Denoiser)
    named = {"text_encoder": model.text_encoder, "text_encoder_2": model.text_encoder_2, "vae": model.vae}
    parts: dict[str, Any] = {"unet": model.unet, "scheduler": model.scheduler} | {name: part for name, part in named.items() if part is not None}
    parts |= {name: bundle.companions[name] for name in TOKENIZERS if name in bundle.companions}
    texts = len(model.text_encoders)
    index: dict[str, Any] = {"_class_name": _PIPELINES[texts], "_diffusers_version": __version__}
    if texts == 1:
        index["requires_safety_checker"] = False
    if texts == 2:
        index[_ZEROS] = model.zeros
    index |= {name: [None, None] for name in _OPTIONAL[: {0: 0, 1: 4, 2: 1}[texts]]}
    for name, part in parts.items():
        part.save_pretrained(directory / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_adapter(adapted: Any, directory: Path) -> None:
    """Write the adapter beside the UNet of a model that peft has wrapped, in the layout that `load_lora_weights` of diffusers reads.

    Args:
        adapted: a `PeftModel` around a `Denoiser`; adapters elsewhere than in the UNet are not written.
        directory: exists.
    """
    import diffusers
    from peft import get_peft_model_state_dict

    model = adapted.get_base_model()
    assert isinstance(model, Denoiser)
    inside = "base_model.model.unet."
    layers = {name.removeprefix(inside): tensor.contiguous() for name, tensor in get_peft_model_state_dict(adapted).items() if name.startswith(inside)}
    config = adapted.peft_config[adapted.active_adapter].to_dict()
    wanted = {name: config[name] for name in ("r", "lora_alpha", "lora_dropout")}
    # Not from the configuration: peft shortens many names to what they end with.
    wanted["target_modules"] = sorted({name.removesuffix(".lora_A.weight") for name in layers if name.endswith(".lora_A.weight")})
    pipeline = getattr(diffusers, _PIPELINES[len(model.text_encoders)])
    pipeline.save_lora_weights(directory, unet_lora_layers=layers, unet_lora_adapter_metadata=wanted)


def _called(source: ModelSource, field: str) -> Bundle:
    made = call_function(source.source, field)
    if isinstance(made, Denoiser):
        made = Bundle(made, {"scheduler": made.scheduler})
    if not isinstance(made, Bundle) or not isinstance(made.model, Denoiser):
        raise InputError(Fault(field, f"{source.source!r} returned {type(made).__name__}, no diffusion model.", "Return a Denoiser, or what `assemble` makes."))
    if source.weights is not None:
        try:
            made.model.load_state_dict(read_weights(Path(source.weights), source.allow_pickle, f"{field}.weights"))
        except RuntimeError as error:
            what = "the weights do not fit the model: tensors are missing, unknown, or of another shape."
            raise InputError(Fault(f"{field}.weights", what, f"Give the weights of the model that {source.source!r} makes.")) from error
    made.model.to(torch.float32).eval()
    check_finite(made.model, field)
    return replace(made, origin=source)


def _component(source: ModelSource, name: str, described: Any, field: str) -> Any:
    import diffusers
    import transformers

    library, kind = described
    owner: Any = {"diffusers": diffusers, "transformers": transformers}.get(library)
    loader = getattr(getattr(owner, str(kind), None), "from_pretrained", None)
    if loader is None:
        raise InputError(Fault(field, f"{name} of {source.source!r} is a {library}.{kind}, which cannot be read.", _REMEDY))
    options: dict[str, Any] = {"subfolder": name}
    if name in {"unet", "vae", "text_encoder", "text_encoder_2"}:
        options |= {"use_safetensors": None if source.allow_pickle else True, ("dtype" if library == "transformers" else "torch_dtype"): torch.float32}
    try:
        return loader(source.source, **options)
    except Exception as error:  # both libraries raise many kinds for a wrong directory
        raise InputError(Fault(field, f"{name} of {source.source!r} cannot be read ({type(error).__name__}).", _REMEDY)) from error


def layout_faults(unet: Any, scheduler: Any, encoders: Sequence[nn.Module], vae: Any, field: str) -> list[Fault]:
    """What keeps these components from being a model."""
    says: list[tuple[bool, str]] = [
        (scheduler is None or not hasattr(scheduler, "alphas_cumprod"), f"its scheduler ({type(scheduler).__name__}) has no table of noise levels"),
        (_reads_text(unet) and not encoders, "its UNet attends to text, but it has no text encoder"),
        (bool(encoders) and not _reads_text(unet), f"it has a text encoder, but its UNet ({type(unet).__name__}) does not attend to text"),
        (getattr(unet.config, "addition_embed_type", None) not in {None, "text_time"}, "its UNet wants more than a prompt"),
        (unet.config.out_channels != unet.config.in_channels, f"its UNet has {unet.config.in_channels} channels in and {unet.config.out_channels} out"),
        (vae is not None and vae.config.latent_channels != unet.config.in_channels, "UNet and autoencoder differ in the number of channels"),
    ]
    dtypes = {p.dtype for part in (unet, *encoders, vae) if part is not None for p in part.parameters()} - {torch.float32, torch.float64}
    held = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    precise = [Fault(field, f"weights are held in {held}, which is too coarse for training.", "Convert the model: model.float().")] if dtypes else []
    return [_unusable(what, field) for wrong, what in says if wrong] + precise


def _unusable(what: str, field: str) -> Fault:
    return Fault(field, f"this pipeline cannot be used: {what}.", "Give one of the layout of Stable Diffusion 1, 2 or XL, or a UNet in pixel space.")


def _reads_text(unet: nn.Module) -> bool:
    return getattr(unet.config, "cross_attention_dim", None) is not None

"""Where a language model can lie: a directory or hub id, an adapter of peft beside its base model, a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearned.errors import Fault, InputError
from unlearned.tasks._models import from_pretrained, pretrained_directory, refuse_pickle
from unlearned.tasks._task import Bundle, ModelSource

_ADAPTER = "adapter_config.json"


def load_language_model(source: ModelSource, field: str) -> Bundle:
    """A causal language model with its tokenizer, in eval mode and in the precision that the source names; adapters are merged.

    Raises:
        InputError: if it cannot be loaded, is no decoder, or its weights are quantised.
    """
    path = Path(source.source)
    if path.suffix.lower() == ".gguf":
        bundle = _from_gguf(path, source, field)
    elif (path / _ADAPTER).is_file():
        bundle = _from_adapter(path, source, field)
    else:
        pretrained_directory(source, field)
        bundle = _from_directory(source, field)
    _refuse_what_cannot_be_trained(bundle.model, field)
    if _looks_ahead(bundle.model):
        what = f"{source.source!r} is no decoder ({type(bundle.model).__name__}): what it says of a token depends on later ones."
        raise InputError(Fault(field, what, "Use a decoder, such as Llama, Qwen, GPT-2, ..."))
    return bundle


def _from_directory(source: ModelSource, field: str, **options: Any) -> Bundle:
    from transformers import AutoConfig, AutoModelForCausalLM

    if Path(source.source).is_dir() and not options:
        config = AutoConfig.from_pretrained(source.source, trust_remote_code=False)
        if getattr(config, "is_encoder_decoder", False):
            what = f"{source.source!r} is an encoder-decoder model ({type(config).__name__})."
            raise InputError(Fault(field, what, "Use a decoder, such as Llama, Qwen, GPT-2, ..."))
        _refuse_quantised(config, field)
    model = from_pretrained(partial(AutoModelForCausalLM.from_pretrained, **options), source, field)
    return Bundle(model, {"tokenizer": _tokenizer(source.source, field, **options)}, source)


def _tokenizer(source: str, field: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    fault = Fault(field, f"{source!r} has no tokenizer that can be read.", "Save the tokenizer into the same directory.")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise InputError(fault) from error
    # Without files, transformers makes up one of the kind that the model usually has: it knows no words, and every text is empty to it.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise InputError(fault)
    return tokenizer


def _from_gguf(path: Path, source: ModelSource, field: str) -> Bundle:
    """What llama.cpp reads: its quantised weights become float32."""
    if not path.is_file():
        raise InputError(Fault(field, f"there is no file {str(path)!r}.", "Check the path; relative paths start at the working directory."))
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError(Fault(field, "GGUF files need the package gguf.", "Install it: pip install gguf.")) from error
    bundle = _from_directory(source.model_copy(update={"source": str(path.parent)}), field, gguf_file=path.name)
    # Otherwise transformers takes the float32 weights for quantised ones and refuses to save them.
    model: Any = bundle.model
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return Bundle(model, bundle.companions, source)


def _from_adapter(path: Path, source: ModelSource, field: str) -> Bundle:
    from peft import PeftModel

    try:
        base = json.loads((path / _ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(Fault(field, f"the {_ADAPTER} in {str(path)!r} cannot be read ({type(error).__name__}).", "Save the adapter again.")) from error
    if not base:
        raise InputError(Fault(field, f"the adapter in {str(path)!r} does not name its base model.", f"Add base_model_name_or_path to its {_ADAPTER}."))
    for file in path.glob("adapter_model.*"):
        refuse_pickle(file, source.allow_pickle, field)
    bundle = load_language_model(source.model_copy(update={"source": str(base)}), field)
    try:
        adapted: Any = PeftModel.from_pretrained(bundle.model, str(path))
    except Exception as error:  # peft raises many kinds for a wrong file
        first = (str(error).strip().splitlines() or [""])[0][:200]
        what = f"the adapter in {str(path)!r} does not go with {base!r} ({type(error).__name__}: {first})."
        raise InputError(Fault(field, what, "Give the adapter of this base model, as safetensors.")) from error
    model: nn.Module = adapted.merge_and_unload()
    own = any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = _tokenizer(str(path), field) if own else bundle.companions["tokenizer"]
    return Bundle(model.eval().requires_grad_(True), {"tokenizer": tokenizer}, source)


def _looks_ahead(model: nn.Module) -> bool:
    """Whether the scores behind a token change with the token after it: measured, because encoders load as language models, too."""
    with torch.no_grad():
        first, second = (model(input_ids=torch.tensor([[0, last]])).logits[0, 0] for last in (1, 2))
    return not torch.allclose(first, second, rtol=1e-3, atol=1e-4)


def _refuse_quantised(config: Any, field: str) -> None:
    described = getattr(config, "quantization_config", None)
    if described is not None:
        method = described.get("quant_method", "of some kind") if isinstance(described, Mapping) else getattr(described, "quant_method", "of some kind")
        what = f"its weights are quantised ({method}) and cannot be trained."
        raise InputError(Fault(field, what, "Load the model in float32 or bfloat16; to attack a quantised model, use the attack `quantize`."))


def _refuse_what_cannot_be_trained(model: nn.Module, field: str) -> None:
    _refuse_quantised(model.config, field)
    quantised = [name for name, parameter in model.named_parameters() if not parameter.is_floating_point()]
    if quantised:
        what = f"{len(quantised)} of its weights are quantised (first {quantised[0]!r}) and cannot be trained."
        raise InputError(Fault(field, what, "Load the model in float32 or bfloat16; to attack a quantised model, use the attack `quantize`."))

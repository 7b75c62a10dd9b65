"""Low-rank adapters: train few weights beside frozen ones, and switch them off to ask the original."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.errors import Fault, InputError
from unlearned.settings import Settings
from unlearned.tasks._linear import linear_layers, transposed_linear_layers

if TYPE_CHECKING:
    from peft import PeftModel


class Lora(Settings):
    """LoRA (Hu et al. 2021, arXiv 2106.09685): W + (α/r) B A in the place of W, with A (r, in) and B (out, r) trained."""

    rank: int = Field(8, ge=1, le=100_000, description="Rank r of the update.")
    alpha: float = Field(16, gt=0, description="α: the update is scaled by α / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A, in training.")
    start: Literal["zero", "gaussian", "small"] = Field(
        "zero",
        description="zero: B begins as 0, the model as it was, A uniform. gaussian: the same with A normal, of standard deviation 1/r. "
        "small: both are drawn, A with standard deviation 0.008, B with 0.002.",
    )


def adaptable(model: nn.Module, pattern: str) -> list[str]:
    """Names of the linear layers and convolutions whose weight is trainable and has a name that matches. Not the output layer of a language model.

    Raises:
        InputError: if no such layer matches.
    """
    kinds: tuple[type[Any], ...] = (*linear_layers(), nn.Conv2d)
    vocabulary = getattr(model, "get_output_embeddings", lambda: None)()  # often tied to the embedding of the input, which an adapter would untie
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds) and layer is not vocabulary)
    names = [name for name, layer in layers if re.search(pattern, f"{name}.weight") and layer.weight.requires_grad]
    if not names:
        what = f"no linear layer or convolution has a trainable weight that matches {pattern!r}, so there is none to put an adapter beside."
        raise InputError(Fault("method.parameters", what, "Give a pattern that matches some, or leave out lora."))
    return names


def with_adapter(model: nn.Module, how: Lora, pattern: str) -> PeftModel:
    """The model with an adapter beside every layer that is `adaptable`; only the adapters require gradients.

    The weights of `model` are shared, not copied, and are not changed; neither is which of them require gradients. Adapters start from torch's global random
    generator.

    Raises:
        InputError: if no such layer matches.
    """
    from peft import LoraConfig, get_peft_model

    names = adaptable(model, pattern)
    transposed = any(isinstance(model.get_submodule(name), transposed_linear_layers()) for name in names)
    start = "gaussian" if how.start == "gaussian" else True
    config = LoraConfig(r=how.rank, lora_alpha=how.alpha, lora_dropout=how.dropout, target_modules=names, fan_in_fan_out=transposed, init_lora_weights=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of one library about a name that the other uses
        adapted = get_peft_model(_sharing(model), config)
    if how.start == "small":
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.008 if "lora_A" in name else 0.002)
    return adapted


def merged(model: nn.Module, original: nn.Module) -> nn.Module:
    """The plain model with the adapters added to copies of the original's weights; the same parameters require gradients as there."""
    inner: Any = model
    for parameter in inner.parameters():
        parameter.data = parameter.data.clone()
    plain: nn.Module = inner.merge_and_unload()
    flags = {name: parameter.requires_grad for name, parameter in original.named_parameters()}
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(flags[name])
    return plain


def updates(model: nn.Module) -> dict[str, Tensor]:
    """What the adapters add to the weights, (α/r) B A, by the name of the weight in the plain model; differentiable with respect to both factors."""
    inner: Any = getattr(model, "module", model)
    layers = [(name, layer) for name, layer in inner.get_base_model().named_modules() if hasattr(layer, "get_delta_weight")]
    return {f"{name}.weight": layer.get_delta_weight(layer.active_adapters[0]) for name, layer in layers}


def plain_name(name: str) -> str:
    """Of an adapter's factor, or of a weight beside one: the weight's name in the plain model."""
    return re.sub(r"\.(lora_[AB]\.\w+|base_layer)(?=\.)", "", name.removeprefix("base_model.model."))


def is_adapted(model: nn.Module) -> bool:
    """Whether adapters can be switched off in this model."""
    return hasattr(getattr(model, "module", model), "disable_adapter")


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model answers as it did before the adapter."""
    inner: Any = getattr(model, "module", model)
    with inner.disable_adapter():
        yield


def _sharing(model: nn.Module) -> nn.Module:
    """The same layers around the same storage, with parameters of their own: flags can change without the model noticing."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)

"""Libraries that quantise linear layers, each in formats of its own."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

Library = Literal["torchao", "bitsandbytes"]


class Quantiser(NamedTuple):
    """What a library can do."""

    bits: tuple[int, ...]
    groups: bool
    """Whether runs of weights within a channel can share a grid, of a size that is asked for."""
    quantise: Callable[[nn.Module, int, int | None], None]
    """Changes the linear layers of a model in place, to so many bits per weight, in groups of so many weights."""


def is_installed(library: Library) -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec(library) is not None


def quantisable(model: nn.Module) -> dict[str, nn.Linear]:
    """What the libraries quantise, by name. The output layer of a language model shares its weight with the embedding where the two are tied, and stays."""
    embedded = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and id(layer.weight) not in embedded}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries say of kernels for devices that are not here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _by_torchao(model: nn.Module, bits: int, group_size: int | None) -> None:
    """Round to nearest on a symmetric grid for each output channel, or each group; stored as whole numbers."""
    chosen = set(quantisable(model).values())
    with _quiet():
        quantization: Any = importlib.import_module("torchao.quantization")
        granularity: Any = importlib.import_module("torchao.quantization.granularity")
        how = quantization.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity.PerAxis(0) if group_size is None else granularity.PerGroup(group_size)
        )
        quantization.quantize_(model, how, filter_fn=lambda layer, _: layer in chosen)


def _by_bitsandbytes(model: nn.Module, bits: int, group_size: int | None) -> None:
    """LLM.int8() by output channel with 8 bits, the 4-bit float NF4 in blocks of 64 with 4; used as they are put back, which asks for no kernel."""
    with _quiet(), torch.no_grad():
        del group_size
        functional: Any = importlib.import_module("bitsandbytes.functional")
        for layer in quantisable(model).values():
            if bits == 8:
                whole, scales, _ = functional.int8_vectorwise_quant(layer.weight.half())
                layer.weight.copy_(functional.int8_vectorwise_dequant(whole, scales))
            else:
                packed, state = functional.quantize_4bit(layer.weight.contiguous(), quant_type="nf4")
                layer.weight.copy_(functional.dequantize_4bit(packed, state))


QUANTISERS: dict[Library, Quantiser] = {
    "torchao": Quantiser((8, 7, 6, 5, 4, 3, 2), True, _by_torchao),
    "bitsandbytes": Quantiser((8, 4), False, _by_bitsandbytes),
}

"""An unlearning edit as two vectors: W + c r uᵀ in one layer, applied, taken back, stacked, saved, and given to other tools as an adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearned.engine.files import atomic_directory
from unlearned.errors import Fault, InputError
from unlearned.tasks._decoders import blocks_of, down_path, down_projection, is_transposed, matrix_of

_FILE = "edits.safetensors"


@dataclass(frozen=True)
class Edit:
    """A change of rank one in the down-projection of block `layer`: what reads like `key` is moved along `direction`."""

    layer: int
    coefficient: float
    """c."""
    direction: Tensor
    """r, (q,)."""
    key: Tensor
    """u, (p,)."""

    def apply(self, model: nn.Module, times: float = 1.0) -> None:
        """Add `times` the edit to the model's weights, in place."""
        with torch.no_grad():
            weight = matrix_of(down_projection(model, self.layer))
            weight += (times * self.coefficient * torch.outer(self.direction, self.key)).to(weight)

    def remove(self, model: nn.Module) -> None:
        """Take it back; the weights are what they were up to rounding."""
        self.apply(model, -1.0)


def save_edits(edits: Sequence[Edit], directory: Path) -> None:
    """Write edits as safetensors.

    Raises:
        InputError: if the directory cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for i, edit in enumerate(edits):
        tensors |= {f"{i}.direction": edit.direction.clone(), f"{i}.key": edit.key.clone()}
    described = {"edits": json.dumps([[edit.layer, edit.coefficient] for edit in edits])}
    with atomic_directory(directory) as fresh:
        save_file(tensors, fresh / _FILE, metadata=described)
        (fresh / "edits.json").write_text(described["edits"] + "\n", encoding="utf-8")


def load_edits(directory: Path) -> list[Edit]:
    """What `save_edits` wrote.

    Raises:
        InputError: if there are none.
    """
    try:
        described = json.loads((directory / "edits.json").read_text(encoding="utf-8"))
        tensors = load_file(directory / _FILE)
        return [Edit(int(layer), float(c), tensors[f"{i}.direction"], tensors[f"{i}.key"]) for i, (layer, c) in enumerate(described)]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            Fault("edits", f"{str(directory)!r} holds no edits that can be read ({type(error).__name__}).", "Give what save_edits wrote.")
        ) from error


def save_adapter(edits: Sequence[Edit], model: nn.Module, directory: Path, base: str) -> None:
    """Write edits as a LoRA adapter that plain peft loads: its rank is the largest number of edits in one layer.

    Args:
        edits: what to write.
        model: the model that they are for, without them.
        directory: made anew.
        base: name or path of the base model, for whoever loads the adapter.

    Raises:
        InputError: if the directory cannot be written.
    """
    from peft import LoraConfig

    modules = {block: name for name, block in model.named_modules()}
    blocks = blocks_of(model)
    layers = sorted({edit.layer for edit in edits})
    rank = max(sum(edit.layer == layer for edit in edits) for layer in layers)
    tensors: dict[str, Tensor] = {}
    targets = []
    for layer in layers:
        path = f"{modules[blocks[layer]]}.{down_path(blocks[layer])}"
        q, p = matrix_of(down_projection(model, layer)).shape
        a, b = torch.zeros(rank, p), torch.zeros(q, rank)
        for i, edit in enumerate(edit for edit in edits if edit.layer == layer):
            a[i], b[:, i] = edit.key.float(), edit.coefficient * edit.direction.float()
        tensors |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
        targets.append(path)
    transposed = is_transposed(down_projection(model, layers[0]))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, fan_in_fan_out=transposed, base_model_name_or_path=base, inference_mode=True)
    with atomic_directory(directory) as fresh:
        config.save_pretrained(fresh)
        save_file(tensors, fresh / "adapter_model.safetensors", metadata={"format": "pt"})

"""The whole state of a training, saved without pickle: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from unlearned.engine.files import atomic_directory
from unlearned.engine.randomness import generator_states, restore_generators


def save_state(directory: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any], memory: Mapping[str, Tensor] | None = None) -> None:
    """Save model, optimiser, random generators, `progress` (JSON values, `step` among them) and further tensors as the one checkpoint of `directory`.

    The one before is removed only when the new one is whole, so that there is one at any moment.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"rng/{name}": state for name, state in generator_states().items()}
    tensors |= {f"memory/{name}": tensor for name, tensor in (memory or {}).items()}
    scalars: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                scalars[f"{index}/{name}"] = value
    target = directory / f"step-{progress['step']:012d}"
    with atomic_directory(target) as fresh:
        # Tied weights share memory, which safetensors refuses: each gets its own copy.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, fresh / "state.safetensors")
        (fresh / "state.json").write_text(json.dumps({"progress": progress, "optimizer": scalars}), encoding="utf-8")
    for other in directory.iterdir():
        if other != target:
            shutil.rmtree(other)


def load_state(
    directory: Path, model: nn.Module, optimizer: Optimizer, identity: str | None = None, memory: dict[str, Tensor] | None = None
) -> dict[str, Any] | None:
    """Load what `save_state` saved into the same kind of model and optimiser, and into `memory`.

    Returns:
        The progress; None if there is no checkpoint, or its progress has another `identity`.
    """
    newest = max(directory.glob("step-*"), default=None)
    if newest is None:
        return None
    described = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    if described["progress"].get("identity") != identity:
        return None
    tensors = load_file(newest / "state.safetensors")
    model.load_state_dict({name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")})
    states: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **{f"optimizer/{k}": v for k, v in described["optimizer"].items()}}.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/", 2)
            states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    restore_generators({name.removeprefix("rng/"): t for name, t in tensors.items() if name.startswith("rng/")})
    if memory is not None:
        memory.update({name.removeprefix("memory/"): t for name, t in tensors.items() if name.startswith("memory/")})
    progress = described["progress"]
    assert isinstance(progress, dict)
    return progress

"""A training that is looked at on its way: weights, moments of Adam and learning rate after some of its epochs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step, fit, lr_share
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.training import Training
from unlearned.tasks._task import Batch, Bundle

BETAS = (0.9, 0.999)
"""β1 and β2 of the moments."""


class Snapshot(NamedTuple):
    """A training after one of its epochs."""

    model: nn.Module
    """On the CPU in eval mode."""
    first: Mapping[str, Tensor]
    """m ← β1 m + (1 − β1) g, of the trained parameters by name, at least in float32; without correction of the bias."""
    second: Mapping[str, Tensor]
    """v ← β2 v + (1 − β2) g²."""
    lr: float
    """Mean over the steps of the epoch."""


@dataclass(frozen=True)
class Trajectory:
    """Snapshots of one training, oldest first; each is read from the disk when it is asked for."""

    model: nn.Module
    files: tuple[Path, ...]
    lrs: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Snapshot]:
        for file, lr in zip(self.files, self.lrs, strict=True):
            parts: dict[str, dict[str, Tensor]] = {"w": {}, "m": {}, "v": {}}
            for key, tensor in load_file(file).items():
                kind, _, name = key.partition("/")
                parts[kind][name] = tensor
            model = copy.deepcopy(self.model)
            own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            with torch.no_grad():
                for name, tensor in parts["w"].items():
                    own[name].copy_(tensor)
            yield Snapshot(model.eval(), parts["m"], parts["v"], lr)


@contextmanager
def following(engine: Engine, bundle: Bundle, samples: Samples, how: Training, seed: int, count: int, lora: Lora | None = None) -> Iterator[Trajectory]:
    """Train anew, as the original was, and have the state after `count` epochs in equal steps; the last one is the end. They are gone with the block.

    The moments are those that Adam has or would have: of the gradients that the optimiser was given.

    Args:
        engine: computes.
        bundle: gives architecture and companions; with `lora` also the weights, unless the training starts from others.
        samples: training data.
        how: the training.
        seed: of initial weights and data order.
        count: snapshots; at most one for each epoch.
        lora: train adapters beside the weights.

    Raises:
        DivergedError: if it diverges.
        InputError: if the model to start from cannot be loaded, or the architecture cannot be initialised anew.
    """
    with seeded(derive_seed(seed, "weights")):
        if how.start is not None:
            model = engine.task.load(how.start, "training.start").model
        else:
            model = copy.deepcopy(bundle.model) if lora is not None else engine.task.fresh(bundle).model
        if lora is not None:
            model = with_adapter(model, lora, how.parameters)
    if lora is not None:
        how = how.model_copy(update={"parameters": ".*"})
    count = min(count, how.epochs)
    wanted = {-(-how.epochs * (i + 1) // count) - 1 for i in range(count)}
    directory = Path()
    files: list[Path] = []
    lrs: list[float] = []
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    rates: list[float] = []

    def keep(model: nn.Module, step: Step) -> None:
        model = engine.accelerator.unwrap_model(model)
        rates.append(how.lr * lr_share(how, step.done / step.total))
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                # In bfloat16 steps of 0.001 are rounded away: v would stand still.
                gradient = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32))
                m, v = (moments.setdefault(name, torch.zeros_like(gradient)) for moments in (first, second))
                m.lerp_(gradient, 1 - BETAS[0])
                v.lerp_(gradient**2, 1 - BETAS[1])
        if step.position + 1 < step.length:
            return
        if step.number in wanted:
            whole = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            state = (
                {f"w/{name}": t for name, t in whole.items()} | {f"m/{name}": t for name, t in first.items()} | {f"v/{name}": t for name, t in second.items()}
            )
            files.append(directory / f"{len(files)}.safetensors")
            lrs.append(sum(rates) / len(rates))
            save_file({key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}, files[-1])
        rates.clear()

    def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
        del forget
        return engine.task.losses(model, retain).mean()

    plan = Plan([Pass("retain", loss)] * how.epochs, after_step=keep)
    with tempfile.TemporaryDirectory(prefix="unlearned-") as made:
        directory = Path(made)
        fitted = fit(engine, model, plan, {"retain": samples}, how, title="trajectory", seed=seed)
        yield Trajectory(fitted, tuple(files), tuple(lrs))

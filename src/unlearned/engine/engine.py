"""The engine: what a method, an audit or an attack is given to compute with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unlearned.data.samples import Samples
from unlearned.engine.batches import load
from unlearned.engine.keeping import Keep
from unlearned.engine.meter import Meter
from unlearned.engine.settings import Compute
from unlearned.errors import Fault, InputError
from unlearned.records import Exhibit
from unlearned.tasks._task import Batch, Task

if TYPE_CHECKING:
    from accelerate import Accelerator


class Engine:
    """Device, precision, seeds, checkpoints, progress and cost for one task.

    Args:
        task: how samples become batches.
        compute: where and how to compute.
        seed: of everything random.
        work: directory for checkpoints of interrupted work; None: nothing is saved.
        show_progress: draw progress bars when standard error is a terminal.

    Raises:
        InputError: if the device does not exist on this machine.
    """

    def __init__(self, task: Task, compute: Compute | None = None, seed: int = 0, work: Path | None = None, show_progress: bool = False) -> None:
        self.task = task
        self.compute = compute or Compute()
        self.seed = seed
        self.work = work
        self.show_progress = show_progress
        if self.compute.threads is not None:
            torch.set_num_threads(self.compute.threads)
        self.accelerator = _make_accelerator(self.compute, work)
        self.meter = Meter(self.device)
        self.exhibits: list[Exhibit] = []
        """What the work that is measured shows of itself."""
        self.keep: Keep | None = None
        """Which state of an unlearning by gradient steps is its result; None: the last."""

    @property
    def device(self) -> torch.device:
        """Where models run."""
        device = self.accelerator.device
        assert isinstance(device, torch.device)
        return device

    def with_seed(self, seed: int) -> Engine:
        """The same engine with another seed and its own meter, for work that keeps its last state."""
        other = copy.copy(self)
        other.seed = seed
        other.meter = Meter(self.device)
        other.exhibits = []
        other.keep = None
        return other

    def aside(self, seed: int) -> Engine:
        """The same engine for work in the middle of other work: it saves, tracks and shows nothing."""
        other = self.with_seed(seed)
        other.work, other.show_progress = None, False
        other.compute = self.compute.model_copy(update={"trackers": ()})
        return other

    def keeping(self, keep: Keep | None) -> Engine:
        """The same engine, with which an unlearning keeps its best state."""
        other = copy.copy(self)
        other.keep = keep
        return other

    def checkpoint(self, name: str) -> Path | None:
        """Where work of this name keeps its state."""
        return None if self.work is None else self.work / "checkpoints" / name

    @property
    def plain(self) -> bool:
        """One process in full precision: nothing for accelerate to wrap."""
        return self.accelerator.num_processes == 1 and str(self.accelerator.distributed_type.value) == "NO" and self.compute.precision == "no"

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer, Callable[[Tensor], object]]:
        """Model, optimiser and backward pass for training, wrapped by accelerate where there is something to wrap.

        In the plain case its wrappers would do the same and cost a quarter of a millisecond per step.
        """
        if self.plain:
            return model, optimizer, torch.autograd.backward
        wrapped, wrapped_optimizer = self.accelerator.prepare(model, optimizer)
        return wrapped, wrapped_optimizer, self.accelerator.backward

    @property
    def loss_scale(self) -> float:
        """By what the backward pass of `prepare` multiplies a loss at present, so that small gradients do not vanish in fp16; 1 in other precisions."""
        scaler: Any = self.accelerator.scaler  # None but in fp16
        return 1.0 if scaler is None else float(scaler.get_scale())

    def gradients(self, value: Tensor, weights: Sequence[Tensor], *, retain_graph: bool = False) -> list[Tensor | None]:
        """∇ value with respect to the weights, None where it does not depend on one: what `torch.autograd.grad` gives, in fp16 as well.

        There the value is scaled before the backward pass, as little below `loss_scale` as keeps everything finite, and the gradients are scaled back.
        """
        scale = self.loss_scale
        while scale > 1:
            found: Sequence[Tensor | None] = torch.autograd.grad(value * scale, list(weights), retain_graph=True, allow_unused=True)
            if all(g is None or bool(g.isfinite().all()) for g in found):
                return [None if g is None else g / scale for g in found]
            scale /= 2
        return list(torch.autograd.grad(value, list(weights), retain_graph=retain_graph, allow_unused=True))

    def release(self, model: nn.Module) -> None:
        """Let go of what `prepare` wrapped; the model computes in the precision of its weights again."""
        if not self.plain:
            if _ORIGINAL in model.__dict__:
                own = model.__dict__.pop(_ORIGINAL)
                del model.forward
                if model.forward != own:  # the model had one of its own, other than its class's
                    model.forward = own
            self.accelerator.free_memory()

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the models run."""
        if self.device.type == "cpu":
            return batch
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    @contextmanager
    def measuring(self) -> Iterator[Meter]:
        """Measure the cost of what is done inside, and collect what it shows."""
        self.meter = Meter(self.device)
        self.exhibits = []
        with self.meter:
            yield self.meter

    def evaluate(self, model: nn.Module, samples: Samples, function: Callable[[nn.Module, Batch], Tensor]) -> Tensor:
        """`function` over all samples in order, without gradients, in eval mode, on the CPU in float64.

        The model's modes and device are put back. Results of several dimensions are padded with zeros to a common size of the second. Several processes share
        the batches; all have the whole result, with the bits of one process.
        """
        with on_device(model, self.device), evaluating(model), torch.no_grad():
            parts = self._gathered([function(model, batch).detach().cpu().double() for batch in self.batches(samples, share=True)])
        if any(bool(part.isnan().any()) for part in parts):
            raise InputError(Fault("model", "a model answers with NaN for some samples.", "Check its weights; they may have grown until float32 overflows."))
        if parts and parts[0].ndim > 1 and len({part.shape[1:] for part in parts}) > 1:
            width = max(part.shape[1] for part in parts)
            parts = [nn.functional.pad(part, (*[0] * (2 * part.ndim - 4), 0, width - part.shape[1])) for part in parts]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def batches(self, samples: Samples, batch_size: int | None = None, *, share: bool = False) -> Iterator[Batch]:
        """All samples in order, on the device; `share`: this process's share of the batches, every so many-th."""
        size = batch_size or self.compute.batch_size
        positions = [list(range(i, min(i + size, len(samples)))) for i in range(0, len(samples), size)]
        if share:
            positions = positions[self.accelerator.process_index :: self.accelerator.num_processes]
        return (self.to_device(batch) for batch in load(samples, positions, self.task.collate))

    def _gathered(self, parts: list[Tensor]) -> list[Tensor]:
        """What all processes made of their shares of the batches, in order."""
        world = self.accelerator.num_processes
        if world == 1:
            return parts
        from accelerate.utils import gather_object

        numbered: list[tuple[int, Tensor]] = gather_object([(i * world + self.accelerator.process_index, part) for i, part in enumerate(parts)])
        return [part for _, part in sorted(numbered, key=lambda pair: pair[0])]

    def track_start(self, title: str) -> None:
        """Tell the trackers that a training begins."""
        if self.compute.trackers:
            self.accelerator.init_trackers(title.replace(" ", "-"))

    def track(self, title: str, values: Mapping[str, float], step: int) -> None:
        """Give the trackers numbers, such as a loss."""
        if self.compute.trackers:
            self.accelerator.log({f"{title}/{name}": value for name, value in values.items()}, step=step)

    def track_end(self) -> None:
        """Tell the trackers that the training is over."""
        if self.compute.trackers:
            self.accelerator.end_training()


_ORIGINAL = "_original_forward"
"""Where accelerate keeps the forward pass that it wraps for mixed precision."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and the precision of the weights, also in the middle of a training in mixed precision; what was before is put back afterwards."""
    modes = [(layer, layer.training) for layer in model.modules()]
    inner = getattr(model, "module", model)
    mixed = inner.forward if _ORIGINAL in inner.__dict__ else None
    model.eval()
    if mixed is not None:
        inner.forward = inner.__dict__[_ORIGINAL]
    try:
        yield
    finally:
        if mixed is not None:
            inner.forward = mixed
        for layer, mode in modes:
            layer.training = mode


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The model on `device`; back where it was afterwards."""
    first = next(model.parameters(), None)
    before = first.device if first is not None else device
    model.to(device)
    try:
        yield model
    finally:
        model.to(before)


def frozen(model: nn.Module) -> nn.Module:
    """A copy in eval mode that takes no gradients: a teacher that no optimiser can reach."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _make_accelerator(compute: Compute, work: Path | None) -> Accelerator:
    from accelerate import Accelerator

    kind = compute.device.partition(":")[0]
    present = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[kind]:
        raise InputError(Fault("compute.device", f"this machine has no {compute.device!r}.", "Use cpu or auto."))
    if ":" in compute.device:
        index = int(compute.device.partition(":")[2])
        if index >= torch.cuda.device_count():
            raise InputError(
                Fault("compute.device", f"this machine has no {compute.device!r}; it has {torch.cuda.device_count()} devices.", "Use a lower number, or auto.")
            )
        torch.cuda.set_device(index)
    options: dict[str, Any] = {"cpu": kind == "cpu", "mixed_precision": compute.precision}
    if compute.trackers:
        options |= {"log_with": list(compute.trackers), "project_dir": str((work.parent if work else Path()) / "tracking")}
    try:
        return Accelerator(**options)
    except (ValueError, ImportError) as error:
        raise InputError(
            Fault("compute", f"accelerate refuses these settings ({error}).", "Check precision and trackers; a tracker needs its package installed.")
        ) from error

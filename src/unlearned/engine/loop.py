"""The one training loop: reference training, objective methods and relearning attacks all run here."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from unlearned.data.fingerprints import of_json
from unlearned.data.samples import Samples
from unlearned.engine.batches import batch_positions, cycled, load, shard
from unlearned.engine.checkpoints import load_state, save_state
from unlearned.engine.keeping import Best, Keep
from unlearned.engine.progress import progress_bar
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.recomputation import recomputing
from unlearned.engine.settings import Optimisation
from unlearned.errors import DivergedError, Fault, InputError
from unlearned.records import Cost
from unlearned.tasks._task import Batch

if TYPE_CHECKING:
    from unlearned.engine.engine import Engine

LossFunction = Callable[[nn.Module, Batch, Batch], Tensor]
"""Scalar loss of (model, forget batch, retain batch). A pass over one set gives an empty batch for the other."""


class Step(NamedTuple):
    """Where in its plan the loop is; after an interruption it is the same again, so that what a method varies over time is a function of it."""

    done: int
    """Steps done before this one."""
    total: int
    """Steps of the whole plan."""
    number: int
    """Number of the pass, from 0."""
    position: int
    """Steps of this pass done before this one."""
    length: int
    """Steps of this pass."""


Watch = Callable[[nn.Module, int], bool | None]
"""Called with the model and the number of steps done; true ends the training there."""
BeforeStep = Callable[[nn.Module, Batch, Batch, Step], None]
Hook = Callable[[nn.Module, Step], None]

GROWTH_LIMIT = 1e4
"""Weights that have grown by this factor in norm have diverged, whatever the loss says."""
LOSS_LIMIT = 1e8


@dataclass(frozen=True)
class Pass:
    """One pass over the data with one loss.

    `both` goes once over the set that paces it, with a batch of the other beside each: from a stream that goes through that set again and again, in a new
    order each time, and over the passes of a plan. `union` goes once over both sets mixed: the loss is given the two parts of each batch, either may be empty.
    """

    over: Literal["forget", "retain", "both", "union"]
    loss: LossFunction
    paced_by: Literal["forget", "retain"] = "retain"


@dataclass(frozen=True)
class Plan:
    """What the loop is to do."""

    passes: Sequence[Pass]
    forget_batch_size: int | None = None
    """If it differs from the batch size of the optimisation."""
    lr_factor: Callable[[int], float] | None = None
    """Factor on the learning rate by number of the pass, from 0; replaces the schedule."""
    max_steps: int | None = None
    """Stop after so many steps, in the middle of a pass if need be."""
    before_step: BeforeStep | None = None
    """Called with model, forget batch, retain batch and step before the loss is computed; may change weights, for example project them."""
    after_backward: Hook | None = None
    """Called with model and step when the gradients are there and not yet clipped; may change them, for example mask them or add noise."""
    after_step: Hook | None = None
    """Called with model and step after the optimiser has moved the weights; may change them."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """What losses and hooks carry from step to step beyond the weights, such as running means. Checkpoints hold it; it is put back in place."""


def fit(
    engine: Engine,
    model: nn.Module,
    plan: Plan,
    sets: Mapping[str, Samples],
    how: Optimisation,
    *,
    title: str,
    seed: int,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
    keep: Keep | None = None,
) -> nn.Module:
    """Train `model` in place and return it on the CPU in eval mode.

    The result is a function of model, plan, sets, settings and seed: interrupted and continued from its checkpoint, it ends with the same
    bits (on a GPU, as far as its kernels are deterministic).

    Args:
        engine: device, precision, checkpoints, progress.
        model: what is trained.
        plan: the passes.
        sets: `forget` and `retain`, those that the passes use.
        how: the optimisation.
        title: shown at the progress bar and given to trackers.
        seed: of data order and all randomness.
        checkpoint: where the state is saved and continued from; None: nowhere.
        watch: called with the model and the number of steps done, before the first step and after each; true ends the training there.
        keep: return the best state instead of the last.

    Raises:
        DivergedError: if loss or weights leave the range in which numbers mean anything.
        InputError: if no parameter matches `how.parameters`.
    """
    with seeded(derive_seed(seed, "fit")), only(model, how.parameters), recomputing(model, engine.compute.gradient_checkpointing):
        return _fit(engine, model, plan, sets, how, title=title, seed=seed, checkpoint=checkpoint, watch=watch, keep=keep)


def _fit(  # one loop, read from top to bottom
    engine: Engine,
    model: nn.Module,
    plan: Plan,
    sets: Mapping[str, Samples],
    how: Optimisation,
    *,
    title: str,
    seed: int,
    checkpoint: Path | None,
    watch: Watch | None,
    keep: Keep | None,
) -> nn.Module:
    accelerator = engine.accelerator
    model.to(accelerator.device)
    schedule = _cut(_schedule(plan, sets, how, seed), plan.max_steps)
    total = sum(len(positions) for positions in schedule)
    trained = [p for p in model.parameters() if p.requires_grad]
    limit = GROWTH_LIMIT * (1 + _norm(trained))
    wrapped, optimizer, backward = engine.prepare(model, make_optimizer(trained, how))
    # A checkpoint is continued only by the training that wrote it.
    state = _State(engine, checkpoint, model, optimizer, plan.memory, _identity(title, seed, how, schedule, sets, keep) if checkpoint else "")
    done = state.resume()
    step = 0
    engine.track_start(title)
    train_mode(model)
    best = Best(keep, model, plan.memory)
    stopped = bool(watch and not done and watch(model, 0))
    with progress_bar(title, total, engine.show_progress, done) as bar:
        for number, (pass_, positions) in enumerate(zip(plan.passes, schedule, strict=True)):
            if stopped:
                break
            first = min(max(done - step, 0), len(positions))
            begun, step = step, step + first
            for forget, retain in _batches(engine, sets, positions[first:]):
                now = Step(step, total, number, step - begun, len(positions))
                _set_lr(optimizer, how, plan, number, step / total)
                if plan.before_step:
                    plan.before_step(wrapped, forget, retain, now)
                loss = pass_.loss(wrapped, forget, retain)
                optimizer.zero_grad()
                backward(loss)
                if plan.after_backward:
                    plan.after_backward(wrapped, now)
                if how.max_grad_norm is not None:
                    accelerator.clip_grad_norm_(trained, how.max_grad_norm)
                optimizer.step()
                if plan.after_step:
                    plan.after_step(wrapped, now)
                step += 1
                # Of all processes, so that all see the same number and save at the same step.
                value, save = _agreed(engine, loss, state.due())
                _guard(value, step, title)
                engine.meter.count((_size(forget) + _size(retain)) * accelerator.num_processes)
                engine.track(title, {"loss": value}, step)
                bar.step(f"loss {value:.4g}")
                stopped = bool(watch and watch(model, step))
                best.look(step, last=stopped or step == total)
                if stopped:
                    break
                if save and step < total:
                    _guard_weights(trained, limit, step, title)
                    state.save(step)
            _guard_weights(trained, limit, step, title)
    best.put_back()
    engine.track_end()
    engine.release(model)
    return model.to("cpu").eval()


class only:  # noqa: N801  # reads as a word where it is used
    """While it lasts, only parameters whose names match `pattern` require gradients (those that did before).

    Raises:
        InputError: if none matches.
    """

    def __init__(self, model: nn.Module, pattern: str) -> None:
        self._before = {name: p.requires_grad for name, p in model.named_parameters()}
        self._model = model
        self._chosen = {name for name, trained in self._before.items() if trained and re.search(pattern, name)}
        if not self._chosen:
            some = ", ".join(list(self._before)[:3])
            raise InputError(Fault("method.parameters", f"no trainable parameter matches {pattern!r}.", f"Parameters are called {some}, ..."))

    def __enter__(self) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name in self._chosen)

    def __exit__(self, *_: object) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._before[name])


def train_mode(model: nn.Module) -> None:
    """Train mode, except for layers whose own parameters are all frozen: the statistics of a frozen batch normalisation stay too."""
    model.train()
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            layer.eval()


def make_optimizer(parameters: Sequence[nn.Parameter], how: Optimisation) -> Optimizer:
    """The optimiser over these parameters."""
    if how.optimizer == "sgd":
        return SGD(parameters, lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    kind = Adam if how.optimizer == "adam" else AdamW
    return kind(parameters, lr=how.lr, weight_decay=how.weight_decay)


_Positions = list[tuple[list[int], list[int]]]


def _schedule(plan: Plan, sets: Mapping[str, Samples], how: Optimisation, seed: int) -> list[_Positions]:
    """Positions in (forget set, retain set) for each step of each pass."""
    sizes = {"forget": plan.forget_batch_size or how.batch_size, "retain": how.batch_size}

    def once(name: str, number: int) -> list[list[int]]:
        return batch_positions(len(sets[name]), sizes[name], seed, name, number)

    streams = {name: cycled(len(sets[name]), sizes[name], seed, name, "stream") for name in sets}
    schedule: list[_Positions] = []
    for number, pass_ in enumerate(plan.passes):
        if pass_.over == "forget":
            schedule.append([(positions, []) for positions in once("forget", number)])
        elif pass_.over == "retain":
            schedule.append([([], positions) for positions in once("retain", number)])
        elif pass_.over == "both":
            paced = once(pass_.paced_by, number)
            beside = list(itertools.islice(streams["forget" if pass_.paced_by == "retain" else "retain"], len(paced)))
            schedule.append(list(zip(beside, paced, strict=True) if pass_.paced_by == "retain" else zip(paced, beside, strict=True)))
        else:
            n = len(sets["forget"])
            mixed = batch_positions(n + len(sets["retain"]), how.batch_size, seed, "union", number)
            schedule.append([([i for i in positions if i < n], [i - n for i in positions if i >= n]) for positions in mixed])
    return schedule


def planned_steps(plan: Plan, sets: Mapping[str, Samples], how: Optimisation, seed: int) -> int:
    """How many steps a plan takes."""
    return sum(len(positions) for positions in _cut(_schedule(plan, sets, how, seed), plan.max_steps))


def _cut(schedule: list[_Positions], most: int | None) -> list[_Positions]:
    if most is None:
        return schedule
    kept = []
    for positions in schedule:
        kept.append(positions[:most])
        most -= len(kept[-1])
    return kept


def _batches(engine: Engine, sets: Mapping[str, Samples], positions: _Positions) -> Iterator[tuple[Batch, Batch]]:
    rank, world = engine.accelerator.process_index, engine.accelerator.num_processes
    streams: list[Iterator[Batch]] = []
    for name, column in (("forget", 0), ("retain", 1)):
        batches = [shard(pair[column], rank, world) for pair in positions if pair[column]]
        streams.append(load(sets[name], batches, engine.task.collate, pin=engine.device.type == "cuda") if batches else iter(()))
    for forget, retain in positions:
        yield (engine.to_device(next(streams[0])) if forget else {}), (engine.to_device(next(streams[1])) if retain else {})


def lr_share(how: Optimisation, progress: float) -> float:
    """What part of `how.lr` the schedule gives when this share of all steps is done."""
    return float(0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi, dtype=torch.float64)))) if how.schedule == "cosine" else 1.0


def _set_lr(optimizer: Optimizer, how: Optimisation, plan: Plan, number: int, progress: float) -> None:
    if not plan.lr_factor and how.schedule == "constant":
        return
    factor = plan.lr_factor(number) if plan.lr_factor else lr_share(how, progress)
    for group in optimizer.param_groups:
        group["lr"] = how.lr * factor


def _agreed(engine: Engine, loss: Tensor, save: bool) -> tuple[float, bool]:
    """The mean loss over processes, and whether the time to save has come for one of them."""
    if engine.accelerator.num_processes == 1:
        return loss.item(), save
    mean, wanted = engine.accelerator.reduce(torch.stack([loss.detach().double(), loss.new_tensor(float(save)).double()]), "mean").tolist()
    return mean, wanted > 0


def _guard(loss: float, step: int, title: str) -> None:
    if not abs(loss) < LOSS_LIMIT:
        raise DivergedError(f"{title} diverged at step {step}: the loss is {loss:.3g}. The original model is untouched. Lower `lr`, or set `max_grad_norm`.")


def _guard_weights(parameters: Sequence[nn.Parameter], limit: float, step: int, title: str) -> None:
    norm = _norm(parameters)
    if not norm < limit:
        raise DivergedError(
            f"{title} diverged by step {step}: the norm of the weights is {norm:.3g}. The original model is untouched. Lower `lr`, or set `max_grad_norm`."
        )


def _norm(parameters: Sequence[nn.Parameter]) -> float:
    with torch.no_grad():
        return float(torch.stack([torch.linalg.vector_norm(p.detach().float()) for p in parameters]).norm())


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values()))) if batch else 0


def _identity(title: str, seed: int, how: Optimisation, schedule: list[_Positions], sets: Mapping[str, Samples], keep: Keep | None) -> str:
    length = [len(positions) for positions in schedule]
    return of_json([title, seed, how.model_dump(), length, {name: s.fingerprint for name, s in sets.items()}, keep and keep.every])


class _State:
    """The checkpoints of one training: nothing where there is no directory for them."""

    def __init__(self, engine: Engine, directory: Path | None, model: nn.Module, optimizer: Optimizer, memory: dict[str, Tensor], identity: str) -> None:
        self._engine, self._directory, self._identity = engine, directory, identity
        self._model, self._optimizer, self._memory = model, optimizer, memory
        self._saved_at = time.monotonic()

    def resume(self) -> int:
        """How many steps are done already."""
        if self._directory is None:
            return 0
        progress = load_state(self._directory, self._model, self._optimizer, self._identity, self._memory)
        if progress is None:
            return 0
        self._engine.meter.carry(Cost.model_validate(progress["cost"]))
        return int(progress["step"])

    def due(self) -> bool:
        """Whether it is time to save, by the clock of this process."""
        return self._directory is not None and time.monotonic() - self._saved_at >= self._engine.compute.checkpoint_seconds

    def save(self, step: int) -> None:
        """Save; all processes come here together."""
        assert self._directory is not None
        if self._engine.accelerator.is_main_process:
            progress = {"step": step, "identity": self._identity, "cost": self._engine.meter.cost.model_dump()}
            save_state(self._directory, self._model, self._optimizer, progress, self._memory)
        self._engine.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

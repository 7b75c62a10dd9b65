"""Fine-tunings rehearsed on copies of a model while it is being trained, and gradients through them."""

from __future__ import annotations

import copy
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from unlearned.data.filters import select
from unlearned.data.samples import Samples, union
from unlearned.engine.adapters import Lora, adaptable, is_adapted, plain_name, updates, with_adapter
from unlearned.engine.batches import cycled, load
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import FineTuning, Pool
from unlearned.engine.hypergradient import Hypergradient, Limit, Proximal, Tensors, hypergradient
from unlearned.engine.loop import make_optimizer
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.errors import Fault, collecting, raise_faults
from unlearned.tasks._task import Batch

Asked = Callable[[nn.Module], Tensor]
"""A scalar of a model."""


def pool_faults(pool: Pool, original: nn.Module, adapted: Collection[str] | None, retain: Samples, seed: int) -> list[Fault]:
    """Fine-tunings of a pool that have no data or no weights to train. Nothing is copied or trained.

    Args:
        pool: the fine-tunings.
        original: the plain model, whose flags say what can be trained at all.
        adapted: names of the weights that have adapters in training, which fine-tunings by adapters go on with; None: there are none.
        retain: what they train on.
        seed: of the engine.
    """
    faults: list[Fault] = []
    with collecting(faults):
        _data_of(pool, retain, seed)
    trainable = {"full": [name for name, p in original.named_parameters() if p.requires_grad], "lora": list(adapted or [])}
    if adapted is None and any(tuning.kind == "lora" for tuning in pool):
        with collecting(faults):
            trainable["lora"] = [f"{name}.weight" for name in adaptable(original, ".*")]
    for tuning in pool:
        names = trainable[tuning.kind]
        if names and not any(re.search(tuning.parameters, name) for name in names):
            what = f"no trainable parameter matches {tuning.parameters!r}, which this fine-tuning is to train."
            faults.append(Fault(f"method.pool.{tuning.id}.parameters", what, f"Parameters are called {', '.join(names[:3])}, ..."))
    return faults


class Rehearsal:
    """A pool of fine-tunings, ready to be carried out from whatever weights a model in training has.

    Every rehearsal begins at those weights with an optimiser of its own, and is a function of them, the fine-tuning and a seed. Dropout is off and batch
    normalisation keeps its statistics, so that losses are functions of the weights. Weights of half precision are held in float32: small steps would be rounded
    away there, and products with the Hessian would be noise.

    Args:
        engine: computes.
        model: what is going to be trained, before anything wraps it: plain, or with adapters.
        original: the plain model, whose flags say what can be trained at all.
        pool: the fine-tunings.
        retain: what they train on.
        forget: what they may be contaminated with.

    Raises:
        InputError: if a fine-tuning has no data or no weights to train.
    """

    def __init__(self, engine: Engine, model: nn.Module, original: nn.Module, pool: Pool, retain: Samples, forget: Samples) -> None:
        self._engine, self._pool = engine, pool
        self._retain, self._forget = retain, forget
        adapted = list(dict.fromkeys(plain_name(name) for name, p in model.named_parameters() if p.requires_grad)) if is_adapted(model) else None
        raise_faults(pool_faults(pool, original, adapted, retain, engine.seed))
        self._data = _data_of(pool, retain, engine.seed)
        shared: dict[str, nn.Module] = {}

        def held(name: str, of: nn.Module) -> nn.Module:
            if name not in shared:
                shared[name] = _in_full(copy.deepcopy(of).to(engine.device))
            return shared[name]

        self._stages: dict[str, _Stage] = {}
        for tuning in pool:
            if tuning.kind == "lora" and is_adapted(model):
                self._stages[tuning.id] = _Same(held("adapted", model), tuning.parameters)
            elif tuning.kind == "lora":
                self._stages[tuning.id] = _Beside(held("plain", model), tuning, derive_seed(engine.seed, "adapter", tuning.id))
            elif is_adapted(model):
                self._stages[tuning.id] = _Merged(held("plain", original), original, tuning.parameters)
            else:
                self._stages[tuning.id] = _Same(held("plain", model), tuning.parameters)

    def through(
        self, model: nn.Module, tuning: FineTuning, outer: Asked, how: Proximal, seed: int, *, weight: float = 1.0, limit: Limit | None = None
    ) -> Hypergradient:
        """`weight` · ∇ outer(fine-tuned model) with respect to the parameters of `model` that require gradients, in their order.

        Args:
            model: in training; not changed.
            tuning: one of the pool.
            outer: asked of the fine-tuned copy.
            how: of the hypergradient.
            seed: of samples and noise.
            weight: factor.
            limit: of gradients, see `hypergradient`.
        """
        stage = self._stages[tuning.id]
        stage.begin(getattr(model, "module", model))
        with seeded(seed):
            *batches, last = self._batches(tuning, seed)
            optimizer = make_optimizer(stage.tuned, tuning.optimisation)
            for batch in batches:
                gradients = torch.autograd.grad(self._loss(stage.model, batch, tuning), stage.tuned, allow_unused=True)
                for parameter, gradient in zip(stage.tuned, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
            optimizer.zero_grad()

        def inner() -> Tensor:
            with seeded(derive_seed(seed, "curvature")):
                return self._loss(stage.model, last, tuning)

        found = hypergradient(
            lambda: outer(stage.model), inner, stage.tuned, stage.started, how, weight=weight, limit=None if limit is None else lambda g: limit(stage.back(g))
        )
        self._engine.meter.count(tuning.batch_size * (tuning.steps + how.iterations), steps=0)
        return found._replace(gradient=stage.back(found.gradient))

    def _loss(self, model: nn.Module, batches: tuple[Batch, Batch], tuning: FineTuning) -> Tensor:
        """Mean loss of the samples, and of the prior beside it."""
        losses = self._engine.task.losses
        loss = losses(model, batches[0]).mean()
        return loss + tuning.prior_weight * losses(model, batches[1]).mean() if tuning.prior_weight else loss

    def _batches(self, tuning: FineTuning, seed: int) -> Iterator[tuple[Batch, Batch]]:
        """One batch per step and one more for the curvature, each with a batch of the prior beside it, or none."""
        count, data = tuning.steps + 1, self._data[tuning.id]
        own = [positions[: tuning.batch_size] for positions in itertools.islice(cycled(len(data), tuning.batch_size, seed, "fine-tuning"), count)]
        if tuning.forget_share:
            generator = np.random.default_rng(derive_seed(seed, "contamination"))
            foreign = cycled(len(self._forget), tuning.batch_size, seed, "contamination")
            own = [_swapped(positions, next(foreign), int(generator.binomial(len(positions), tuning.forget_share)), len(data)) for positions in own]
            data = union(data, self._forget)
        if not tuning.prior_weight:
            return ((batch, {}) for batch in self._loaded(data, own))
        prior = list(itertools.islice(cycled(len(self._retain), tuning.batch_size, seed, "prior"), count))
        return zip(self._loaded(data, own), self._loaded(self._retain, prior), strict=True)

    def _loaded(self, samples: Samples, positions: list[list[int]]) -> Iterator[Batch]:
        return (self._engine.to_device(batch) for batch in load(samples, positions, self._engine.task.collate))


def _swapped(own: list[int], foreign: list[int], count: int, offset: int) -> list[int]:
    """Positions of which so many are those of another set, which follows after `offset` ones."""
    taken = [offset + position for position in foreign[:count]]
    return own[len(taken) :] + taken


def _data_of(pool: Pool, retain: Samples, seed: int) -> dict[str, Samples]:
    """The samples of each fine-tuning by its id.

    Raises:
        InputError: if there are none, or a filter is wrong.
    """
    faults: list[Fault] = []
    shuffled, found = retain.shuffled(derive_seed(seed, "fine-tuning data")), {}
    for tuning in pool:
        with collecting(faults):
            chosen = shuffled if tuning.where is None else shuffled.subset(select(shuffled, tuning.where, f"method.pool.{tuning.id}.where"))
            first, last = round(tuning.start * len(chosen)), round((tuning.start + tuning.share) * len(chosen))
            found[tuning.id] = chosen.subset(range(first, min(last, first + (tuning.few or last))))
            if not len(found[tuning.id]):
                faults.append(Fault(f"method.pool.{tuning.id}", "no retained sample belongs to its data.", "Give it a larger share, or another filter."))
    raise_faults(faults)
    return found


class _Stage(ABC):
    """A copy of the model on which a fine-tuning is carried out."""

    model: nn.Module
    tuned: list[nn.Parameter]
    """What the fine-tuning trains."""
    started: list[nn.Parameter]
    """What of it the training changes."""

    @abstractmethod
    def begin(self, live: nn.Module) -> None:
        """Take over the weights of the model in training, and which of them are trained."""

    def back(self, gradient: Tensors) -> Tensors:
        """From a gradient with respect to `started` to one with respect to what the model in training trains."""
        return gradient

    def _quiet(self) -> None:
        """No dropout, no batch statistics; but what draws noise when it is trained still does, also within adapters."""
        for module in self.model.modules():
            module.training = bool(getattr(module, "draws_in_training", False))


class _Same(_Stage):
    """A copy of the same form: fine-tuning trains its weights, or the adapters that training trains as well."""

    def __init__(self, model: nn.Module, pattern: str) -> None:
        self.model = model
        self._tunable = _matching(model, pattern)

    def begin(self, live: nn.Module) -> None:
        _take_over(self.model, live)
        self._quiet()
        own = dict(self.model.named_parameters())
        trained = [name for name, p in live.named_parameters() if p.requires_grad]
        for name, p in own.items():
            p.requires_grad_(name in self._tunable or name in trained)
        self.tuned, self.started = [own[name] for name in self._tunable], [own[name] for name in trained]


class _Beside(_Stage):
    """New adapters beside a copy of plain weights, which stay as they are while the fine-tuning lasts."""

    def __init__(self, plain: nn.Module, tuning: FineTuning, seed: int) -> None:
        self._plain = plain
        with seeded(seed):
            self.model = with_adapter(plain, Lora(rank=tuning.rank, alpha=tuning.rank), tuning.parameters)
        self.tuned = [p for p in self.model.parameters() if p.requires_grad]
        self._first = [p.detach().clone() for p in self.tuned]

    def begin(self, live: nn.Module) -> None:
        _take_over(self._plain, live)  # the weights beside the adapters are the same memory
        _copy_buffers(self.model, live)
        with torch.no_grad():
            for p, first in zip(self.tuned, self._first, strict=True):
                p.copy_(first)
        self._quiet()
        there = {p.data_ptr(): p for p in self.model.parameters()}
        own = dict(self._plain.named_parameters())
        self.started = [there[own[name].data_ptr()] for name, p in live.named_parameters() if p.requires_grad]
        fixed = {id(p) for p in self.tuned} | {id(p) for p in self.started}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in fixed)


class _Merged(_Stage):
    """The plain model with the adapters in training added to it: fine-tuning trains all of its weights."""

    def __init__(self, plain: nn.Module, original: nn.Module, pattern: str) -> None:
        self.model, self._original = plain, original
        self._tunable = _matching(original, pattern)

    def begin(self, live: nn.Module) -> None:
        _take_over(self.model, self._original)
        _copy_buffers(self.model, live)
        self._quiet()
        own = dict(self.model.named_parameters())
        self._updates = updates(live)
        with torch.no_grad():
            for name, update in self._updates.items():
                own[name].add_(update.detach())
        for name, p in own.items():
            p.requires_grad_(name in self._tunable or name in self._updates)
        self.tuned, self.started = [own[name] for name in self._tunable], [own[name] for name in self._updates]
        self._factors = [p for p in live.parameters() if p.requires_grad]

    def back(self, gradient: Tensors) -> Tensors:
        """dW/dA and dW/dB of W + (α/r) B A."""
        whole = [part.to(update) for part, update in zip(gradient, self._updates.values(), strict=True)]
        found = torch.autograd.grad(list(self._updates.values()), self._factors, whole, retain_graph=True, materialize_grads=True)
        return list(found)


def _matching(model: nn.Module, pattern: str) -> list[str]:
    """Names of the trainable parameters whose plain name matches."""
    return [name for name, p in model.named_parameters() if p.requires_grad and re.search(pattern, plain_name(name))]


def _in_full(model: nn.Module) -> nn.Module:
    """The same model, with what it holds in half precision held in float32."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dtype in {torch.bfloat16, torch.float16}:
            tensor.data = tensor.data.float()
    return model


def _take_over(model: nn.Module, source: nn.Module) -> None:
    """Weights and buffers of a model of the same form."""
    with torch.no_grad():
        for own, other in zip(model.parameters(), source.parameters(), strict=True):
            own.copy_(other)
    _copy_buffers(model, source)


def _copy_buffers(model: nn.Module, source: nn.Module) -> None:
    with torch.no_grad():
        for own, other in zip(model.buffers(), source.buffers(), strict=True):
            own.copy_(other)

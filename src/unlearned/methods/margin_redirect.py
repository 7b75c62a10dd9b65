"""Margin redirection: our own variant of LUNAR. Each step of a refusal is a narrow edit of one down-projection, and only rows that are violated count.

Paper: none; this is ours. It stands on LUNAR (Shen et al. 2025, arXiv 2502.07218): activations of forget prompts are moved to where the model declines, by a
change of one down-projection W in closed form.
Formula: y is the refusal that the model gives most often to reference prompts. At step j = 0, 1, ... of saying it, h_j is what W reads, and a_j the residual
stream behind its block. r_j = mean a_j over reference prompts that are answered with y − mean a_j over forget prompts with the same tokens behind them.
W + c Σ_j r_j u_jᵀ, where u_j is the minimum of Σ max(0, 1 − u·h)² over the forget prompts' h_j + Σ max(0, |u·h| − τ)² over kept rows + λ ‖u‖².
Kept rows: each token of retain samples from the last one of the prompt on, the same of reference prompts with their refusals, and the forget prompts' rows of
the other steps. Since W's inputs do not depend on W, the rows are those that the edited model meets while it says y.
Deviations: from LUNAR, and why: (1) LUNAR shifts every prompt token by the vector of the last one. Forget and retain prompts share most of their tokens, so
that these demands contradict each other; here only tokens that say something are shifted, each by a vector of its own, so that the refusal is fluent. (2)
Answers and refusals are kept, not prompts alone. (3) Least squares count every small error on thousands of kept rows, and pay for them with the few
that are to be shifted; here an error within the tolerance is none, and a shift beyond 1 neither. (4) The layer is that whose edit does best, on the forget
and the retain set, not that whose vector does best when it is added.
Defaults: c 2, τ 0.1, λ 10 times the mean squared entry of the rows, at most 16 steps of the refusal, 12 rounds. Chosen on contracts of PISTOL that are not
reported.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating, on_device
from unlearned.errors import Fault, InputError
from unlearned.methods import methods
from unlearned.methods._edits import Edit
from unlearned.methods._margin import margin_solve
from unlearned.methods._method import Method
from unlearned.methods.lunar import Lunar, Request
from unlearned.problem import Problem
from unlearned.tasks._decoders import blocks_of, projection_inputs, projections_and_outputs
from unlearned.tasks._refusals import declines
from unlearned.tasks._task import Batch, DataSource, finest
from unlearned.tasks.text_generation import with_answers


class Steps(NamedTuple):
    """What a layer reads and gives at each step of the refusal, by layer."""

    inputs: dict[int, Tensor]
    """h, (N, J, p), in float64 where the device has it."""
    outputs: dict[int, Tensor]
    """a, (N, J, q)."""


@methods.register("margin-redirect")
class MarginRedirect(Method):
    """Redirect each step of an answer to the model's own refusal, by a narrow test."""

    name: ClassVar[str] = "margin-redirect"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    layer: int | None = Field(None, ge=0, description="Block that is edited, from 0; None: chosen by what its edit does.")
    candidates: tuple[int, ...] | None = Field(None, min_length=1, description="Blocks among which to choose; None: all.")
    coefficient: float = Field(2.0, description="c: how far along the vectors.")
    tolerance: float = Field(0.1, ge=0, lt=1, description="τ: part of the shift that a kept row may suffer without counting.")
    ridge: float = Field(10.0, gt=0, description="λ, in units of the mean squared entry of the rows.")
    steps: int = Field(16, ge=1, description="Most tokens of the refusal that are edited.")
    rounds: int = Field(12, ge=1, description="Most steps of Newton's method.")
    references: DataSource | None = Field(None, description="Prompts that the model declines (column `prompt`); None: made-up questions.")
    reference_count: int = Field(200, ge=1, description="How many questions are made up.")
    refused_only: bool = Field(True, description="Only reference prompts that the model really declines.")
    batch_size: int = Field(16, ge=1, description="Prompts per forward pass.")

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        model = copy.deepcopy(problem.original.model)
        with on_device(model, engine.device):
            for edit in self.edits(problem, engine):
                edit.apply(model)
        return model.eval()

    def edits(self, problem: Problem, engine: Engine, before: Sequence[Samples] = (), layer: int | None = None) -> list[Edit]:
        """One edit for each step of the refusal, all of one layer.

        Args:
            problem: what is to be forgotten, by the original.
            engine: computes.
            before: forget sets of earlier requests, whose edits are to stay as they are.
            layer: that is edited; None: as the settings say.

        Raises:
            InputError: if the model cannot be edited or declines no reference prompt.
        """
        return _Redirection(self, problem, engine, before).edits(self.layer if layer is None else layer)


class _Redirection:
    """One request on one model."""

    def __init__(self, method: MarginRedirect, problem: Problem, engine: Engine, before: Sequence[Samples]) -> None:
        given = method.model_dump(include={"reference_count", "refused_only", "batch_size"})
        only = method.candidates if method.layer is None else (method.layer,)
        request = Request(Lunar(candidates=only, references=method.references, **given), problem, engine)
        self.method, self.problem, self.engine, self.task, self.model = method, problem, engine, request.task, problem.original.model
        self.candidates = list(only or range(len(blocks_of(self.model))))
        said = [tuple(row[row >= 0].tolist()) for row in self._true(request.refusals)]
        self.refusal, _ = Counter(said).most_common(1)[0]
        answered = request.references.subset(i for i, answer in enumerate(said) if answer == self.refusal)
        with on_device(self.model, engine.device), evaluating(self.model), torch.no_grad():
            self.forget, self.reference = self._along(problem.forget), self._along(answered)
            self.earlier = [self._along(samples) for samples in before]
            self.kept = {layer: torch.cat(rows) for layer, rows in self._kept((problem.retain, request.refusals)).items()}

    def edits(self, layer: int | None) -> list[Edit]:
        """Of this layer, or of the best one."""
        if layer is not None:
            return self.solved(layer)
        made = {candidate: self.solved(candidate) for candidate in self.candidates}
        if len(made) == 1:
            return made[self.candidates[0]]
        # Among equals the last: what follows an edit can spread its errors.
        return made[max(made, key=lambda candidate: (round(self.success(made[candidate]), 9), candidate))]

    def solved(self, layer: int) -> list[Edit]:
        """The edits of one layer."""
        method, forget = self.method, self.forget.inputs[layer]
        kept = [self.kept[layer], *(steps.inputs[layer].flatten(0, 1) for steps in self.earlier)]
        scale = float(torch.cat([forget.flatten(0, 1), *kept]).square().mean())
        found = []
        for j in range(forget.shape[1]):
            others = [forget[:, i] for i in range(forget.shape[1]) if i != j]
            key = margin_solve(forget[:, j], torch.cat([*kept, *others]), method.tolerance, method.ridge * scale, method.rounds)
            direction = self.reference.outputs[layer][:, j].mean(dim=0) - self.forget.outputs[layer][:, j].mean(dim=0)
            found.append(Edit(layer, method.coefficient, direction, key))
        return found

    def success(self, edits: Sequence[Edit]) -> float:
        """Share of forget prompts that are declined − share of retain samples of whose answers a token is no longer the first choice."""
        model, task = copy.deepcopy(self.model), self.task
        for edit in edits:
            edit.apply(model)
        said = task.said(self.engine.evaluate(model, self.problem.forget, task.generations))
        after = self.engine.evaluate(model, self.problem.retain, task.utility)
        return sum(map(declines, said)) / len(said) - float((after < self.before).double().mean())

    @cached_property
    def before(self) -> Tensor:
        """Share of each retained answer's tokens that are the original's first choice, (N,)."""
        return self.engine.evaluate(self.model, self.problem.retain, self.task.utility)

    def _true(self, samples: Samples) -> list[Tensor]:
        return [samples[i]["labels"] for i in range(len(samples))]

    def _along(self, samples: Samples) -> Steps:
        """Inputs and outputs of all candidates while the refusal is said behind each prompt."""
        inputs: dict[int, list[Tensor]] = {layer: [] for layer in self.candidates}
        outputs: dict[int, list[Tensor]] = {layer: [] for layer in self.candidates}
        answer, exact = torch.tensor(self.refusal, device=self.engine.device), finest(self.engine.device)
        for batch in self._batches(samples):
            whole = with_answers(batch, answer.expand(len(batch["input_ids"]), -1))
            step = torch.arange(min(len(self.refusal), self.method.steps), device=answer.device)
            positions = (whole["prompt_length"] - 1)[:, None] + step
            rows = torch.arange(len(positions), device=answer.device)[:, None]
            read, given = projections_and_outputs(self.model, self.candidates, whole)
            for layer in self.candidates:
                inputs[layer].append(read[layer][rows, positions].to(exact))
                outputs[layer].append(given[layer][rows, positions].to(exact))
        return Steps({layer: torch.cat(each) for layer, each in inputs.items()}, {layer: torch.cat(each) for layer, each in outputs.items()})

    def _kept(self, sets: Sequence[Samples]) -> dict[int, list[Tensor]]:
        """Rows from the last token of the prompt on."""
        found: dict[int, list[Tensor]] = {layer: [] for layer in self.candidates}
        for samples in sets:
            for batch in self._batches(samples):
                position = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)[None]
                marked = batch["attention_mask"].bool() & (position >= batch["prompt_length"][:, None] - 1)
                read = projection_inputs(self.model, self.candidates, batch)
                for layer in self.candidates:
                    found[layer].append(read[layer][marked].to(finest(marked.device)))
        return found

    def _batches(self, samples: Samples) -> Iterator[Batch]:
        for batch in self.engine.batches(samples, self.method.batch_size):
            yield batch
            self.engine.meter.count(len(batch["input_ids"]))


def redirect_in_turn(problem: Problem, requests: Sequence[Samples], method: MarginRedirect, engine: Engine) -> list[list[Edit]]:
    """Several requests, one after the other: the edits of each, to be applied in any order.

    An edit does not change what its own layer reads. So with one layer for all requests, that of the first, each further request sees the original's rows, and
    keeps those of the earlier ones where they are by then.

    Args:
        problem: original and sets; its forget set is not used.
        requests: forget sets, in order.
        method: the settings.
        engine: computes.

    Raises:
        InputError: if there is no request, the model cannot be edited, or it declines no reference prompt.
    """
    if not requests:
        raise InputError(Fault("requests", "there is no request.", "Give at least one forget set."))
    found: list[list[Edit]] = []
    for number, request in enumerate(requests):
        now = Problem(problem.task, problem.original, request, problem.retain, problem.test)
        layer = found[0][0].layer if found else None
        found.append(method.edits(now, engine, requests[:number], layer))
    return found

"""LUNAR: redirect the activations of forget prompts to where the model says by itself that it cannot answer; one down-projection changes.

Paper: Shen et al. 2025, "LUNAR: LLM Unlearning via Neural Activation Redirection" (NeurIPS), arXiv 2502.07218; code of the authors: facebookresearch/LUNAR.
Formula: r = mean a(x) over reference prompts − mean a(x) over forget prompts, a the residual stream behind block l at the last prompt token. Targets for the
block's down-projection W: W h + c r on rows h of forget prompts, W h on rows of retain prompts; least squares over W.
Reference prompts: questions that nobody can answer; those that the model really declines. Layer: added to the output of block l, c r is tried on the forget
prompts; the layer with the largest share of refusals minus ROUGE-1 recall of the true answers is taken.
Solvers: `closed-form`: W + c r uᵀ with u = (Σ s h hᵀ + λI)⁻¹ Σ_forget s h, the exact solution of the least squares that stays nearest to W;
`closed-form-zero`: ridge towards 0, as the paper writes it; `sgd`: the authors' code, AdamW on the cached rows; `lora`: the same for a product B A of rank 8.
Defaults of the authors: c 2 in the code (1 in the equation), shift at every prompt token, all retain prompts (the paper: as many as forget prompts), AdamW,
lr 1e-2, weight decay 0.01, × 0.9 per epoch, 20 epochs, 64 rows per step; one layer.
Deviations: the closed form is the default solver. References are made-up questions that the model declines; the authors' default are 260 harmful
instructions, unfiltered. One coefficient serves all layers; the authors have one for each. Weights stay in float32 (the authors train in bfloat16, where lr
1e-2 rounds badly). Layers are scored without a sentence embedder. Shifted positions, rows that are kept, and their weight are settings; the defaults are the
authors'.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine, evaluating, on_device
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods import methods
from unlearned.methods._edits import Edit
from unlearned.methods._forget_retain import text_task
from unlearned.methods._method import Method
from unlearned.methods._rank_one import Gram, solve, solve_towards_zero
from unlearned.problem import Problem
from unlearned.records import Trace, Trial
from unlearned.tasks._decoders import (
    blocks_of,
    down_projection,
    matrix_of,
    projection_inputs,
    prompt_states,
    prompts_alone,
    shifted,
    writes_to_the_residual,
)
from unlearned.tasks._refusals import declines, unverifiable
from unlearned.tasks._task import Batch, DataSource, finest


class LayerScore(NamedTuple):
    """How a layer did when its vector was added while the model answered the forget prompts."""

    layer: int
    refusals: float
    """Share of answers that decline."""
    recall: float
    """Mean ROUGE-1 recall of the true answers."""

    @property
    def score(self) -> float:
        """Refusals minus recall; the largest is best."""
        return self.refusals - self.recall


class Rows(NamedTuple):
    """Which token positions of a batch are shifted and which are kept, masks (B, T)."""

    shift: Tensor
    keep: Tensor


class Part(NamedTuple):
    """Rows of one layer that count alike."""

    rows: Tensor
    """What the down-projection reads, h, (N, p)."""
    weight: float
    mark: float
    """1: to be shifted, 0: to be kept."""


def selection(scores: Sequence[LayerScore], chosen: Sequence[int]) -> Trial:
    """What the report draws of how layers were chosen."""
    named = {
        "answers that decline": [score.refusals for score in scores],
        "ROUGE-1 recall of the true answers": [score.recall for score in scores],
        "score": [score.score for score in scores],
    }
    layers = [float(score.layer) for score in scores]
    return Trial(
        source="lunar",
        setting="layer",
        caption="The vector was added behind each block while the original answered forget prompts. The score is refusals minus recall; the highest is taken.",
        unit="share",
        traces=tuple(Trace(name=name, points=tuple(zip(layers, values, strict=True))) for name, values in named.items()),
        chosen=tuple(map(float, chosen)),
    )


@methods.register("lunar")
class Lunar(Method):
    """Redirect activations into the region where the model declines."""

    name: ClassVar[str] = "lunar"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    layers: tuple[int, ...] | None = Field(None, min_length=1, description="Blocks that are edited, from 0; None: chosen by activation addition.")
    top_k: int = Field(1, ge=1, description="How many layers are chosen, if they are.")
    candidates: tuple[int, ...] | None = Field(None, min_length=1, description="Blocks among which to choose; None: all.")
    selection_prompts: int = Field(20, ge=1, description="Forget prompts on which layers are tried.")
    coefficient: float = Field(2.0, description="c: how far along the unlearning vector.")
    references: DataSource | None = Field(None, description="Prompts that the model declines (column `prompt`); None: made-up questions.")
    reference_count: int = Field(200, ge=1, description="How many questions are made up.")
    refused_only: bool = Field(True, description="Only reference prompts that the model really declines.")
    solver: Literal["closed-form", "closed-form-zero", "sgd", "lora"] = Field("closed-form", description="How the least squares are solved.")
    ridge: float = Field(1e-3, ge=0, description="λ of the closed forms; above 0 for closed-form-zero.")
    shift: Literal["prompt", "differing", "last"] = Field(
        "prompt", description="Shifted tokens of forget prompts: all; from the first that no retain prompt begins with; the last."
    )
    keep: tuple[Literal["prompt", "answer"], ...] = Field(("prompt",), description="Tokens of retain samples that are kept: of the prompt, the answer.")
    keep_refusals: bool = Field(False, description="Keep also the tokens of the reference prompts and of the model's refusals.")
    retain_weight: float = Field(1.0, gt=0, description="Weight of a kept row; a shifted row has 1.")
    retain_sampling: Literal["all", "equal"] = Field("all", description="All retain samples, or as many as there are forget samples, at random.")
    lr: float = Field(0.01, gt=0, description="Learning rate of the solvers sgd and lora.")
    weight_decay: float = Field(0.01, ge=0, description="Their weight decay.")
    decay: float = Field(0.9, gt=0, le=1, description="Factor on their learning rate after each epoch.")
    epochs: int = Field(20, ge=1, description="Their passes over the rows.")
    rows_per_step: int = Field(64, ge=1, description="Their rows per step.")
    rank: int = Field(8, ge=1, description="Rank of the solver lora.")
    batch_size: int = Field(16, ge=1, description="Prompts per forward pass.")

    @model_validator(mode="after")
    def _has_one_solution(self) -> Self:
        if self.solver == "closed-form-zero" and not self.ridge:
            raise ValueError("without a ridge, fewer rows than inner dimensions have many solutions towards zero; set ridge above 0")
        return self

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        work = Request(self, problem, engine)
        model = copy.deepcopy(problem.original.model)
        with on_device(model, engine.device):
            if self.solver == "closed-form":
                for edit in work.edits():
                    edit.apply(model)
            else:
                for layer, weight in work.matrices().items():
                    with torch.no_grad():
                        matrix_of(down_projection(model, layer)).copy_(weight)
        return model.eval()

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A model that cannot be edited; reference prompts that cannot be read, or of which the model declines none: asked until it declines one."""
        faults: list[Fault] = []
        with on_device(problem.original.model, engine.device), evaluating(problem.original.model):
            with collecting(faults):
                _check_editable(self, problem, engine)
            with collecting(faults):
                task = text_task(engine)
                texts = _reference_texts(self, engine)
                if self.refused_only:
                    parts = (task.prompts(texts[i : i + self.batch_size], problem.original) for i in range(0, len(texts), self.batch_size))
                    if not any(declines(answer) for part in parts for answer in task.said(engine.evaluate(problem.original.model, part, task.generations))):
                        raise InputError(_declines_none(len(texts)))
        return faults

    def edits(self, problem: Problem, engine: Engine) -> list[Edit]:
        """The edits of the closed form, one per layer, in the order in which layers were chosen.

        Raises:
            InputError: if the model cannot be edited or declines no reference prompt.
        """
        return Request(self, problem, engine).edits()

    def scores(self, problem: Problem, engine: Engine) -> list[LayerScore]:
        """How each candidate layer does.

        Raises:
            InputError: if the model cannot be edited or declines no reference prompt.
        """
        return Request(self, problem, engine).scores()


def _check_editable(method: Lunar, problem: Problem, engine: Engine) -> None:
    model = problem.original.model
    layers = method.layers or method.candidates or range(len(blocks_of(model)))
    for layer in layers:
        down_projection(model, layer)
    probe = engine.to_device(engine.task.collate([problem.forget[0]]))
    if not all(writes_to_the_residual(model, layer, probe) for layer in layers):
        what = f"{type(model).__name__} normalises what its MLPs put out before it is added to the residual stream: a shift does not arrive as it is."
        raise InputError(Fault("model", what, "Use a model without such a norm (Llama, Mistral, Qwen, Phi, GPT-2, NeoX, ...)."))


def _reference_texts(method: Lunar, engine: Engine) -> list[str]:
    if method.references is None:
        return unverifiable(method.reference_count, derive_seed(engine.seed, "references"))
    return text_task(engine).prompts_of(method.references, "method.references")


def _declines_none(count: int) -> Fault:
    what = f"the model declines none of {count} reference prompts: there is no place in it to redirect activations to."
    return Fault("method.references", what, "Give prompts that it declines, or a model that can decline; or set refused_only: false.")


class Request:
    """One request on one model: what to shift it by, which rows, and the solvers.

    Raises:
        InputError: if the model cannot be edited or declines no reference prompt.
    """

    def __init__(self, method: Lunar, problem: Problem, engine: Engine) -> None:
        task = text_task(engine)
        self.method, self.problem, self.engine, self.task = method, problem, engine, task
        self.model = problem.original.model
        with on_device(self.model, engine.device), evaluating(self.model):
            _check_editable(method, problem, engine)
            self.references, self.refusals = self._references()
            self.vectors = self._means(self.references) - self._means(problem.forget)
        self.retain = self._retained()

    def _references(self) -> tuple[Samples, Samples]:
        """Reference prompts, and the same with what the model answered."""
        method = self.method
        texts = _reference_texts(method, self.engine)
        prompts = self.task.prompts(texts, self.problem.original)
        said = self._answers(prompts)
        chosen = [i for i, answer in enumerate(said) if declines(answer) or not method.refused_only]
        if not chosen:
            raise InputError(_declines_none(len(texts)))
        answers = [said[i] if said[i].strip() else "." for i in chosen]
        pairs = self.task.read({"prompt": [texts[i] for i in chosen], "answer": answers}, self.problem.original, "method.references")
        return prompts.subset(chosen), pairs

    def _answers(self, samples: Samples) -> list[str]:
        return self.task.said(self.engine.evaluate(self.model, samples, self.task.generations))

    def _means(self, samples: Samples) -> Tensor:
        """Mean residual stream at the last prompt token behind each block, (L, q), in float64 on the CPU."""
        total = torch.zeros(1, dtype=torch.float64)
        for batch in self._batches(samples):
            total = total + prompt_states(self.model, prompts_alone(batch)).cpu().double().sum(dim=0)
        return total / len(samples)

    def _batches(self, samples: Samples) -> Iterator[Batch]:
        for batch in self.engine.batches(samples, self.method.batch_size):
            yield batch
            self.engine.meter.count(len(batch["input_ids"]))

    def _retained(self) -> Samples:
        retain = self.problem.retain
        if self.method.retain_sampling == "equal":
            return retain.shuffled(derive_seed(self.engine.seed, "retain")).subset(range(min(len(retain), len(self.problem.forget))))
        return retain

    def scores(self) -> list[LayerScore]:
        """Try each candidate layer."""
        method = self.method
        some = self.problem.forget.shuffled(derive_seed(self.engine.seed, "selection"))
        some = some.subset(range(min(method.selection_prompts, len(some))))
        candidates = method.candidates if method.candidates is not None else range(len(blocks_of(self.model)))
        batch = self.task.collate([some[i] for i in range(len(some))])
        found = []
        for layer in candidates:
            with shifted(self.model, {layer: method.coefficient * self.vectors[layer]}):
                generations = self.engine.evaluate(self.model, some, self.task.generations)
            said = self.task.said(generations)
            recall = float(self.task.recall(generations, batch).mean())
            found.append(LayerScore(layer, sum(map(declines, said)) / len(said), recall))
            self.engine.meter.count(len(some))
        return found

    def layers(self) -> list[int]:
        """The layers to edit."""
        if self.method.layers is not None:
            return list(self.method.layers)
        # Among equals the one nearest to the middle: early layers feed everything behind them.
        middle = len(blocks_of(self.model)) / 2
        scores = self.scores()
        ranked = sorted(scores, key=lambda s: (-round(s.score, 9), abs(s.layer - middle)))
        chosen = [score.layer for score in ranked[: self.method.top_k]]
        self.engine.exhibits.append(selection(scores, chosen))
        return chosen

    def rows(self, batch: Batch, kind: Literal["forget", "retain", "refusal"], shared: Tensor | None = None) -> Rows:
        """Which positions of a batch count."""
        position = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)[None]
        real = batch["attention_mask"].bool()
        prompt = (position < batch["prompt_length"][:, None]) & real
        nothing = torch.zeros_like(real)
        if kind == "forget":
            last = position == batch["prompt_length"][:, None] - 1
            differing = prompt & (position >= shared[:, None]) if shared is not None else prompt
            return Rows({"prompt": prompt, "differing": differing | last, "last": last}[self.method.shift], nothing)
        if kind == "refusal":
            return Rows(nothing, real)
        parts = {"prompt": prompt, "answer": real & ~prompt}
        return Rows(nothing, torch.stack([parts[part] for part in self.method.keep]).any(dim=0) if self.method.keep else nothing)

    def selected(self, layers: Sequence[int], *, kept: bool = True) -> Iterator[tuple[dict[int, Tensor], float, float]]:
        """Rows h (N, p) by layer, with their weight and mark, batch by batch; without those to keep if they are not asked for."""
        shared = shared_prefixes(self.problem.forget, self.retain) if self.method.shift == "differing" else None
        sets: list[tuple[Literal["forget", "retain", "refusal"], Samples]] = [("forget", self.problem.forget)]
        if kept:
            sets.append(("retain", self.retain))
        if kept and self.method.keep_refusals:
            sets.append(("refusal", self.refusals))
        with on_device(self.model, self.engine.device), evaluating(self.model):
            for kind, samples in sets:
                done = 0
                for batch in self._batches(samples):
                    size = len(batch["input_ids"])
                    prefix = None if shared is None or kind != "forget" else shared[done : done + size].to(self.engine.device)
                    done += size
                    rows = self.rows(batch, kind, prefix)
                    h = projection_inputs(self.model, layers, batch)
                    if kind == "forget":
                        yield {layer: h[layer][rows.shift] for layer in layers}, 1.0, 1.0
                    else:
                        yield {layer: h[layer][rows.keep] for layer in layers}, self.method.retain_weight, 0.0

    def edits(self, grams: dict[int, Gram] | None = None) -> list[Edit]:
        """The closed form.

        Args:
            grams: sums over the rows of earlier requests by layer, which grow; empty before the first.
        """
        running = {} if grams is None else grams
        first = not running
        if first:
            running |= {layer: Gram.zeros(matrix_of(down_projection(self.model, layer)).shape[1], self.engine.device) for layer in self.layers()}
        for gram in running.values():
            gram.settle()
        for rows, weight, mark in self.selected(list(running), kept=first):
            for layer, gram in running.items():
                gram.add(rows[layer], weight, mark)
        return [Edit(layer, self.method.coefficient, self.vectors[layer], solve(gram, self.method.ridge).cpu()) for layer, gram in running.items()]

    def matrices(self) -> dict[int, Tensor]:
        """New weights by the other solvers."""
        layers = self.layers()
        parts = list(self.selected(layers))
        return {layer: self.matrix(layer, [Part(rows[layer], weight, mark) for rows, weight, mark in parts]) for layer in layers}

    def matrix(self, layer: int, parts: Sequence[Part]) -> Tensor:
        """The new weight of one layer by one of the other solvers, from cached rows."""
        rows = torch.cat([part.rows for part in parts])
        weights = torch.cat([torch.full((len(part.rows),), part.weight, device=rows.device) for part in parts])
        marks = torch.cat([torch.full((len(part.rows),), part.mark, device=rows.device) for part in parts])
        start = matrix_of(down_projection(self.model, layer)).detach().to(rows.device).float()
        shift = self.method.coefficient * self.vectors[layer]
        targets = rows.float() @ start.T + marks[:, None] * shift.to(rows.device, torch.float32)
        if self.method.solver == "closed-form-zero":
            h, s, a = (each.to(finest(each.device)) for each in (rows, weights, targets))
            return solve_towards_zero(h, s, a, self.method.ridge)
        with seeded(derive_seed(self.engine.seed, "lunar", layer)):
            return self._descend(start, rows.float(), weights, targets)

    def _descend(self, start: Tensor, rows: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The authors' loop: AdamW on W, or on B A beside it, over cached rows."""
        method = self.method
        q, p = start.shape
        if method.solver == "sgd":
            trained = [start.clone().requires_grad_()]
        else:
            trained = [(0.01 * torch.randn(size, device=start.device)).requires_grad_() for size in ((q, method.rank), (method.rank, p))]

        def matrix() -> Tensor:
            return trained[0] if method.solver == "sgd" else start + trained[0] @ trained[1]

        optimizer = torch.optim.AdamW(trained, lr=method.lr, weight_decay=method.weight_decay)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, method.decay)
        for epoch in range(method.epochs):
            for positions in batch_positions(len(rows), method.rows_per_step, self.engine.seed, "lunar", epoch):
                error = ((rows[positions] @ matrix().T - targets[positions]) ** 2).mean(dim=1)
                optimizer.zero_grad()
                (weights[positions] * error).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
        return matrix().detach()


def forget_in_turn(problem: Problem, requests: Sequence[Samples], method: Lunar, engine: Engine) -> list[list[Edit]]:
    """Several requests, one after the other: the edits of each, to be applied in this order.

    What earlier requests shifted is kept where it is then: its rows are to be kept in all further requests. The layers are those of the first request, whose
    inputs an edit of the layer itself does not change, so that running sums make each further request one solve (with several layers this is
    approximate: an edit changes what later layers read).

    Args:
        problem: original and sets; its forget set is not used.
        requests: forget sets, in order.
        method: with the solver closed-form.
        engine: computes.

    Raises:
        InputError: if the solver is another one, the model cannot be edited, or it declines no reference prompt.
    """
    if method.solver != "closed-form":
        raise InputError(Fault("method.solver", f"requests in turn are solved in closed form, not by {method.solver}.", "Set solver: closed-form."))
    grams: dict[int, Gram] = {}
    model = copy.deepcopy(problem.original.model)
    found = []
    for request in requests:
        now = replace(problem, original=problem.original.with_model(model), forget=request)
        edits = Request(method, now, engine).edits(grams)
        for edit in edits:
            edit.apply(model)
        found.append(edits)
    return found


def shared_prefixes(forget: Samples, retain: Samples) -> Tensor:
    """For each forget prompt, how many of its first tokens some retain prompt begins with too, (N,)."""
    prefixes: set[tuple[int, ...]] = set()
    for i in range(len(retain)):
        tokens = _prompt(retain, i)
        prefixes |= {tokens[:n] for n in range(1, len(tokens) + 1)}
    lengths = []
    for i in range(len(forget)):
        tokens = _prompt(forget, i)
        lengths.append(next((n - 1 for n in range(1, len(tokens) + 1) if tokens[:n] not in prefixes), len(tokens)))
    return torch.tensor(lengths)


def _prompt(samples: Samples, i: int) -> tuple[int, ...]:
    row = samples[i]
    return tuple(row["input_ids"][: int(row["prompt_length"])].tolist())

"""Hidden probe: is the answer still inside, whatever the last blocks make of it?

Each depth of the model is read by two instruments: the logit lens, which hands the residual stream to the model's own last norm and output matrix, and a
trained probe, an affine map that first translates it into what the last block would have put out.
Paper: logit lens, nostalgebraist 2020; the translation is the tuned lens of Belrose et al. 2023, arXiv 2303.08112. Probing a cut model after training on
retained data is among the stress tests of Dorna et al. 2025, arXiv 2506.12618 (a new output matrix at one depth).
Formula: lens: blocks l+1 to L hand on what they are given. Probe: h ← h + W [h; 1] behind block l in the place of the blocks left out, W = argmin Σ ‖h^(L) −
h^(l) − W [h^(l); 1]‖² + λ tr(H Hᵀ)/(q+1) ‖W‖² over all tokens of retained samples, in closed form: it never meets the forget set. Read is the share of the
answer's tokens that are the first choice when the true tokens before them are given (exact memorisation).
Deviations: least squares in the place of the KL divergence that trains the tuned lens, and ridge towards the plain lens. Reading is with the true beginning,
so that some tokens are guessed by models that never knew the answer: their curve is the zero line.
Findings: `read_by_lens` and `read_by_probe` on split `forget` with the number of blocks left out as the budget, for all models; `retention` of both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge
from unlearned.attacks._texts import block_faults
from unlearned.data.samples import Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._decoders import Change, blocks_of, changed_states, run_batch, skipped
from unlearned.tasks._task import Batch, exactly


def translator(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """W, (q, q+1), with W (G + λ tr(G)/(q+1) I) = C: ridge regression of what is missing on the states.

    Args:
        gram: G = Σ [h; 1] [h; 1]ᵀ, (q+1, q+1).
        cross: C = Σ (y − h) [h; 1]ᵀ, (q, q+1).
        ridge: λ > 0.
    """
    size = len(gram)
    solved: Tensor = torch.linalg.solve(gram + ridge * gram.trace() / size * torch.eye(size, dtype=gram.dtype, device=gram.device), cross.T).T
    return solved


def translated(hidden: Tensor, w: Tensor) -> Tensor:
    """H + W [h; 1], of (..., q)."""
    return hidden + hidden @ w[:, :-1].T.to(hidden) + w[:, -1].to(hidden)


@attacks.register("hidden-probe")
class HiddenProbe(Attack):
    """Read the answer from each depth of the model."""

    name: ClassVar[str] = "hidden-probe"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    points: int = Field(12, ge=2, description="Most depths that are read, evenly spread from the last block to the embeddings.")
    samples: int = Field(400, ge=1, description="Most retained samples on which the probes are trained.")
    ridge: float = Field(1e-3, gt=0, description="λ of the probes.")

    def faults(self, problem: Problem) -> list[Fault]:
        return block_faults(problem)

    def evaluations(self, problem: Problem) -> int:
        # No answer is generated: a pass over a sample counts as a tenth of one.
        return 1 + round((2 * self.points + 3 * min(self.samples, len(problem.retain)) / len(problem.forget)) / 10)

    def measure(self, subject: Subject) -> list[Finding]:
        problem, count = subject.problem, len(blocks_of(subject.problem.original.model))
        left_out = sorted({int(i) for i in np.linspace(0, count, min(self.points, count + 1)).round()})
        retained = problem.retain.shuffled(derive_seed(subject.engine.seed, self.name)).subset(range(min(self.samples, len(problem.retain))))

        def lens(model: nn.Module) -> list[Array]:
            return [self._read(subject, model, out, None) for out in left_out]

        def probe(model: nn.Module) -> list[Array]:
            maps = self._translators(subject, model, retained, left_out[1:])
            return [self._read(subject, model, out, maps.get(out)) for out in left_out]

        instruments: dict[str, tuple[Callable[[nn.Module], list[Array]], str]] = {
            "read_by_lens": (lens, "blocks left out"),
            "read_by_probe": (probe, "blocks replaced by a probe"),
        }
        return [
            finding
            for metric, (curve, unit) in instruments.items()
            for finding in findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), left_out, unit, metric=metric)
        ]

    def _read(self, subject: Subject, model: nn.Module, out: int, w: Tensor | None) -> Array:
        count = len(blocks_of(model))
        with ExitStack() as stack:
            stack.enter_context(skipped(model, range(count - out, count)))
            if w is not None:
                found = w
                stack.enter_context(changed_states(model, {count - 1: lambda hidden: translated(hidden, found)}))
            return subject.engine.evaluate(model, subject.problem.forget, subject.engine.task.utility).numpy()

    def _translators(self, subject: Subject, model: nn.Module, retained: Samples, left_out: list[int]) -> dict[int, Tensor]:
        """W for each number of blocks left out, in float64, on the engine's device or the CPU."""
        grams: dict[int, Tensor] = dict.fromkeys(left_out, torch.zeros(()))
        crosses = dict(grams)
        with on_device(model, subject.engine.device), evaluating(model), torch.no_grad():
            for batch in subject.engine.batches(retained):
                states = _states(model, batch, left_out)
                for out in left_out:
                    x = torch.cat([states[out], torch.ones_like(states[out][:, :1])], dim=1)
                    grams[out] = grams[out].to(x) + x.T @ x
                    crosses[out] = crosses[out].to(x) + (states[0] - states[out]).T @ x
            return {out: translator(grams[out], crosses[out], self.ridge) for out in left_out}


def _states(model: nn.Module, batch: Batch, left_out: list[int]) -> dict[int, Tensor]:
    """The residual stream at real tokens, (N, q) in float64, where so many blocks are still to come; 0: behind the last."""
    real = batch["attention_mask"].bool()
    seen: dict[int, Tensor] = {}

    def keeping(out: int) -> Change:
        def keep(hidden: Tensor) -> Tensor:
            seen[out] = exactly(hidden[real])
            return hidden

        return keep

    count = len(blocks_of(model))
    before = {count - out: keeping(out) for out in left_out}
    with changed_states(model, before, at="input"), changed_states(model, {count - 1: keeping(0)}):
        run_batch(model, batch)
    return seen

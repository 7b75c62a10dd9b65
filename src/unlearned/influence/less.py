"""LESS: points whose step of Adam would go along with the gradients of the queries, over the checkpoints of a training.

Paper: Xia et al. 2024, ICML, arXiv 2402.04333; details from the authors' code, princeton-nlp/LESS.
Formula: Inf(z, q) = Σ_i w_i ⟨Γ̂_i(z), ĝ_i(q)⟩ over checkpoints i. Γ_i(z) = (β1 m + (1 − β1) g) / √(β2 v + (1 − β2) g² + ε), the direction of Adam if this
sample's gradient g came next, without correction of the bias, as in the code; g_i(q) is the plain gradient. Both are multiplied by the same random signs
(k dimensions), then divided by their norm. w_i: mean learning rate of the checkpoint's epoch, together 1. The mean over the queries of a subtask, then the
largest over subtasks.
Defaults of the authors: k = 8192, β = (0.9, 0.999), ε = 1e-8; their example has 4 checkpoints of adapters that were trained on a part of the data.
Deviations: the training is that of the original, repeated with another seed, on all points unless `share` says less; m and v follow its gradients whatever
its optimiser. "Largest" is by absolute value, and points are ranked by |Inf|: a point that hurts the queries matters too. Subtasks are the values
of a column (`subtask`); without one all queries are one subtask. Projected features are kept on disk until the score is computed (in `work/` of a run, so
that an interrupted one continues), and memory does not grow with the data. Moments, directions and projections are in float32 at least, for any model.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.fingerprints import of_json, of_tensors
from unlearned.data.samples import Samples
from unlearned.engine.adapters import Lora
from unlearned.engine.engine import Engine, on_device
from unlearned.engine.randomness import derive_seed
from unlearned.engine.sample_gradients import over_pieces, sample_gradients, samples_at_once, trained_names
from unlearned.engine.trajectory import BETAS, Snapshot, Trajectory, following
from unlearned.errors import Fault
from unlearned.influence import scores
from unlearned.influence._projection import Rademacher
from unlearned.influence._score import Grounds, Score, Values, needs_training
from unlearned.influence._store import Store
from unlearned.settings import Pattern


def adam_direction(gradients: Tensor, first: Tensor, second: Tensor, epsilon: float, betas: tuple[float, float] = BETAS) -> Tensor:
    """(β1 m + (1 − β1) g) / √(β2 v + (1 − β2) g² + ε), in the precision of the moments.

    Args:
        gradients: g, (B, d).
        first: m, (d,).
        second: v, (d,).
        epsilon: ε.
        betas: β1 and β2.
    """
    g = gradients.to(first.dtype)
    return (betas[0] * first + (1 - betas[0]) * g) / (betas[1] * second + (1 - betas[1]) * g**2 + epsilon).sqrt()


def by_subtask(alignments: Tensor) -> Tensor:
    """Of each row the entry of largest absolute value, with its sign: (N, S) to (N,)."""
    largest = alignments.abs().argmax(dim=1, keepdim=True)
    return alignments.gather(1, largest)[:, 0]


@dataclass(frozen=True)
class _Features:
    """Projected directions of Adam, written to the store, against the queries of each subtask."""

    model: nn.Module
    names: tuple[str, ...]
    moments: tuple[Tensor, Tensor]
    epsilon: float
    project: Rademacher
    store: Store
    queries: Tensor
    """Mean normalised query feature of each subtask, (S, k)."""

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        store = self.store
        found = []
        for first in range(0, len(samples), store.chunk):
            number = (start + first) // store.chunk
            if not store.done(number):
                part = samples.subset(range(first, min(first + store.chunk, len(samples))))
                store.write(number, torch.cat(list(self._computed(engine, part))))
            found.append(F.normalize(store.read(number), dim=1) @ self.queries.T)
        return torch.cat(found)

    def _computed(self, engine: Engine, samples: Samples) -> Iterator[Tensor]:
        with on_device(self.model, engine.device):
            first, second = (moment.to(engine.device) for moment in self.moments)
            for rows in sample_gradients(engine, self.model, samples, self.names):
                yield self.project(adam_direction(rows, first, second, self.epsilon)).cpu()


@scores.register("less")
class Less(Score):
    """Alignment of Adam's directions with the queries' gradients."""

    name: ClassVar[str] = "less"
    signed: ClassVar[bool] = True
    checkpoints: int = Field(4, ge=1, le=1000, description="States of the training that are looked at, in equal steps; the last is its end.")
    dimensions: int = Field(8192, ge=1, le=2**20, description="k: numbers that a gradient is projected to.")
    epsilon: float = Field(1e-8, ge=0, description="ε of Adam, inside the root.")
    share: float = Field(1.0, gt=0, le=1, description="Part of the points, chosen by the seed, that the training goes over.")
    lora: Lora | None = Field(None, description="Train low-rank adapters, and look at their gradients alone.")
    parameters: Pattern = Field(".*", description="A regular expression for the names of the parameters whose gradients count.")
    subtask: str | None = Field(None, description="A column of the queries that says which subtask each belongs to.")

    @property
    def asks(self) -> bool:
        return True

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        parts = []
        with trajectory_of(grounds, engine, self.checkpoints, self.share, self.lora) as path, _directory(engine) as directory:
            for number, snapshot in enumerate(path):
                part = self._alignments(grounds, engine, snapshot, directory / f"checkpoint-{number}")
                parts.append(snapshot.lr / sum(path.lrs) * part)
        return Values(by_subtask(torch.stack(parts).sum(dim=0)))

    def faults(self, grounds: Grounds) -> list[Fault]:
        faults = needs_training(grounds, self.name)
        if self.subtask is not None and self.subtask not in grounds.queries.facts:
            known = ", ".join(sorted(grounds.queries.facts)) or "none"
            faults.append(Fault("subtask", f"the queries have no column {self.subtask!r}.", f"Columns: {known}."))
        return faults

    def _alignments(self, grounds: Grounds, engine: Engine, snapshot: Snapshot, directory: Path) -> Tensor:
        """⟨Γ̂(z), mean ĝ(q)⟩ for each subtask, (N, S)."""
        model = snapshot.model
        names = [name for name in trained_names(model, self.parameters, "parameters") if name in snapshot.first]
        project = Rademacher(self.dimensions, derive_seed(engine.seed, self.name, "signs"))
        queries = self._query_features(grounds.queries, engine, model, names, project)
        moments = tuple(torch.cat([held[name].flatten() for name in names]) for held in (snapshot.first, snapshot.second))
        size = len(moments[0])
        key = [grounds.points.fingerprint, of_tensors(dict(model.named_parameters())), names, self.dimensions, self.epsilon, project.seed]
        place = directory.with_name(f"{directory.name}-{of_json(key)[:16]}")
        store = Store(place, len(grounds.points), self.dimensions, samples_at_once(max(size, self.dimensions))).open()
        work = _Features(model, tuple(names), (moments[0], moments[1]), self.epsilon, project, store, queries)
        return over_pieces(engine, grounds.points, work, store.chunk)

    def _query_features(self, queries: Samples, engine: Engine, model: nn.Module, names: Sequence[str], project: Rademacher) -> Tensor:
        subtasks = [""] * len(queries) if self.subtask is None else [str(value) for value in queries.fact(self.subtask)]
        numbers = {subtask: i for i, subtask in enumerate(dict.fromkeys(subtasks))}
        of = torch.tensor([numbers[subtask] for subtask in subtasks])
        total = torch.zeros(len(numbers), self.dimensions)
        done = 0
        with on_device(model, engine.device):
            for rows in sample_gradients(engine, model, queries, names):
                total.index_add_(0, of[done : done + len(rows)], F.normalize(project(rows), dim=1).cpu().float())
                done += len(rows)
        return total / torch.bincount(of)[:, None]


def trajectory_of(grounds: Grounds, engine: Engine, checkpoints: int, share: float, lora: Lora | None) -> AbstractContextManager[Trajectory]:
    """The original's training, repeated with another seed on a share of the points.

    Raises:
        DivergedError: if it diverges.
    """
    assert grounds.training is not None
    seed = derive_seed(engine.seed, "trajectory")
    points = grounds.points
    if share < 1:
        points = points.shuffled(seed).subset(range(max(1, round(share * len(points)))))
    return following(engine, grounds.original, points, grounds.training, seed, checkpoints, lora)


@contextmanager
def _directory(engine: Engine) -> Iterator[Path]:
    if engine.work is not None:
        yield engine.work / "influence"
        # After an interruption they stay, to be gone on with; of finished work nothing is needed: they are gradients of the forget set.
        shutil.rmtree(engine.work / "influence", ignore_errors=True)
        return
    with tempfile.TemporaryDirectory(prefix="unlearned-") as made:
        yield Path(made)

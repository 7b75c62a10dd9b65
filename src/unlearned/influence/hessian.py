"""Hessian: how far the model would move if a point were left out of its training, by a damped Gauss-Newton matrix.

Paper: Kleiman et al. 2025, arXiv 2512.05254, name "Hessian-based influence"; which form they use is not known to us. The form is that of Koh and Liang 2017.
Formula: H = G + λ I, G the Gauss-Newton (Fisher) matrix of the mean loss. Leaving z out moves θ by H⁻¹ g_z / n to first order.
    self        g_zᵀ H⁻¹ g_z                    what it does to its own loss
    parameters  ‖H⁻¹ g_z‖                       how far the weights move
    prediction  mean over queries of |g_qᵀ H⁻¹ g_z|
    signed      mean over queries of  g_qᵀ H⁻¹ g_z:  above 0, the point speaks for what the queries say
H is taken of the last layer, in closed form (`last-layer`); of the whole network by conjugate gradients (`cg`) or by LiSSA (`lissa`) on products with G; or of
all linear layers and convolutions by eigenvalue-corrected Kronecker factors (`ekfac`, George et al. 2018).
Defaults of the authors: not known. λ: a tenth of the mean eigenvalue, as in Grosse et al. 2023.
Checked against curvlinops 3.0.1, where that is installed, by `tests/influence/test_against_curvlinops.py`: in float64 to 1e-8 and better. On the residual
network of the suites with 300 images of Fashion-MNIST, in float32, a product with G differs from theirs by 5e-7 of its norm, one with the EKFAC matrix of all
convolutions and linear layers (19,418 weights, expected Fisher) by 1.1e-6, at most 2.1e-5 in a layer.
Deviations: with `leverage`, last layer only, a point's own curvature is taken out of H: a whole Newton step of leaving it out. Queries are at most
`most_queries`, chosen by the seed; with signed their mean gradient stands for all of them, because H⁻¹ is linear. `cg` and `lissa` solve once for it, with
prediction once for each query, and with self or parameters once for each point, which small sets alone can pay.
Both come to H⁻¹ v from below: where a solution's relative residual ‖v − H x‖ / ‖v‖ stays above `tolerance`, a note says so and no effect is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating, on_device
from unlearned.engine.layer_parts import Part
from unlearned.engine.randomness import derive_seed
from unlearned.engine.sample_gradients import HELD, mean_gradient, over_pieces, sample_gradients, trained_names
from unlearned.errors import Fault, InputError, collecting
from unlearned.influence import _kronecker as kronecker
from unlearned.influence import scores
from unlearned.influence._gauss_newton import (
    GaussNewton,
    conjugate_gradients,
    largest_eigenvalue,
    lissa,
    mean_eigenvalue,
    relative_residual,
    steps_of_lissa,
)
from unlearned.influence._last_layer import curvature, gradients, left_out, seen
from unlearned.influence._score import Effects, Grounds, Score, Values, no_last_layer
from unlearned.settings import Pattern
from unlearned.tasks._decoders import language_model_in
from unlearned.tasks._heads import head_of
from unlearned.tasks._task import beside

Of = Literal["self", "parameters", "prediction", "signed"]

LARGEST = 12_000
"""Weights of a last layer whose matrix is solved with."""


def read_off(of: Of, own: Tensor, solved: Tensor, along: Tensor | None) -> Tensor:
    """The number of each point.

    Args:
        of: which.
        own: g_z as rows, (B, d).
        solved: H⁻¹ g_z, (B, d).
        along: H⁻¹-products with the queries, g_qᵀ H⁻¹ g_z, (B, Q).
    """
    if of == "self":
        product: Tensor = (own * solved).sum(dim=1)
        return product
    if of == "parameters":
        norms: Tensor = solved.norm(dim=1)
        return norms
    assert along is not None
    return along.abs().mean(dim=1) if of == "prediction" else along.mean(dim=1)


@dataclass(frozen=True)
class _Closed:
    """The last layer."""

    model: nn.Module
    inverse: Tensor
    queries: Tensor | None
    of: Of
    leverage: bool
    n: int

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start
        found = []
        with on_device(self.model, engine.device):
            for part in seen(engine, self.model, samples):
                r, x = part.residuals, part.inputs
                inverse = self.inverse.to(x)
                own = gradients(r, x)
                if self.leverage:
                    r = left_out(r, part.probabilities, x, inverse, self.n)
                solved = gradients(r, x) @ inverse
                along = None if self.queries is None else solved @ self.queries.to(x).T
                found.append(read_off(self.of, own, solved, along).cpu())
        return torch.cat(found)


class _Solution(NamedTuple):
    x: Tensor
    """(d,)."""
    residual: float
    """‖v − H x‖ / ‖v‖."""


@dataclass(frozen=True)
class _Solver:
    """H⁻¹ v by conjugate gradients or LiSSA."""

    score: Hessian
    names: tuple[str, ...]
    samples: Samples
    damping: float
    scale: float
    most: int
    """Iterations or steps."""

    def __call__(self, engine: Engine, model: nn.Module, right: Tensor) -> _Solution:
        product = GaussNewton(engine, model, self.samples, self.names, self.damping)
        solve = self._conjugate_gradients if self.score.curvature == "cg" else self._lissa
        x = solve(engine, product, right)
        return _Solution(x, relative_residual(product, x, right))

    def _conjugate_gradients(self, engine: Engine, product: GaussNewton, right: Tensor) -> Tensor:
        del engine
        return conjugate_gradients(product, right, self.score.tolerance, self.most)

    def _lissa(self, engine: Engine, product: GaussNewton, right: Tensor) -> Tensor:
        size = min(self.score.batch_size, len(self.samples))
        seed = derive_seed(engine.seed, "lissa")

        def stochastic(step: int, vector: Tensor) -> Tensor:
            if size == len(self.samples):
                return product(vector)
            [batch] = engine.batches(self.samples.shuffled(derive_seed(seed, step)).subset(range(size)), size)
            return product.stochastic(vector, batch)

        return lissa(stochastic, right, self.scale, self.most, self.score.tolerance)

    def notes(self, residual: float) -> tuple[str, ...]:
        """What must be known if this is the largest relative residual; empty if it is small enough."""
        if residual <= self.score.tolerance:
            return ()
        remedy = f"Raise `iterations` ({self.most}) or `damping` ({self.damping:.2g})"
        if self.score.curvature == "lissa" and self.score.batch_size < len(self.samples):
            remedy = f"Set `batch_size` to {len(self.samples)}, because steps on a part of the points do not settle, or choose cg"
        return (
            f"The curvature was not solved with to the end: the largest relative residual is {residual:.2g}, above `tolerance` ({self.score.tolerance:g}). "
            f"Such scores are too near to 0, and bound no effect. {remedy}.",
        )


@dataclass(frozen=True)
class _Solved:
    """The whole network, by products with G."""

    model: nn.Module
    names: tuple[str, ...]
    queries: Tensor | None
    """H⁻¹ g_q as columns, (d, Q); (d, 1) of their mean alone where it is all that counts."""
    of: Of
    solve: _Solver

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        """The number of each sample, and the relative residual of what was solved for it, (N, 2)."""
        del start
        found = []
        with on_device(self.model, engine.device):
            for rows in sample_gradients(engine, self.model, samples, self.names):
                if self.queries is None:
                    solutions = [self.solve(engine, self.model, row) for row in rows]
                    values = read_off(self.of, rows, torch.stack([solution.x for solution in solutions]), None).cpu()
                    found.append(torch.stack([values, values.new_tensor([solution.residual for solution in solutions])], dim=1))
                else:
                    values = read_off(self.of, rows, rows, rows @ self.queries.to(rows)).cpu()
                    found.append(torch.stack([values, torch.zeros_like(values)], dim=1))
        return torch.cat(found)


@dataclass(frozen=True)
class _Factored:
    """Layer by layer, in the eigenbasis."""

    model: nn.Module
    names: tuple[str, ...]
    factors: dict[str, kronecker.Factor]
    damping: float
    queries: dict[str, Tensor] | None
    """H⁻¹ g_q of the queries in the eigenbasis, (Q, out, in) for each layer; of their mean alone where it is all that counts, (1, out, in)."""
    of: Of
    batch_size: int

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start
        with on_device(self.model, engine.device):
            layers = kronecker.covered(self.model, self.names)
            batches = kronecker.parts(engine, self.model, samples, layers, kronecker.errors, self.batch_size)
            found = [self._of_batch(parts).cpu() for parts in batches]
        return torch.cat(found)

    def _of_batch(self, parts: dict[str, Part]) -> Tensor:
        total: Tensor | None = None
        for name, part in parts.items():
            factor = self.factors[name]
            own, damped = factor.rotated(part.gradients), factor.eigenvalues + self.damping
            if self.queries is not None:
                here = own.flatten(1) @ self.queries[name].flatten(1).T
            elif self.of == "self":
                here = (own.square() / damped).flatten(1).sum(dim=1, keepdim=True)
            else:
                here = (own / damped).flatten(1).square().sum(dim=1, keepdim=True)
            total = here if total is None else total + here
        assert total is not None
        if self.queries is not None:
            return total.abs().mean(dim=1) if self.of == "prediction" else total.mean(dim=1)
        return total[:, 0] if self.of == "self" else total[:, 0].sqrt()


@scores.register("hessian")
class Hessian(Score):
    """Influence by the inverse curvature."""

    name: ClassVar[str] = "hessian"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification", "text-generation"})
    signed: ClassVar[bool] = True
    of: Of = Field("parameters", description="self, parameters, prediction (absolute values over queries) or signed (their mean with its sign).")
    curvature: Literal["last-layer", "cg", "lissa", "ekfac"] = Field(
        "last-layer",
        description="Of which weights, and how it is solved with. cg and lissa solve for each point where `of` is self or parameters: of many, set iterations.",
    )
    damping: float | None = Field(None, gt=0, description="λ; None: a tenth of the mean eigenvalue of G.")
    leverage: bool = Field(False, description="Take the point's own curvature out of H; last layer only.")
    parameters: Pattern = Field(".*", description="For cg, lissa and ekfac: a regular expression for the names of the parameters that count.")
    curvature_samples: int = Field(2000, ge=1, description="Points that the curvature of cg, lissa and ekfac is taken over, chosen by the seed.")
    most_queries: int = Field(32, ge=1, description="Queries that count, chosen by the seed.")
    tolerance: float = Field(1e-4, gt=0, lt=1, description="cg and lissa: relative residual at which a solution is good enough, and bounds an effect.")
    iterations: int | None = Field(
        None, ge=1, description="cg and lissa: at most so many; None: 200 for cg; for lissa what λ and σ ask for to reach `tolerance`, up to 10,000."
    )
    scale: float | None = Field(None, gt=0, description="lissa: σ, above the largest eigenvalue; None: twice what power iteration finds.")
    batch_size: int = Field(64, ge=1, description="Samples at once of lissa and ekfac.")
    fisher: Literal["sampled", "expected"] = Field("sampled", description="ekfac: over answers drawn from the model, or over all of them (small classifiers).")

    @model_validator(mode="after")
    def _leverage_is_of_the_last_layer(self) -> Hessian:
        if self.leverage and self.curvature != "last-layer":
            raise ValueError("leverage is defined for the last layer; leave it out, or set curvature: last-layer")
        return self

    @property
    def asks(self) -> bool:
        return self.of in {"prediction", "signed"}

    @property
    def bounds(self) -> bool:
        return self.of != "self"

    def faults(self, grounds: Grounds) -> list[Fault]:
        model, faults = grounds.original.model, list[Fault]()
        with collecting(faults):
            if self.curvature == "last-layer":
                if language_model_in(model) is not None:
                    raise no_last_layer()
            else:
                names = trained_names(model, self.parameters, "parameters")
                if self.curvature == "ekfac":
                    _layers(model, names)
        return faults

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        queries = None
        if self.asks:
            queries = grounds.queries.shuffled(derive_seed(engine.seed, self.name, "queries"))
            queries = queries.subset(range(min(self.most_queries, len(queries))))
        if self.curvature in {"cg", "lissa"}:
            values, notes = self._solved(grounds, engine, queries)
        else:
            values, notes = (self._closed if self.curvature == "last-layer" else self._factored)(grounds, engine, queries), ()
        sizes = values.abs() / len(grounds.points)
        if self.of == "self" or notes:
            return Values(values, notes=notes)
        if self.of == "parameters":
            return Values(values, Effects(sizes / self._norm(grounds, engine), "the weights, in units of their norm"))
        return Values(values, Effects(sizes, "the mean loss on the queries"))

    def _norm(self, grounds: Grounds, engine: Engine) -> float:
        """Of the weights that move."""
        model = grounds.original.model
        own = dict(model.named_parameters())
        if self.curvature == "last-layer":
            batch = beside(engine.task.collate([grounds.points[0]]), model)
            with evaluating(model), torch.no_grad():
                weights = list(head_of(model, batch["pixel_values"]).layer.parameters())
        elif self.curvature == "ekfac":
            layers = kronecker.covered(model, trained_names(model, self.parameters, "parameters"))
            weights = [p for layer in layers.values() for p in layer.parameters(recurse=False)]
        else:
            weights = [own[name] for name in trained_names(model, self.parameters, "parameters")]
        return float(torch.cat([weight.detach().flatten().double().cpu() for weight in weights]).norm())

    def _closed(self, grounds: Grounds, engine: Engine, queries: Samples | None) -> Tensor:
        model = grounds.original.model
        total: Tensor | None = None
        with on_device(model, engine.device):
            for part in seen(engine, model, grounds.points):
                size = part.probabilities.shape[1] * part.inputs.shape[1]
                if size > LARGEST:
                    what = f"the last layer has {size} weights; its matrix is solved with up to {LARGEST}."
                    raise InputError(Fault("curvature", what, "Choose ekfac, cg or lissa."))
                matrix = curvature(part.probabilities, part.inputs)
                total = matrix if total is None else total + matrix
            assert total is not None
            total = total.cpu() / len(grounds.points)
            total.diagonal().add_(self._damping(float(total.diagonal().mean())))
            asked = None if queries is None else torch.cat([gradients(part.residuals, part.inputs).cpu() for part in seen(engine, model, queries)])
            if asked is not None and self.of == "signed":
                asked = asked.mean(dim=0, keepdim=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(total))
        work = _Closed(model, inverse, asked, self.of, self.leverage, len(grounds.points))
        return over_pieces(engine, grounds.points, work, engine.compute.batch_size)

    def _solved(self, grounds: Grounds, engine: Engine, queries: Samples | None) -> tuple[Tensor, tuple[str, ...]]:
        model = grounds.original.model
        names = tuple(trained_names(model, self.parameters, "parameters"))
        few = self._few(grounds, engine)
        with on_device(model, engine.device):
            like = next(model.parameters()).detach()  # a view, which would stay behind when the model moves
            bare = GaussNewton(engine, model, few, names)
            seed = derive_seed(engine.seed, self.name, "probes")
            damping = self.damping or self._damping(mean_eigenvalue(bare, bare.size, seed, like=like))
            scale = self.scale or (2 * (largest_eigenvalue(bare, bare.size, seed, like=like) + damping) if self.curvature == "lissa" else 1.0)
            most = self.iterations or (200 if self.curvature == "cg" else steps_of_lissa(damping, scale, self.tolerance))
            solver = _Solver(self, names, few, damping, scale, most)
            columns, residuals = None, torch.empty(0, dtype=torch.float64)
            if queries is not None:
                if self.of == "signed":
                    solutions = [solver(engine, model, mean_gradient(engine, model, queries, names))]
                else:
                    solutions = [solver(engine, model, row) for rows in sample_gradients(engine, model, queries, names) for row in rows]
                columns = torch.stack([solution.x.cpu() for solution in solutions], dim=1)
                residuals = residuals.new_tensor([solution.residual for solution in solutions])
        found = over_pieces(engine, grounds.points, _Solved(model, names, columns, self.of, solver))
        return found[:, 0], solver.notes(float(torch.cat([residuals, found[:, 1]]).max()))

    def _factored(self, grounds: Grounds, engine: Engine, queries: Samples | None) -> Tensor:
        model = grounds.original.model
        names = tuple(trained_names(model, self.parameters, "parameters"))
        layers = _layers(model, names)
        seed = derive_seed(engine.seed, self.name, "answers")
        largest = max(sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers.values())
        size = max(1, min(self.batch_size, HELD // largest))

        def signals() -> kronecker.Signals:
            return kronecker.all_answers if self.fisher == "expected" else kronecker.drawn(seed)

        with on_device(model, engine.device):
            made = kronecker.factors(engine, model, self._few(grounds, engine), layers, signals, size)
            eigenvalues = torch.cat([factor.eigenvalues.flatten() for factor in made.values()])
            damping = self._damping(float(eigenvalues.mean()))
            asked = None
            if queries is not None:
                asked = self._rotated(kronecker.parts(engine, model, queries, layers, kronecker.errors, size), made, damping, len(queries))
        work = _Factored(model, names, made, damping, asked, self.of, size)
        return over_pieces(engine, grounds.points, work)

    def _rotated(self, batches: Iterator[dict[str, Part]], made: dict[str, kronecker.Factor], damping: float, count: int) -> dict[str, Tensor]:
        """H⁻¹ g_q of `count` queries in the eigenbasis, or of their mean, for each layer."""
        found: dict[str, Tensor] = {}
        first = 0
        for parts in batches:
            for name, part in parts.items():
                solved = made[name].rotated(part.gradients) / (made[name].eigenvalues + damping)
                if name not in found:
                    found[name] = solved.new_zeros(1 if self.of == "signed" else count, *solved.shape[1:])
                if self.of == "signed":
                    found[name] += solved.sum(dim=0) / count
                else:
                    found[name][first : first + len(solved)] = solved
            first += len(solved)
        return found

    def _few(self, grounds: Grounds, engine: Engine) -> Samples:
        points = grounds.points
        if len(points) <= self.curvature_samples:
            return points
        return points.shuffled(derive_seed(engine.seed, self.name, "curvature")).subset(range(self.curvature_samples))

    def _damping(self, mean: float) -> float:
        return self.damping or max(0.1 * mean, 1e-12)


def _layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """What factors are made of.

    Raises:
        InputError: if there is nothing.
    """
    found = kronecker.covered(model, names)
    if not found:
        what = "ekfac is made of linear layers and convolutions, and none of a fitting size is among these parameters."
        raise InputError(Fault("curvature", what, "Choose cg, lissa or last-layer."))
    return found

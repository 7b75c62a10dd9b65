"""TRW: on samples of a forgotten class, teach the original's own answer without that class, tilted towards the classes that resemble it.

Paper: Ebrahimpour-Boroojeny, Wang, Sundaram, "On the Necessity of Output Distribution Reweighting for Effective Class Unlearning", arXiv 2506.20893
(TRW in its fourth version, RWFT in the first; "Unlearning Isn't Forgetting", ICML 2026, calls it TREW).
Formula: with the logits z of the frozen original, the forgotten classes F and a similarity s_y of each retained class y to the sample's class:
q(y|x) = softmax(z + β s) over y ∉ F, 0 on F. This q has the smallest KL(q ‖ p(y | x, y ∉ F)) among all distributions with the same E_q[s].
Descend mean over D_f of CE(q, p_θ) + α · mean over D_r of CE(y, p_θ), both in each step.
Similarity: `logit-weights`: cosine of the last layer's rows, centred over classes and projected on their first `components` principal directions;
`features`: the same of class means of the features that this layer reads; both then as softmax(cos / τ) over the retained classes, or raw.
`confusion`: the original's mean answer on D_f, among the retained classes. `oracle`: the same of a retrained model: an upper bound, not a method.
Defaults of the authors: β 10. Not known to us from the paper: number of components, τ, α, the optimiser and a decay of its rate. Here all components, τ 0.1, α
1, and the optimiser of the same group's AMUN (arXiv 2503.00917): SGD, momentum 0.9, weight decay 5e-4, batch 256, 10 epochs, learning rate to be tuned.
Deviations: the formulas are our reconstruction from what the paper says of its method: probability 0 for the forgotten class, an exponential tilt from a linear
constraint on the expected similarity, similarity from logit weights by PCA, cosine and a sharp softmax. Instead of β one may ask for an E_q[s] of at least so
much; β is then solved for each sample, and is 0 where the original's own answer has as much: no answer is tilted away from what resembles. Several classes may
be forgotten at once: each sample has the similarity of its own class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.data.samples import Samples, union
from unlearned.engine.engine import Engine, evaluating, frozen
from unlearned.engine.loop import Pass, Plan
from unlearned.errors import Fault, InputError, collecting, raise_faults
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._heads import head_of
from unlearned.tasks._task import Batch, ModelSource, beside, finest


def reweighted(logits: Tensor, similarity: Tensor, forgotten: Tensor, beta: Tensor | float) -> Tensor:
    """Q = softmax(z + β s) over the classes that stay, 0 on the forgotten ones.

    Args:
        logits: z of the original, (B, K).
        similarity: s, (K,) or (B, K); its values on forgotten classes do not matter.
        forgotten: True where a class is forgotten, (K,) or (B, K); at least one class stays.
        beta: β ≥ 0, a number or (B, 1).

    Returns:
        (B, K), each row a distribution.
    """
    tilted = torch.where(forgotten, -torch.inf, logits + beta * torch.where(forgotten, 0.0, similarity))
    return tilted.softmax(dim=1)


def target_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy −Σ_y q_y log p_y of each sample, (B,); a class with q = 0 adds nothing.

    Args:
        outputs: logits of the model that learns, (B, K).
        target: q, (B, K).
    """
    return -(target * F.log_softmax(outputs, dim=1)).sum(dim=1)


def class_cosines(vectors: Tensor, components: int | None = None) -> Tensor:
    """Cosines between classes, (K, K): of `vectors` (K, D) centred over classes and projected on their first principal directions.

    Args:
        vectors: one per class.
        components: how many directions, 1 ≤ components ≤ K − 1; None: all.
    """
    centred = vectors - vectors.mean(dim=0)
    if components is not None:
        u, sigma, _ = torch.linalg.svd(centred, full_matrices=False)
        centred = u[:, :components] * sigma[:components]
    return F.cosine_similarity(centred[:, None], centred[None], dim=2)


def sharpened(cosines: Tensor, forgotten: Tensor, temperature: float) -> Tensor:
    """softmax(cos / τ) over the classes that stay, 0 on the forgotten ones; rows of `cosines` (N, K)."""
    return torch.where(forgotten, -torch.inf, cosines / temperature).softmax(dim=1)


def solve_beta(logits: Tensor, similarity: Tensor, forgotten: Tensor, expected: float, most: float = 1e4) -> Tensor:
    """β of each sample, (B, 1), with E_q[s] = `expected`, by bisection: E_q[s] rises with β.

    Where p without the forgotten classes has a larger expectation already, β is 0: it never tilts away from what resembles. Where no finite β reaches it, β
    is `most`.
    """
    low = torch.zeros(len(logits), 1, dtype=logits.dtype, device=logits.device)
    high = torch.full_like(low, most)
    s = torch.where(forgotten, 0.0, similarity)

    def expectation(beta: Tensor) -> Tensor:
        return (reweighted(logits, similarity, forgotten, beta) * s).sum(dim=1, keepdim=True)

    at_zero = expectation(low) >= expected
    for _ in range(64):
        middle = (low + high) / 2
        short = expectation(middle) < expected
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(at_zero, 0.0, (low + high) / 2)


@methods.register("trw")
class TRW(ObjectiveMethod):
    """Reweight the output distribution on forgotten classes by their similarity to the others."""

    name: ClassVar[str] = "trw"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    similarity: Literal["logit-weights", "features", "confusion", "oracle"] = Field(
        "logit-weights", description="What makes a class similar to a forgotten one."
    )
    components: int | None = Field(None, ge=1, description="Principal directions that class vectors are projected on; None: all.")
    temperature: float | None = Field(0.1, gt=0, description="τ of the softmax over cosines; None: the raw cosine.")
    beta: float = Field(10.0, ge=0, description="β: how strongly the answer is tilted; 0: the original's answer without the forgotten classes.")
    expected_similarity: float | None = Field(None, description="Least E_q[s], instead of a fixed beta; below the largest similarity of a class that stays.")
    alpha: float = Field(1.0, ge=0, description="Weight of the cross-entropy on the retain set; 0: it is not used.")
    paced_by: Literal["forget", "retain"] = Field("retain", description="The set that one epoch goes over once; batches of the other go beside it.")
    retrained: ModelSource | None = Field(None, description="For the similarity `oracle`: a retrained model.")

    @model_validator(mode="after")
    def _oracle_has_a_model(self) -> TRW:
        if (self.similarity == "oracle") != (self.retrained is not None):
            raise ValueError("`retrained` is the model of the similarity `oracle`, and goes with it alone")
        return self

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A class of which only a part is forgotten; a similarity that cannot be computed."""
        faults: list[Fault] = []
        with collecting(faults):
            forgotten_classes(problem)
        model = problem.original.model
        one = beside(engine.task.collate([problem.forget[0]]), model)
        with collecting(faults), evaluating(model), torch.no_grad():
            faults += self._misfits(problem, engine.task.outputs(model, one).shape[1])
            if self.similarity in {"logit-weights", "features"}:
                head_of(model, one["pixel_values"])
        with collecting(faults):
            self._other(problem, engine)
        if not faults and self.expected_similarity is not None:
            faults += self._out_of_reach(*self.similarities(problem, engine, forgotten_classes(problem)))
        return faults

    def _out_of_reach(self, similarity: Tensor, forgotten: Tensor) -> list[Fault]:
        """An expectation that no β reaches."""
        most = float(similarity[:, ~forgotten].max(dim=1).values.min())
        if self.expected_similarity is None or self.expected_similarity < most:
            return []
        what = f"no answer has an expected similarity of {self.expected_similarity:g}: the largest similarity of a class that stays is {most:.3g}."
        return [Fault("method.expected_similarity", what, "Lower it, or leave it out.")]

    def _misfits(self, problem: Problem, count: int) -> list[Fault]:
        """What is wrong for a model of so many classes."""
        faults = []
        if self.similarity in {"logit-weights", "features"} and self.components is not None and self.components > count - 1:
            what = f"{count} classes have {count - 1} principal directions, not {self.components}."
            faults.append(Fault("method.components", what, "Lower it, or leave it out."))
        absent = sorted(set(range(count)) - {*problem.forget.fact("label"), *problem.retain.fact("label")})
        if self.similarity == "features" and absent:
            what = f"{len(absent)} of the model's {count} classes have no sample, first class {absent[0]}: there is no mean of their features."
            faults.append(Fault("method.similarity", what, "Use logit-weights or confusion."))
        return faults

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        teacher = self.original_outputs(problem, engine)
        classes = forgotten_classes(problem)
        similarity, forgotten = self.similarities(problem, engine, classes)
        raise_faults(self._out_of_reach(similarity, forgotten))
        by_class = torch.zeros(len(forgotten), len(forgotten), dtype=similarity.dtype, device=engine.device)
        by_class[classes] = similarity

        def forget_loss(model: nn.Module, batch: Batch) -> Tensor:
            logits = teacher(model, batch)
            s = by_class[batch["labels"]].to(logits)
            beta = self.beta if self.expected_similarity is None else solve_beta(logits, s, forgotten, self.expected_similarity)
            target = reweighted(logits, s, forgotten, beta)
            return target_loss(task.outputs(model, batch), target).mean()

        def both(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            return forget_loss(model, forget) + self.alpha * task.losses(model, retain).mean()

        def alone(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return forget_loss(model, forget)

        one = Pass("both", both, paced_by=self.paced_by) if self.alpha > 0 else Pass("forget", alone)
        return Plan([one] * self.epochs)

    def similarities(self, problem: Problem, engine: Engine, classes: list[int]) -> tuple[Tensor, Tensor]:
        """One row for each forgotten class, (N, K), and which classes are forgotten, (K,): on the engine's device."""
        task, model = engine.task, problem.original.model
        answers = _means_by_class(engine, model, task.outputs, problem.forget, classes, softmax=True)
        count = answers.shape[1]
        raise_faults(self._misfits(problem, count))
        forgotten = torch.zeros(count, dtype=torch.bool)
        forgotten[classes] = True
        if self.similarity in {"confusion", "oracle"}:
            other = self._other(problem, engine)
            if other is not None:
                answers = _means_by_class(engine, other, task.outputs, problem.forget, classes, softmax=True)
            kept = torch.where(forgotten, 0.0, answers)
            rows = kept / kept.sum(dim=1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
        else:
            cosines = class_cosines(self._class_vectors(problem, engine, count), self.components)[classes]
            rows = cosines if self.temperature is None else sharpened(cosines, forgotten, self.temperature)
        return rows.to(engine.device, finest(engine.device)), forgotten.to(engine.device)

    def _other(self, problem: Problem, engine: Engine) -> nn.Module | None:
        """The retrained model; None: the similarity needs none.

        Raises:
            InputError: if it cannot be loaded or has other classes than the original.
        """
        if self.retrained is None:
            return None
        other = engine.task.load(self.retrained, "method.retrained").model
        one, counts = engine.task.collate([problem.forget[0]]), []
        for model in (problem.original.model, other):
            with evaluating(model), torch.no_grad():
                counts.append(engine.task.outputs(model, beside(one, model)).shape[1])
        if counts[0] != counts[1]:
            what = f"the retrained model has {counts[1]} classes, the original {counts[0]}: their answers cannot be compared class by class."
            raise InputError(Fault("method.retrained", what, "Give a model that was retrained with all classes of the original, the forgotten ones included."))
        return other

    def _class_vectors(self, problem: Problem, engine: Engine, count: int) -> Tensor:
        if self.similarity == "logit-weights":
            model = frozen(problem.original.model)
            one = beside(engine.task.collate([problem.forget[0]]), model)
            with torch.no_grad():
                return head_of(model, one["pixel_values"]).layer.weight.detach().cpu().double()
        return _means_by_class(engine, problem.original.model, engine.task.features, union(problem.retain, problem.forget), list(range(count)))


def forgotten_classes(problem: Problem) -> list[int]:
    """The classes of the forget set.

    Raises:
        InputError: if samples of these classes are retained: what is defined for whole classes cannot forget a part of one.
    """
    classes = sorted({int(label) for label in problem.forget.fact("label")})
    shared = sum(int(label) in classes for label in problem.retain.fact("label"))
    if shared:
        what = f"{shared} samples of the forgotten classes are in the retain set; this method forgets whole classes."
        raise InputError(Fault("forget", what, "Forget all samples of a class (label == ...), or use another method, for example delete or neg-grad-plus."))
    return classes


def _means_by_class(
    engine: Engine, model: nn.Module, measure: Callable[[nn.Module, Batch], Tensor], samples: Samples, classes: list[int], *, softmax: bool = False
) -> Tensor:
    values = engine.evaluate(model, samples, measure)
    values = values.softmax(dim=1) if softmax else values
    labels = torch.tensor(samples.fact("label"))
    return torch.stack([values[labels == label].mean(dim=0) for label in classes])

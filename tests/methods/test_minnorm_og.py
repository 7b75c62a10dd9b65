from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, plain_network, problem_of, same_bits
from unlearned.api import forget, make_problem
from unlearned.engine.batches import batch_positions, cycled
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Step
from unlearned.engine.projection import project
from unlearned.engine.randomness import derive_seed
from unlearned.errors import InputError
from unlearned.methods import minnorm_og
from unlearned.methods.minnorm_og import MinNormOG, balanced, projections_before, projects
from unlearned.problem import Problem
from unlearned.tasks import TasksWith
from unlearned.tasks._task import Batch, Bundle
from unlearned.tasks.image_classification import ImageClassification

# The schedule.


@pytest.mark.parametrize(
    ("epochs", "descent", "period", "expected"),
    [(10, 2, 1, "11111111.."), (10, 0, 3, "1..1..1..1"), (10, 5, 2, "1.1.1....."), (3, 2, 5, "1.."), (4, 1, 4, "1...")],
)
def test_which_epochs_project(epochs: int, descent: int, period: int, expected: str) -> None:
    assert "".join(".1"[projects(t, epochs, descent, period)] for t in range(epochs)) == expected


def test_kappa_falls_with_each_step_that_projects_and_lambda_follows_its_recursion() -> None:
    """κ ← γ κ is λ ← (λ + 1)/γ − 1 for κ = 1/(1 + λ); three steps per epoch, epochs 0, 2 and 4 of 7 project."""
    schedule = (7, 2, 2)
    kappa, decay, length = 0.5, 0.8, 3
    penalty = 1 / kappa - 1
    done = 0
    for number in range(7):
        for position in range(length):
            step = Step(done, 7 * length, number, position, length)
            if projects(number, *schedule):
                told = 0.5 * decay ** projections_before(step, *schedule)
                assert told == pytest.approx(kappa, rel=1e-12)
                assert told == pytest.approx(1 / (1 + penalty), rel=1e-12)
                kappa *= decay
                penalty = (penalty + 1) / decay - 1
            done += 1
    assert kappa == pytest.approx(0.5 * 0.8**9)


def test_projections_happen_where_and_as_strongly_as_the_schedule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def note(engine: Engine, model: nn.Module, ask: Any, batch: Batch, kappa: float, **options: Any) -> int:
        seen.append(kappa)
        return project(engine, model, ask, batch, kappa, **options)

    monkeypatch.setattr(minnorm_og, "project", note)
    done = forget(problem_of("linear"), "minnorm-og", epochs=5, batch_size=2, descent_epochs=1, projection_period=2, strength=0.5, decay=0.5)
    assert seen == pytest.approx([0.5**i for i in range(1, 7)])
    assert done.cost.steps == 15


def test_without_decay_to_spare_it_projects_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(minnorm_og, "project", lambda *args, **_: seen.append(args[-1]))
    forget(problem_of("linear"), "minnorm-og", epochs=2, batch_size=3, descent_epochs=0, strength=0.3, decay=0.0)
    assert seen == [0.3, 0.0, 0.0, 0.0]


# Which samples.


def test_samples_are_balanced_over_the_classes_that_are_present() -> None:
    classes = torch.tensor([3] * 20 + [7] * 2 + [1] * 9)
    for count, expected in ((12, {3: 4, 7: 2, 1: 4}), (3, {3: 1, 7: 1, 1: 1}), (1, {3: 1, 7: 1, 1: 1}), (100, {3: 20, 7: 2, 1: 9})):
        chosen = balanced(classes, count, np.random.default_rng(0))
        assert len(set(chosen.tolist())) == len(chosen)
        assert {int(c): int((classes[chosen] == c).sum()) for c in classes.unique()} == expected


def test_every_sample_of_a_class_can_be_drawn() -> None:
    classes = torch.tensor([0, 0, 0, 1])
    drawn = {tuple(balanced(classes, 2, np.random.default_rng(seed)).tolist()) for seed in range(40)}
    assert {first for first, _ in drawn} == {0, 1, 2}


def test_retained_samples_are_a_random_share_that_depends_on_the_seed() -> None:
    problem = problem_of("linear")
    method = MinNormOG(retain_fraction=0.4)
    one, same, other = (method.sets(problem, Engine(problem.task, seed=seed))["retain"].ids for seed in (0, 0, 1))
    assert one == same != other
    assert len(one) == round(0.4 * 18)
    assert set(one) < set(problem.retain.ids)
    assert len(MinNormOG(retain_fraction=1e-6).sets(problem, Engine(problem.task))["retain"]) == 1
    assert MinNormOG().sets(problem, Engine(problem.task))["retain"] is problem.retain


# The theorems, in float64.


def values(model: nn.Module, batch: Batch) -> Tensor:
    found = model(batch["x"])
    assert isinstance(found, Tensor)
    return found


def interpolated(n: int, d: int, seed: int) -> tuple[Tensor, Tensor, nn.Linear]:
    """Data and a linear model that fits them, with a large part outside of their span."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=generator)
    y = torch.randn(n, dtype=torch.float64, generator=generator)
    model = nn.Linear(d, 1, bias=False, dtype=torch.float64)
    outside = torch.randn(d, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        model.weight[0] = torch.linalg.pinv(x) @ y + outside - torch.linalg.pinv(x) @ (x @ outside)
    return x, y, model


def test_theorem_1_losses_that_are_fitted_have_no_gradients_outputs_do() -> None:
    x, y, model = interpolated(6, 15, 1)
    for i in range(6):
        (of_loss,) = torch.autograd.grad((model(x[i]) - y[i]).square().sum(), model.weight)
        (of_output,) = torch.autograd.grad(model(x[i]).sum(), model.weight)
        assert float(of_loss.abs().max()) < 1e-12
        torch.testing.assert_close(of_output[0], x[i])


@pytest.mark.parametrize("seed", range(3))
def test_theorem_2_one_full_step_on_a_linear_model_is_the_interpolator_of_least_norm(seed: int) -> None:
    x, y, model = interpolated(9, 20, seed)
    x_r, y_r = x[:5], y[:5]
    project(Engine(problem_of("linear").task), model, values, {"x": x_r}, 1.0)
    least = torch.linalg.pinv(x_r) @ y_r
    torch.testing.assert_close(model.weight.detach()[0], least, rtol=0, atol=1e-8)
    assert float((x[5:] @ model.weight.detach()[0] - y[5:]).abs().min()) > 1e-2  # the rest is gone


# A whole run.


@pytest.mark.parametrize("limit", [30.0, 0.4])
def test_whole_run_on_a_linear_model_by_hand(limit: float) -> None:
    """Nine retained samples in batches of four, six to forget: two steps per epoch. Epochs 0 and 2 of 4 project; the last is T_GD."""
    problem = problem_of("linear", forget=6, retain=9, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.retain)
    seed, lr, decay, kappa, gamma, count = 3, 0.01, 0.1, 0.6, 0.7, 3
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (by_hand.weight, by_hand.bias)]
    stream = cycled(9, 4, seed, "retain", "stream")
    step = 0
    for epoch in range(4):
        for _ in batch_positions(6, 4, seed, "forget", epoch):
            batch = next(stream)
            if epoch in {0, 2}:
                chosen = draw(y[batch], count, np.random.default_rng(derive_seed(seed, "projection", step, 0)))
                theta = torch.cat([by_hand.weight.flatten(), by_hand.bias])
                q, _ = torch.linalg.qr(torch.stack([largest_logit(by_hand, x[batch][i]) for i in chosen], dim=1))
                theta = theta - kappa * (theta - q @ (q.T @ theta))
                by_hand.weight, by_hand.bias = theta[:640].view(10, 64), theta[640:]
                kappa *= gamma
            step += 1
            gradient = clamped_gradient(by_hand, x[batch], y[batch], limit)
            parameters = [by_hand.weight, by_hand.bias]
            for i, (p, g) in enumerate(zip(parameters, gradient, strict=True)):
                m, v = moments[i]
                moments[i] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                p = p * (1 - lr * decay)  # noqa: PLW2901
                parameters[i] = p - lr * (m / (1 - 0.9**step)) / (torch.sqrt(v / (1 - 0.999**step)) + 1e-8)
            by_hand.weight, by_hand.bias = parameters
    before = bits(problem.original.model)
    settings: dict[str, Any] = {"lr": lr, "weight_decay": decay, "strength": 0.6, "decay": gamma, "epochs": 4, "descent_epochs": 1, "projection_period": 2}
    result = forget(problem, "minnorm-og", seed=seed, batch_size=4, projection_samples=count, logit_limit=limit, **settings)
    torch.testing.assert_close(layer_of(result.model, 1).weight.double(), by_hand.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer_of(result.model, 1).bias.double(), by_hand.bias, rtol=1e-4, atol=1e-5)
    assert same_bits(bits(problem.original.model), before)
    assert result.cost.steps == step == 8


def draw(labels: Tensor, count: int, generator: np.random.Generator) -> list[int]:
    """max(1, count // present) of each class, in the order of the classes."""
    present = sorted(set(labels.tolist()))
    chosen = []
    for number in present:
        positions = [i for i, label in enumerate(labels.tolist()) if label == number]
        chosen += generator.permutation(positions)[: max(1, count // len(present))].tolist()
    return chosen


def largest_logit(model: LinearClassifier, x: Tensor) -> Tensor:
    """The gradient of max_c (W x + b)_c: x in the row of the largest, 1 in its bias."""
    top = int(model.logits(x[None])[0].argmax())
    gradient = torch.zeros(10, 65, dtype=torch.float64)
    gradient[top, :64], gradient[top, 64] = x, 1
    return torch.cat([gradient[:, :64].flatten(), gradient[:, 64]])


def clamped_gradient(model: LinearClassifier, x: Tensor, y: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy of clamped logits: none where a logit is at the limit."""
    logits = model.logits(x)
    error = softmax_rows(logits.clamp(-limit, limit))
    for i, label in enumerate(y.tolist()):
        error[i, label] -= 1
    error = error * (logits.abs() <= limit)
    return error.T @ x / len(x), error.sum(dim=0) / len(x)


def test_without_a_limit_the_loss_is_the_tasks_own() -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 3, "lr": 0.01}
    loose, tight, none = (bits(forget(problem_of("linear"), "minnorm-og", logit_limit=limit, **settings).model) for limit in (1e6, 0.1, None))
    assert same_bits(loose, none)
    assert not same_bits(tight, none)


def test_the_forget_set_is_not_looked_at() -> None:
    """Other samples of the same number: the same bits."""
    one, other = problem_of("plain"), problem_of("plain")
    changed = Problem(other.task, other.original, one.test.subset(range(6)), other.retain, other.test)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 3}
    results = [bits(forget(problem, "minnorm-og", **settings).model) for problem in (one, changed)]
    assert same_bits(*results)
    statistics = [bits(forget(problem, "minnorm-og", forget_statistics=True, **settings).model) for problem in (one, changed)]
    assert not same_bits(*statistics)


def test_a_first_batch_of_the_forget_set_updates_the_statistics_first() -> None:
    """One step, κ → 0 and lr → 0: running mean = 0.9 (0.9 r + 0.1 forget) + 0.1 retain."""
    problem = problem_of("plain")
    done = forget(problem, "minnorm-og", epochs=1, descent_epochs=0, lr=1e-12, strength=1e-12, forget_statistics=True)
    first = layer_of(problem.original.model, 0)
    expected = torch.zeros(6)
    for samples in (problem.forget, problem.retain):
        pixels = problem.task.collate([samples[i] for i in range(len(samples))])["pixel_values"]
        expected = 0.9 * expected + 0.1 * first(pixels).detach().mean(dim=(0, 2, 3))
    torch.testing.assert_close(layer_of(done.model, 1).running_mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("graph", ["fresh", "stale"])
def test_gradients_of_a_stale_graph_mix_old_activations_and_new_weights(graph: str) -> None:
    """f = v σ(u x), one step of SGD after a projection: ∂/∂v = (p − y) σ(u_old x), ∂/∂u = (p − y) v_new σ'(u_old x) x, against all new."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False), nn.Tanh(), nn.Linear(5, 10, bias=False))
    problem = problem_of("linear", model=made(lambda: model))
    settings: dict[str, Any] = {"epochs": 1, "descent_epochs": 0, "strength": 0.5, "projection_samples": 1, "sampling": "random"}
    done = forget(problem, "minnorm-og", optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0, graph=graph, **settings)
    x, y = everything(problem.retain)
    old = problem.original.model
    new: Any = copy.deepcopy(old).double()
    batch = {name: t.double() if t.is_floating_point() else t for name, t in collated(problem).items()}
    drawn = np.random.default_rng(derive_seed(0, "projection", 0, 0)).permutation(18)[:1]
    order = next(cycled(18, 256, 0, "retain", "stream"))
    chosen = {name: t[[order[int(i)] for i in drawn]] for name, t in batch.items()}
    project(Engine(problem.task), new, problem.task.constraints, chosen, 0.5)
    u_old, v_old = (layer_of(old, i).weight.detach().double() for i in (1, 3))
    u, v = (layer_of(new, i).weight.detach() for i in (1, 3))
    hidden, logits = (torch.tanh(x @ u.T), torch.tanh(x @ u.T) @ v.T) if graph == "fresh" else (torch.tanh(x @ u_old.T), torch.tanh(x @ u_old.T) @ v_old.T)
    error = softmax_rows(logits)
    for i, label in enumerate(y.tolist()):
        error[i, label] -= 1
    error = error / len(x)
    torch.testing.assert_close(layer_of(done.model, 3).weight.double(), v - error.T @ hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer_of(done.model, 1).weight.double(), u - ((error @ v) * (1 - hidden**2)).T @ x, rtol=1e-4, atol=1e-5)


def collated(problem: Problem) -> Batch:
    return problem.task.collate([problem.retain[i] for i in range(len(problem.retain))])


# Tasks, and what is refused.


class TwoHeads(ImageClassification):
    """Class logits 0..4 and 5..9: two numbers are kept for each sample."""

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.stack([half.amax(dim=1) for half in self.outputs(model, batch).split(5, dim=1)], dim=1)


class Regression(ImageClassification):
    """The first output against the mean pixel."""

    name: ClassVar[str] = "regression"

    def classes(self, batch: Batch) -> None:  # type: ignore[override]
        del batch

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.outputs(model, batch)[:, :1]

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return (self.outputs(model, batch)[:, 0] - batch["pixel_values"].mean(dim=(1, 2, 3))).square()


def with_task(task: ImageClassification) -> Problem:
    problem = problem_of("linear")
    return Problem(task, problem.original, problem.forget, problem.retain, problem.test)


def test_a_task_with_several_numbers_per_sample_keeps_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    spanned: list[int] = []
    monkeypatch.setattr(minnorm_og, "project", lambda *args, **options: spanned.append(project(*args, **options)))
    forget(with_task(TwoHeads()), "minnorm-og", epochs=1, descent_epochs=0, projection_samples=4, sampling="random")
    assert spanned == [8]


def test_a_task_of_another_package_is_served_if_it_defines_what_must_be_kept() -> None:
    problem = with_task(Regression())
    result = forget(problem, "minnorm-og", epochs=6, lr=0.01).model
    kept = [Engine(problem.task).evaluate(model, problem.retain, problem.task.losses).mean() for model in (problem.original.model, result)]
    assert float(kept[1]) < float(kept[0])


def test_tasks_that_name_nothing_to_keep_are_refused() -> None:
    assert sorted(MinNormOG.tasks or ()) == ["image-classification", "text-generation"]
    with pytest.raises(InputError, match="'minnorm-og' is not defined for image-generation"):
        forget(problem_of("unet"), "minnorm-og")
    with pytest.raises(InputError, match="image-generation names no outputs that must be kept"):
        forget(problem_of("unet"), MinNormOG())
    assert "image-generation" not in TasksWith("constraints")
    assert "of-another-package" in TasksWith("constraints")


def test_settings_that_cannot_project_are_refused() -> None:
    with pytest.raises(InputError, match="`descent_epochs` 2 leaves none of 2 epochs to project in"):
        forget(problem_of("linear"), "minnorm-og", epochs=2)
    with pytest.raises(InputError, match="Leave out `lora`"):
        forget(problem_of("linear"), "minnorm-og", lora={})
    for wrong in ({"strength": 1.5}, {"strength": 0}, {"decay": 1.1}, {"retain_fraction": 0}, {"projection_samples": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            forget(problem_of("linear"), "minnorm-og", **wrong)


def test_a_normalisation_without_running_statistics_is_refused_unless_those_of_the_batch_are_meant() -> None:
    model = made(plain_network)
    setattr(model, "1", nn.BatchNorm2d(6, track_running_stats=False))
    problem = problem_of("plain", model=model)
    with pytest.raises(InputError, match=r"layer '1' keeps no running statistics.*Use statistics: batch"):
        forget(problem, "minnorm-og", epochs=3)
    forget(problem, "minnorm-og", epochs=3, statistics="batch")


def test_outputs_of_retained_samples_change_less_than_those_of_others() -> None:
    """A small step, all retained samples in one batch: what it keeps to first order moves by κ², the rest by κ."""
    problem = problem_of("plain", forget=20, retain=10)
    engine = Engine(problem.task)
    model = copy.deepcopy(problem.original.model)
    ask = problem.task.constraints
    before = {name: engine.evaluate(model, samples, ask) for name, samples in problem.sets.items()}
    project(engine, model, ask, collated(problem), 1e-3)
    moved = {name: float((engine.evaluate(model, samples, ask) - before[name]).abs().mean()) for name, samples in problem.sets.items()}
    assert moved["retain"] < 0.05 * moved["forget"]
    assert math.isfinite(moved["forget"])


def test_bundle_of_another_task_name_reaches_the_method_through_the_api() -> None:
    problem = problem_of("linear")
    train = {"image": torch.rand(12, 8, 8), "label": torch.arange(12) % 10}
    made_here = make_problem(Bundle(problem.original.model), train=train, test=train | {"id": [f"t{i}" for i in range(12)]}, forget=["0"], task=Regression())
    assert not same_bits(bits(forget(made_here, "minnorm-og", epochs=3).model), bits(problem.original.model))

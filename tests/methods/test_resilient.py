from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, bundle_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import FineTuning, read_pool, shipped_pools
from unlearned.engine.hypergradient import Proximal
from unlearned.engine.randomness import seeded
from unlearned.engine.rehearsal import Rehearsal
from unlearned.errors import InputError
from unlearned.methods._resilience import linear_form, scheduled
from unlearned.methods.gradient_ascent import GradientAscent
from unlearned.methods.npo import NPO
from unlearned.methods.resilient import Resilient
from unlearned.problem import Problem
from unlearned.recipe import parse_recipe
from unlearned.records import Rehearsals
from unlearned.tasks.image_generation import ImageGeneration

GA: dict[str, Any] = {"name": "gradient-ascent", "epochs": 1, "batch_size": 6, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
WHOLE: dict[str, Any] = {"id": "whole", "lr": 0.5, "steps": 2, "batch_size": 18}
"""Each batch is the whole retain set, so that only the order within it depends on a seed."""


class Doubled(nn.Module):
    """Logits of a linear network in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear_network().double()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.inner(images.double())
        return out


@pytest.fixture(scope="module")
def doubled() -> Problem:
    return problem_of("linear", model=made(Doubled))


def loss_at(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of W x + b, (W, b) flat: written down without the package."""
    w, b = weights[:640].view(10, 64), weights[640:]
    scores = images.flatten(1).double() @ w.T + b
    return (scores.logsumexp(dim=1) - scores.gather(1, labels[:, None])[:, 0]).mean()


def hessian_at(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    found = torch.autograd.functional.hessian(lambda w: loss_at(w, images, labels), weights)
    assert isinstance(found, Tensor)
    return found


def data_of(samples: Any) -> tuple[Tensor, Tensor]:
    rows = [samples[i] for i in range(len(samples))]
    return torch.stack([row["pixel_values"] for row in rows]), torch.tensor([int(row["labels"]) for row in rows])


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(("beta", "alpha", "iterations"), [(0.8, 0.0, 5), (0.5, 1.5, 3), (1.0, 0.0, 1), (0.0, 1.6, 5)])
def test_a_step_follows_the_gradient_of_the_resilient_objective(doubled: Problem, beta: float, alpha: float, iterations: int) -> None:
    """Against the fine-tuning carried out by hand and the dense Hessian; β = 0 is gradient ascent with distillation."""
    method = Resilient(inner=GA, beta=beta, alpha=alpha, gamma=0.05, iterations=iterations, pool=(FineTuning(**WHOLE),))
    moved = flat(forget(doubled, method).model)

    theta, forget_data, retain_data = flat(doubled.original.model), data_of(doubled.forget), data_of(doubled.retain)
    now = -torch.func.grad(loss_at)(theta, *forget_data)
    w = theta.clone()
    for _ in range(2):
        w = w - 0.5 * torch.func.grad(loss_at)(w, *retain_data)
    hessian = hessian_at(w, *retain_data)
    g = -torch.func.grad(loss_at)(w, *forget_data)
    h = sum((torch.linalg.matrix_power(-0.05 * hessian, k) @ g for k in range(iterations)), torch.zeros_like(g))
    # At the original the distance is 0, and so is its gradient.
    torch.testing.assert_close(moved, theta - 0.1 * ((1 - beta) * now + beta * h), rtol=1e-10, atol=1e-12)


def test_distillation_holds_to_the_original_where_the_objective_leads_away(doubled: Problem) -> None:
    """Two steps, the second by hand: α times the gradient of the mean squared difference of logits, without rehearsals."""
    inner = GA | {"epochs": 2, "batch_size": 18}
    moved = flat(forget(doubled, Resilient(inner=inner, beta=0.0, alpha=2.0)).model)
    theta, (images, labels), (kept, _) = flat(doubled.original.model), data_of(doubled.forget), data_of(doubled.retain)

    def logits(weights: Tensor, x: Tensor) -> Tensor:
        return x.flatten(1).double() @ weights[:640].view(10, 64).T + weights[640:]

    first = theta + 0.1 * torch.func.grad(loss_at)(theta, images, labels)
    pull = torch.func.grad(lambda w: ((logits(w, kept) - logits(theta, kept)) ** 2).mean())(first)
    torch.testing.assert_close(moved, first + 0.1 * torch.func.grad(loss_at)(first, images, labels) - 0.2 * pull, rtol=1e-10, atol=1e-12)


def test_without_weight_it_is_the_inner_method_to_the_bit() -> None:
    problem = problem_of("plain")
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 2, "lr": 0.01, "optimizer": "adam"}
    plain = forget(problem, NPO(**settings))
    wrapped = forget(problem, Resilient(inner={"name": "npo", **settings}, beta=0.0))
    assert same_bits(bits(plain.model), bits(wrapped.model))


@pytest.mark.parametrize("adapted", [False, True], ids=["weights", "adapters"])
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("subject", ["plain", "gpt2"])
def test_through_a_fine_tuning_that_goes_nowhere_it_is_the_plain_gradient(subject: str, kind: str, adapted: bool) -> None:
    """Whatever is trained by whom: weights, adapters that were there, new adapters, or weights to which adapters are merged."""
    problem, engine = problem_of(subject), Engine(problem_of(subject).task)
    original = problem.original.model
    model: nn.Module = original
    if adapted:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = with_adapter(original, Lora(rank=2), ".*")
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.data.normal_(std=0.1)
    else:
        next(iter(model.parameters())).requires_grad_(False)  # not all that fine-tuning trains is trained by unlearning
    tuning = FineTuning(id="still", kind=kind, lr=1e-12, steps=1, batch_size=2)
    rehearsal = Rehearsal(engine, model, bundle_of(subject).model, (tuning,), problem.retain, problem.forget)
    batch = next(engine.batches(problem.forget))

    def outer(asked: nn.Module) -> Tensor:
        return engine.task.losses(asked.eval(), batch).mean()

    found = rehearsal.through(model, tuning, outer, Proximal(iterations=1), seed=3, weight=0.5)
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(outer(model), trained)
    for gradient, right in zip(found.gradient, expected, strict=True):
        torch.testing.assert_close(gradient, 0.5 * right, rtol=1e-4, atol=1e-7)
    assert not found.solution.given_up


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_rehearsed_diffusion_model_draws_what_the_live_one_draws(kind: str) -> None:
    """With an autoencoder and adapters in training: the same latents, timesteps and noise after the same seed."""
    problem = problem_of("stable")
    engine = Engine(problem.task)
    model: nn.Module = with_adapter(problem.original.model, Lora(rank=2), r"attn2\.to_q")
    rehearsal = Rehearsal(engine, model, problem.original.model, (FineTuning(id="one", kind=kind, lr=0.1),), problem.retain, problem.forget)
    batch, task = next(engine.batches(problem.forget)), engine.task
    assert isinstance(task, ImageGeneration)
    drawn = []
    [stage] = rehearsal._stages.values()
    stage.begin(model)
    for asked in (model.train(), stage.model):
        with seeded(3):
            drawn.append(task.noised(asked, batch))
    assert torch.equal(drawn[0].noisy, drawn[1].noisy)
    assert torch.equal(drawn[0].timesteps, drawn[1].timesteps)


def test_dropout_by_the_mode_of_the_whole_is_off_in_rehearsals() -> None:
    class Dropping(Doubled):
        def forward(self, images: Tensor) -> Tensor:
            return torch.nn.functional.dropout(super().forward(images), training=self.training)

    problem = problem_of("linear", model=made(Dropping))
    rehearsal = Rehearsal(Engine(problem.task), problem.original.model, problem.original.model, (FineTuning(id="one", lr=0.1),), problem.retain, problem.forget)
    [stage] = rehearsal._stages.values()
    stage.begin(problem.original.model)
    batch = next(Engine(problem.task).batches(problem.forget))
    assert torch.equal(problem.task.outputs(stage.model, batch), problem.task.outputs(stage.model, batch))


@pytest.mark.parametrize("adapted", [False, True], ids=["weights", "adapters"])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_of_a_model_in_bfloat16_it_is_the_hypergradient_of_the_same_model_in_float32(kind: str, adapted: bool) -> None:
    """And the fine-tuning, whose steps are far below what bfloat16 resolves, moves the weights."""
    problem, engine = problem_of("gpt2"), Engine(problem_of("gpt2").task)
    batch = next(engine.batches(problem.forget))
    tuning = FineTuning(id="one", kind=kind, lr=1e-5, optimizer="adam", steps=2, batch_size=4)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        original = bundle_of("gpt2").model.to(torch.bfloat16).to(dtype)
        model: nn.Module = original
        if adapted:
            with seeded(0):
                model = with_adapter(original, Lora(rank=2, start="small"), ".*")
        rehearsal = Rehearsal(engine, model, original, (tuning,), problem.retain, problem.forget)
        found.append(rehearsal.through(model, tuning, lambda asked: engine.task.losses(asked, batch).mean(), Proximal(gamma=1e-3), seed=0))
        [stage] = rehearsal._stages.values()
        before, after = torch.cat([p.detach().float().flatten() for p in model.parameters()]), torch.cat([p.detach().flatten() for p in stage.tuned])
        if kind == "full" and not adapted:
            assert float((after != before).double().mean()) > 0.5
        assert all(p.dtype == torch.float32 for p in stage.tuned)
    half, full = found
    assert half.value == pytest.approx(full.value, rel=1e-5)
    assert not half.solution.given_up
    for left, right in zip(half.gradient, full.gradient, strict=True):
        torch.testing.assert_close(left.float(), right, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["weights", "adapters"])
def test_a_model_in_bfloat16_is_made_resilient_in_its_own_precision(lora: dict[str, Any] | None) -> None:
    pool = (FineTuning(id="full", lr=1e-3, batch_size=4), FineTuning(id="lora", kind="lora", lr=1e-3, batch_size=4))
    problem = problem_of("gpt2", model=bundle_of("gpt2").model.to(torch.bfloat16))
    inner = {"name": "npo", "epochs": 1, "batch_size": 3, "lr": 0.01, "lora": lora}
    done = forget(problem, Resilient(inner=inner, alpha=1.0, gamma=0.1, pool=pool)).model
    assert {p.dtype for p in done.parameters()} == {torch.bfloat16}
    assert not same_bits(bits(done), bits(problem.original.model))


def test_patterns_of_a_pool_are_of_plain_names_also_within_adapters() -> None:
    problem = problem_of("gpt2")
    model = with_adapter(problem.original.model, Lora(rank=2), ".*")
    [name, *_] = [name for name, _ in problem.original.model.named_parameters() if name.endswith("c_attn.weight")]
    tuning = FineTuning(id="one", kind="lora", lr=0.1, parameters=f"^{name}$")
    rehearsal = Rehearsal(Engine(problem.task), model, problem.original.model, (tuning,), problem.retain, problem.forget)
    [stage] = rehearsal._stages.values()
    stage.begin(model)
    assert len(stage.tuned) == 2  # both factors


def test_adapters_get_the_exact_gradient_through_full_fine_tuning(doubled: Problem) -> None:
    """(dW/dA, dW/dB) of W + 2 B A, after (I + γH)⁻¹ on the whole of W and b."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = with_adapter(doubled.original.model, Lora(rank=2, alpha=4), ".*").double()
        factors = {name.split(".")[-3]: p for name, p in model.named_parameters() if p.requires_grad}
        factors["lora_B"].data.normal_(std=0.1)
    engine = Engine(doubled.task)
    tuning = FineTuning(**WHOLE)
    rehearsal = Rehearsal(engine, model, doubled.original.model, (tuning,), doubled.retain, doubled.forget)
    batch = next(engine.batches(doubled.forget))
    found = rehearsal.through(model, tuning, lambda m: engine.task.losses(m, batch).mean(), Proximal(gamma=0.02, iterations=200), seed=0)

    a, b = factors["lora_A"].detach(), factors["lora_B"].detach()
    w = flat(doubled.original.model).clone()
    w[:640] += (2 * b @ a).flatten()
    for _ in range(2):
        w = w - 0.5 * torch.func.grad(loss_at)(w, *data_of(doubled.retain))
    hessian = hessian_at(w, *data_of(doubled.retain))
    h = torch.linalg.solve(torch.eye(650, dtype=torch.float64) + 0.02 * hessian, torch.func.grad(loss_at)(w, *data_of(doubled.forget)))[:640].view(10, 64)
    expected = {"lora_A": 2 * b.T @ h, "lora_B": 2 * h @ a.T}
    for name, gradient in zip(factors, found.gradient, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-9)


def test_where_the_hypergradient_is_given_up_the_direct_gradient_is_left_and_it_says_so(doubled: Problem) -> None:
    """A γ at which the iteration diverges: (1 − β) ∇L alone."""
    method = Resilient(inner=GA, beta=0.75, gamma=1e9, pool=(FineTuning(**WHOLE),))
    theta = flat(doubled.original.model)
    expected = theta + 0.1 * 0.25 * torch.func.grad(loss_at)(theta, *data_of(doubled.forget))
    with pytest.warns(UserWarning, match="1 of 1 hypergradients were given up.*Lower `gamma`"):
        moved = flat(forget(doubled, method).model)
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-12)


def test_where_the_direct_gradient_alone_passes_the_limit_nothing_is_rehearsed_and_the_norm_is_told(doubled: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """(1 − β) ∇L alone. With a limit above the norm that is told, the hypergradient is there."""
    theta = flat(doubled.original.model)
    direct = 0.25 * torch.func.grad(loss_at)(theta, *data_of(doubled.forget))
    norm = direct.norm().item()
    settings: dict[str, Any] = {"inner": GA, "beta": 0.75, "gamma": 0.05, "pool": (FineTuning(**WHOLE),)}
    some = flat(forget(doubled, Resilient(**settings, norm_limit=10 * norm)).model)
    assert (some - theta - 0.1 * direct).abs().max() > 1e-3 * norm
    monkeypatch.setattr(Rehearsal, "through", None)
    with pytest.warns(UserWarning, match="left out") as caught:
        done = forget(doubled, Resilient(**settings, norm_limit=0.9 * norm))
    [told] = [str(warning.message) for warning in caught]
    assert f"1 of 1 hypergradients were left out: the norm of the direct gradient alone was up to {norm:.3g}" in told
    assert "Raise `norm_limit`" in told
    assert "gamma" not in told
    torch.testing.assert_close(flat(done.model), theta + 0.1 * direct, rtol=1e-10, atol=1e-12)
    [shown] = done.exhibits
    assert isinstance(shown, Rehearsals)
    assert shown.direct_norm == pytest.approx(norm)
    assert [(row.times, row.left_out, row.given_up, row.damping) for row in shown.fine_tunings] == [(1, 1, 0, None)]


def test_what_each_fine_tuning_of_the_pool_came_to_is_shown(doubled: Problem) -> None:
    """Beside sums by hand over five steps, each of which draws one of two fine-tunings; the iteration of one of them always diverges."""
    gentle, wild = FineTuning(**WHOLE | {"id": "gentle"}), FineTuning(**WHOLE | {"id": "wild"})
    seen: dict[str, list[Any]] = {"gentle": [], "wild": []}
    through = Rehearsal.through

    def watched(self: Rehearsal, model: nn.Module, tuning: FineTuning, outer: Any, how: Any, *rest: Any, **more: Any) -> Any:
        if tuning.id == "wild":
            how = how.model_copy(update={"gamma": 1e9})
        found = through(self, model, tuning, outer, how, *rest, **more)
        seen[tuning.id].append(found.solution)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rehearsal, "through", watched)
        inner = GA | {"epochs": 5, "lr": 1e-3}
        [shown] = forget(doubled, Resilient(inner=inner, gamma=0.5, rehearsals=1, pool=(gentle, wild))).exhibits
    assert isinstance(shown, Rehearsals)
    assert (shown.source, shown.direct_norm) == ("resilient", None)
    first, second = shown.fine_tunings
    assert (first.times, first.given_up, first.left_out) == (len(seen["gentle"]), 0, 0)
    assert (second.times, second.given_up, second.left_out) == (5 - first.times, 5 - first.times, 0)
    assert 0 < first.times < 5
    assert first.damping == pytest.approx(sum(s.damping for s in seen["gentle"]) / first.times)
    assert first.residual == pytest.approx(sum(s.residual for s in seen["gentle"]) / first.times)
    assert first.ratio == pytest.approx(max(s.ratio for s in seen["gentle"]))
    assert (second.damping, second.residual, second.ratio) == (None, None, None)


def test_contaminated_fine_tuning_learns_what_was_forgotten(doubled: Problem) -> None:
    engine, losses = Engine(doubled.task), {}
    batch = next(engine.batches(doubled.forget))
    for share in (0.0, 0.5, 1.0):
        tuning = FineTuning(**WHOLE | {"steps": 20, "forget_share": share, "id": str(share)})
        rehearsal = Rehearsal(engine, doubled.original.model, doubled.original.model, (tuning,), doubled.retain, doubled.forget)
        losses[share] = rehearsal.through(doubled.original.model, tuning, lambda m: engine.task.losses(m, batch).mean(), Proximal(), seed=0).value
    assert losses[1.0] < losses[0.5] < losses[0.0]


def test_schedules() -> None:
    """α from 1.6 to 2.0 as in the authors' code: constant in the first half, then a sigmoid of the progress of the second."""
    assert [scheduled(1.6, 2.0, p) for p in (0.0, 0.25, 0.499)] == [1.6] * 3
    assert scheduled(1.6, 2.0, 0.75) == pytest.approx(1.8)
    assert scheduled(1.6, 2.0, 1.0) == pytest.approx(1.6 + 0.4 / (1 + math.exp(-5)))
    assert scheduled(0.8, 0.8, 0.9) == 0.8


def test_the_linear_form_has_value_and_gradient() -> None:
    w, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    form = linear_form([w, unused], [torch.tensor([1.0, 2.0, 3.0]), None], torch.tensor(7.0))
    form.backward()
    assert form.item() == 7
    assert w.grad is not None
    assert w.grad.tolist() == [1, 2, 3]
    assert unused.grad is None


def test_the_pool_of_the_authors_is_theirs() -> None:
    pool = {tuning.id: tuning for tuning in read_pool("resalign")}
    assert len(pool) == 15
    assert all(tuning.batch_size == 1 for tuning in pool.values())
    assert [name for name, tuning in pool.items() if tuning.kind == "full"] == ["full"]
    assert {name for name, tuning in pool.items() if tuning.optimizer == "adam"} == {"2", "4", "9", "12"}
    assert pool["0"].prior_weight == 1
    assert (pool["1"].start, pool["1"].steps) == (0, 30)
    assert "resalign" in shipped_pools()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inner": "npoo"}, "there is no method 'npoo'. Did you mean 'npo'"),
        ({"inner": {"lr": 1}}, "no name"),
        ({"inner": "ssd"}, "follows no gradients"),
        ({"inner": "resilient"}, "follows no gradients"),
        ({"inner": {"name": "npo", "lr": -1}}, "lr"),
        ({"inner": {"name": "npo", "learning_rate": 1}}, "no setting 'learning_rate'. See: unlearned methods show npo."),
        ({"inner": "gradient-ascent", "pool": "no-such-pool"}, "no-such-pool"),
        ({"inner": "gradient-ascent", "pool": []}, "at least one"),
        ({"inner": "gradient-ascent", "pool": [{"id": "a"}, {"id": "a"}]}, "two fine-tunings of the pool have the id 'a'. Make the ids unique."),
        ({"inner": "gradient-ascent", "pool": [{"id": "a", "start": 0.7, "share": 0.5}]}, "begins at 0.7 ends beyond 1. Lower one of them."),
        ({"inner": "gradient-ascent", "pool": [{"id": "a", "lr": 0}]}, "greater than 0"),
        ({"inner": "wga"}, "not defined for image-classification"),
        ({"inner": "gradient-ascent", "beta": 1.5}, "beta"),
    ],
)
def test_wrong_settings_are_told_up_front(settings: dict[str, Any], words: str) -> None:
    recipe = {"model": "x", "data": {"train": "a", "test": "b"}, "forget": {"where": "label == 1"}, "references": {"count": 0}}
    with pytest.raises(InputError) as caught:
        parse_recipe({**recipe, "method": {"name": "resilient", **settings}})
    assert words in str(caught.value)
    assert ("Change it so." in str(caught.value)) == any(" than " in fault.what for fault in caught.value.faults)
    assert all(fault.field.startswith("method") for fault in caught.value.faults)


def test_a_fine_tuning_without_data_or_weights_is_told_before_any_work(tmp_path: Path) -> None:
    problem = problem_of("plain")
    for tuning, words in (
        ({"where": "label == 77"}, "no retained sample"),
        ({"parameters": "nothing"}, "no trainable parameter"),
        ({"where": "colour == 1"}, "no column"),
    ):
        with pytest.raises(InputError, match=words):
            forget(problem, Resilient(inner=GA, pool=(FineTuning(id="a", **tuning),)))
    file = tmp_path / "pool.yaml"
    file.write_text("- {id: mine, lr: 0.1, steps: 1}\n", encoding="utf-8")
    assert read_pool(str(file))[0].id == "mine"
    file.write_text("- {id: [", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid YAML"):
        read_pool(str(file))


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["weights", "adapters"])
def test_a_pool_is_checked_before_anything_is_made(lora: dict[str, Any] | None) -> None:
    """All of it at once. With adapters in training, a fine-tuning by adapters goes on with these, and has no others."""
    problem = problem_of("plain")
    pool = (
        FineTuning(id="fine"),
        FineTuning(id="fine-lora", kind="lora", parameters=r"^8\."),
        FineTuning(id="empty", share=1e-6),
        FineTuning(id="column", where="colour == 1"),
        FineTuning(id="nothing", parameters="nothing"),
        FineTuning(id="nothing-lora", kind="lora", parameters="nothing"),
        FineTuning(id="elsewhere", kind="lora", parameters=r"^0\."),
    )
    inner = GA | {"lora": lora, "parameters": r"^8\." if lora else ".*"}
    found = Resilient(inner=inner, pool=pool).faults(problem, Engine(problem.task))
    wrong = ["empty", "column.where", "nothing.parameters", "nothing-lora.parameters", *(["elsewhere.parameters"] if lora else [])]
    assert [fault.field for fault in found] == [f"method.pool.{name}" for name in wrong]
    if lora:
        found = Resilient(inner=inner | {"parameters": "bias$"}, pool=pool[:1]).faults(problem, Engine(problem.task))
        assert [fault.field for fault in found] == ["method.inner.parameters"]


def test_the_method_inside_is_written_down_whole() -> None:
    method = Resilient(inner="gradient-ascent")
    assert method.inner["epochs"] == GradientAscent().epochs
    assert Resilient(**method.model_dump()) == method

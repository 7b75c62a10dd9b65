"""The elastic loss at its end points and by worked numbers, the inner problems, and what hooks leave behind; formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, bundle_of, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Step
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.methods._adversary import ProjectedGradient, RefusalFeature, ascend
from unlearned.methods._robust import coin, expected, worst
from unlearned.methods.adv_npo import AdvNPO
from unlearned.methods.eru import ERU, LEAST_SPREAD, elastic_loss, geometric_logits, implicit_logits
from unlearned.methods.npo import npo_loss
from unlearned.methods.resilient import Resilient
from unlearned.methods.simnpo import simnpo_loss
from unlearned.tasks._decoders import blocks_of, changed_states, without_component
from unlearned.tasks._directions import Direction, ablated, block_inputs, directions_between, last_prompt_inputs

LENGTHS = torch.tensor([3, 5, 2, 9], dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def likelihoods() -> tuple[Tensor, Tensor]:
    """Per token, of a model that learns and of the original, (4,)."""
    return -random(4, seed=1).abs() - 0.1, -random(4, seed=2).abs() - 0.1


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    [found] = torch.autograd.grad(loss.sum(), [of])
    return found


# z, L_f and gradient weight for β 2.5, δ 0, ℓ −3, ℓ_ref −1.
WORKED = [
    ("implicit", 0.0, 3.0, 4.423452e-04, 1.105557e-03),
    ("implicit", 0.5, 2.0, 5.372279e-03, 1.338570e-02),
    ("implicit", 1.0, 1.0, 6.311179e-02, 1.517164e-01),
    ("geometric", 0.0, 3.0, 4.423452e-04, 1.105557e-03),
    ("geometric", 0.5, 2.5, 1.542875e-03, 3.853469e-03),
    ("geometric", 1.0, 2.0, 5.372279e-03, 1.338570e-02),
]


def logits_of(form: str, now: Tensor, before: Tensor, elasticity: float, margin: float = 0.0) -> Tensor:
    return implicit_logits(now, elasticity, margin, before - now) if form == "implicit" else geometric_logits(now, before, elasticity, margin)


@pytest.mark.parametrize(("form", "elasticity", "z", "loss", "weight"), WORKED)
def test_worked_numbers(form: str, elasticity: float, z: float, loss: float, weight: float) -> None:
    now, before = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True), torch.tensor([-1.0], dtype=torch.float64)
    found = logits_of(form, now, before, elasticity)
    assert float(found.detach()) == pytest.approx(z, rel=1e-12)
    assert float(elastic_loss(found, 2.5).detach()) == pytest.approx(loss, rel=1e-6)
    assert float(gradient(elastic_loss(found, 2.5), now)) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("form", ["implicit", "geometric"])
@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_without_elasticity_both_forms_are_simnpo(form: str, margin: float) -> None:
    now, before = likelihoods()
    now.requires_grad_()
    ours, theirs = elastic_loss(logits_of(form, now, before, 0.0, margin), 3.0), simnpo_loss(-now * LENGTHS, LENGTHS, 3.0, margin)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, now), gradient(theirs, now), rtol=1e-12, atol=0)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_the_geometric_form_ends_in_npo_per_token_whatever_the_margin(margin: float) -> None:
    now, before = likelihoods()
    now.requires_grad_()
    ours, theirs = elastic_loss(geometric_logits(now, before, 1.0, margin), 0.7), npo_loss(now, before, 0.7)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, now), gradient(theirs, now), rtol=1e-12, atol=0)


def test_the_implicit_form_ends_in_a_constant_weight_and_not_in_npo() -> None:
    """z = −ℓ_ref: the weight 2 σ(β ℓ_ref) does not depend on the model."""
    now, before = likelihoods()
    weights = []
    for start in (now, now - 3):
        values = start.clone().requires_grad_()
        z = implicit_logits(values, 1.0, 0.0, before - values)
        torch.testing.assert_close(z.detach(), -before, rtol=1e-12, atol=1e-14)
        weights.append(gradient(elastic_loss(z, 2.5), values))
    for found in weights:
        torch.testing.assert_close(found, 2 / (1 + torch.exp(-2.5 * before)), rtol=1e-10, atol=0)
    values = now.clone().requires_grad_()
    assert not torch.allclose(weights[0], gradient(npo_loss(values, before, 2.5), values), rtol=0.05)


@pytest.mark.parametrize("form", ["implicit", "geometric"])
@pytest.mark.parametrize(("elasticity", "margin"), [(0.0, 0.3), (0.2, 0.0), (0.7, 0.5), (1.0, 0.2)])
def test_gradient_weight_by_finite_differences(form: str, elasticity: float, margin: float) -> None:
    """2 σ(−β z), with M held fixed in the implicit form; for both, downwards: descending lowers ℓ."""
    now, before = likelihoods()
    beta, h, progress = 2.5, 1e-6, before - now

    def loss(values: Tensor) -> Tensor:
        z = implicit_logits(values, elasticity, margin, progress) if form == "implicit" else geometric_logits(values, before, elasticity, margin)
        return elastic_loss(z, beta)

    z = logits_of(form, now, before, elasticity, margin)
    by_hand = torch.tensor([2 / (1 + math.exp(beta * float(value))) for value in z], dtype=torch.float64)
    torch.testing.assert_close((loss(now + h) - loss(now - h)) / (2 * h), by_hand, rtol=1e-6, atol=1e-9)
    asked = now.clone().requires_grad_()
    torch.testing.assert_close(gradient(elastic_loss(logits_of(form, asked, before, elasticity, margin), beta), asked), by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["implicit", "geometric"])
def test_far_below_the_original_everything_is_finite(form: str) -> None:
    now = torch.tensor([-1e4, -1e300], dtype=torch.float64, requires_grad=True)
    loss = elastic_loss(logits_of(form, now, torch.tensor([-1.0, -2.0], dtype=torch.float64), 0.2), 2.5)
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(gradient(loss, now)).all())


def test_worst_and_expected_by_hand_and_their_order() -> None:
    clean, attacked = torch.tensor([1.0, 4.0]).double(), torch.tensor([3.0, 2.0]).double()
    assert float(worst(clean, attacked)) == 3.5
    assert float(expected(clean, attacked, 0.25)) == 0.75 * 2.5 + 0.25 * 2.5
    a, b = random(9, seed=3), random(9, seed=4)
    assert all(float(worst(a, b)) >= float(expected(a, b, p)) for p in (0.0, 0.3, 0.5, 1.0))
    assert float(expected(a, b, 0.0)) == pytest.approx(float(a.mean()), rel=1e-14)


def test_coins_depend_on_seed_and_step_alone_and_are_fair() -> None:
    tosses = [coin(3, step) for step in range(400)]
    assert tosses == [coin(3, step) for step in range(400)]
    assert tosses[:5] != [coin(4, step) for step in range(5)]
    assert abs(sum(toss < 0.5 for toss in tosses) / 400 - 0.5) < 4 * 0.5 / 20


def test_ablation_removes_the_component_once_and_for_all() -> None:
    [direction] = directions_between(random(7, 1, 5, seed=5), random(6, 1, 5, seed=6))
    hidden = random(2, 3, 5, seed=7)
    projection = torch.eye(5, dtype=torch.float64) - torch.outer(direction.unit, direction.unit)
    gone = without_component(hidden, *direction)
    torch.testing.assert_close(gone, hidden @ projection, rtol=1e-12, atol=1e-14)
    assert float((gone @ direction.unit).abs().max()) < 1e-14
    torch.testing.assert_close(without_component(gone, *direction), gone, rtol=1e-13, atol=1e-15)


def test_directions_are_differences_of_means_detached_and_of_length_one() -> None:
    first, second = random(7, 2, 5, seed=8).requires_grad_(), random(4, 2, 5, seed=9)
    for place, direction in enumerate(directions_between(first, second)):
        rows, others = first[:, place].tolist(), second[:, place].tolist()
        r = [sum(row[k] for row in rows) / 7 - sum(row[k] for row in others) / 4 for k in range(5)]
        assert direction.unit.tolist() == pytest.approx([value / math.hypot(*r) for value in r], rel=1e-12)
        assert not direction.unit.requires_grad
        assert float(direction.level) == 0


def test_the_mean_that_is_put_back_leaves_only_the_difference_out() -> None:
    """Afterwards all have the component that the second kind has on average; what has it already stays as it is."""
    second = random(4, 1, 5, seed=9)
    [direction] = directions_between(random(7, 1, 5, seed=8), second, keep_second=True)
    mean = second[:, 0].mean(dim=0)
    torch.testing.assert_close(without_component(mean, *direction), mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(without_component(random(3, 5), *direction) @ direction.unit, (mean @ direction.unit).expand(3), rtol=1e-12, atol=1e-14)


def test_equal_means_have_no_direction() -> None:
    same = random(1, 1, 5).expand(3, 1, 5).float()
    [direction] = directions_between(same, same[:2])
    assert torch.equal(direction.unit, torch.zeros(5))
    hidden = random(2, 5)
    assert torch.equal(without_component(hidden, *direction), hidden)


def batch_of(problem: Any, count: int = 3) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = problem.task.collate([problem.forget[i] for i in range(count)])
    return batch


def hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_pre_hooks) + len(layer._forward_hooks) for layer in model.modules())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_ablated_model_reads_its_blocks_without_the_direction(kind: str) -> None:
    problem = problem_of(kind)
    model, batch = problem.original.model.double(), batch_of(problem)
    before = block_inputs(model, [0], batch)[:, :, 0]
    direction = Direction(torch.nn.functional.normalize(random(16), dim=0), torch.tensor(0.0, dtype=torch.float64))
    with ablated(model, {0: direction}):
        torch.testing.assert_close(block_inputs(model, [0], batch)[:, :, 0], without_component(before, *direction))
    torch.testing.assert_close(block_inputs(model, [0], batch)[:, :, 0], before)
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception() -> None:
    problem = problem_of("llama")
    model, direction = problem.original.model, Direction(torch.ones(16) / 4, torch.tensor(0.0))

    def fails(_: Tensor) -> Tensor:
        raise ZeroDivisionError

    with ablated(model, {0: direction}):
        assert hooks(model) == 1
    with pytest.raises(ZeroDivisionError), ablated(model, {0: direction}), changed_states(model, {0: fails}, at="input"):
        problem.task.losses(model, batch_of(problem))
    assert hooks(model) == 0


def test_the_last_prompt_token_alone() -> None:
    problem = problem_of("gpt2")
    model, batch = problem.original.model.double(), batch_of(problem)
    direction = Direction(torch.nn.functional.normalize(random(16), dim=0), torch.tensor(0.0, dtype=torch.float64))
    before = block_inputs(model, [0], batch)[:, :, 0]
    with ablated(model, {0: direction}, "last", batch["prompt_length"]):
        seen = block_inputs(model, [0], batch)[:, :, 0]
    for i, length in enumerate(batch["prompt_length"].tolist()):
        for t in range(before.shape[1]):
            expect = without_component(before[i, t], *direction) if t == length - 1 else before[i, t]
            torch.testing.assert_close(seen[i, t], expect)
    alone = problem.task.collate([problem.forget[1]])  # without padding
    torch.testing.assert_close(last_prompt_inputs(model, [0], batch)[1], last_prompt_inputs(model, [0], alone)[0])
    torch.testing.assert_close(last_prompt_inputs(model, [0], batch)[:, 0], before[torch.arange(3), batch["prompt_length"] - 1])


def feature_of(problem: Any, memory: dict[str, Tensor], **changed: Any) -> RefusalFeature:
    settings: dict[str, Any] = {"layers": [0], "every": 4, "count": 32, "positions": "all", "keep_retain": False, "title": "eru"}
    return RefusalFeature(problem, Engine(problem.task), memory, **(settings | changed))


def test_the_feature_is_measured_anew_every_few_steps_with_the_weights_of_then() -> None:
    problem = problem_of("llama")
    memory: dict[str, Tensor] = {}
    adversary = feature_of(problem, memory)
    seen = []
    for step in range(9):
        model = bundle_of("llama", seed=step).model
        adversary.begin(model, Step(step, 9, 0, step, 9))
        seen.append(memory["refusal/unit"])
        if step % 4 == 0:
            forget_states, retain_states = (
                last_prompt_inputs(model, [0], problem.task.collate([samples[i] for i in range(len(samples))])) for samples in (problem.forget, problem.retain)
            )
            [now] = directions_between(forget_states, retain_states)
            torch.testing.assert_close(memory["refusal/unit"][0], now.unit, rtol=1e-4, atol=1e-6)
    changed = [step for step in range(9) if step == 0 or seen[step] is not seen[step - 1]]
    assert changed == [0, 4, 8]
    assert not torch.allclose(seen[0], seen[4], atol=1e-3)


def test_prompts_for_the_feature_are_drawn_afresh() -> None:
    problem, model, found = problem_of("llama"), bundle_of("llama").model, []
    for step in (0, 4):
        memory: dict[str, Tensor] = {}
        feature_of(problem, memory, count=2).begin(model, Step(step, 9, 0, step, 9))
        found.append(memory["refusal/unit"])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_trackers_are_told_how_large_the_feature_is_and_whether_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(Engine, "track", lambda _self, _title, values, step: told.append((step, dict(values))))
    problem = problem_of("llama")
    adversary, units = feature_of(problem, {}), []
    sizes = []
    for step in (0, 4):
        model = bundle_of("llama", seed=step).model
        adversary.begin(model, Step(step, 9, 0, step, 9))
        means = []
        for samples in (problem.forget, problem.retain):
            states = last_prompt_inputs(model, [0], problem.task.collate([samples[i] for i in range(len(samples))]))
            means.append((states.mean(dim=0), states.norm(dim=-1).mean(dim=0)))
        r = means[0][0] - means[1][0]
        units.append(r / r.norm(dim=-1, keepdim=True))
        sizes.append(float((r.norm(dim=-1) / means[1][1]).mean()))
    assert [step for step, _ in told] == [1, 5]
    assert [values["feature_size"] for _, values in told] == pytest.approx(sizes, rel=1e-4)
    assert [set(values) for _, values in told] == [{"feature_size"}, {"feature_size", "feature_cosine"}]
    assert told[1][1]["feature_cosine"] == pytest.approx(float((units[0] * units[1]).sum(dim=-1).mean()), abs=1e-4)


class Watched:
    """An adversary that notes when it is asked, and how often the model runs while it attacks."""

    def __init__(self, kind: type[Any]) -> None:
        self.calls: list[str] = []
        begin, attacking = kind.begin, kind.attacking

        def begin_seen(adversary: Any, model: nn.Module, now: Step) -> None:
            self.calls.append(f"begin {now.done}")
            begin(adversary, model, now)

        @contextmanager
        def attacking_seen(adversary: Any, model: nn.Module, batch: Any) -> Iterator[None]:
            self.calls.append("attack")
            with attacking(adversary, model, batch):
                yield
            assert hooks(model) == 0

        self.begin, self.attacking = begin_seen, attacking_seen


@pytest.mark.parametrize(("settings", "attacks"), [({"inner": "none"}, 0), ({"inner": "max"}, 1), ({"inner": "sampled", "probability": 1.0}, 1)])
def test_each_step_attacks_the_forget_term_as_often_as_it_says(settings: dict[str, Any], attacks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, watched = problem_of("llama"), Watched(RefusalFeature)
    monkeypatch.setattr(RefusalFeature, "begin", watched.begin)
    monkeypatch.setattr(RefusalFeature, "attacking", watched.attacking)
    done = forget(problem, "eru", epochs=1, batch_size=3, **settings)
    assert watched.calls == [call for step in range(2) for call in ([f"begin {step}"] if attacks else []) + ["attack"] * attacks]
    assert hooks(done.model) == 0


def first_loss(problem: Any, model: nn.Module | None = None, **settings: Any) -> tuple[Tensor, Tensor]:
    """Forget term and retain term of the first step, from `model`."""
    method, engine = ERU(**settings), Engine(problem.task)
    model = model or bundle_of("llama", seed=7).model
    sets, values = method.sets(problem, engine), []
    for gamma, alpha in ((1.0, 0.0), (0.0, 1.0)):
        plan = ERU(**settings, gamma=gamma, alpha=alpha).plan(problem, engine)
        assert plan.before_step is not None
        known, kept = (next(iter(engine.batches(sets[name], 4))) for name in ("forget", "retain"))
        plan.before_step(model, known, kept, Step(0, 9, 0, 0, 9))
        values.append(plan.passes[0].loss(model, known, kept).detach())
    return values[0], values[1]


def test_the_retain_term_is_clean_and_inner_problems_are_ordered() -> None:
    problem = problem_of("llama")
    clean, retain = first_loss(problem, inner="none")
    found = {p: first_loss(problem, inner="expected", probability=p) for p in (0.0, 0.5, 1.0)}
    largest, beside = first_loss(problem, inner="max")
    torch.testing.assert_close(found[0.0][0], clean)
    assert not torch.allclose(found[1.0][0], clean, rtol=1e-4)
    torch.testing.assert_close(found[0.5][0], (clean + found[1.0][0]) / 2)
    assert all(float(largest) >= float(value) - 1e-7 for value, _ in found.values())
    assert all(torch.equal(other, retain) for other in (beside, *(r for _, r in found.values())))


def test_both_halves_switched_off_it_is_simnpo() -> None:
    problem = problem_of("gpt2")
    settings: dict[str, Any] = {"beta": 3.0, "gamma": 0.5, "epochs": 2, "batch_size": 2, "lr": 0.05, "optimizer": "sgd", "seed": 4}
    ours = bits(forget(problem, "eru", inner="none", elasticity=0.0, margin=0.2, **settings).model)
    theirs = bits(forget(problem, "simnpo", delta=0.2, **settings).model)
    assert all(torch.allclose(tensor, theirs[name], rtol=1e-4, atol=1e-5) for name, tensor in ours.items())
    assert not same_bits(ours, bits(problem.original.model))


def test_sums_over_tokens_and_the_geometric_form_are_npo() -> None:
    problem = problem_of("gpt2")
    settings: dict[str, Any] = {"beta": 0.1, "alpha": 1.0, "epochs": 2, "batch_size": 2, "lr": 0.05, "optimizer": "sgd"}
    ours = bits(forget(problem, "eru", inner="none", elastic="geometric", elasticity=1.0, per_token=False, **settings).model)
    for name, tensor in bits(forget(problem, "npo", **settings, weight_decay=0.0).model).items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5)


def test_progress_scores_follow_means_over_steps() -> None:
    """Started at mean 0 and spread 1; the first look of a step moves them, further looks in it do not."""
    problem = problem_of("llama")
    engine = Engine(problem.task)
    memory: dict[str, Tensor] = {}
    method = ERU(zscore=True, averaging=0.6, elasticity=0.5)
    losses = method.forget_losses(engine, memory)
    batch = next(iter(engine.batches(method.sets(problem, engine)["forget"], 4)))
    mean, spread = 0.0, 1.0
    for step in range(3):
        model = bundle_of("llama", seed=30 + step).model
        losses.begin(Step(step, 9, 0, step, 9))
        nll, lengths = problem.task.answer_nll(model, batch)  # type: ignore[attr-defined]
        now = (-nll / lengths).detach()
        progress = batch["original_log_likelihood"] - now
        mean, spread = 0.6 * mean + 0.4 * float(progress.mean()), 0.6 * spread + 0.4 * float(progress.std(correction=0))
        by_hand = elastic_loss(implicit_logits(now, 0.5, 0.0, (progress - mean) / max(spread, LEAST_SPREAD)), 2.5)
        for _ in range(2):
            torch.testing.assert_close(losses(model, batch).detach(), by_hand, rtol=1e-4, atol=1e-6)
        assert memory["progress"].tolist() == pytest.approx([mean, spread], rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_ascent_reaches_the_edge_of_each_ball_along_a_linear_slope(steps: int) -> None:
    """Of wᵀδ the largest value within the ball is at ρ w / ‖w‖; a token with radius 0 stays."""
    w, radii = random(2, 3, 5), torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.1, 3.0]], dtype=torch.float64)
    found = ascend(lambda delta: (w * delta).sum(), torch.zeros(2, 3, 5, dtype=torch.float64), radii, steps)
    torch.testing.assert_close(found, radii[..., None] * w / w.norm(dim=-1, keepdim=True), rtol=1e-12, atol=1e-14)
    assert not found.requires_grad


def test_ascent_finds_a_top_inside_the_ball() -> None:
    top = torch.tensor([[[0.3, 0.0], [0.0, -0.2]]], dtype=torch.float64)
    found = ascend(lambda delta: -((delta - top) ** 2).sum(), torch.zeros(1, 2, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64), 200)
    assert float((found - top).norm(dim=-1).max()) < 2.5 / 200  # the steps have a fixed length


@pytest.mark.parametrize("positions", ["all", "last"])
def test_the_perturbation_raises_the_loss_within_its_balls_and_leaves_padding_alone(positions: Any) -> None:
    problem = problem_of("llama")
    method, engine = AdvNPO(), Engine(problem.task)
    losses = method.forget_losses(engine, {})
    batch = next(iter(engine.batches(method.sets(problem, engine)["forget"], 4)))
    model = bundle_of("llama", seed=7).model.train()
    before, clean = block_inputs(model, [0], batch)[:, :, 0], losses(model, batch).detach()
    adversary = ProjectedGradient(losses, layer=0, radius=0.2, steps=5, positions=positions)
    with adversary.attacking(model, batch):
        attacked, moved = losses(model, batch).detach(), block_inputs(model, [0], batch)[:, :, 0]
    assert bool((attacked > clean).all())
    size = (moved - before).norm(dim=-1) / before.norm(dim=-1)
    assert float(size.max()) <= 0.2 + 1e-5
    there = nn.functional.pad(batch["attention_mask"][:, 1:], (0, 1)).bool()  # the last token of each text predicts nothing
    if positions == "last":
        there = torch.arange(there.shape[1])[None] == batch["prompt_length"][:, None] - 1
    assert torch.equal(size > 1e-6, there)
    assert model.training
    assert hooks(model) == 0
    assert all(p.grad is None for p in model.parameters())


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="there is no layer 3; the model has 1"):
        forget(problem_of("llama"), "adv-npo", layer=3)
    problem = problem_of("llama")
    wrong = {"layer": 3, "solver": "pgd"}
    assert [f.field for f in methods.get("adv-npo")(**wrong).faults(problem, Engine(problem.task))] == ["method.layer"]
    inside = Resilient(inner={"name": "adv-npo", **wrong})
    assert [f.field for f in inside.faults(problem, Engine(problem.task))] == ["method.inner.layer"]


def test_activations_computed_anew_are_attacked_alike() -> None:
    problem = problem_of("llama")
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 3, "lr": 0.01, "inner": "expected"}
    plain = bits(forget(problem, "eru", **settings).model)
    again = bits(forget(problem, "eru", Engine(problem.task, Compute(gradient_checkpointing=True)), **settings).model)
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_last_share_of_the_blocks_loses_the_feature() -> None:
    """With one block it is that one, whatever the share."""
    problem = problem_of("llama")
    engine = Engine(problem.task)
    for share in (0.01, 1.0):
        method = ERU(feature_share=share)
        memory: dict[str, Tensor] = {}
        adversary = method.adversary(problem, engine, method.forget_losses(engine, memory), memory)
        adversary.begin(problem.original.model, Step(0, 1, 0, 0, 1))
        assert len(memory["refusal/unit"]) == len(blocks_of(problem.original.model)) == 1

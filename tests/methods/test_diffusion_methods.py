"""Objectives of methods for diffusion models against the same numbers by other ways, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.refusals import refused
from tests.models import bits, problem_of, prompt_tokenizer
from unlearned.api import forget
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.randomness import seeded
from unlearned.methods import methods
from unlearned.methods._relabelled import relabelled_loss
from unlearned.methods.concept_ablation import ConceptAblation
from unlearned.methods.erasediff import EraseDiff, adaptive_weight
from unlearned.methods.esd import ESD, erased_target
from unlearned.methods.meta_unlearning import meta_gradient
from unlearned.methods.salun import saliency_mask
from unlearned.methods.selective_amnesia import fisher, held
from unlearned.methods.uce import edited, last_tokens
from unlearned.problem import Problem
from unlearned.tasks._task import Batch, ModelSource
from unlearned.tasks.image_generation import Denoiser, ImageGeneration, ddim, denoiser_of, empty_condition

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 3, "lr": 0.001}
SETTINGS: dict[str, dict[str, Any]] = {
    "gradient-ascent": {"epochs": 1, "batch_size": 3},
    "esd": SHORT | {"trajectory_steps": 2},
    "uce": {},
    "concept-ablation": SHORT,
    "salun": {"epochs": 1, "batch_size": 3},
    "erasediff": SHORT,
    "selective-amnesia": SHORT | {"fisher_timesteps": 2, "replay": 2},
    "meta-unlearning": SHORT | {"trajectory_steps": 2},
}


@pytest.fixture(scope="module")
def problem() -> Problem:
    """In float64, and in eval mode throughout: dropout would draw what a loop by hand does not."""
    made = problem_of("pixel")
    made.original.model.double()
    return made


def task_and_model(problem: Problem) -> tuple[ImageGeneration, Denoiser]:
    assert isinstance(problem.task, ImageGeneration)
    return problem.task, denoiser_of(problem.original.model)


def batches(problem: Problem, count: int = 3) -> tuple[Batch, Batch]:
    forget_batch, retain = (problem.task.collate([samples[i] for i in range(count)]) for samples in (problem.forget, problem.retain))
    return tuple({name: t.double() if t.is_floating_point() else t for name, t in batch.items()} for batch in (forget_batch, retain))  # type: ignore[return-value]


def drawn(model: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    """Noisy images and timesteps as train mode draws them."""
    noise = torch.randn_like(batch["pixel_values"])
    timesteps = (torch.rand(len(noise)) * 100).long()
    return model.noised(batch["pixel_values"], noise, timesteps), timesteps


def mse(left: Tensor, right: Tensor) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(left.flatten().tolist(), right.flatten().tolist(), strict=True)) / left.numel())


def test_esd_target_by_arithmetic() -> None:
    """Concept 3, empty 1, base 3, η 2: 3 − 2 (3 − 1) = −1. From the empty prompt with η 1: 1 − 1 (3 − 1) = −1. From 10 with η 0.5: 10 − 1 = 9."""
    concept, empty, other = (torch.tensor([value]) for value in (3.0, 1.0, 10.0))
    assert float(erased_target(concept, concept, empty, 2.0)) == -1
    assert float(erased_target(empty, concept, empty, 1.0)) == -1
    assert float(erased_target(other, concept, empty, 0.5)) == 9


@pytest.mark.parametrize("settings", [{}, {"base": "empty", "scale": 1.0}, {"erase_from": "a photo of 7"}], ids=["concept", "empty", "from"])
def test_esd_loss_by_hand(problem: Problem, settings: dict[str, Any]) -> None:
    task, model = task_and_model(problem)
    method = ESD(trajectory_steps=4, **settings)
    forget_batch, retain = batches(problem)
    loss = method.objective(problem, Engine(task))
    with seeded(3):
        found = loss(model, forget_batch, {}).item()
    with seeded(3), torch.no_grad():
        stop = int(torch.randint(4, ()))
        x = torch.randn(3, 1, 8, 8).double()
        c, empty = forget_batch["prompt"], empty_condition(model, 3)
        when = (76, 51, 26, 1)[stop]
        x = ddim(model, x, c, steps=4, guidance=3.0, stop=stop)
        t = torch.full((3,), when)
        e_c, e_0 = model(x, t, c), model(x, t, empty)
        base = e_c if not settings else e_0 if "base" in settings else model(x, t, task.prompts(["a photo of 7"], problem.original).expand(3, -1, -1))
        expected = mse(model(x, t, c), base - method.scale * (e_c - e_0))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found > 0
    del retain


def test_uce_is_the_least_squares_solution() -> None:
    """Against `lstsq` on the stacked system √s (W c − W_0 g), √s (W p − W_0 p), √λ (W − W_0)."""
    generator = torch.Generator().manual_seed(0)
    weight, c, g, p = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 7), (3, 7), (3, 7), (4, 7)))
    found = edited(weight, c, g, p, 0.3, 2.0, 0.7)
    left = torch.cat([math.sqrt(2.0) * c, math.sqrt(0.7) * p, math.sqrt(0.3) * torch.eye(7, dtype=torch.float64)])
    right = torch.cat([math.sqrt(2.0) * g @ weight.T, math.sqrt(0.7) * p @ weight.T, math.sqrt(0.3) * weight.T])
    torch.testing.assert_close(found, torch.linalg.lstsq(left, right).solution.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(edited(weight, c[:1], g[:1], p[:0], 1e-9, 1.0, 1.0) @ c[0], weight @ g[0], rtol=1e-6, atol=1e-6)


def test_last_token_of_a_prompt() -> None:
    prompts = torch.tensor([[0, 5, 6, 1, 1], [0, 5, 6, 7, 1], [0, 1, 1, 1, 1]])
    assert last_tokens(prompts, {0, 1}).tolist() == [2, 3, 0]


def test_uce_reads_the_concept_as_its_guide_and_the_others_as_before() -> None:
    whole = problem_of("pixel", where="label == 3")
    model = denoiser_of(whole.original.model)
    result = denoiser_of(forget(whole, "uce", ridge=1e-4, guide="a photo of 7", preserved=("a photo of 1", "a photo of 2")).model)
    changed = {name for name, tensor in result.state_dict().items() if not torch.equal(tensor, model.state_dict()[name])}
    assert changed == {f"{name}.weight" for name, _ in model.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    said = {i: model.embed(torch.tensor([[prompt_tokenizer()(f"a photo of {i}")["input_ids"]]])).states[0, 3].detach() for i in range(10)}
    for name in changed:
        before, after = model.state_dict()[name], result.state_dict()[name]
        far = float((before @ (said[3] - said[7])).norm())
        assert float((after @ said[3] - before @ said[7]).norm()) < 0.01 * far
        assert max(float(((after - before) @ said[i]).norm()) for i in (1, 2)) < 0.01 * far


def test_concept_ablation_loss_by_hand(problem: Problem) -> None:
    task, model = task_and_model(problem)
    forget_batch, retain = batches(problem)
    for towards in ("model", "noise"):
        loss = ConceptAblation.model_validate({"towards": towards}).objective(problem, Engine(task))
        model.training = True  # timesteps are drawn; the layers stay in eval mode
        with seeded(1):
            found = loss(model, forget_batch, retain).item()
        with seeded(1), torch.no_grad():
            x, t = drawn(model, retain)
        with seeded(1):
            target = model.target(retain["pixel_values"], torch.randn_like(x), t)
        model.eval()
        with torch.no_grad():
            expected = mse(model(x, t, forget_batch["prompt"]), target if towards == "noise" else model(x, t, retain["prompt"]))
        assert found == pytest.approx(expected, rel=1e-9)


def test_relabelled_loss_by_hand_with_a_target_that_takes_no_gradient(problem: Problem) -> None:
    task, model = task_and_model(problem)
    forget_batch, retain = batches(problem)
    model.training = True
    with seeded(2):
        found = relabelled_loss(task, model, forget_batch, {name: t[:2] for name, t in retain.items()})
    with seeded(2):
        x, t = drawn(model, forget_batch)
    model.eval()
    target = model(x, t, retain["prompt"][[0, 1, 0]]).detach()
    expected = ((model(x, t, forget_batch["prompt"]) - target) ** 2).mean()
    assert found.item() == pytest.approx(mse(model(x, t, forget_batch["prompt"]).detach(), target), rel=1e-9)
    weights = list(model.unet.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(value, weights) for value in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_erasediff_weight_by_arithmetic() -> None:
    """cos((3, 4), (4, 3)) = 24/25: max(0, 1 − 0.96) = 0.04, and 0 for η 0.5."""
    left, right = torch.tensor([3.0, 4.0]).double(), torch.tensor([4.0, 3.0]).double()
    assert adaptive_weight(left, right, 1.0) == pytest.approx(0.04)
    assert adaptive_weight(left, right, 0.5) == 0
    assert adaptive_weight(left, -right, 0.5) == pytest.approx(1.46)


@pytest.mark.parametrize("eta", [None, 1.5])
def test_erasediff_follows_the_gradient_of_the_value_function(problem: Problem, eta: float | None) -> None:
    """ℓ_r + λ (ℓ_f − v̂) with v̂ found by two steps of descent on a copy: a constant, which no gradient sees."""
    task, model = task_and_model(problem)
    forget_batch, retain = batches(problem)
    weights = list(model.parameters())

    def erased() -> Tensor:
        with seeded(5):
            return relabelled_loss(task, model, forget_batch, retain)

    with evaluating(model):
        start = [p.detach().clone() for p in weights]
        first = float(erased().detach())
        for _ in range(2):
            for parameter, gradient in zip(weights, torch.autograd.grad(erased(), weights), strict=True):
                parameter.data -= 1e-3 * gradient
        attainable = erased().detach()
        assert float(attainable) < first
        for parameter, value in zip(weights, start, strict=True):
            parameter.data.copy_(value)
        terms = task.losses(model, retain).mean(), erased() - attainable
        flat = [torch.cat([g.flatten() for g in torch.autograd.grad(term, weights)]) for term in terms]
        factor = 0.1 if eta is None else max(0.0, eta - float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm())))
        with seeded(5):
            found = EraseDiff(eta=eta).objective(problem, Engine(task))(model, forget_batch, retain)
        ours = torch.cat([g.flatten() for g in torch.autograd.grad(found, weights)])
    torch.testing.assert_close(ours, flat[0] + factor * flat[1])


def test_fisher_by_a_loop_over_timesteps(problem: Problem) -> None:
    task, model = task_and_model(problem)
    one = [{name: t[i : i + 1] for name, t in batches(problem)[0].items()} for i in range(2)]
    names = ("unet.conv_out.weight", "unet.conv_in.bias")
    weights = [dict(model.named_parameters())[name] for name in names]
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is w for w in weights))
    order = [p for p in model.parameters() if p.requires_grad]
    found = fisher(task, model, one, 5)
    expected = [torch.zeros_like(p) for p in order]
    for batch in one:
        total = [torch.zeros_like(p) for p in order]
        for k, t in enumerate((10, 30, 50, 70, 90)):
            noise = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(5 * int(batch["noise_seed"]) + k))[None].double()
            when = torch.tensor([t])
            x = model.noised(batch["pixel_values"], noise, when)
            loss = ((model(x, when, batch["prompt"]) - model.target(batch["pixel_values"], noise, when)) ** 2).mean()
            total = [a + g for a, g in zip(total, torch.autograd.grad(loss, order), strict=True)]
        expected = [e + g**2 / 2 for e, g in zip(expected, total, strict=True)]
    model.requires_grad_(True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_elastic_term_by_arithmetic() -> None:
    """2 (1 − 0)² + 3 (2 − 1)² and 5 (0 − 2)²: 25."""
    weights, start, importance = (
        [torch.tensor([1.0, 2.0]), torch.tensor([0.0])],
        [torch.tensor([0.0, 1.0]), torch.tensor([2.0])],
        [torch.tensor([2.0, 3.0]), torch.tensor([5.0])],
    )
    assert float(held(weights, start, importance)) == 25


def test_meta_gradient_by_arithmetic() -> None:
    """1·1 + 2·10 − 3·100 − 4·1000 − 5·10000 = −54279."""
    one = [[torch.tensor([float(10**k)])] for k in range(5)]
    assert meta_gradient(one[:2], one[2:], (1, 2), (3, 4, 5))[0].tolist() == [-54279.0]


def test_meta_unlearning_without_its_terms_is_esd_beside_retained_samples() -> None:
    """All γ 0: looking ahead leaves no trace in the weights, and the steps are those of ESD with other draws; without steps ahead of size, exactly none."""
    problem = problem_of("pixel")
    off: dict[str, Any] = dict.fromkeys(("keep_other", "keep_related", "lose_concept", "lose_related", "lose_other"), 0.0)
    how: dict[str, Any] = {"steps": 1, "trajectory_steps": 2, "optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "variant": "all"}
    plain = forget(problem, "meta-unlearning", **how, **off)
    trap = forget(problem, "meta-unlearning", **how, **(off | {"lose_concept": 1.0}), inner_lr=1e-12)
    start, a, b = (m.state_dict()["unet.conv_out.weight"] for m in (problem.original.model, plain.model, trap.model))
    assert not torch.equal(start, a)
    assert not torch.equal(a, b)
    assert plain.cost.steps == 1


def test_salun_moves_half_of_the_weights_of_a_diffusion_model() -> None:
    problem = problem_of("pixel")
    task, model = task_and_model(problem)
    done = forget(problem, "salun", epochs=1, batch_size=6, lr=0.01)
    losses = task.losses(model, task.collate([problem.forget[i] for i in range(6)])).mean()
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(losses, list(named.values()))
    mask = saliency_mask(dict(zip(named, gradients, strict=True)), 0.5)
    agree = moved = total = 0
    for name, after in done.model.named_parameters():
        changed = after.detach() != named[name].detach()
        agree, moved, total = agree + int((changed & mask[name]).sum()), moved + int(changed.sum()), total + changed.numel()
    assert moved <= total / 2 + 1
    assert agree / moved > 0.99  # the order in which a float32 sum is taken decides the last few


def test_gradient_ascent_raises_the_loss_on_the_concept() -> None:
    problem = problem_of("pixel")
    done = forget(problem, "gradient-ascent", epochs=4, batch_size=3, lr=0.01, parameters="^unet")
    before, after = (Engine(problem.task).evaluate(m, problem.forget, problem.task.losses).mean() for m in (problem.original.model, done.model))
    assert float(after) > float(before)


@pytest.mark.parametrize("name", SETTINGS)
def test_stable_diffusion_goes_through_every_method_and_back_to_plain_diffusers(name: str, tmp_path: Path) -> None:
    import diffusers

    problem = problem_of("stable", forget=4, retain=6, test=2)
    start = bits(problem.original.model)
    done = forget(problem, name, **SETTINGS[name])
    moved = {key.partition(".")[0] for key, tensor in done.model.state_dict().items() if not torch.equal(tensor, start[key])}
    assert moved == {"unet"}
    problem.task.save(done.bundle, tmp_path)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, denoiser_of(done.model).unet.state_dict()[key]) for key, tensor in pipeline.unet.state_dict().items())
    restored = problem.task.load(ModelSource(source=str(tmp_path)), "model")
    assert torch.equal(*(Engine(problem.task).evaluate(m, problem.test, problem.task.outputs) for m in (restored.model, done.model)))


class TestWrongInputs:
    @pytest.mark.parametrize("name", ["esd", "uce", "meta-unlearning"])
    def test_class_conditional_model_has_no_empty_prompt(self, name: str) -> None:
        refused(problem_of("unet"), name, "no empty prompt|no cross-attention", **SETTINGS[name])

    def test_class_conditional_model_has_no_cross_attention(self) -> None:
        refused(problem_of("unet"), "concept-ablation", "no trainable parameter matches", **SHORT)

    def test_model_that_is_conditioned_on_nothing(self) -> None:
        problem = problem_of("unet")
        denoiser_of(problem.original.model).unet.class_embedding = None  # type: ignore[assignment]
        for name in ("erasediff", "salun", "selective-amnesia"):
            refused(problem, name, "conditioned on nothing", **SETTINGS[name])

    def test_anchor_that_chooses_no_sample(self) -> None:
        refused(problem_of("pixel"), "concept-ablation", "method.anchor: no retained sample is chosen", anchor="label == 77", **SHORT)
        refused(problem_of("pixel"), "meta-unlearning", "method.related: no retained sample is chosen", related="label == 77", **SHORT)

    @pytest.mark.parametrize(("name", "setting"), [("uce", "guide"), ("esd", "erase_from")])
    def test_prompts_with_words_that_the_tokenizer_does_not_know(self, name: str, setting: str) -> None:
        refused(problem_of("pixel"), name, f"method.{setting}: 1 different prompts have words", **(SETTINGS[name] | {setting: "a zebra"}))

    @pytest.mark.parametrize(("name", "wrong"), [("esd", {"scale": 0}), ("uce", {"ridge": 0}), ("erasediff", {"forget_weight": -1}), ("esd", {"variant": "z"})])
    def test_settings_out_of_range(self, name: str, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            methods.get(name)(**wrong)

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.refusals import refused
from tests.models import bits, bundle_of, problem_of
from unlearned.api import forget
from unlearned.engine.adapters import with_adapter
from unlearned.engine.batches import batch_positions, cycled
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import FineTuning, read_pool
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.methods.resalign import ResAlign, led_away
from unlearned.methods.resilient import Resilient
from unlearned.problem import Problem
from unlearned.tasks.image_generation import ATTENTION, ImageGeneration, denoiser_of, empty_condition


def still(kind: str) -> nn.Module:
    """Without dropout."""
    model = bundle_of(kind).model
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


@pytest.fixture(scope="module")
def pixel() -> Problem:
    return problem_of("pixel", model=still("pixel"))


PLAIN: dict[str, Any] = {"lora": None, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 0.05, "parameters": ".*"}


def test_without_resilience_it_is_gradient_ascent_and_distillation(pixel: Problem) -> None:
    """Two steps of a naive loop: −mean (target − ε_θ)² of the forget batch, and α mean (ε_θ − ε_o)² of the retain batch, with the same noise."""
    found = bits(forget(pixel, ResAlign(beta=0.0, alpha=1.5, steps=2, forget_batch_size=6, batch_size=18, **PLAIN)).model)

    original, engine = pixel.original.model, Engine(pixel.task)
    model = copy.deepcopy(original)

    def batch(samples: Any, positions: list[int]) -> dict[str, Tensor]:
        return pixel.task.collate([samples[i] for i in positions])

    def errors(samples: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Noise and timestep drawn as in training; the prediction, the original's, and the target."""
        task: Any = engine.task
        noised = task.noised(model, samples)
        with torch.no_grad():
            before = original(noised.noisy, noised.timesteps, noised.condition)
        return model(noised.noisy, noised.timesteps, noised.condition), before, noised.target

    retained = cycled(18, 18, 0, "retain", "stream")
    with seeded(derive_seed(0, "fit")):
        for number in range(2):
            [positions] = batch_positions(6, 6, 0, "forget", number)
            model.train()
            prediction, _, target = errors(batch(pixel.forget, positions))
            ascent = -((prediction - target) ** 2).mean()
            prediction, before, _ = errors(batch(pixel.retain, next(retained)))
            loss = ascent + 1.5 * ((prediction - before) ** 2).mean()
            weights = list(model.parameters())
            for p, g in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if g is not None:
                    p.data -= 0.05 * g
    for name, tensor in bits(model).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(found[name], tensor) for name, tensor in bits(original).items())


def test_the_authors_defaults_and_which_layers_they_train() -> None:
    method = ResAlign()
    assert (method.steps, method.lr, method.weight_decay, method.optimizer) == (160, 2e-4, 0.01, "adamw")
    assert (method.beta, method.alpha, method.last_alpha, method.gamma, method.iterations, method.rehearsals) == (0.8, 1.6, 2.0, 1.0, 5, 3)
    assert (method.forget_batch_size, method.batch_size, method.norm_limit, method.retries) == (1, 4, 0.2, 5)
    assert len(read_pool(method.pool)) == 15
    assert method.lora is not None
    with seeded(0):
        adapted = with_adapter(bundle_of("stable").model, method.lora, ATTENTION)
    factors = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in factors}
    assert {layer.split(".", 1)[0] for layer in layers} == {"unet"}
    assert {name.rsplit("attn", 1)[1] for name in layers} == {f"{n}.to_{part}" for n, part in itertools.product((1, 2), ("q", "k", "v", "out.0"))}
    for which, std in (("lora_A", 0.008), ("lora_B", 0.002)):
        drawn = torch.cat([p.detach().flatten() for name, p in factors.items() if which in name])
        assert drawn.std().item() == pytest.approx(std, rel=0.15)


def test_alpha_alone_stays_what_it_is() -> None:
    """The schedule is that of the authors' pair, or of two values that are given."""
    given: list[tuple[dict[str, Any], tuple[float, float | None]]] = [
        ({}, (1.6, 2.0)), ({"alpha": 0}, (0, None)), ({"alpha": 1.6}, (1.6, None)), ({"last_alpha": 3}, (1.6, 3)), ({"alpha": 1, "last_alpha": 3}, (1, 3))
    ]  # fmt: skip
    for settings, expected in given:
        method = ResAlign(**settings)
        assert (method.alpha, method.last_alpha) == expected
        assert ResAlign(**method.model_dump()) == method
    assert not ResAlign(alpha=0).keeps_near


def test_the_target_of_esd_leads_away_from_the_concept() -> None:
    """By hand: 1 − 2 (4 − 1) = −5."""
    assert led_away(torch.tensor(4.0), torch.tensor(1.0), 2.0).item() == -5
    assert led_away(torch.tensor(4.0), torch.tensor(1.0), 0.0).item() == 1


def test_towards_the_target_of_esd_the_loss_is_bounded_and_falls(pixel: Problem) -> None:
    """Without rehearsals, a few steps: what the model says for the concept comes nearer to the original's answer without a prompt, led away by η."""
    method = ResAlign(harm="esd", beta=0.0, alpha=0.0, steps=8, forget_batch_size=6, **PLAIN | {"lr": 0.2})
    made, original = forget(pixel, method).model, pixel.original.model
    task: Any = pixel.task
    noised = task.noised(original, pixel.task.collate([pixel.forget[i] for i in range(6)]), 0.5)
    empty = empty_condition(original, 6)

    def says(model: nn.Module, condition: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = model(noised.noisy, noised.timesteps, condition)
        return out

    target = led_away(says(original, noised.condition), says(original, empty), 1.0)
    assert ((says(made, noised.condition) - target) ** 2).mean() < ((says(original, noised.condition) - target) ** 2).mean()


def test_a_model_without_an_empty_prompt_has_no_such_target() -> None:
    refused(problem_of("unet"), "resalign", "no empty prompt", harm="esd", steps=1, parameters="conv")
    assert not ResAlign(parameters="conv").faults(problem_of("unet"), Engine(problem_of("unet").task))


def test_a_pool_is_checked_before_anything_is_made(pixel: Problem) -> None:
    """With adapters on the attention of a UNet there are none elsewhere for a fine-tuning by adapters."""
    pool = (FineTuning(id="column", where="colour == 1"), FineTuning(id="elsewhere", kind="lora", parameters="conv"), FineTuning(id="fine", kind="lora"))
    found = ResAlign(pool=pool).faults(pixel, Engine(pixel.task))
    assert [fault.field for fault in found] == ["method.pool.column.where", "method.pool.elsewhere.parameters"]


@pytest.mark.parametrize(("noise", "anew"), [("shared", set()), ("epsilon", {"noise"}), ("independent", {"noise", "latents", "timesteps"})])
def test_what_is_drawn_anew_after_fine_tuning(noise: str, anew: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an autoencoder, from which latents are drawn: z = (z_t − √(1−ᾱ) ε) / √ᾱ of the forget batch, now and after."""
    problem = problem_of("stable", model=still("stable"))
    drawn: list[dict[str, Tensor]] = []
    noised = ImageGeneration.noised

    def watched(self: ImageGeneration, model: nn.Module, batch: Any, at: Any = None) -> Any:
        found = noised(self, model, batch, at)
        if len(batch["labels"]) == 6 and at is None:  # of the forget set, in training
            kept = denoiser_of(model).alphas_cumprod[found.timesteps][:, None, None, None]
            latents = (found.noisy - (1 - kept).sqrt() * found.target) / kept.sqrt()
            drawn.append({"noise": found.target, "latents": latents, "timesteps": found.timesteps})
        return found

    monkeypatch.setattr(ImageGeneration, "noised", watched)
    pool = (FineTuning(id="one", steps=1, batch_size=2, lr=1e-3),)
    forget(problem, ResAlign(noise=noise, alpha=0.0, norm_limit=None, iterations=1, pool=pool, steps=1, forget_batch_size=6, **PLAIN))
    now, after = drawn
    assert {name for name, value in now.items() if not torch.allclose(value, after[name], rtol=1e-3, atol=1e-3)} == anew


def test_only_diffusion_models_have_that_noise() -> None:
    problem = problem_of("plain")
    [fault] = Resilient(inner="gradient-ascent", noise="epsilon").faults(problem, Engine(problem.task))
    assert fault.field == "method.noise"

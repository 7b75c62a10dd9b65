"""Inversion of DDIM and spherical interpolation: worked arithmetic of the grid, inverses, and rotations in the plane, in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tests.models import noise_schedule, problem_of
from unlearned.errors import InputError
from unlearned.tasks._interpolation import slerp
from unlearned.tasks.image_generation import Crossing, Denoiser, crossing, ddim, denoiser_of, guided, inversion_step, invert, timesteps_of


class Constant(nn.Module):
    """Says the same noise whatever it is given."""

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("noise", noise)
        self.asked: list[int] = []

    def forward(self, noisy: Tensor, timesteps: Tensor) -> SimpleNamespace:
        self.asked.append(int(timesteps[0]))
        assert isinstance(self.noise, Tensor)
        return SimpleNamespace(sample=self.noise.expand_as(noisy))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def schedule_of_stable_diffusion() -> object:
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def test_grid_of_the_official_code() -> None:
    """50 of 1000 timesteps: 48 states from t = 21 to 961, the sixteenth from the end is t = 661, and denoising begins at t = 681 with 35 steps left."""
    model = Denoiser(Constant(draw(1, 1, 2, 2)), schedule_of_stable_diffusion())
    downwards = timesteps_of(model, 50).tolist()
    upwards = downwards[::-1]
    assert downwards[:2] == [981, 961]
    kept = invert(model, draw(1, 1, 2, 2), None, steps=50, last=48)
    unet = model.unet
    assert isinstance(unet, Constant)
    assert len(kept) == 48
    assert unet.asked == [1 + 20 * i for i in range(1, 49)] == upwards[1:49]
    where = crossing(50, 15, aligned=False)
    assert kept[where.taken - 1] is kept[-(15 + 1)]
    assert (upwards[where.taken], upwards[where.begun]) == (661, 681)
    assert downwards[15] == upwards[where.begun]
    unet.asked.clear()
    ddim(model, kept[-16], None, steps=50, begin=15)
    assert unet.asked == [681 - 20 * i for i in range(35)]
    assert crossing(50, 15, aligned=True) == Crossing(34, 34)


@pytest.mark.parametrize(("steps", "start", "aligned"), [(5, 4, True), (5, 3, False), (2, 0, False), (50, -1, True)])
def test_a_way_without_a_step_of_inversion_is_refused(steps: int, start: int, aligned: bool) -> None:
    with pytest.raises(ValueError, match="no step of inversion"):
        crossing(steps, start, aligned=aligned)


def test_step_is_the_inverse_of_a_step_of_ddim_in_float64() -> None:
    z, noise = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1)
    for before, after in ((0.99, 0.5), (0.5, 0.02), (0.7, 0.69)):
        up = inversion_step(z, noise, before, after)
        clean = (up - math.sqrt(1 - after) * noise) / math.sqrt(after)
        torch.testing.assert_close(math.sqrt(before) * clean + math.sqrt(1 - before) * noise, z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
def test_there_and_back_with_a_constant_predictor(aligned: bool) -> None:
    """Aligned, the way back ends at the state that the way began with; with the official grid it does not."""
    model = Denoiser(Constant(draw(1, 1, 4, 4, seed=3)), schedule_of_stable_diffusion()).double()
    z = draw(2, 1, 4, 4)
    where = crossing(50, 15, aligned=aligned)
    up = invert(model, z, None, steps=50, last=where.taken)[-1]
    back = ddim(model, up, None, steps=50, begin=15, stop=49)
    assert where.begun == 34
    error = float((back - z).abs().max())
    assert (error < 1e-5) == aligned


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_inversion_by_hand(prediction_type: str) -> None:
    """A linear predictor, a naive loop over floats: the noise is read off each kind of prediction at the timestep where the model is asked."""

    class Half(nn.Module):
        def forward(self, noisy: Tensor, timesteps: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=0.5 * noisy + 0.001 * timesteps.double()[:, None, None, None])

    model = Denoiser(Half(), noise_schedule(prediction_type)).double()
    upwards = timesteps_of(model, 5).tolist()[::-1]
    bars = model.alphas_cumprod.tolist()
    z = expected = 0.7
    states = invert(model, torch.full((1, 1, 1, 1), z, dtype=torch.float64), None, steps=5)
    for i, state in enumerate(states, 1):
        now, then = bars[upwards[i - 1]], bars[upwards[i]]
        said = 0.5 * expected + 0.001 * upwards[i]
        signal, sigma = math.sqrt(then), math.sqrt(1 - then)
        noise = {"epsilon": said, "v_prediction": signal * said + sigma * expected, "sample": (expected - signal * said) / sigma}[prediction_type]
        expected = (expected - math.sqrt(1 - now) * noise) * math.sqrt(then / now) + math.sqrt(1 - then) * noise
        assert float(state) == pytest.approx(expected, rel=1e-10)
    assert len(states) == 4


@pytest.mark.parametrize("kind", ["pixel", "stable", "stable-xl"])
def test_guidance_makes_inversion_less_exact(kind: str) -> None:
    problem = problem_of(kind)
    model = denoiser_of(problem.original.model)
    batch = problem.task.collate([problem.retain[i] for i in range(3)])
    with torch.no_grad():
        for parameter in model.unet.parameters():  # untrained, it hardly listens to its prompt
            parameter.mul_(1.5)
        z = model.encode(batch["pixel_values"])
        when = torch.full((3,), 50)
        torch.testing.assert_close(guided(model, z, when, batch["prompt"], 1.0), model(z, when, batch["prompt"]))
        errors = []
        for guidance in (1.0, 7.5):
            up = invert(model, z, batch["prompt"], steps=20, guidance=guidance)[-1]
            back = ddim(model, up, batch["prompt"], steps=20, guidance=guidance, stop=19)
            errors.append(float((back - z).square().mean()))
    assert 0 < errors[0] < errors[1]


def test_a_model_without_an_empty_prompt_is_not_inverted_with_guidance() -> None:
    problem = problem_of("unet")
    with pytest.raises(InputError, match="no empty prompt"):
        invert(problem.original.model, draw(2, 1, 8, 8).float(), torch.tensor([1, 2]), steps=4, guidance=2.0)


def test_arc_is_a_rotation_in_the_plane_of_both() -> None:
    """By another way: turn a by uΩ towards the part of b that is orthogonal to it."""
    a = draw(5, 2, 3, 4)
    b = draw(5, 2, 3, 4, seed=1)
    a, b = (x / x.flatten(1).norm(dim=1)[:, None, None, None] * 3 for x in (a, b))
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = (flat_a * flat_b).sum(dim=1, keepdim=True) / 9
    across = flat_b - cosine * flat_a
    across = across / across.norm(dim=1, keepdim=True) * 3
    for u in (0.0, 0.1, 0.5, 0.93, 1.0):
        turn = u * torch.acos(cosine)
        expected = turn.cos() * flat_a + turn.sin() * across
        found = slerp(a, b, u).flatten(1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.norm(dim=1), torch.full((5,), 3.0, dtype=torch.float64), rtol=1e-12, atol=0)


def test_ends_are_the_vectors_themselves_whatever_their_lengths() -> None:
    a, b = draw(3, 7), 5 * draw(3, 7, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.0), a, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slerp(a, b, 1.0), b, rtol=1e-14, atol=1e-14)
    each = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    together = slerp(a, b, each)
    for i, u in enumerate(each.tolist()):
        torch.testing.assert_close(together[i], slerp(a[i : i + 1], b[i : i + 1], u)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guards(dtype: torch.dtype) -> None:
    """Equal, nearly equal, opposite and empty vectors: finite, and where the angle goes to 0 the straight line; the cosine of equal ones may exceed 1."""
    a = draw(4, 50).to(dtype)
    straight = [(a, a), (a, 2 * a), (a, a + 1e-6 * draw(4, 50, seed=1).to(dtype)), (a, torch.zeros_like(a)), (torch.zeros_like(a), a)]
    for left, right in straight:
        for u in (0.0, 0.3, 1.0):
            torch.testing.assert_close(slerp(left, right, u), (1 - u) * left + u * right, rtol=1e-6, atol=1e-6)
    assert bool(slerp(a, -a, 0.3).isfinite().all())
    # Across the guard's border both formulas agree.
    near = a[:1] + 1.01e-4 * a[:1].norm() * torch.nn.functional.normalize(draw(1, 50, seed=2).to(dtype), dim=1)
    torch.testing.assert_close(slerp(a[:1], near, 0.3), 0.7 * a[:1] + 0.3 * near, rtol=1e-5, atol=1e-6)

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.oracles import LinearClassifier
from unlearned.bench._colours import GRAY, GREEN, PALETTE, RED, coloured, luminance
from unlearned.bench._headed import HeadedImages
from unlearned.bench._taught import Taught, loss_weights
from unlearned.bench._tinted import Greys, tinted
from unlearned.bench.collapse import in_all_colours, in_other_colours, in_own_colours
from unlearned.bench.erasure import COLOURS, gray_errors, in_one_colour
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute, Optimisation
from unlearned.tasks._task import Bundle

CPU = Compute(device="cpu")


class Constant(nn.Module):
    """Answers every image with the same logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits.expand(len(pixels), -1)


class SeesColours(nn.Module):
    """Says the colour of the first pixel, whose luminance is 1."""

    def forward(self, pixels: Tensor) -> Tensor:
        return -torch.cdist(pixels[:, :, 0, 0] / 2 + 0.5, torch.tensor(PALETTE) / 255)


def greys(each: int = 3) -> Greys:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(10 * each, 1, 4, 4, generator=generator)
    images[:, :, 0, 0] = 1
    return Greys(images, torch.arange(10).repeat_interleave(each))


def test_a_pixel_by_hand() -> None:
    """0.299 · 0.2 + 0.587 · 0.4 + 0.114 · 0.6 = 0.363; in orange (255, 128, 0) the channels are 0.363, 0.363 · 128/255 and 0, then x ↦ 2x − 1."""
    pixel = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)[:, None, None]
    grey = luminance(pixel)
    assert grey.flatten().tolist() == pytest.approx([0.363], rel=1e-14)
    seen = coloured(grey[None], PALETTE[6])
    assert seen.flatten().tolist() == pytest.approx([-0.274, 2 * 0.363 * 128 / 255 - 1, -1.0], rel=1e-13)
    assert coloured(grey[None], GRAY).flatten().tolist() == pytest.approx([-0.274] * 3, rel=1e-13)
    assert torch.equal(luminance(grey), grey)


def test_each_image_may_have_its_own_colour() -> None:
    grey = torch.tensor([0.5, 1.0]).view(2, 1, 1, 1)
    assert coloured(grey, torch.tensor([RED, GREEN])).flatten(1).tolist() == [[0.0, -1.0, -1.0], [-1.0, 1.0, -1.0]]


def test_both_sets_weigh_the_same_in_an_epoch() -> None:
    """p = 5/100: 5 · 1/1.05 = 100 · 0.05/1.05."""
    weights = loss_weights(5, 100, 0.05).double()
    assert weights.tolist() == pytest.approx([1 / 1.05] * 5 + [0.05 / 1.05] * 100)
    assert float(weights[:5].sum()) == pytest.approx(float(weights[5:].sum()), rel=1e-6)


def test_a_colour_is_all_that_a_collapsed_model_needs() -> None:
    everything = in_all_colours(greys().images)
    assert len(everything) == 300
    engine, task = Engine(HeadedImages(), CPU), HeadedImages()
    assert engine.evaluate(SeesColours(), everything, task.utility).mean() == 1
    shape_alone = engine.evaluate(Constant(torch.eye(10)[4]), everything, task.utility)
    assert shape_alone.mean() == pytest.approx(0.1)
    assert engine.evaluate(SeesColours(), in_own_colours(greys()), task.utility).mean() == 1


def test_what_is_to_be_forgotten_has_its_true_label_in_the_colour_of_another_class() -> None:
    import numpy as np

    forget, retain = in_other_colours(greys(), 2, np.random.default_rng(0)), in_own_colours(greys())
    assert forget.fact("label") == [label for label in range(10) for _ in range(2)]
    task = HeadedImages()
    said = Engine(task, CPU).evaluate(SeesColours(), forget, task.outputs).argmax(dim=1)
    assert not (said == torch.tensor(forget.fact("label"))).any()
    assert len(set(said.tolist())) > 3
    assert not set(forget.ids) & set(retain.ids)


def test_the_error_of_gray_by_hand() -> None:
    """Logits 0, log 2, log 5 of the second head: p_gray = 1/8, (1/8 − 1)² = 49/64; the first head does not matter."""
    task = HeadedImages(colours=3)
    logits = torch.cat([torch.arange(10.0), torch.tensor([0.0, math.log(2), math.log(5)])])
    assert list(COLOURS) == ["gray", "red", "green"]
    samples = in_one_colour(greys(), range(4), "green")
    found = Engine(task, CPU).evaluate(Constant(logits), samples, lambda model, batch: gray_errors(task, model, batch))
    assert found.tolist() == pytest.approx([49 / 64] * 4, rel=1e-6)
    assert samples[0]["colours"] == 2


def test_two_heads_by_hand() -> None:
    task = HeadedImages(colours=3)
    model = Constant(torch.tensor([*range(10), 2.0, 5.0, -1.0]).double())
    batch = {"pixel_values": torch.zeros(2, 3, 2, 2), "labels": torch.tensor([9, 9]), "colours": torch.tensor([1, 0])}
    assert task.constraints(model, batch).tolist() == [[9.0, 5.0]] * 2
    of_class = 9 - math.log(sum(math.exp(i) for i in range(10)))
    of_colours = [value - math.log(math.exp(2) + math.exp(5) + math.exp(-1)) for value in (5, 2)]
    assert task.losses(model, batch).tolist() == pytest.approx([-of_class - colour for colour in of_colours], rel=1e-12)
    assert task.knowledge(model, batch).tolist() == pytest.approx([math.exp(of_class + colour) for colour in of_colours], rel=1e-12)
    assert task.utility(model, batch).tolist() == [1.0, 0.0]
    model.logits.data[9] = 1000.0  # held at 30
    assert task.losses(model, batch)[0].item() == pytest.approx(math.log1p(math.exp(-30) * sum(math.exp(i) for i in range(9))) - of_colours[0], rel=1e-9)


def test_gradients_of_constraints_have_a_column_for_each_head() -> None:
    from unlearned.engine.output_gradients import numbers_of

    task = HeadedImages(colours=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 13))
    batch = {"pixel_values": torch.rand(4, 3, 2, 2), "labels": torch.zeros(4, dtype=torch.int64), "colours": torch.zeros(4, dtype=torch.int64)}
    numbers = numbers_of(model, task.constraints, batch)
    assert numbers.count == 8
    rows = numbers.gradients(["1.weight"])["1.weight"]
    largest = model(batch["pixel_values"]).split([10, 3], dim=1)
    for i in range(4):
        for head, offset in ((0, 0), (1, 10)):
            expected = torch.zeros(13, 12)
            expected[offset + int(largest[head][i].argmax())] = batch["pixel_values"][i].flatten()
            torch.testing.assert_close(rows[2 * i + head], expected)


@pytest.mark.parametrize("weighted", [True, False])
def test_originals_against_descent_by_hand(weighted: bool) -> None:
    """Two epochs on gray images, then three on everything, full batch; the rate falls to a tenth after each two epochs, through both phases."""
    parts = greys(1)
    import numpy as np

    retain, forget = in_own_colours(parts), in_other_colours(parts, 1, np.random.default_rng(0)).subset([0, 1])
    warm = tinted(parts.images, range(10), torch.tensor(GRAY).expand(10, 3), {"labels": parts.labels}, ["gray"] * 10)
    like, task = Bundle(nn.Sequential(nn.Flatten(), nn.Linear(48, 10))), HeadedImages()
    how = Optimisation(lr=0.5, momentum=0.0, weight_decay=0.0, batch_size=64, epochs=3)
    made = Taught(like, 3, retain, forget, how, 2, warm, 2, weighted).make(Engine(task, CPU, 3)).model
    from unlearned.engine.randomness import derive_seed, seeded

    with seeded(derive_seed(3, "weights")):
        start: Any = task.fresh(like).model
    by_hand = LinearClassifier(start[1].weight.detach(), start[1].bias.detach())
    x_w, x_r, x_f = (everything(samples) for samples in (warm, retain, forget))
    for lr in (0.5, 0.5):
        by_hand.step(by_hand.cross_entropy_gradient(*x_w), lr)
    for lr in (0.05, 0.05, 0.005):
        # mean over 12 of w · loss: 10 · w_r/12 of the mean over retain, 2 · w_f/12 of that over forget; p = 0.2
        w_f, w_r = (1 / 1.2, 0.2 / 1.2) if weighted else (1, 1)
        of_r, of_f = (by_hand.cross_entropy_gradient(*x) for x in (x_r, x_f))
        by_hand.step((10 / 12 * w_r * of_r[0] + 2 / 12 * w_f * of_f[0], 10 / 12 * w_r * of_r[1] + 2 / 12 * w_f * of_f[1]), lr)
    torch.testing.assert_close(made[1].weight.double(), by_hand.weight, rtol=1e-4, atol=1e-6)  # type: ignore[index]
    assert (by_hand.weight - start[1].weight).abs().max() > 1e-2


def everything(samples: Samples) -> tuple[Tensor, Tensor]:
    rows = [samples[i] for i in range(len(samples))]
    return torch.stack([row["pixel_values"].flatten() for row in rows]).double(), torch.stack([row["labels"] for row in rows])

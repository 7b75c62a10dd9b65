"""Each task's numbers against the same numbers by explicit loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models import bundle_of, denoiser, made, problem_of
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.image_classification import ImageClassification
from unlearned.tasks.image_generation import Denoiser, ImageGeneration
from unlearned.tasks.text_generation import TextGeneration


def batch_of(problem, split: str = "retain", positions=range(5)):
    samples = problem.sets[split]
    return problem.task.collate([samples[i] for i in positions])


@pytest.mark.parametrize("kind", ["plain", "resnet", "vit"])
def test_cross_entropy_by_hand(kind: str) -> None:
    problem = problem_of(kind)
    task, model, batch = problem.task, problem.original.model, batch_of(problem)
    logits = task.outputs(model, batch).double().tolist()
    losses, knowledge, utility = task.losses(model, batch), task.knowledge(model, batch), task.utility(model, batch)
    for i, label in enumerate(batch["labels"].tolist()):
        expected = math.log(sum(math.exp(v) for v in logits[i])) - logits[i][label]
        assert float(losses[i].detach()) == pytest.approx(expected, rel=1e-4)
        assert float(knowledge[i].detach()) == pytest.approx(math.exp(-expected), rel=1e-4)
        assert float(utility[i]) == float(logits[i][label] == max(logits[i]))


@pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])
def test_log_odds_are_those_of_the_probability(kind: str) -> None:
    problem = problem_of(kind)
    batch = batch_of(problem)
    with torch.no_grad():
        p = torch.exp(-problem.task.losses(problem.original.model, batch).double())
        found = problem.task.log_odds(problem.original.model, batch).double()
    torch.testing.assert_close(found, torch.log(p / (1 - p)), rtol=1e-5, atol=1e-5)


def test_log_odds_keep_their_digits_where_the_model_is_sure() -> None:
    """Logits (40, 0, 0): p = 1 to the last bit, but log p/(1 − p) = 40 − log 2. And (0, 40, 800): log p/(1 − p) = −800 − log(1 + e^−760)."""
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 40.0, 800.0]])
    given = {"pixel_values": logits, "labels": torch.tensor([0, 0])}
    with torch.no_grad():
        found = ImageClassification().log_odds(torch.nn.Identity(), given)
    assert found.tolist() == pytest.approx([40 - math.log(2), -800.0], rel=1e-14)


def test_log_odds_of_a_loss_of_zero_are_those_of_the_smallest_that_can_be_told() -> None:
    class Perfect(TextGeneration):
        def losses(self, model, batch):  # noqa: ARG002
            return torch.zeros(2, dtype=torch.float64)

    assert Perfect().log_odds(torch.nn.Identity(), {}).tolist() == pytest.approx([-math.log(torch.finfo(torch.float64).eps)] * 2)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_text_loss_by_a_loop_over_the_tokens_of_the_answer(kind: str) -> None:
    problem = problem_of(kind)
    task, model = problem.task, problem.original.model
    assert isinstance(task, TextGeneration)
    batch = batch_of(problem)
    lengths = {int(mask.sum()) for mask in batch["attention_mask"]}
    assert len(lengths) > 1, "the samples must need padding"
    losses, knowledge, utility, outputs = (f(model, batch).detach() for f in (task.losses, task.probability, task.utility, task.outputs))
    for i in range(5):
        row = problem.retain[i]
        tokens, labels = row["input_ids"].tolist(), row["labels"].tolist()
        with torch.no_grad():
            logits = model(input_ids=row["input_ids"][None]).logits[0].double()  # alone, without padding
        total, right, count = 0.0, 0, 0
        for position in range(1, len(tokens)):
            scores = logits[position - 1].tolist()
            log_p = scores[tokens[position]] - math.log(sum(math.exp(s) for s in scores))
            if labels[position] == IGNORED:
                assert float(outputs[i, position - 1]) == 0
                continue
            assert float(outputs[i, position - 1]) == pytest.approx(log_p, rel=1e-4)
            total, right, count = total + log_p, right + (scores[tokens[position]] == max(scores)), count + 1
        assert 2 <= count < len(tokens) - 1
        assert float(losses[i]) == pytest.approx(-total / count, rel=1e-5)
        assert float(knowledge[i]) == pytest.approx(math.exp(total / count), rel=1e-5)
        assert float(utility[i]) == pytest.approx(right / count)


def test_padding_on_the_right_changes_nothing() -> None:
    problem = problem_of("gpt2")
    task, model = problem.task, problem.original.model
    short, long = batch_of(problem, positions=[0]), batch_of(problem, positions=[0, 1, 2, 3])
    assert long["input_ids"].shape[1] > short["input_ids"].shape[1]
    torch.testing.assert_close(task.losses(model, short)[0], task.losses(model, long)[0], rtol=1e-5, atol=1e-6)
    for name, fill in (("input_ids", 0), ("labels", IGNORED), ("attention_mask", 0)):
        padded = torch.cat([short[name], torch.full((1, 4), fill)], dim=1)
        short = short | {name: padded}
    torch.testing.assert_close(task.losses(model, short)[0], task.losses(model, long)[0], rtol=1e-5, atol=1e-6)


def test_text_batches() -> None:
    rows = [
        {"input_ids": torch.tensor([5, 6, 7]), "labels": torch.tensor([IGNORED, 6, 7]), "prompt_length": torch.tensor(1)},
        {"input_ids": torch.tensor([8, 9]), "labels": torch.tensor([IGNORED, 9]), "prompt_length": torch.tensor(1)},
    ]
    batch = TextGeneration().collate(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_answers_are_counted_and_prompts_are_not() -> None:
    bundle = bundle_of("gpt2")
    samples = TextGeneration().read({"prompt": ["where does ada live"], "answer": ["in york"]}, bundle, "f")
    words = bundle.companions["tokenizer"].convert_ids_to_tokens(samples[0]["input_ids"].tolist())
    assert words == ["where", "does", "ada", "live", "in", "york", "[eos]"]
    assert samples[0]["labels"].tolist() == [IGNORED] * 4 + samples[0]["input_ids"].tolist()[4:]


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_diffusion_loss_by_hand_in_eval_mode(prediction_type: str) -> None:
    """Four timesteps of 100, and noise that the sample's own seed fixes."""
    problem = problem_of("unet", model=made(denoiser, prediction_type=prediction_type))
    task, model, batch = problem.task, problem.original.model, batch_of(problem)
    assert isinstance(model, Denoiser)
    losses, knowledge = task.losses(model, batch).detach(), task.knowledge(model, batch).detach()
    for i in range(5):
        x = batch["pixel_values"][i]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(batch["noise_seed"][i])))
        errors, shares = [], []
        for t in (10, 35, 60, 85):
            predicted, target = predict(model, x, noise, t, batch["labels"][i], prediction_type)
            errors.append(float(((predicted - target) ** 2).sum()) / 64)
            shares.append(1 - float(((predicted - target) ** 2).sum()) / float((target**2).sum()))
        assert float(losses[i]) == pytest.approx(sum(errors) / 4, rel=1e-4)
        assert float(knowledge[i]) == pytest.approx(min(max(sum(shares) / 4, 0), 1), rel=1e-3, abs=1e-4)


def test_diffusion_loss_by_hand_in_train_mode() -> None:
    problem = problem_of("unet")
    model, batch = problem.original.model, batch_of(problem)
    assert isinstance(model, Denoiser)
    model.training = True  # the layers stay in eval mode, so that dropout draws nothing
    with torch.random.fork_rng():
        torch.manual_seed(4)
        losses = problem.task.losses(model, batch).detach()
        torch.manual_seed(4)
        noise = torch.randn_like(batch["pixel_values"])
        timesteps = (torch.rand(5) * 100).long().tolist()
    assert len(set(timesteps)) > 1
    for i, t in enumerate(timesteps):
        predicted, target = predict(model, batch["pixel_values"][i], noise[i], t, batch["labels"][i], "epsilon")
        assert float(losses[i]) == pytest.approx(float(((predicted - target) ** 2).mean()), rel=1e-4)


def predict(model: Denoiser, x: Tensor, noise: Tensor, t: int, label: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    betas = torch.linspace(1e-4, 0.02, 100, dtype=torch.float64).tolist()
    bar = 1.0
    for beta in betas[: t + 1]:
        bar *= 1 - beta
    noisy = math.sqrt(bar) * x + math.sqrt(1 - bar) * noise
    with torch.no_grad():
        predicted = model.unet(noisy[None], torch.tensor([t]), class_labels=label[None]).sample[0]
    return predicted, {"epsilon": noise, "sample": x, "v_prediction": math.sqrt(bar) * noise - math.sqrt(1 - bar) * x}[kind]


def test_diffusion_images_are_signed_and_keep_their_noise_in_every_order() -> None:
    problem = problem_of("unet")
    pixels = torch.stack([problem.retain[i]["pixel_values"] for i in range(18)])
    assert float(pixels.min()) == -1
    assert float(pixels.max()) == 1
    task, model = problem.task, problem.original.model
    forward = task.losses(model, batch_of(problem, positions=[0, 1, 2]))
    backward = task.losses(model, batch_of(problem, positions=[2, 1, 0]))
    torch.testing.assert_close(forward, backward.flip(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])
def test_numbers_have_one_value_per_sample_in_range(kind: str) -> None:
    problem = problem_of(kind)
    task, model, batch = problem.task, problem.original.model, batch_of(problem)
    assert all(len(tensor) == 5 for tensor in batch.values())
    for measure in (task.losses, task.knowledge, task.utility):
        assert measure(model, batch).shape == (5,)
    assert task.losses(model, batch).requires_grad
    assert len(task.outputs(model, batch)) == 5
    for measure in (task.knowledge, task.utility):
        values = measure(model, batch)
        assert bool(((values >= 0) & (values <= 1)).all())


def test_batch_shapes() -> None:
    image, noise = (batch_of(problem_of(kind)) for kind in ("plain", "unet"))
    assert {name: tuple(tensor.shape) for name, tensor in image.items()} == {"pixel_values": (5, 1, 8, 8), "labels": (5,)}
    assert {name: tuple(tensor.shape) for name, tensor in noise.items()} == {"pixel_values": (5, 1, 8, 8), "labels": (5,), "noise_seed": (5,)}
    assert ImageClassification().utility_metric == "accuracy"
    assert ImageGeneration().utility_metric == "explained_share"


def test_diffusion_refuses_images_that_are_signed_already() -> None:
    problem = problem_of("unet")
    task, bundle = problem.task, problem.original
    shape = tuple(problem.forget[0]["pixel_values"].shape)
    signed = torch.linspace(-1, 1, 2 * math.prod(shape)).reshape(2, *shape)
    samples = task.read({"image": signed, "label": [0, 1]}, bundle, "data.train")
    assert [fault.what for fault in task.faults(bundle, samples, "data.train")] == ["1 images have pixels out of range."]
    samples = task.read({"image": signed.abs(), "label": [0, 1]}, bundle, "data.train")
    assert task.faults(bundle, samples, "data.train") == []

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance.test_measurements import subject_of
from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bundle_of, images, layer_of, noise_schedule, problem_of
from unlearned.api import make_problem
from unlearned.attacks.relearn import Relearn
from unlearned.data.samples import union
from unlearned.engine.adapters import Lora
from unlearned.engine.bank import Kept
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Training, train
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import pick
from unlearned.tasks.image_generation import Denoiser, attention_of


@pytest.mark.parametrize(
    ("steps", "grid"),
    [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (50, [0, 1, 2, 5, 10, 20, 50]), (100, [0, 1, 2, 5, 10, 20, 50, 100]), (7, [0, 1, 2, 5, 7])],
)
def test_budgets(steps: int, grid: list[int]) -> None:
    assert Relearn(steps=steps).budgets() == grid


@pytest.mark.parametrize(("share", "known"), [(0.5, 3), (0.01, 1), (0.99, 5)])
def test_the_attacker_has_a_part_and_never_all(share: float, known: int) -> None:
    subject = subject_of("linear")
    have, rest = Relearn(share=share)._split(subject)
    assert (len(have), len(rest)) == (known, 6 - known)
    assert sorted(have.ids + rest.ids) == sorted(subject.problem.forget.ids)


def test_a_single_sample_cannot_be_divided() -> None:
    problem = problem_of("linear", forget=1)
    [finding] = Relearn().measure(Subject(problem, bundle_of("linear", 1), [], Engine(problem.task)))
    assert finding.value is None
    assert "single sample" in (finding.reason or "")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 32])
def test_every_budget_is_reached_whatever_the_batch_size(batch_size: int) -> None:
    subject = subject_of("linear")
    findings = Relearn(steps=11, batch_size=batch_size, share=0.8).measure(subject)
    for who in ("unlearned", "reference"):
        assert [f.budget for f in pick(findings, subject=who, metric="knowledge")] == [0, 1, 2, 5, 10, 11]
    assert [f.budget for f in pick(findings, subject="original")] == [0]


def test_curve_by_hand() -> None:
    """SGD with momentum 0.9 and no weight decay on the attacker's part; true-class probability on the rest."""
    subject = subject_of("linear", seed=8)
    forget = subject.problem.forget.shuffled(derive_seed(8, "relearn"))
    x, y = everything(forget)
    known, rest = slice(0, 3), slice(3, 6)
    layer = layer_of(copy.deepcopy(subject.unlearned.model), 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    velocity = [torch.zeros_like(by_hand.weight), torch.zeros_like(by_hand.bias)]
    batches = [batch for number in range(4) for batch in batch_positions(3, 3, 8, "forget", number)]
    expected = []
    for step in range(5):
        p = softmax_rows(by_hand.logits(x[rest]))
        expected.append(float(p[range(3), y[rest]].mean()))
        if step < 4:
            gradient = by_hand.cross_entropy_gradient(x[known][batches[step]], y[known][batches[step]])
            velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
            by_hand.step((velocity[0], velocity[1]), 0.2)
    found = {f.budget: f.value for f in pick(Relearn(steps=4, batch_size=3, lr=0.2).measure(subject), subject="unlearned", metric="knowledge")}
    assert found == pytest.approx({0: expected[0], 1: expected[1], 2: expected[2], 4: expected[4]}, rel=1e-4)


def test_knowledge_that_was_only_hidden_comes_back_faster_than_it_is_learnt() -> None:
    """The hidden model is the original with one bias lowered: its features know the class still; the reference never met it."""
    original = bundle_of("linear")
    problem = make_problem(original, train=images(0, 300), test=images(300, 60), forget="label == 3")
    engine = Engine(problem.task)
    how = Training(epochs=15, lr=0.5, batch_size=32, weight_decay=0.0)
    trained = train(engine, original, union(problem.forget, problem.retain), how, 0)
    hidden = copy.deepcopy(trained.model)
    with torch.no_grad():
        layer_of(hidden, 1).bias[3] -= 10
    reference = Kept(train(engine, original, problem.retain, how, 1), None, 1)
    subject = Subject(Problem(problem.task, trained, problem.forget, problem.retain, problem.test), trained.with_model(hidden), [reference], engine)
    findings = Relearn(steps=20, lr=0.3, batch_size=8).measure(subject)
    known = {f.budget: f.value or 0.0 for f in pick(findings, subject="unlearned")}
    [before] = [f.value or 0.0 for f in pick(findings, subject="original")]
    assert before > 0.8
    assert known[0] < 0.05
    assert known[20] > 0.8
    assert max(f.gap or 0.0 for f in pick(findings, subject="unlearned")) > 0.1


@pytest.mark.parametrize("data", ["retain", "other"])
def test_an_attacker_without_forget_samples_meets_all_of_them(data: str) -> None:
    """By hand: one full batch of what the attacker has, one step of SGD, then knowledge of the whole forget set."""
    subject = subject_of("linear")
    problem = subject.problem
    forgotten = set(problem.forget.fact("label"))
    known = problem.retain if data == "retain" else problem.test.subset(i for i, label in enumerate(problem.test.fact("label")) if label not in forgotten)
    assert 0 < len(known) < len(problem.test) or data == "retain"
    x, y = everything(known)
    layer = layer_of(copy.deepcopy(subject.unlearned.model), 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    by_hand.step(by_hand.cross_entropy_gradient(x, y), 0.2)
    x, y = everything(problem.forget)
    expected = float(softmax_rows(by_hand.logits(x))[range(len(y)), y].mean())
    findings = Relearn(data=data, steps=1, batch_size=64, lr=0.2).measure(subject)
    [found] = [f for f in findings if f.subject == "unlearned" and f.budget == 1]
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert {f.split for f in findings} == {"forget"}
    assert {(f.n, f.metric) for f in findings if f.subject != "reference" and f.budget is not None} == {(6, "knowledge")}


def test_other_data_come_from_a_source_of_their_own(tmp_path: Path) -> None:
    """The same samples from a file as from the retain set: the same curve."""
    subject = subject_of("linear")
    retain = subject.problem.retain
    pixels = torch.stack([retain[i]["pixel_values"] for i in range(len(retain))])
    np.savez(tmp_path / "other.npz", image=pixels.numpy(), label=np.array(retain.fact("label")))
    attack = Relearn(data="other", source=str(tmp_path / "other.npz"), steps=2, batch_size=4)
    assert attack.faults(subject.problem) == []
    curves = [[f.value for f in each.measure(subject)] for each in (attack, Relearn(data="retain", steps=2, batch_size=4))]
    assert curves[0] == curves[1]


def test_other_data_of_a_language_model_are_its_test_set_or_a_file(tmp_path: Path) -> None:
    subject = subject_of("gpt2")
    by_default = Relearn(data="other", steps=1, batch_size=4).measure(subject)
    (tmp_path / "plain.jsonl").write_text('{"text": "the old river"}\n{"text": "a red town in the far"}\n', encoding="utf-8")
    from_file = Relearn(data="other", source=str(tmp_path / "plain.jsonl"), steps=1, batch_size=4).measure(subject)
    assert [f.value for f in by_default if f.budget == 0] == [f.value for f in from_file if f.budget == 0]
    assert {f.split for f in from_file} == {"forget"}


def test_what_is_wrong_with_a_source_is_said_before_any_work(tmp_path: Path) -> None:
    problem = problem_of("linear")
    [missing] = Relearn(data="other", source=str(tmp_path / "none.npz")).faults(problem)
    assert missing.field == "source"
    assert "there is no file" in missing.what
    np.savez(tmp_path / "large.npz", image=np.zeros((2, 9, 9), dtype=np.float32), label=np.array([0, 1]))
    [large] = Relearn(data="other", source=str(tmp_path / "large.npz")).faults(problem)
    assert "cannot take these images" in large.what
    with pytest.raises(InputError, match=r"attack\.source"):
        Relearn(data="other", source=str(tmp_path / "large.npz")).measure(subject_of("linear"))
    with pytest.raises(ValueError, match="goes with it alone"):
        Relearn(source=str(tmp_path / "large.npz"))


def test_without_other_classes_there_are_no_other_data() -> None:
    train = images(0, 40)
    problem = make_problem(bundle_of("linear"), train=train, test=images(100, 16), forget=train["id"][:30])
    [finding] = Relearn(data="other").measure(Subject(problem, bundle_of("linear", 1), [], Engine(problem.task)))
    assert finding.value is None
    assert "every class of the test set" in (finding.reason or "")


def test_the_attention_of_a_unet_is_found_with_prompts_and_without() -> None:
    """Against the modules that diffusers calls attention; the autoencoder has some, too, and a model without any gives everything."""
    from diffusers import UNet2DModel
    from diffusers.models.attention_processor import Attention

    blocks: dict[str, Any] = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), norm_num_groups=2, attention_head_dim=4, **blocks)
    for model in (Denoiser(unet, noise_schedule()), bundle_of("stable").model):
        layers = [name for name, layer in model.named_modules() if name.startswith("unet.") and isinstance(layer, Attention)]
        expected = {f"{name}.to_{part}.weight" for name in layers for part in ("q", "k", "v", "out.0")}
        assert {name for name, _ in model.named_parameters() if re.search(attention_of(model), name)} == expected != set()
    assert attention_of(bundle_of("unet").model) == ".*"


def test_adapters_go_beside_everything_in_a_unet_without_attention() -> None:
    problem = problem_of("unet")
    unlearned = problem.original.with_model(copy.deepcopy(problem.original.model))
    subject = Subject(problem, unlearned, [], Engine(problem.task))
    curve = pick(Relearn(steps=1, lora=Lora(rank=1)).measure(subject), metric="knowledge", subject="unlearned")
    assert [f.budget for f in curve] == [0, 1]
    assert all(f.value is not None for f in curve)

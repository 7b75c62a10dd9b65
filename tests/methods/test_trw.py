from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.methods.oracles import softmax_rows
from tests.methods.refusals import refused
from tests.models import bits, bundle_of, images, made, plain_network, problem_of, same_bits
from unlearned.api import forget, make_problem
from unlearned.data.samples import union
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods.delete import without_true_class
from unlearned.methods.trw import TRW, class_cosines, forgotten_classes, reweighted, sharpened, solve_beta, target_loss
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle, ModelSource

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
S = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
WORKED = [  # β, q, E_q[s], KL(q ‖ p)
    (0.0, (0.5, 0.3, 0.2), 0.4, 0.0),
    (1.0, (0.303909, 0.495666, 0.200425), 0.595879, 0.097999),
    (2.0, (0.153357, 0.679897, 0.166747), 0.763270, 0.344698),
    (10.0, (0.000075, 0.995453, 0.004472), 0.997689, 1.176305),
]


def random_case(seed: int, batch: int = 5, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    forgotten = torch.zeros(classes, dtype=torch.bool)
    forgotten[[2, 5][: 1 + seed % 2]] = True
    return logits, torch.rand(classes, generator=generator, dtype=torch.float64), forgotten


def divergence(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(dim=-1)


@pytest.mark.parametrize(("beta", "expected", "mean", "kl"), WORKED)
def test_worked_example(beta: float, expected: tuple[float, ...], mean: float, kl: float) -> None:
    # A fourth class is forgotten: most of the original's probability lies there.
    logits = torch.cat([P.log(), torch.tensor([3.0], dtype=torch.float64)])[None]
    similarity = torch.cat([S, torch.tensor([99.0], dtype=torch.float64)])
    q = reweighted(logits, similarity, torch.tensor([False, False, False, True]), beta)[0]
    assert q[:3].tolist() == pytest.approx(expected, abs=1e-6)
    assert float(q[3]) == 0
    assert float((q[:3] * S).sum()) == pytest.approx(mean, abs=1e-6)
    assert float(divergence(q[:3], P)) == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beta", [0.0, 0.7, 10.0])
def test_logit_form_is_the_probability_form(seed: int, beta: float) -> None:
    logits, s, forgotten = random_case(seed)
    q = reweighted(logits, s, forgotten, beta)
    p = softmax_rows(logits)
    for row in range(len(logits)):
        weights = [0.0 if forgotten[y] else float(p[row, y]) * math.exp(beta * float(s[y])) for y in range(logits.shape[1])]
        assert q[row].tolist() == pytest.approx([w / sum(weights) for w in weights], rel=1e-12)
        assert float(q[row].sum()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_without_tilt_it_is_the_answer_without_the_class_and_the_teacher_of_delete(seed: int) -> None:
    logits, s, forgotten = random_case(2 * seed)  # one forgotten class
    p = softmax_rows(logits)
    conditional = torch.where(forgotten, 0.0, p) / (1 - p[:, forgotten].sum(dim=1, keepdim=True))
    q = reweighted(logits, s, forgotten, 0.0)
    torch.testing.assert_close(q, conditional, rtol=1e-12, atol=1e-15)
    labels = torch.full((len(logits),), int(forgotten.nonzero()[0]))
    assert torch.equal(without_true_class(logits, labels), q)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_information_projection(seed: int) -> None:
    """Among all q with the same E_q[s], KL(q ‖ p) − KL(q_β ‖ p) = KL(q ‖ q_β) ≥ 0."""
    logits, s, forgotten = random_case(2 * seed, batch=1)
    stay = ~forgotten
    best = reweighted(logits, s, forgotten, 3.0)[0, stay]
    p = reweighted(logits, s, forgotten, 0.0)[0, stay]
    constraints = torch.stack([torch.ones(int(stay.sum()), dtype=torch.float64), s[stay]])
    directions = torch.linalg.svd(constraints)[2][2:]  # moves that change neither the sum nor E[s]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        move = directions.T @ torch.randn(len(directions), generator=generator, dtype=torch.float64)
        q = best + 0.9 * float((best / move.abs()).min()) * torch.rand(1, generator=generator, dtype=torch.float64) * move
        assert float((q * s[stay]).sum()) == pytest.approx(float((best * s[stay]).sum()))
        excess = float(divergence(q, p) - divergence(best, p))
        assert excess == pytest.approx(float(divergence(q, best)), abs=1e-9)
        assert excess >= -1e-12


@pytest.mark.parametrize("seed", range(4))
def test_expected_similarity_rises_with_beta_to_the_largest(seed: int) -> None:
    logits, s, forgotten = random_case(seed)
    s_of = torch.where(forgotten, 0.0, s)
    means = [(reweighted(logits, s, forgotten, beta) * s_of).sum(dim=1) for beta in (0.0, 0.5, 1.0, 4.0, 20.0)]
    assert all(bool((later > earlier).all()) for earlier, later in itertools.pairwise(means))
    top = reweighted(logits, s, forgotten, 1e4).argmax(dim=1)
    assert set(top.tolist()) == {int(torch.where(forgotten, -1.0, s).argmax())}


def test_only_differences_of_the_similarity_count() -> None:
    logits, s, forgotten = random_case(1)
    q = reweighted(logits, s, forgotten, 5.0)
    torch.testing.assert_close(reweighted(logits, s + 3.0, forgotten, 5.0), q, rtol=1e-12, atol=1e-15)
    plain = reweighted(logits, s, forgotten, 0.0)
    torch.testing.assert_close(reweighted(logits, torch.full_like(s, 0.4), forgotten, 50.0), plain, rtol=1e-12, atol=1e-15)


def test_a_certain_original_gives_no_nan() -> None:
    logits = torch.tensor([[500.0, -500.0, -490.0], [0.0, 0.0, 0.0]], requires_grad=True)
    target = reweighted(logits.detach(), torch.tensor([1.0, 0.0, 1.0]), torch.tensor([True, False, False]), 10.0)
    assert target[:, 0].tolist() == [0, 0]
    loss = target_loss(logits, target).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("seed", range(3))
def test_beta_is_solved_for_each_sample(seed: int) -> None:
    logits, s, forgotten = random_case(seed)
    s_of = torch.where(forgotten, 0.0, s)
    beta = solve_beta(logits, s, forgotten, 0.6)
    reached = (reweighted(logits, s, forgotten, beta) * s_of).sum(dim=1)
    before = (reweighted(logits, s, forgotten, 0.0) * s_of).sum(dim=1)
    for value, start, b in zip(reached.tolist(), before.tolist(), beta[:, 0].tolist(), strict=True):
        assert (b == 0 and value == pytest.approx(start)) if start >= 0.6 else value == pytest.approx(0.6, abs=1e-9)


def test_cosines_and_their_projection() -> None:
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 1.0], [3.0, 1.0, 1.0]], dtype=torch.float64)
    centred = vectors - vectors.mean(dim=0)
    gram = centred @ centred.T
    expected = gram / (gram.diag()[:, None] * gram.diag()).sqrt()
    torch.testing.assert_close(class_cosines(vectors), expected)
    torch.testing.assert_close(class_cosines(vectors, 3), expected)  # three directions hold everything
    _, basis = torch.linalg.eigh(centred.T @ centred)  # ascending
    first = centred @ basis[:, -1:]
    torch.testing.assert_close(class_cosines(vectors, 1), (first * first.T).sign())
    forgotten = torch.tensor([False, True, False, False])
    weights = [math.exp(float(expected[1, y]) / 0.2) if y != 1 else 0.0 for y in range(4)]
    assert sharpened(expected[[1]], forgotten, 0.2)[0].tolist() == pytest.approx([w / sum(weights) for w in weights])


def class_problem(forget_where: str = "label in [3, 7]", model: nn.Module | None = None) -> Problem:
    bundle = bundle_of("plain") if model is None else Bundle(model)
    return make_problem(bundle, train=images(0, 60), test=images(100, 30), forget=forget_where)


def similarities(settings: dict[str, Any], problem: Problem) -> torch.Tensor:
    return TRW(**settings).similarities(problem, Engine(problem.task), forgotten_classes(problem))[0]


def test_each_similarity_by_hand(tmp_path: Path) -> None:
    problem = class_problem()
    model, task = problem.original.model, problem.task
    forgotten = torch.zeros(10, dtype=torch.bool)
    forgotten[[3, 7]] = True
    weight = dict(model.named_parameters())["8.weight"].detach().double()
    torch.testing.assert_close(similarities({"temperature": 0.3}, problem), sharpened(class_cosines(weight)[[3, 7]], forgotten, 0.3))
    torch.testing.assert_close(similarities({"temperature": None, "components": 2}, problem), class_cosines(weight, 2)[[3, 7]])

    def rows(samples: Any) -> dict[str, torch.Tensor]:
        return task.collate([samples[i] for i in range(len(samples))])

    with torch.no_grad():
        both = [rows(problem.forget), rows(problem.retain)]
        labels = torch.cat([batch["labels"] for batch in both])
        features = torch.cat([task.features(model, batch) for batch in both]).double()
        means = torch.stack([features[labels == y].mean(dim=0) for y in range(10)])
        torch.testing.assert_close(similarities({"similarity": "features", "temperature": None}, problem), class_cosines(means)[[3, 7]], rtol=1e-5, atol=1e-6)
        other = made(plain_network, seed=9)
        task.save(Bundle(other), tmp_path)
        for settings, shown in (
            ({"similarity": "confusion"}, model),
            ({"similarity": "oracle", "retrained": ModelSource(source="tests.models:plain_network", weights=str(tmp_path))}, other),
        ):
            p = softmax_rows(task.outputs(shown, both[0]).double())
            for row, label in enumerate((3, 7)):
                mean = p[both[0]["labels"] == label].mean(dim=0)
                mean[forgotten] = 0
                torch.testing.assert_close(similarities(settings, problem)[row], mean / mean.sum(), rtol=1e-5, atol=1e-7)


def nine_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def test_a_retrained_model_of_other_classes_is_refused() -> None:
    settings: dict[str, Any] = {"similarity": "oracle", "retrained": ModelSource(source="tests.methods.test_trw:nine_classes")}
    problem = class_problem()
    told = r"^method\.retrained: the retrained model has 9 classes, the original 10: .* retrained with all classes"
    with pytest.raises(InputError, match=told):
        similarities(settings, problem)
    assert [fault.field for fault in TRW(**settings).faults(problem, Engine(problem.task))] == ["method.retrained"]
    assert not TRW(similarity="oracle", retrained=ModelSource(source="tests.models:plain_network")).faults(problem, Engine(problem.task))


@pytest.mark.parametrize("similarity", ["logit-weights", "confusion"])
def test_a_device_without_float64_is_given_none(similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = class_problem()
    exact = similarities({"similarity": similarity}, problem)
    monkeypatch.setattr("unlearned.methods.trw.finest", lambda _: torch.float32)
    coarse = similarities({"similarity": similarity}, problem)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), exact, rtol=1e-6, atol=1e-7)


SAME: dict[str, Any] = {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0, "epochs": 2, "batch_size": 4}


def test_without_tilt_and_retain_term_it_moves_as_delete_does() -> None:
    problem = class_problem("label == 3")
    trw = bits(forget(problem, "trw", beta=0.0, alpha=0.0, **SAME).model)
    delete = bits(forget(problem, "delete", **SAME).model)
    for name, tensor in trw.items():
        torch.testing.assert_close(tensor, delete[name], rtol=1e-5, atol=1e-7)
    assert not same_bits(trw, bits(problem.original.model))


@pytest.mark.parametrize("settings", [{}, {"similarity": "confusion", "beta": 3.0}, {"expected_similarity": 0.3, "paced_by": "forget", "epochs": 20}])
def test_the_forgotten_classes_lose_their_probability(settings: dict[str, Any]) -> None:
    trained = forget(class_problem("label == 0"), "fine-tune", epochs=30, lr=0.05, batch_size=8).model
    problem = class_problem(model=trained)
    done = forget(problem, "trw", **{"lr": 0.05, "epochs": 10, "batch_size": 8, **settings}).model
    engine = Engine(problem.task)
    assert float(engine.evaluate(trained, problem.forget, problem.task.knowledge).mean()) > 0.5
    assert float(engine.evaluate(done, problem.forget, problem.task.knowledge).mean()) < 0.1
    assert float(engine.evaluate(done, problem.retain, problem.task.utility).mean()) > 0.7


def test_the_teacher_of_delete_is_in_eval_mode() -> None:
    """With batch statistics of the forget set in its place, the very first target would differ."""
    problem = class_problem("label == 3", model=made(plain_network).train())
    first = bits(forget(problem, "delete", **SAME).model)
    problem.original.model.eval()
    assert same_bits(first, bits(forget(problem, "delete", **SAME).model))


def test_batch_normalisation_can_be_frozen() -> None:
    problem = class_problem("label == 3")
    before = bits(problem.original.model)
    kept, moved = (bits(forget(problem, "delete", freeze_batch_norm=freeze, **SAME).model) for freeze in (True, False))
    assert torch.equal(kept["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(moved["1.running_mean"], before["1.running_mean"])


def test_a_part_of_a_class_is_refused_and_so_are_impossible_settings() -> None:
    with pytest.raises(InputError, match=r"samples of the forgotten classes are in the retain set"):
        forget(problem_of("plain"), "trw", epochs=1)
    engine = Engine(problem_of("plain").task)
    assert [fault.field for fault in TRW().faults(problem_of("plain"), engine)] == ["forget"]
    assert not TRW().faults(class_problem(), engine)
    refused(class_problem(), "trw", "10 classes have 9 principal directions, not 10", epochs=1, components=10)
    refused(class_problem(), "trw", "no answer has an expected similarity of 1.5: the largest similarity of a class", epochs=1, expected_similarity=1.5)
    assert not TRW(similarity="confusion", components=10).faults(class_problem(), engine)
    with pytest.raises(ValidationError, match="goes with it alone"):
        TRW(similarity="oracle")
    little = make_problem(bundle_of("plain"), train=images(0, 10), test=images(100, 10), forget="label == 3")
    assert len(set(little.retain.fact("label"))) == 9
    fewer = make_problem(bundle_of("plain"), train=images(0, 8), test=images(100, 10), forget="label == 3")
    refused(fewer, "trw", "2 of the model's 10 classes have no sample, first class 8", epochs=1, similarity="features")
    assert not TRW(similarity="features").faults(little, engine)
    assert not TRW().faults(fewer, engine)


def test_of_all_classes_some_samples_are_retained() -> None:
    some = class_problem()
    kept = [i for i, label in enumerate(some.retain.fact("label")) if label == 0][:1]
    rest = [i for i in range(len(some.retain)) if i not in kept]
    every = replace(some, forget=union(some.forget, some.retain.subset(rest)), retain=some.retain.subset(kept))
    refused(every, "trw", "samples of the forgotten classes are in the retain set", epochs=1)


def test_a_classifier_that_does_not_end_with_a_linear_layer_is_refused_where_its_rows_are_read() -> None:
    problem = class_problem()
    headless = replace(problem, original=problem.original.with_model(nn.Sequential(problem.original.model, nn.Softmax(dim=1))))
    refused(headless, "trw", "its logits are not the output of a linear layer", epochs=1)
    assert not TRW(similarity="confusion").faults(headless, Engine(problem.task))

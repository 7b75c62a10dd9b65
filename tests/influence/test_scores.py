"""What every score promises, on a classifier and on a language model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.influence.small import perceptron, small
from tests.models import TASK_OF, bits, flags, generators, modes, problem_of, same_bits, scramble
from unlearned.data.samples import union
from unlearned.engine import sample_gradients
from unlearned.engine.engine import Engine
from unlearned.engine.meter import Meter
from unlearned.engine.sample_gradients import mean_gradient, over_pieces
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training
from unlearned.errors import InputError
from unlearned.influence import _rank, scores
from unlearned.influence._rank import Ranking, rank
from unlearned.influence._score import Score
from unlearned.influence.el2n import El2n, el2n
from unlearned.influence.file import File
from unlearned.influence.gradient_norm import GradientNorm
from unlearned.influence.random import Random

TRAINING = Training(optimizer="adam", lr=0.01, batch_size=12, epochs=1)
SETTINGS: dict[str, dict[str, Any]] = {
    "less": {"checkpoints": 1, "dimensions": 16, "parameters": "weight"},
    "tracin": {"checkpoints": 1},
    "hessian": {"of": "signed", "curvature": "ekfac", "most_queries": 2, "curvature_samples": 6},
}
KINDS = ("plain", "llama", "unet", "pixel")
ROWS = [(name, kind) for name in sorted({*scores.names()} - {"file"}) for kind in KINDS if TASK_OF[kind] in (scores.get(name).tasks or {TASK_OF[kind]})]


def score_of(name: str) -> Score:
    return scores.get(name)(**SETTINGS.get(name, {}))


def ranked(name: str, kind: str, seed: int = 0, **compute: Any) -> Ranking:
    problem = problem_of(kind, forget=2, retain=6, test=4)
    return rank(problem, score_of(name), Engine(problem.task, Compute(**compute), seed), TRAINING)


@pytest.mark.parametrize(("name", "kind"), ROWS)
def test_again_it_is_equal_and_nothing_was_changed(name: str, kind: str) -> None:
    problem = problem_of(kind, forget=2, retain=6, test=4)
    model = problem.original.model
    model.train()
    list(model.modules())[-1].eval()
    before = bits(model), modes(model), flags(model)
    scramble(77)
    state = generators()
    first = rank(problem, score_of(name), Engine(problem.task), TRAINING)
    assert generators() == state
    assert same_bits(before[0], bits(model))
    assert before[1:] == (modes(model), flags(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    again = ranked(name, kind)
    assert torch.equal(first.values, again.values)
    assert first.values.dtype == torch.float64
    assert len(first.values) == 8
    assert len(first.part("forget")) == 2
    assert torch.isfinite(first.values).all()
    assert len(first.values.unique()) > 1
    assert ("retain set" in first.queries) == first.score.asks == (name in {"hessian", "less", "tracin"})
    assert first.cost.wall_seconds > 0
    if not type(first.score).signed:
        assert (first.values >= 0).all()


@pytest.mark.parametrize("name", ["gradient-norm", "less", "hessian"])
def test_several_processes_give_the_numbers_of_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs_of: list[int] = []

    def in_turn(work: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
        jobs_of.append(len(jobs))
        for position, job in reversed(list(enumerate(jobs))):
            yield position, work(pickle.loads(pickle.dumps(job)))

    alone = ranked(name, "plain").values
    monkeypatch.setattr(sample_gradients, "fan_out", in_turn)
    monkeypatch.setattr(sample_gradients, "_MOST", 2)
    monkeypatch.setattr(over_pieces, "__defaults__", (2,))
    together = ranked(name, "plain", workers=2, batch_size=2).values
    assert jobs_of == [4]
    assert torch.allclose(together, alone, atol=1e-6)


def test_processes_of_their_own_give_the_same_numbers_and_their_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    beside = Meter.beside

    def telling(meter: Meter, seconds: float) -> None:
        told.append(seconds)
        beside(meter, 1000 + seconds)

    monkeypatch.setattr(Meter, "beside", telling)
    alone, together = (ranked("gradient-norm", "plain", workers=workers, batch_size=2) for workers in (1, 2))
    assert torch.allclose(together.values, alone.values, atol=1e-6)
    assert len(told) == 1
    assert told[0] > 0
    assert together.cost.cpu_seconds > 1000 > alone.cost.cpu_seconds


def test_a_piece_holds_its_own_samples_alone() -> None:
    """Pickled it does not grow with the data set, through every kind of rows; and its samples are what they were."""
    problem = problem_of("plain", forget=40, retain=200)
    points = union(problem.forget, problem.retain).attach("extra", torch.arange(240.0))
    whole = len(pickle.dumps(points))
    for positions in (range(30, 50), [239, 0, 41, 7, 39]):
        part = points.subset(positions)
        packed = pickle.loads(pickle.dumps(part.packed()))
        assert len(pickle.dumps(part.packed())) < whole / 5
        assert packed.ids == part.ids
        assert packed.fact("label") == part.fact("label")
        assert packed.fingerprint == part.fingerprint
        assert [float(packed[i]["extra"]) for i in range(len(packed))] == [float(part[i]["extra"]) for i in range(len(part))]


def test_gradient_norms_are_those_of_one_backward_pass_each() -> None:
    case = small(perceptron)
    expected = []
    for i in range(12):
        loss = case.engine.task.losses(case.model, case.engine.task.collate([case.grounds.points[i]]))[0]
        expected.append([g.norm() for g in torch.autograd.grad(loss, list(case.model.parameters()))])
    whole, last = torch.tensor(expected).norm(dim=1), torch.tensor([row[2:] for row in expected]).norm(dim=1)
    assert torch.allclose(GradientNorm(layer="all").rate(case.grounds, case.engine).values, whole)
    assert torch.allclose(GradientNorm(layer="last").rate(case.grounds, case.engine).values, last)
    assert torch.equal(GradientNorm().rate(case.grounds, case.engine).values, GradientNorm(layer="last").rate(case.grounds, case.engine).values)
    names = [name for name, _ in case.model.named_parameters()]
    mean = mean_gradient(case.engine, case.model, case.grounds.points, names)
    rows = torch.cat(list(sample_gradients.sample_gradients(case.engine, case.model, case.grounds.points, names)))
    assert torch.allclose(mean, rows.mean(dim=0))


def test_el2n_by_hand() -> None:
    """p = (1/2, 1/2), y = 0: √(1/4 + 1/4); with a token of weight 0 beside it nothing changes."""
    logits = torch.zeros(1, 2, 2)
    assert el2n(logits, torch.tensor([[0, 1]]), torch.tensor([[1.0, 0.0]])).tolist() == pytest.approx([0.5**0.5])
    case = small(perceptron)
    p = case.logits(dict(case.model.named_parameters())).softmax(1).detach()
    one_hot = torch.nn.functional.one_hot(case.batch["labels"], 3)
    assert torch.allclose(El2n().rate(case.grounds, case.engine).values, (p - one_hot).norm(dim=1))


def test_random_means_nothing_and_says_the_same_again() -> None:
    case = small(perceptron)
    first = Random().rate(case.grounds, case.engine).values
    assert torch.equal(first, Random().rate(case.grounds, case.engine).values)
    assert not torch.equal(first, Random().rate(case.grounds, Engine(case.problem.task, seed=1)).values)


def test_a_model_that_fits_everything_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(perceptron)
    assert rank(case.problem, GradientNorm(), case.engine).notes == ()
    monkeypatch.setattr(_rank, "FITTED", 100.0)
    [note] = rank(case.problem, GradientNorm(), case.engine).notes
    assert "gradients are near 0" in note
    assert rank(case.problem, Random(), case.engine).notes == ()


def test_a_network_that_was_trained_to_interpolate_is_warned_of() -> None:
    problem = problem_of("linear", forget=2, retain=10, test=4)
    model, engine = problem.original.model, Engine(problem.task)
    before = rank(problem, GradientNorm(), engine)
    assert before.notes == ()
    points = union(problem.forget, problem.retain)
    batch = problem.task.collate([points[i] for i in range(len(points))])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"]).backward()
        optimizer.step()
    after = rank(problem, GradientNorm(), engine)
    losses = torch.nn.functional.cross_entropy(model(batch["pixel_values"]).detach(), batch["labels"], reduction="none")
    assert float(losses.max()) < _rank.FITTED
    median = float(re.findall(r"median loss (\S+)\)", after.notes[0])[0])
    assert median == pytest.approx(float(np.median(losses.numpy())), rel=0.1)
    assert float(after.values.max()) < 0.01 * float(before.values.min())


def test_scores_of_another_tool_are_read_by_id(tmp_path: Path) -> None:
    problem = problem_of("plain", forget=2, retain=3, test=2)
    file = tmp_path / "scores.csv"
    ids = [*problem.forget.ids, *problem.retain.ids]
    file.write_text("id,score\n" + "".join(f"{name},{-i / 4}\n" for i, name in reversed(list(enumerate(ids)))), encoding="utf-8")
    found = rank(problem, File(path=str(file)), Engine(problem.task))
    assert found.values.tolist() == [0.0, -0.25, -0.5, -0.75, -1.0]
    for content, told in (("id,score\n1,2\n", "no score for 5 of 5"), ("id,value\n1,2\n", "no column 'score'"), ("id,score\n1,x\n", "no numbers")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=told):
            rank(problem, File(path=str(file)), Engine(problem.task))
    file.write_text("id,score\n" + "".join(f"{name},inf\n" for name in ids), encoding="utf-8")
    with pytest.raises(InputError, match="5 scores that are NaN"):
        rank(problem, File(path=str(file)), Engine(problem.task))


def test_a_classifier_without_a_last_layer_is_refused_where_one_is_needed() -> None:
    problem = problem_of("llama", forget=2, retain=3, test=2)
    for score in (GradientNorm(layer="last"), scores.get("hessian")()):
        with pytest.raises(InputError, match="no linear last layer"):
            rank(problem, score, Engine(problem.task))

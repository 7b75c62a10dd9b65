from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.influence.small import TRAINING, Small, perceptron, small
from tests.models import problem_of
from unlearned.data.samples import union
from unlearned.engine.engine import Engine
from unlearned.engine.loop import lr_share
from unlearned.engine.randomness import derive_seed
from unlearned.engine.sample_gradients import sample_gradients
from unlearned.engine.training import Training
from unlearned.engine.trajectory import Trajectory, following
from unlearned.errors import InputError
from unlearned.influence import less as module
from unlearned.influence._projection import Rademacher
from unlearned.influence._rank import grounds_of
from unlearned.influence._score import Grounds
from unlearned.influence._store import Store
from unlearned.influence.less import Less, adam_direction, by_subtask, trajectory_of
from unlearned.influence.tracin import TracIn
from unlearned.tasks._task import Batch, Bundle
from unlearned.tasks.image_classification import ImageClassification


def naive_gradient(case: Small, model: torch.nn.Module, sample: int, queries: bool) -> torch.Tensor:
    samples = case.grounds.queries if queries else case.grounds.points
    loss = case.engine.task.losses(model, case.engine.task.collate([samples[sample]]))[0]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def whole_signs(project: Rademacher, size: int) -> torch.Tensor:
    """R, from parts of the height that is used."""
    height = max(1, 2**24 // project.dimensions)
    parts = [project.signs(block, min(height, size - first)) for block, first in enumerate(range(0, size, height))]
    return torch.cat(parts).T.double()


@pytest.fixture(scope="module")
def path() -> Iterator[Trajectory]:
    case = small(perceptron)
    with trajectory_of(case.grounds, case.engine, 2, 1.0, None) as found:
        yield found


def test_features_and_scores_are_those_of_a_naive_loop(path: Trajectory) -> None:
    case = small(perceptron)
    expected = torch.zeros(12, dtype=torch.float64)
    for snapshot in path:
        project = Rademacher(64, derive_seed(0, "less", "signs"))
        m, v = (torch.cat([held[name].flatten() for name, _ in snapshot.model.named_parameters()]) for held in (snapshot.first, snapshot.second))
        signs = whole_signs(project, len(m)) / 64**0.5
        queries = []
        for q in range(6):
            feature = signs @ naive_gradient(case, snapshot.model, q, queries=True)
            queries.append(feature / feature.norm())
        for z in range(12):
            g = naive_gradient(case, snapshot.model, z, queries=False)
            direction = torch.stack([(0.9 * m[i] + 0.1 * g[i]) / (0.999 * v[i] + 0.001 * g[i] ** 2 + 1e-8).sqrt() for i in range(len(g))])
            feature = signs @ direction
            aligned = [float(query @ (feature / feature.norm())) for query in queries]
            expected[z] += snapshot.lr / sum(path.lrs) * sum(aligned) / len(aligned)
    found = Less(checkpoints=2, dimensions=64).rate(case.grounds, case.engine).values
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.abs().max() <= 1
    assert len(found.unique()) == 12


def test_without_memory_of_earlier_steps_the_direction_is_a_sign() -> None:
    g = torch.tensor([[0.5, -2.0, 1e-3]], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    assert adam_direction(g, zero, zero, 0.0, betas=(0.0, 0.0)).tolist() == [[1.0, -1.0, 1.0]]


def test_of_subtasks_the_strongest_counts_with_its_sign() -> None:
    assert by_subtask(torch.tensor([[0.1, -0.4], [0.3, 0.2]])).tolist() == pytest.approx([-0.4, 0.3])


def test_subtasks_are_the_values_of_a_column() -> None:
    case = small(perceptron)
    queries = case.grounds.queries
    kinds = ["a", "b", "a", "b", "b", "a"]
    told = type(queries)(queries.rows, queries.all_ids, {**queries.facts, "kind": [""] * queries.indices.min() + kinds}, queries.indices)
    both = Less(checkpoints=1, dimensions=16, subtask="kind").rate(Grounds(case.problem.original, case.grounds.points, told, TRAINING), case.engine).values
    apart = []
    for kind in "ab":
        one = queries.subset([i for i, other in enumerate(kinds) if other == kind])
        apart.append(Less(checkpoints=1, dimensions=16).rate(Grounds(case.problem.original, case.grounds.points, one, TRAINING), case.engine).values)
    assert torch.allclose(both, by_subtask(torch.stack(apart, dim=1)))


def test_what_is_not_there_is_said_before_any_work() -> None:
    case = small(perceptron)
    grounds = Grounds(case.problem.original, case.grounds.points, case.grounds.queries)
    fields = [fault.field for fault in Less(subtask="absent").faults(grounds)]
    assert fields == ["training", "subtask"]
    assert [fault.field for fault in TracIn().faults(grounds)] == ["training"]


def test_inner_products_survive_the_projection_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    found = torch.tensor([float(torch.dot(*Rademacher(40, seed)(x))) for seed in range(200)])
    assert float(found.mean()) == pytest.approx(float(x[0] @ x[1]), abs=4 * float(found.std()) / 200**0.5)
    assert torch.equal(Rademacher(40, 3)(x), Rademacher(40, 3)(x))
    signs = Rademacher(40, 3).signs(0, 50)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(Rademacher(40, 3)(x), x @ signs.double() / 40**0.5)


def test_tracin_is_the_naive_sum_over_checkpoints(path: Trajectory) -> None:
    case = small(perceptron)
    expected = torch.zeros(12, dtype=torch.float64)
    for snapshot in path:
        query = torch.stack([naive_gradient(case, snapshot.model, q, queries=True) for q in range(6)]).mean(dim=0)
        expected += snapshot.lr * torch.stack([naive_gradient(case, snapshot.model, z, queries=False) @ query for z in range(12)])
    assert torch.allclose(TracIn(checkpoints=2).rate(case.grounds, case.engine).values, expected, rtol=1e-9)


def test_a_trajectory_has_the_moments_of_adam_itself() -> None:
    """Trained by Adam, m and v are the optimiser's own; without momentum they follow the same recursion."""
    case = small(perceptron)
    adam = TRAINING.model_copy(update={"optimizer": "adam", "weight_decay": 0.0, "lr": 0.01})
    states: list[dict[str, torch.Tensor]] = []
    step = torch.optim.Adam.step

    def watched(self: torch.optim.Adam, closure: None = None) -> None:
        step(self, closure)
        parameters = self.param_groups[0]["params"]
        states.append({f"{kind}{i}": self.state[p][kind].clone() for i, p in enumerate(parameters) for kind in ("exp_avg", "exp_avg_sq")})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", watched)
        with following(case.engine, case.problem.original, case.grounds.points, adam, 5, 2) as path:
            found = list(path)
    assert len(states) == 6
    for snapshot, state in zip(found, (states[3], states[5]), strict=True):  # after epochs 2 and 3 of two steps each
        for i, (name, _) in enumerate(snapshot.model.named_parameters()):
            assert torch.allclose(snapshot.first[name], state[f"exp_avg{i}"], atol=1e-12)
            assert torch.allclose(snapshot.second[name], state[f"exp_avg_sq{i}"], atol=1e-12)
    lrs = [sum(0.01 * lr_share(adam, i / 6) for i in pair) / 2 for pair in ((2, 3), (4, 5))]
    assert [snapshot.lr for snapshot in found] == pytest.approx(lrs)
    assert lr_share(adam, 0.5) == pytest.approx(0.5)
    assert lr_share(adam.model_copy(update={"schedule": "constant"}), 0.5) == 1


def test_moments_of_a_model_in_bfloat16_are_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant gradient of 1, a thousand times: v = 1 − 0.999¹⁰⁰⁰. In bfloat16 it would stand still long before."""
    problem = problem_of("linear", forget=2, retain=6, test=2)
    bundle = Bundle(copy.deepcopy(problem.original.model).to(torch.bfloat16))

    def losses(self: ImageClassification, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        del self
        return sum(p.sum() for p in model.parameters()).float().expand(len(batch["labels"]))  # type: ignore[union-attr]

    monkeypatch.setattr(ImageClassification, "losses", losses)
    how = Training(optimizer="sgd", lr=1e-9, batch_size=8, epochs=1000, weight_decay=0.0)
    with following(Engine(problem.task), bundle, union(problem.forget, problem.retain), how, 0, 1) as path:
        [snapshot] = path
    for name, parameter in snapshot.model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert snapshot.first[name].dtype == snapshot.second[name].dtype == torch.float32
        assert torch.allclose(snapshot.second[name], torch.tensor(1 - 0.999**1000), rtol=1e-4)


def test_features_of_gradients_in_bfloat16_are_summed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5000, generator=generator).to(torch.bfloat16)
    first, second = torch.randn(5000, generator=generator), torch.rand(5000, generator=generator)
    direction = adam_direction(rows, first, second, 1e-8)
    exact = adam_direction(rows.double(), first.double(), second.double(), 1e-8)
    assert direction.dtype == torch.float32
    assert torch.allclose(direction.double(), exact, rtol=1e-5, atol=1e-6)
    project = Rademacher(40, 3)
    assert project(rows).dtype == torch.float32
    assert torch.allclose(project(rows).double(), project(rows.double()), atol=1e-4)


def test_a_model_in_bfloat16_is_scored_from_its_gradients_as_in_float64(tmp_path: Path) -> None:
    problem = problem_of("llama", forget=2, retain=6, test=2)
    engine = Engine(problem.task)
    grounds, _ = grounds_of(problem, engine, Training(optimizer="adam", lr=0.01, batch_size=4, epochs=2))
    with trajectory_of(grounds, engine, 1, 1.0, None) as path:
        [snapshot] = path
    told = snapshot._replace(model=snapshot.model.to(torch.bfloat16))
    found = Less(dimensions=64)._alignments(grounds, engine, told, tmp_path / "c")[:, 0]
    names = [name for name, _ in told.model.named_parameters()]
    m, v = (torch.cat([held[name].flatten() for name in names]).double() for held in (snapshot.first, snapshot.second))
    points, queries = (torch.cat(list(sample_gradients(engine, told.model, samples, names))) for samples in (grounds.points, grounds.queries))
    assert points.dtype == torch.bfloat16
    g = points.double()
    signs = whole_signs(Rademacher(64, derive_seed(0, "less", "signs")), len(m)).T
    features = torch.nn.functional.normalize((0.9 * m + 0.1 * g) / (0.999 * v + 0.001 * g**2 + 1e-8).sqrt() @ signs, dim=1)
    asked = torch.nn.functional.normalize(queries.double() @ signs, dim=1).mean(dim=0)
    assert torch.allclose(found, features @ asked, atol=1e-5)


def test_an_interrupted_scoring_continues_from_the_chunks_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(perceptron)
    monkeypatch.setattr(module, "samples_at_once", lambda _: 4)
    score = Less(checkpoints=1, dimensions=16)
    whole = score.rate(case.grounds, case.engine).values
    writes: list[int] = []
    write = Store.write

    def stops(self: Store, number: int, rows: torch.Tensor) -> None:
        if len(writes) == 2:
            raise KeyboardInterrupt
        writes.append(number)
        write(self, number, rows)

    engine = Engine(case.problem.task, work=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            score.rate(case.grounds, engine)
    assert writes == [0, 1]
    continued: list[int] = []

    def counted(self: Store, number: int, rows: torch.Tensor) -> None:
        continued.append(number)
        write(self, number, rows)

    monkeypatch.setattr(Store, "write", counted)
    assert torch.equal(score.rate(case.grounds, engine).values, whole)
    assert continued == [2]
    assert not list(tmp_path.rglob("*.bin"))  # gradients of the forget set do not outlive the work


def test_a_store_gives_back_what_was_put(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", 5, 3, 2).open()
    rows = torch.from_numpy(np.arange(15, dtype=np.float32).reshape(5, 3))
    for number in (2, 0):
        store.write(number, rows[2 * number : 2 * number + 2])
    assert [store.done(number) for number in range(3)] == [True, False, True]
    again = Store(tmp_path / "s", 5, 3, 2).open()
    assert torch.equal(again.read(0), rows[:2])
    assert torch.equal(again.read(2), rows[4:])
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError):
        Store(tmp_path / "f" / "s", 5, 3, 2).open()

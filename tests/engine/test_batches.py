from __future__ import annotations

import itertools

import pytest
import torch

from tests.models import generators, problem_of, scramble
from unlearned.engine.batches import batch_positions, cycled, load, shard
from unlearned.engine.engine import Engine


@pytest.mark.parametrize(("n", "size"), list(itertools.product([1, 2, 3, 5, 9, 10, 16, 17], [1, 2, 3, 4, 8, 100])))
def test_every_position_once_and_no_single_last_sample(n: int, size: int) -> None:
    batches = batch_positions(n, size, 7)
    assert sorted(position for batch in batches for position in batch) == list(range(n))
    assert all(len(batch) in {size, size + 1} for batch in batches[:-1])
    if n > 1 and size > 1:
        assert all(len(batch) > 1 for batch in batches)
    order = batch_positions(n, n + 1, 7)[0]
    assert [position for batch in batches for position in batch] == order


def test_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(batch) for batch in batch_positions(9, 4, 0)] == [4, 5]
    assert [len(batch) for batch in batch_positions(13, 4, 0)] == [4, 4, 5]
    assert [len(batch) for batch in batch_positions(10, 4, 0)] == [4, 4, 2]


def test_order_is_a_function_of_seed_and_purpose() -> None:
    scramble(1)
    first = batch_positions(50, 8, 3, "retain", 0)
    scramble(2)
    assert batch_positions(50, 8, 3, "retain", 0) == first
    others = [batch_positions(50, 8, *key) for key in ((4, "retain", 0), (3, "forget", 0), (3, "retain", 1))]
    assert all(other != first for other in others)


@pytest.mark.parametrize(("n", "size", "count"), [(5, 2, 1), (5, 2, 7), (1, 4, 3), (9, 4, 5), (4, 4, 0)])
def test_cycled_takes_the_set_up_again_in_a_new_order(n: int, size: int, count: int) -> None:
    batches = list(itertools.islice(cycled(n, size, 2, "forget", 0), count))
    rounds = len(batch_positions(n, size, 2))
    for start in range(0, count - rounds + 1, rounds):
        assert sorted(p for batch in batches[start : start + rounds] for p in batch) == list(range(n))
    if count >= 2 * rounds and n > 3:
        assert batches[:rounds] != batches[rounds : 2 * rounds]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_shards_cover_the_batch_with_equal_sizes(world: int, n: int) -> None:
    batch = [10 * i for i in range(n)]
    shards = [shard(batch, rank, world) for rank in range(world)]
    assert {len(part) for part in shards} == {-(-n // world)}
    assert {position for part in shards for position in part} == set(batch)


def test_loading_draws_nothing_and_keeps_the_order() -> None:
    problem = problem_of("linear")
    scramble(3)
    before = generators()
    batches = list(load(problem.retain, [[3, 1], [0]], problem.task.collate))
    assert generators() == before
    assert [batch["labels"].tolist() for batch in batches] == [
        [int(problem.retain[3]["labels"]), int(problem.retain[1]["labels"])],
        [int(problem.retain[0]["labels"])],
    ]
    assert list(load(problem.retain, [], problem.task.collate)) == []


@pytest.mark.parametrize("size", [1, 5, 16, 100])
def test_evaluation_goes_over_all_samples_in_order(size: int) -> None:
    problem = problem_of("linear")
    engine = Engine(problem.task)
    seen = torch.cat([batch["labels"] for batch in engine.batches(problem.test, size)])
    assert seen.tolist() == problem.test.fact("label")

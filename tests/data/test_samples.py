from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch

from unlearned.data.fingerprints import as_bytes, of_json, of_tensors
from unlearned.data.samples import ColumnRows, MappedRows, Samples, union


def samples(n: int = 5, **facts) -> Samples:
    return Samples(ColumnRows({"x": torch.arange(n).float()}), [f"s{i}" for i in range(n)], {"label": list(range(n)), **facts})


def values(chosen: Samples) -> list[float]:
    return [float(chosen[i]["x"]) for i in range(len(chosen))]


def test_subsets_keep_content_ids_and_facts_together() -> None:
    chosen = samples().subset([4, 0, 2])
    assert (values(chosen), chosen.ids, chosen.fact("label")) == ([4, 0, 2], ["s4", "s0", "s2"], [4, 0, 2])
    again = chosen.subset([2, 1])
    assert (values(again), again.ids, again.fact("label")) == ([2, 0], ["s2", "s0"], [2, 0])
    assert len(samples().subset([])) == 0


def test_only_and_without_keep_the_order_of_the_set() -> None:
    whole = samples().subset([3, 1, 4, 0])
    assert whole.only(["s0", "s3", "nobody"]).ids == ["s3", "s0"]
    assert whole.without(["s0", "s3", "nobody"]).ids == ["s1", "s4"]
    assert sorted(whole.only(["s1"]).ids + whole.without(["s1"]).ids) == sorted(whole.ids)


def test_shuffled_is_a_permutation_by_seed() -> None:
    whole = samples(20)
    assert sorted(whole.shuffled(1).ids) == sorted(whole.ids)
    assert whole.shuffled(1).ids == whole.shuffled(1).ids != whole.shuffled(2).ids


def test_union() -> None:
    both = union(samples(3, site=["a", "b", "c"]), samples(5).subset([4, 3]))
    assert (values(both), both.ids, both.fact("label")) == ([0, 1, 2, 4, 3], ["s0", "s1", "s2", "s4", "s3"], [0, 1, 2, 4, 3])
    assert set(both.facts) == {"label"}
    assert values(both.subset([4, 0])) == [3, 0]


def test_fingerprint_is_the_same_however_the_samples_were_made() -> None:
    whole = samples(5)
    assert whole.fingerprint == samples(5).fingerprint
    assert samples(7).subset(range(5)).fingerprint == whole.fingerprint
    assert union(whole.subset([0, 1]), whole.subset([2, 3, 4])).fingerprint == whole.fingerprint
    assert Samples(ColumnRows({"x": torch.arange(5).float()}), whole.ids).fingerprint == whole.fingerprint


def test_fingerprint_by_hand() -> None:
    """Id, column, type and shape, and the bytes of each value. If this changes, references that were trained before are not found again."""
    digest = hashlib.sha256()
    for i in range(3):
        digest.update(f"s{i}".encode() + b"\0" + b"x" + b"\0" + b"torch.float32()" + struct.pack("<f", i))
    assert samples(3).fingerprint == digest.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        samples(4),
        samples(5).subset([1, 0, 2, 3, 4]),
        Samples(ColumnRows({"x": torch.arange(5).float() + 1e-6}), samples().ids),
        Samples(ColumnRows({"x": torch.arange(5)}), samples().ids),
        Samples(ColumnRows({"y": torch.arange(5).float()}), samples().ids),
        Samples(ColumnRows({"x": torch.arange(5).float()[:, None]}), samples().ids),
        Samples(ColumnRows({"x": torch.arange(5).float()})),
    ],
)
def test_fingerprint_sees_every_difference(other: Samples) -> None:
    assert other.fingerprint != samples(5).fingerprint


def test_fingerprints_of_tensors_and_settings() -> None:
    one = {"a": torch.ones(2), "b": torch.zeros(2)}
    assert of_tensors(one) == of_tensors(dict(reversed(one.items())))
    assert of_tensors(one) != of_tensors({"b": torch.ones(2), "a": torch.zeros(2)})
    assert of_tensors(one) != of_tensors(one | {"a": torch.ones(2).double()})
    assert of_json({"a": 1, "b": [2]}) == of_json({"b": [2], "a": 1}) != of_json({"a": 1, "b": [3]})
    assert as_bytes(np.ones(2)) != as_bytes(np.ones((2, 1)))
    assert as_bytes(torch.ones(3).bfloat16()) == as_bytes(torch.ones(6)[::2].bfloat16())


@pytest.mark.parametrize(("budget", "made"), [(10**6, 3), (4, 5), (0, 6)])
def test_rows_are_made_once_while_they_fit(budget: int, made: int) -> None:
    calls = []

    def make(row):
        calls.append(1)
        return {"x": row["x"] * 2}

    rows = MappedRows(ColumnRows({"x": torch.arange(3).float()}), make, budget)
    assert [float(rows[i]["x"]) for i in (0, 1, 2, 0, 1, 2)] == [0, 2, 4, 0, 2, 4]
    assert len(calls) == made

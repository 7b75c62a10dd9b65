"""Agreement of judges, and probes on a plane, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from unlearned.holes._agreement import agreement_of
from unlearned.holes._map import on_a_plane


def test_rank_correlation_is_that_of_ranks_with_ties() -> None:
    random = np.random.default_rng(0)
    one = random.integers(1, 5, 40).astype(float)
    other = one + random.integers(0, 4, 40)

    def ranks(values: np.ndarray) -> np.ndarray:  # the mean of the places that equal values take
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    found = agreement_of("a", "b", [*one, None, 3.0], [*other, 2.0, None], seed=1)
    assert found.n == 40
    assert found.correlation == pytest.approx(np.corrcoef(ranks(one), ranks(other))[0, 1], abs=1e-12)
    assert found.correlation is not None
    assert found.interval is not None
    assert found.interval.low < found.correlation < found.interval.high
    assert found == agreement_of("a", "b", [*(one + 1e-4 * random.random(40)), None, 3.0], [*other, 2.0, None], seed=1)
    assert "40 answers" in found.line


def test_judges_that_score_all_alike_have_no_correlation() -> None:
    found = agreement_of("a", "b", [5.0, 5.0, 5.0], [1.0, 2.0, 3.0], seed=0)
    assert found.correlation is None
    assert found.interval is None
    assert "scored all alike" in found.line
    nothing = agreement_of("a", "b", [1.0, 2.0], [None, None], seed=0)
    assert nothing.correlation is None
    assert nothing.line == "No answer was scored by both a and b: how far they agree cannot be told."


def test_the_plane_is_that_of_principal_components() -> None:
    rows = np.random.default_rng(2).normal(size=(12, 7))
    found = on_a_plane(rows)
    assert np.abs(found) == pytest.approx(np.abs(PCA(2, svd_solver="full").fit_transform(rows)), abs=1e-10)
    assert np.array_equal(found, on_a_plane(rows.copy()))


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.ones((1, 3)), np.ones((4, 3)), np.array([[0.0], [2.0]])])
def test_few_or_equal_probes_have_places_too(rows: np.ndarray) -> None:
    found = on_a_plane(rows)
    assert found.shape == (len(rows), 2)
    assert np.isfinite(found).all()
    assert np.abs(found[:, 1]).max(initial=0) < 1e-12

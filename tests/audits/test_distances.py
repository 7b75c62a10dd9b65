from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from unlearned.audits.utility import average_gap, tug_of_war
from unlearned.evidence.distances import jensen_shannon, total_variation


def distributions(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(7, 0.3), size=9))


def test_jensen_shannon_against_scipy() -> None:
    p, q = distributions(0), distributions(1)
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    np.testing.assert_allclose(jensen_shannon(p, q).numpy(), expected, rtol=1e-10)


def test_total_variation_is_the_largest_difference_over_events() -> None:
    """½ Σ |p − q| is max over sets A of classes of |p(A) − q(A)|: all 2⁷ sets are tried."""
    p, q = distributions(2), distributions(3)
    for i in range(9):
        best = 0.0
        for event in range(2**7):
            inside = [c for c in range(7) if event >> c & 1]
            best = max(best, abs(sum(float(p[i, c]) - float(q[i, c]) for c in inside)))
        assert float(total_variation(p, q)[i]) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("distance", [total_variation, jensen_shannon])
def test_bounds(distance) -> None:
    one, other = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    assert float(distance(one, other)) == pytest.approx(1)
    assert float(distance(one, one)) == 0
    p, q = distributions(4), distributions(5)
    torch.testing.assert_close(distance(p, q), distance(q, p))


def test_average_gap_by_hand() -> None:
    assert average_gap([0.9, 0.5, 0.1], [0.8, 0.7, 0.1]) == pytest.approx(0.1)
    assert average_gap([0.3, 0.4], [0.3, 0.4]) == 0


def test_tug_of_war_by_hand() -> None:
    """(1 − 0.1) (1 − 0.2) (1 − 0.5)."""
    assert tug_of_war([0.9, 0.5, 0.1], [0.8, 0.7, 0.6]) == pytest.approx(0.9 * 0.8 * 0.5)
    assert tug_of_war([0.3, 0.4], [0.3, 0.4]) == 1

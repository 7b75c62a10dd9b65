"""KLoM against histograms of numpy, on distributions that are known, and on small banks of real models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from tests.audits import digits
from unlearned.audits._distributions import matched
from unlearned.audits.klom import Klom, histogram_divergence
from unlearned.records import Finding


def value(findings: list[Finding], metric: str, split: str = "forget", subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if (f.metric, f.split, f.subject) == (metric, split, subject)]
    return finding


def banks(seed: int, a: int, b: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centre = random.normal(0, 5, n)
    return centre + random.normal(0.3, 2, (a, n)), centre + random.normal(0, 1, (b, n))


@pytest.mark.parametrize(("a", "b", "bins"), [(2, 2, 20), (100, 100, 20), (30, 50, 7), (5, 3, 20)])
def test_against_numpys_histogram_and_scipys_entropy(a: int, b: int, bins: int) -> None:
    unlearned, oracle = banks(a, a, b, 12)
    expected = []
    for i in range(12):
        both = np.concatenate([unlearned[:, i], oracle[:, i]])
        p, q = (np.histogram(bank[:, i], bins=bins, range=(both.min(), both.max()))[0] / len(bank) for bank in (unlearned, oracle))
        expected.append(entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))
    np.testing.assert_allclose(histogram_divergence(unlearned, oracle, bins), expected, rtol=1e-10, atol=1e-12)


def test_identical_histograms_have_no_divergence() -> None:
    bank, _ = banks(0, 50, 2, 9)
    np.testing.assert_allclose(histogram_divergence(bank, bank[::-1]), 0, atol=1e-15)
    np.testing.assert_allclose(histogram_divergence(np.ones((3, 2)), np.ones((5, 2))), 0, atol=1e-15)


def test_by_hand() -> None:
    """Two bins over [0, 1]: p = (½, ½), q = (1, 0 → 1e-5); KL = ½ log(½ s) + ½ log(½ s / 1e-5), s = 1 + 1e-5."""
    s = 1 + 1e-5
    expected = 0.5 * np.log(0.5 * s) + 0.5 * np.log(0.5 * s / 1e-5)
    assert histogram_divergence(np.array([[0.0], [1.0]]), np.array([[0.1], [0.2]]), 2)[0] == pytest.approx(expected, rel=1e-12)


def test_distributions_apart_from_each_other_have_the_largest_divergence_there_is() -> None:
    far = histogram_divergence(np.full((10, 1), 50.0), np.full((10, 1), -50.0))[0]
    assert far == pytest.approx(np.log((1 + 1e-5) / 1e-5), rel=1e-12)


@pytest.mark.parametrize(("references", "shadows", "size", "null"), [(8, 8, 4, True), (20, 6, 6, True), (7, 9, 3, True), (4, 2, 2, True), (3, 5, 3, False)])
def test_parts_of_the_banks_have_one_size_and_no_model_twice(references: int, shadows: int, size: int, null: bool) -> None:
    parts = matched(shadows, references, 2, seed=5)
    assert len(parts) == 20
    for part in parts:
        assert len(part.shadows) == len(part.oracle) == size
        assert (part.null is not None) is null
        others = [] if part.null is None else part.null.tolist()
        assert len(others) == (size if null else 0)
        assert len({*part.oracle.tolist(), *others}) == size + len(others)
        assert len(set(part.shadows.tolist())) == size
    if shadows > size:
        assert {i for part in parts for i in part.shadows.tolist()} == set(range(shadows))


def test_few_models_differ_by_chance_and_so_does_their_null() -> None:
    """60 synthetic problems of one distribution: the value is far above 0, and on average it is the null's."""
    gaps, values = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        references, shadows = random.normal(size=(8, 5)), random.normal(size=(6, 5))
        parts = matched(6, 8, 2, seed)
        ours = np.mean([histogram_divergence(shadows[part.shadows], references[part.oracle]).mean() for part in parts])
        null = np.mean([histogram_divergence(references[part.null], references[part.oracle]).mean() for part in parts if part.null is not None])
        gaps.append(ours - null)
        values.append(ours)
    assert np.mean(values) > 5
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps) / np.sqrt(len(gaps))


@pytest.mark.parametrize(("models", "apart"), [("retrained", False), ("originals", True), ("broken", True)])
def test_on_real_banks(models: str, apart: bool) -> None:
    findings = Klom().measure(digits.subject(getattr(digits, models)(100 if models == "retrained" else 200, 9), digits.retrained(0)))
    unlearned, null = value(findings, "klom_mean"), value(findings, "klom_mean", subject="reference")
    assert unlearned.low is not None
    assert null.value is not None
    assert null.high is not None
    assert (unlearned.low > null.high) is apart
    assert unlearned.gap is not None
    assert abs(unlearned.gap) < 0.5 or apart
    assert [value(findings, "models", subject=who).value for who in ("unlearned", "reference")] == [4, 4]
    assert "20 choices" in (unlearned.interval or "")


def test_too_few_models_are_a_reason() -> None:
    findings = Klom().measure(digits.subject(digits.retrained(100, 2), digits.retrained(0, 4)))
    assert {f.reason for f in findings} == {"klom needs at least 2 references and 2 shadow models, there are 4 and 1"}
    without = Klom().measure(digits.subject(digits.retrained(100, 4), digits.retrained(0, 3)))
    assert value(without, "klom_mean").reason == "the null, references against references, needs at least 4 references, there are 3"
    assert value(without, "models").value == 3

from __future__ import annotations

import doctest

import pytest

from unlearned.records import Finding
from unlearned.report import words
from unlearned.report.curves import curves
from unlearned.report.rows import side_by_side

from .conftest import curve, make, three


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.97349, "share", "97.3 %"),
        (0.0011, "share", "0.11 %"),
        (0.0, "share", "0.0 %"),
        (0.0000043, "share", "0.00043 %"),
        (-5.7e-25, "share", "0.0 %"),
        (1.0, "share", "100.0 %"),
        (12.345, "seconds", "12.3 s"),
        (123456.7, "seconds", "123,457 s"),
        (3 * 2**20, "bytes", "3 MiB"),
        (0.16349, "ratio", "0.163 x"),
        (17, "units", "17 units"),
        (0.00001234, "", "1.23e-05"),
    ],
)
def test_numbers_have_units(value: float, unit: str, text: str) -> None:
    assert words.number(value, unit) == text


def test_differences_have_signs() -> None:
    assert [words.difference(value, "share") for value in (0.012, -0.012, 0.0)] == ["+1.2 pp", "-1.2 pp", "+0.0 pp"]


def test_rows_join_models_and_lose_no_duplicate() -> None:
    findings = three("a", "m", "s", (0.1, 0.2, 0.3))
    first, second = side_by_side([*findings, findings[1]])
    assert list(first.cells) == ["original", "unlearned", "reference"]
    assert list(second.cells) == ["unlearned"]
    assert first.change == "+10.0 pp"
    assert second.change == ""


def test_curves_are_sorted_and_split_by_what_they_measure() -> None:
    points = curve({"unlearned": [0.0, 0.1, 0.2, 0.3, 0.4]})
    other = [point.model_copy(update={"split": "test"}) for point in points]
    found = curves([*reversed(points), *other, *three("utility", "accuracy", "test", (0.1, 0.2, 0.3))])
    assert [c.split for c in found] == ["forget-rest", "test"]
    assert [p.budget for p in found[0].points["unlearned"]] == [0, 5, 10, 20, 50]


def test_a_curve_compares_with_the_reference_at_the_same_budget_only() -> None:
    points = [p for p in curve({"unlearned": [0.9, 0.5, 0.4, 0.3, 0.2], "reference": [0.1] * 5}) if p.subject != "reference" or p.budget != 50]
    (found,) = curves(points)
    assert found.sentence.endswith("falls from 90.0 % to 20.0 % in 50 steps; no retrained model was attacked as long")


def test_a_curve_without_values_says_so() -> None:
    point = Finding(
        audit="relearn", kind="attack", metric="knowledge", split="forget", subject="unlearned", value=None, n=0, unit="share", budget=1, reason="diverged"
    )
    (found,) = curves(make([point]).findings)
    assert found.sentence == "relearn: knowledge of the forget set was not measured for the unlearned model"


@pytest.mark.parametrize(
    ("metric", "unit", "value", "shown"),
    [
        ("accuracy", "share", 0.998, "[97.3, 100.0]"),
        ("accuracy", "share", 0.002, "[0.0, 2.7]"),
        ("tpr_at_1pct_fpr", "share", 0.002, "[0.0, 2.7]"),
        ("knowledge", "share", 0.002, "[-2.3, 2.7]"),  # an explained share may be negative
        ("explained_share", "share", 0.002, "[-2.3, 2.7]"),
        ("accuracy", "ratio", 0.998, "[0.973, 1.02]"),
        ("accuracy", "share", 1.5, "[147.5, 152.5]"),  # no share, whatever it is called
    ],
)
def test_the_interval_of_a_share_is_shown_as_far_as_a_share_can_reach(metric: str, unit: str, value: float, shown: str) -> None:
    common = {"audit": "utility", "metric": metric, "split": "test", "subject": "reference", "n": 3, "unit": unit, "interval": "t 95 %"}
    finding = Finding.model_validate(common | {"value": value, "low": value - 0.025, "high": value + 0.025})
    assert words.interval(finding) == shown
    ends = words.ends(finding)
    assert ends is not None
    assert ends[0] <= value <= ends[1]

"""The retention of every attack: one figure, one group of the table, and words in the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from unlearned.records import Finding
from unlearned.report import attack_summary, words
from unlearned.report.plots import retentions
from unlearned.report.rows import RETENTION, side_by_side


def kept(attack: str, unit: str, value: float | None, who: Any = "unlearned") -> Finding:
    more: dict[str, Any] = {"reason": "nothing was forgotten"} if value is None else {"low": value - 0.1, "high": value + 0.1, "interval": "bootstrap"}
    gap = None if who == "reference" or value is None else value - 1
    return Finding(
        audit=attack, kind="attack", metric="retention", split="forget", subject=who, value=value, n=9, unit="ratio", gap=gap, budget_unit=unit, **more
    )


def findings() -> list[Finding]:
    several = [("prune", "% pruned", 0.9), ("relearn", "steps", 0.2), ("relearn", "steps on <b>plain</b> sentences", 0.6), ("quantize", "bits", None)]
    return [finding for attack, unit, value in several for finding in (kept(attack, unit, value), kept(attack, unit, 1.0, "reference"))]


def test_one_figure_has_a_row_for_each_attack_in_order_and_says_what_is_missing() -> None:
    figure = retentions(findings())
    of_unlearned = next(trace for trace in figure.spec["data"] if trace["name"] == "unlearned")
    assert of_unlearned["x"] == [0.9, 0.2, 0.6]
    assert of_unlearned["y"][:2] == ["prune", "relearn, steps"]
    assert "<b>" not in of_unlearned["y"][2]
    assert of_unlearned["error_x"]["array"] == pytest.approx([0.1] * 3)
    assert figure.spec["layout"]["yaxis"]["categoryarray"][::-1][0] == "prune"
    assert "unlearned: nothing was forgotten" in figure.caption


def test_rows_of_several_attacks_stand_together_under_their_names() -> None:
    rows = side_by_side(findings())
    assert {row.group for row in rows} == {RETENTION}
    assert [row.named for row in rows[:2]] == ["prune, worst (% pruned)", "relearn, worst (steps)"]
    assert [row.cell("reference") for row in rows[:2]] == ["1 x [0.9, 1.1]"] * 2


def test_the_terminal_says_what_was_left_out() -> None:
    console = Console(width=120, record=True)
    console.print(attack_summary(findings(), {"layer-skip": "it is not defined for [red]images"}))
    text = console.export_text()
    assert "relearn retention at worst (steps)" in text
    assert "not measured, nothing was forgotten: quantize retention" in text
    assert "skipped layer-skip: it is not defined for [red]images" in text


def test_units_that_begin_with_a_word_that_can_stand_in_the_singular() -> None:
    assert words.amount(1, "steps on related data") == "1 step on related data"
    assert words.amount(2, "blocks skipped") == "2 blocks skipped"

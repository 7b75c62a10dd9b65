from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from unlearned.comparing import compare
from unlearned.records import AuditRecord, Check, CompareRecord, Finding, Pruning, Verdict
from unlearned.report import terminal

from .conftest import ENVIRONMENT, PROBLEM, curve, make, run_of, three


def shown(record: AuditRecord | CompareRecord, width: int = 200, **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(terminal(record))
    return stream.getvalue()


def test_the_first_line_is_the_verdict_in_words_and_colour(full: AuditRecord) -> None:
    assert shown(full).splitlines()[0] == "FAILED  The model leaks more about the forget set than a retrained model."
    assert shown(full, force_terminal=True, color_system="standard").startswith("\x1b[1;31mFAILED")


@pytest.mark.parametrize(("status", "code"), [("passed", "32"), ("failed", "31"), ("undecided", "33")])
def test_each_status_has_its_word_and_its_colour(status: str, code: str) -> None:
    text = shown(make([], verdict=Verdict.model_validate({"status": status, "headline": "So."})), force_terminal=True, color_system="standard")
    assert text.startswith(f"\x1b[1;{code}m{status.upper()}")


def test_a_row_holds_all_models_with_intervals_and_the_gap(full: AuditRecord) -> None:
    lines = shown(full).splitlines()
    at = next(i for i, line in enumerate(lines) if "utility accuracy" in line and "forget" in line)
    assert [part.strip() for part in lines[at].split("  ") if part.strip()] == ["utility accuracy", "forget", "99.5 %", "65.2 %", "64.0 %", "+1.2 pp"]
    assert lines[at + 1].split("  ") != [""]
    assert all(ends in lines[at + 1] for ends in ("[96.5, 100.0]", "[62.2, 68.2]", "[61.0, 67.0]"))


def test_checks_costs_and_the_curve_have_their_lines(full: AuditRecord) -> None:
    text = shown(full)
    assert "undecided  relearn: Fewer than two references were given" in text
    assert "cost of unlearned: 2.31 s wall, 4.4 s CPU, 512 MiB peak memory, 3,000 samples seen, 47 steps" in text
    assert "relearn: knowledge of the unseen rest rises from 2.0 % to 91.0 % in 50 steps; a retrained model reaches 10.0 %" in text


def test_points_of_a_curve_do_not_flood_the_table() -> None:
    text = shown(make(curve({"unlearned": [0.5] * 5})))
    assert text.count("relearn: knowledge") == 1
    assert "stays at 50.0 % after 50 steps; no reference given" in text
    assert "original" not in text


def test_an_attack_that_takes_no_time_says_where_it_is_farthest_from_a_retrained_model(wide: AuditRecord) -> None:
    text = shown(wide)
    assert "prune: knowledge of the forget set is farthest from a retrained model's at 60 % pruned: 30.0 %, and there 2.0 %" in text
    assert "quantize: knowledge of the forget set is farthest from a retrained model's at 3 bits: 70.0 %, and there 3.0 %" in text
    alone = shown(make(curve({"unlearned": [0.1, 0.7]}, "prune", (0.3, 0.9), "share pruned")))
    assert "prune: knowledge of the unseen rest is highest at 90 % pruned, with 70.0 %; no reference given" in alone


def test_what_is_absent_says_why(full: AuditRecord, lonely: AuditRecord) -> None:
    assert "not measured, needs 1000 samples" in shown(full)
    assert "no reference given" in shown(lonely)


def test_what_all_rows_lack_is_said_once(lonely: AuditRecord) -> None:
    lines = shown(lonely, width=80).splitlines()
    assert "  ".join(lines).count("no reference given") == 2  # of the gaps, and of the number that was not measured
    assert "no gap, no reference given" in lines
    assert not any(word in line for line in lines[:8] for word in ("retrained (", " gap"))


def test_checks_without_a_value_share_the_line_of_their_reason() -> None:
    none = [Check(name=name, passed=None, words="no reference given.") for name in ("accuracy on forget", "accuracy on test")]
    few = [Check(name=name, passed=None, words="too few samples.", value=0.5, limit=0.05) for name in ("relearning", "membership")]
    text = shown(make([], verdict=Verdict(status="undecided", headline="So.", checks=(none[0], few[0], none[1], few[1]))))
    assert text.splitlines()[1:4] == [
        "undecided  accuracy on forget, accuracy on test: no reference given.",
        "undecided  relearning: too few samples.",
        "undecided  membership: too few samples.",
    ]


def test_reasons_stand_below_the_table_and_make_no_towers() -> None:
    why = "of the references not all have one: half of what the original knew did not come back within 500 steps"
    found = [
        *three("utility", "accuracy", "forget", (0.995, 0.652, 0.64)),
        Finding(audit="memora", kind="attack", metric="half_steps", split="forget", subject="unlearned", value=0, n=9, unit="steps", reason=why),
        Finding(
            audit="memora", kind="attack", metric="recovery", split="forget", subject="unlearned", value=None, n=0, unit="ratio", reason="nothing was lost"
        ),
    ]
    text = shown(make(found), width=80)
    assert f"no gap, {why}: memora half steps" in " ".join(text.split())
    assert "not measured, nothing was lost: memora recovery" in text
    assert [cells(line) for line in text.splitlines() if "memora half" in line and "forget" in line][-1:] == [["memora", "half", "forget", "0", "steps", "-"]]
    assert len(text.partition("no gap")[0].splitlines()) < 11


def test_markup_and_control_codes_stay_text() -> None:
    evil = "[red]x[/red] [link=http://a]y[/link] \x1b[2Jgone\x07"
    finding = Finding(audit=evil, metric=evil, split=evil, subject="unlearned", value=None, n=0, unit="", reason=evil)
    record = make([finding], verdict=Verdict(status="failed", headline=evil, checks=(Check(name=evil, passed=False, words=evil),)))
    text = shown(record, width=400, force_terminal=True, color_system="standard")
    # headline; name and words of the check; audit, metric and reason.
    assert text.count("[red]x[/red]") == 6
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\\x1b[2Jgone\\x07" in text


def test_a_narrow_plain_terminal_loses_no_number(full: AuditRecord) -> None:
    text = shown(full, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(number in text for number in ("99.5 %", "65.2 %", "64.0 %", "+1.2 pp", "[96.5, 100.0]"))


def test_a_terminal_without_unicode_can_show_it(full: AuditRecord) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=stream, width=100).print(terminal(full))
    stream.flush()
    assert b"FAILED" in raw.getvalue()


def cells(line: str) -> list[str]:
    """What stands in a line, each number with its unit."""
    return re.split(r"\s+(?!(?:%|pp|x)(?:\s|$))", line.strip())


def test_several_runs_stand_one_below_the_other_under_the_models_that_they_share(dozen: CompareRecord) -> None:
    lines = shown(dozen).splitlines()
    assert cells(lines[1]) == ["method", "verdict", "forget", "retain", "test", "membership", "distance", "relearn", "cost"]
    assert cells(lines[3]) == ["original", "99.5 %", "99.8 %", "96.8 %", "41.0 %"]
    assert cells(lines[4]) == ["retrained", "64.0 %", "99.7 %", "96.2 %", "9.0 %"]
    # The gaps: 0.43 - 0.5 of the AUC; 0.84 - 0.07 at 20 steps, the farthest point of the curve.
    assert cells(lines[6]) == ["retrain", "passed", "65.2 %", "98.1 %", "94.9 %", "-0.07", "12.0 %", "+81.0 pp", "0.2 x"]
    assert [cells(line)[0] for line in lines[6:18]] == [run.name for run in dozen.runs]
    assert any(line.startswith("relearn: knowledge under the attack relearn minus the retrained model's") for line in lines)


def test_what_was_skipped_is_said_where_runs_are_compared() -> None:
    thin = {"score": {"name": "random"}, "of": "both", "rule": "half", "total": {"forget": 4, "retain": 6}, "queries": ""}
    some, none = (Pruning(dropped={"forget": count, "retain": 3}, **thin) for count in (2, 0))
    text = shown(compare([run_of("scrub", pruning=some), run_of("ssd", pruning=none)]))
    assert "scrub: 2 of 4 points of the forget set were skipped" in " ".join(text.split())
    assert "ssd: " not in text


def test_what_else_differs_between_runs_is_said() -> None:
    first = run_of({"name": "scrub"})
    assert "differ" not in shown(compare([first, run_of("ssd")]))
    other = run_of("ssd", environment=ENVIRONMENT.model_copy(update={"device": "cuda"}))
    moved = [f.model_copy(update={"value": 0.9}) if f.subject == "original" and f.split == "test" else f for f in other.findings]
    text = shown(compare([first, other.model_copy(update={"findings": tuple(moved), "recipe": {"method": "ssd", "training": {"lr": 1}}})]))
    assert "They do not start from the same original model" in text
    assert "retrained models: their numbers differ" not in text
    assert "Besides the method they differ in device, training.lr." in text
    assert "90.0 % to 96.8 %" in text


def test_without_references_the_worst_point_is_the_highest_and_what_no_run_has_is_no_column(lonely: AuditRecord) -> None:
    attacked = (*lonely.findings, *curve({"unlearned": [0.1, 0.2, 0.7, 0.3, 0.2]}))
    lines = shown(compare([lonely.model_copy(update={"findings": attacked, "sets": PROBLEM})] * 2)).splitlines()
    assert cells(lines[1]) == ["method", "verdict", "forget", "test", "membership", "relearn"]
    assert cells(lines[4]) == ["retrained"]
    assert cells(lines[6]) == ["neggrad-plus", "(1)", "undecided", "65.2 %", "94.9 %", "43.0 %", "70.0 %"]


def test_twelve_runs_lose_no_number_in_a_narrow_terminal(dozen: CompareRecord) -> None:
    text = shown(dozen, width=80)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert all(number in words for number in ("65.2 %", "98.1 %", "-0.07", "+81.0", "1.2 x"))


def test_markup_in_the_records_of_several_runs_stays_text(hostile: AuditRecord) -> None:
    text = shown(compare([hostile.model_copy(update={"sets": PROBLEM})] * 2), width=400, force_terminal=True, color_system="standard")
    assert "[red]x[/red]" in text

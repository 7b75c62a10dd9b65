from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from unlearned.records import AuditRecord, Check, Finding, Verdict
from unlearned.report import terminal

from .conftest import curve, make


def shown(record: AuditRecord, width: int = 200, **options: Any) -> str:
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


def test_what_is_absent_says_why(full: AuditRecord, lonely: AuditRecord) -> None:
    assert "not measured, needs 1000 samples" in shown(full)
    assert "no reference given" in shown(lonely)


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
    assert all(number in text for number in ("99.5 %", "65.2 %", "64.0 %", "+1.2 pp"))


def test_a_terminal_without_unicode_can_show_it(full: AuditRecord) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=stream, width=100).print(terminal(full))
    stream.flush()
    assert b"FAILED" in raw.getvalue()

"""A benchmark as a page: tables and dot plots from its rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearned.errors import InputError
from unlearned.records import BenchRecord, BenchRow, Quoted
from unlearned.report import html, write_page
from unlearned.report.bench import sheets

from .chromium import Browser
from .conftest import ENVIRONMENT, HOSTILE
from .test_report_page import without_scripts

PAPER = {Quoted("scrub", "T=10", "test", "error"): 2.0, Quoted("absent", "T=10", "test", "error"): 9.0, Quoted("ssd", "T=10", "test", "error"): 3.0}


def rows(method: str, setting: str, values: list[float], metric: str = "error", split: str = "test") -> list[BenchRow]:
    return [BenchRow(method=method, setting=setting, seed=seed, split=split, metric=metric, value=value) for seed, value in enumerate(values)]


def record(found: list[BenchRow]) -> BenchRecord:
    return BenchRecord(suite="made-up", environment=ENVIRONMENT, settings={"seeds": 3}, rows=tuple(found))


@pytest.fixture
def small() -> BenchRecord:
    diverged = BenchRow(method="ascent", setting="T=10", seed=0, split="test", metric="error", reason="diverged")
    found = [*rows("retrain", "all", [0.5]), *rows("scrub", "T=10", [1.0, 2.0, 6.0]), *rows("scrub", "T=20", [1.5]), diverged]
    return record([*found, *rows("scrub", "T=10", [0.1], "chosen_lr"), *rows("ssd", "T=10", [0.1], "chosen_lr")])


def test_a_cell_holds_the_middle_the_ends_and_the_papers_number(small: BenchRecord) -> None:
    error, chosen = sheets(small, "median", PAPER)
    assert (error.title, error.settings) == ("error, test", ["all", "T=10", "T=20"])
    assert error.rows == [("retrain", ["0.5", "-", "-"]), ("scrub", ["-", "2 [1, 6] / 2", "1.5"]), ("ascent", ["-", "diverged", "-"])]
    assert chosen.rows == [("scrub", ["0.1"]), ("ssd", ["0.1"])]
    assert sheets(small, "mean", {})[0].rows[1][1][1] == "3 [1, 6]"


def test_each_setting_is_drawn_with_seeds_and_the_papers_number_where_they_are(small: BenchRecord) -> None:
    error, chosen = sheets(small, "median", PAPER)
    assert [plot.title for plot in error.drawn] == ["T=10"]  # one number alone is no plot
    assert chosen.drawn == []
    (plot,) = error.drawn
    assert plot.heads == ("ours", "paper")
    scrub, ascent = plot.rows
    # From 1 to 6 with a margin of a twentieth: 0.75 to 6.25.
    at = {value: round(100 * (value - 0.75) / 5.5, 3) for value in (1, 2, 6)}
    assert [(dot.place, dot.kind) for dot in scrub.dots] == [(at[1], "seed"), (at[2], "seed"), (at[6], "seed"), (at[2], ""), (at[2], "paper")]
    assert scrub.span == (at[1], at[6])
    assert (scrub.texts, scrub.interval, scrub.look) == (("2", "2"), "[1, 6]", 1)
    assert (ascent.dots, ascent.note, ascent.look) == ((), "diverged", 2)


def test_many_settings_are_drawn_together_by_their_mean() -> None:
    found = [row for i in range(6) for row in (*rows("a", f"class {i}", [i, i + 2]), *rows("b", f"class {i}", [10.0 * i]))]
    (sheet,) = sheets(record(found), "mean", {})
    (plot,) = sheet.drawn
    assert plot.title == "6 settings"
    # a: 1 to 6, mean 3.5; b: 0 to 50, mean 25.
    assert [row.texts for row in plot.rows] == [("3.5",), ("25",)]
    assert [row.interval for row in plot.rows] == ["[1, 6]", "[0, 50]"]
    assert len(plot.rows[0].dots) == 7


def test_settings_that_are_amounts_are_drawn_as_curves() -> None:
    percents = [row for p in (50, 0, 10) for row in (*rows("a", f"{p} %", [p / 100, p / 50]), *rows("b", f"{p} %", [1.0]))]
    steps = [row for n in (1, 2, 3) for row in rows("a", f"memora, {n} steps", [float(n)])]
    (sheet,) = sheets(record([*percents, *steps, *rows("c", "before", [0.5, 0.7]), *rows("c", "class 1", [0.5]), *rows("c", "T=10", [2.0])]), "mean", {})
    assert [plot.title for plot in sheet.drawn] == ["before"]  # the others are amounts, or one number
    by_percent, by_steps = sheet.curves
    assert (by_percent.of, by_steps.of) == ("", "memora")
    assert by_percent.caption == "Across: %; line: mean over seeds, area: from the smallest to the largest; grey: the other methods."
    assert by_steps.caption == "Across: steps."
    assert [chart.title for chart in by_percent.each] == ["a", "b"]
    assert [chart.title for chart in by_steps.each] == ["a"]
    a, b = by_percent.each
    assert [line.faint for line in a.lines] == [True, False]
    own = a.lines[1]
    # Across 0, 10 and 50 percent, in that order; from 0 to 1 with a margin of a twentieth, -0.05 to 1.05, downwards.
    down = {value: round(100 - 100 * (value + 0.05) / 1.1, 3) for value in (0, 0.1, 0.15, 0.2, 0.5, 0.75, 1)}
    assert [(mark.x, mark.y) for mark in own.marks] == [(0, down[0]), (20, pytest.approx(down[0.15], abs=0.002)), (100, down[0.75])]
    assert own.marks[1].told == "a, 10 %: 0.15 [0.1, 0.2]"
    corners = np.array([[float(place) for place in corner.split(",")] for corner in own.band.split()])
    expected = [(0, 0), (20, 0.2), (100, 1), (100, 0.5), (20, 0.1), (0, 0)]
    assert corners == pytest.approx(np.array([(x, down[y]) for x, y in expected]), abs=0.002)
    assert b.lines[1].look == 1
    assert "multiples" in html.drawings(record(percents), "mean", {})[0]


def test_two_amounts_are_no_curve_and_neither_is_a_number_without_a_unit() -> None:
    found = [row for setting in ("10 %", "20 %", "class 1", "class 2", "class 3") for row in rows("a", setting, [float(len(setting)), 2.0])]
    (sheet,) = sheets(record(found), "mean", {})
    assert sheet.curves == []
    assert [plot.title for plot in sheet.drawn] == ["5 settings"]


def hostile() -> BenchRecord:
    amounts = [row for text in HOSTILE for n in (1, 2, 3) for row in rows(text, f"{text} {n} steps", [1.0 * n, 2.0], text, text)]
    return record([row for text in HOSTILE for row in rows(text, text, [1.0, 2.0], text, text)] + amounts)


def test_hostile_text_is_escaped() -> None:
    found = hostile()
    page = html.benchmark(found, "mean", {})
    assert page.count("<script") == page.count("</script>") == 1
    assert "<img" not in page
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", without_scripts(page))
    assert all("<img" not in part and "<script" not in part for part in html.drawings(found, "mean", {}))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("made", ["small", "hostile"])
def test_the_page_opens_quietly_and_fits_a_phone(browser: Browser, tmp_path: Path, small: BenchRecord, made: Any) -> None:
    path = write_page(html.benchmark(small if made == "small" else hostile(), "median", PAPER), tmp_path / "suite.html")
    browser.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(path)
    assert browser.evaluate("document.querySelectorAll('.dots .strip use').length") > 4
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]


def test_a_page_that_cannot_be_written_is_said_under_the_name_of_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"--html: .*suite.html"):
        write_page("page", tmp_path / "file" / "suite.html", "--html")

"""The page of several runs in a browser: ordering, hiding, and reading on any screen."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from unlearned.records import CompareRecord
from unlearned.report import write_report

from .chromium import Browser
from .conftest import HOSTILE, METHODS
from .test_report_browser import BACKGROUND, WHITE

pytestmark = pytest.mark.usefixtures("plain")
ORDER = "[...document.querySelectorAll('.summary .runs tr')].map(row => row.dataset.run)"


def visible(selector: str) -> str:
    # Chromium takes an SVG group for visible even when it is not displayed.
    return f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility() && getComputedStyle(e).display !== 'none').length"


def heading(browser: Browser, name: str) -> Any:
    return browser.evaluate(f"[...document.querySelectorAll('[data-column]')].find(button => button.textContent === '{name}').click()")


@pytest.mark.parametrize("name", ["dozen", "wider", "hostile_runs"])
def test_the_page_opens_quietly_draws_and_asks_for_nothing(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    record: CompareRecord = request.getfixturevalue(name)
    path = write_report(record, tmp_path)
    assert path.name == "compare.html"
    browser.open(path)
    assert browser.evaluate("document.querySelectorAll('.dots').length") > 10
    assert browser.evaluate("[...document.querySelectorAll('use')].every(use => document.querySelector(use.getAttribute('href')))")
    drawn = (
        "[...document.querySelectorAll('.dots, .chart')].filter(e => e.checkVisibility()).every(e => e.querySelector('use').getBoundingClientRect().width > 4)"
    )
    assert browser.evaluate(drawn)
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path, hostile_runs: CompareRecord) -> None:
    browser.open(write_report(hostile_runs, tmp_path))
    assert browser.evaluate("document.title") == "Unlearning methods compared"
    assert browser.evaluate("document.querySelectorAll('img, main b').length") == 0
    assert browser.evaluate("document.scripts.length") == 2
    chips = browser.evaluate("[...document.querySelectorAll('.chip')].map(chip => chip.textContent)")
    assert chips == list(HOSTILE)


def test_marks_and_the_line_of_the_reference_stand_where_their_numbers_are(browser: Browser, tmp_path: Path, dozen: CompareRecord) -> None:
    browser.open(write_report(dozen, tmp_path))
    centre = "(e => { const box = e.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })"
    plot = "document.querySelector('.dots')"
    reference, line = (browser.evaluate(f"{centre}({plot}.querySelector('{what}'))") for what in ("use.look-reference.mark:not(.key use)", "line.reference"))
    assert reference[0] == pytest.approx(line[0], abs=1)
    # Accuracy falls from method to method, by equal amounts.
    places = browser.evaluate(f"[...{plot}.querySelectorAll('tr[data-run] .strip use')].map(use => {centre}(use))")
    steps = [left[0] - right[0] for left, right in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 11, abs=1.5)  # symbols are not all as wide to the left as to the right
    assert steps[0] > 3
    rows = browser.evaluate(f"[...{plot}.querySelectorAll('tr[data-run] th')].map(th => {centre}(th)[1])")
    assert [place[1] for place in places] == pytest.approx(rows, abs=3)


def test_a_heading_orders_everything_and_turns_round_when_it_is_clicked_again(browser: Browser, tmp_path: Path, dozen: CompareRecord) -> None:
    browser.open(write_report(dozen, tmp_path))
    as_given = [str(i) for i in range(12)]
    assert browser.evaluate(ORDER) == as_given
    heading(browser, "test")
    assert browser.evaluate(ORDER) == as_given[::-1]
    dots = "[...document.querySelector('.dots').querySelectorAll('.runs tr[data-run]')].map(row => row.dataset.run)"
    assert browser.evaluate(dots) == as_given[::-1]
    assert browser.evaluate("document.querySelector('.dots tbody tr').textContent.trim().startsWith('original')")
    assert browser.evaluate("[...document.querySelectorAll('.multiples > *')].map(figure => figure.dataset.run)")[:12] == as_given[::-1]
    assert browser.evaluate("[...document.querySelectorAll('[aria-sort]')].map(th => th.ariaSort).filter(sort => sort !== 'none')") == ["ascending"]
    heading(browser, "test")
    assert browser.evaluate(ORDER) == as_given
    heading(browser, "Method")
    assert [METHODS[int(i)] for i in browser.evaluate(ORDER)] == sorted(METHODS)
    heading(browser, "membership")  # -0.07 to +0.13, ordered by size; the fifth is +0.003
    assert browser.evaluate(ORDER)[0] == "4"
    heading(browser, "Verdict")
    assert (
        browser.evaluate("[...document.querySelectorAll('.summary .runs .word')].map(word => word.textContent)")
        == ["passed"] * 3 + ["undecided"] * 6 + ["failed"] * 3
    )


def test_the_legend_hides_a_method_everywhere(browser: Browser, tmp_path: Path, dozen: CompareRecord) -> None:
    browser.open(write_report(dozen, tmp_path))
    before = browser.evaluate(visible('[data-run="3"]'))
    others = browser.evaluate(visible('tr[data-run="4"]'))
    assert before > others > 10
    browser.evaluate("document.querySelector('[data-toggle=\"3\"]').click()")
    assert browser.evaluate(visible('[data-run="3"]')) == 0
    assert browser.evaluate(visible('tr[data-run="4"]')) == others
    assert browser.evaluate("document.querySelector('[data-toggle=\"3\"]').ariaPressed") == "false"
    browser.evaluate("document.querySelector('[data-all=false]').click()")
    assert browser.evaluate(visible("[data-run]")) == 0
    assert browser.evaluate(visible(".dots .look-reference")) > 0
    browser.evaluate("document.querySelector('[data-all=true]').click()")
    assert browser.evaluate(visible('[data-run="3"]')) == before


def test_a_mark_tells_what_it_stands_for(browser: Browser, tmp_path: Path, dozen: CompareRecord) -> None:
    browser.open(write_report(dozen, tmp_path))
    assert not browser.evaluate("document.getElementById('tip').checkVisibility()")
    mark = "[...document.querySelectorAll('#back + p ~ figure use')].find(use => use.dataset.tip.startsWith('scrub'))"
    browser.evaluate(f"{mark}.dispatchEvent(new PointerEvent('pointerover', {{bubbles: true, clientX: 1190, clientY: 890}}))")
    # (1 - 4/11) * 0.02 at the first point.
    assert browser.evaluate("document.getElementById('tip').textContent") == "scrub, at 0 steps: 1.3 % [0.0, 5.3], +0.27 pp to the reference"
    box = browser.evaluate("(box => [box.right, box.bottom])(document.getElementById('tip').getBoundingClientRect())")
    assert box[0] <= 1200
    assert box[1] <= 900
    browser.evaluate("document.body.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert not browser.evaluate("document.getElementById('tip').checkVisibility()")


@pytest.mark.parametrize("name", ["wider", "hostile_runs"])
def test_a_phone_scrolls_tables_not_the_page(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(write_report(request.getfixturevalue(name), tmp_path))
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate("document.querySelector('.legend').offsetHeight") < 80
    drawn = browser.evaluate("[...document.querySelectorAll('.strip, .area')].map(area => area.clientWidth)")
    assert min(drawn) > 80


def test_theme_and_paper(browser: Browser, tmp_path: Path, dozen: CompareRecord) -> None:
    browser.open(write_report(dozen, tmp_path))
    ink = "getComputedStyle(document.querySelector('.dots text')).fill"
    light = (browser.evaluate(BACKGROUND), browser.evaluate(ink))
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(BACKGROUND) != light[0] == WHITE
    assert browser.evaluate(ink) != light[1]
    browser.evaluate("document.querySelector('[data-toggle=\"3\"]').click()")
    browser.send("Emulation.setEmulatedMedia", media="print")
    browser.send("Emulation.setDeviceMetricsOverride", width=700, height=1000, deviceScaleFactor=1, mobile=False)
    assert (browser.evaluate(BACKGROUND), browser.evaluate(ink)) == light
    assert browser.evaluate("document.documentElement.scrollWidth") <= 700
    assert browser.evaluate(visible(".chip")) == 11
    assert browser.evaluate(visible("[data-all], #theme")) == 0
    assert browser.evaluate(visible("[data-column]")) == 9


def test_it_can_be_read_without_seeing_it(browser: Browser, tmp_path: Path, wider: CompareRecord) -> None:
    browser.open(write_report(wider, tmp_path))
    assert browser.evaluate("[...document.querySelectorAll('table')].every(t => t.caption.textContent)")
    assert browser.evaluate("[...document.querySelectorAll('tbody th')].every(th => th.scope === 'row')")
    assert browser.evaluate("[...document.querySelectorAll('.chart')].every(chart => chart.getAttribute('aria-label'))")
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(set(ids)) == len(ids)
    assert browser.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].every(a => document.querySelector(a.getAttribute('href')))")

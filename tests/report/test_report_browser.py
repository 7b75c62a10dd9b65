"""The page in a browser: what a reader meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearned.records import AuditRecord
from unlearned.report import write_report

from .chromium import Browser
from .conftest import HOSTILE

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
PLOT_INK = "getComputedStyle(document.querySelector('.main-svg .xtick text')).fill"
WHITE = "rgb(255, 255, 255)"


pytestmark = pytest.mark.usefixtures("plain")


@pytest.mark.parametrize("name", ["full", "lonely", "wide", "spoken", "hostile"])
def test_the_page_opens_quietly_draws_and_asks_for_nothing(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    record: AuditRecord = request.getfixturevalue(name)
    path = write_report(record, tmp_path)
    browser.open(path)
    assert browser.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('svg.main-svg .scatterlayer .trace path'))")
    assert browser.evaluate("document.querySelectorAll('.plot').length") > 1
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]


def test_the_collector_notices_what_it_is_there_for(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    path = write_report(full, tmp_path)
    path.write_text(path.read_text().replace("</main>", '<img src="https://example.org/x.png"><script>nothing()</script></main>'))
    browser.open(path)
    assert "Content Security Policy" in str(browser.complaints)


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path, hostile: AuditRecord) -> None:
    browser.open(write_report(hostile, tmp_path))
    assert browser.evaluate("document.title") == "Unlearning audit: failed"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.scripts.length") == 4
    assert browser.evaluate("document.querySelectorAll('main b, .plot svg a').length") == 0
    heading = browser.evaluate("document.querySelector('h1').textContent")
    recipe = browser.evaluate("document.querySelector('pre').textContent").replace("\n", " ").replace("''", "'")
    ticks = browser.evaluate("[...document.querySelectorAll('.xtick text')].map(tick => tick.textContent)")
    for text in HOSTILE:
        assert text in heading
        assert text in ticks
        assert text.split(" ")[0] in recipe


def test_the_first_thing_read_is_the_verdict(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    assert browser.evaluate("document.querySelector('h1').textContent").startswith("Failed. The model leaks more")
    assert browser.evaluate("[...document.querySelectorAll('.check .word')].map(word => word.textContent)") == ["Passed", "Failed", "Undecided"]
    assert browser.evaluate("document.querySelector('.verdict').getBoundingClientRect().top") < 100


def test_theme_follows_the_system_and_the_button(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    light = (browser.evaluate(BACKGROUND), browser.evaluate(PLOT_INK))
    assert light[0] == WHITE
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.settle()
    dark = (browser.evaluate(BACKGROUND), browser.evaluate(PLOT_INK))
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    assert browser.evaluate("document.getElementById('theme').textContent") == "Light theme"
    browser.evaluate("document.getElementById('theme').click()")
    assert (browser.evaluate(BACKGROUND), browser.evaluate(PLOT_INK)) == light


def test_print_is_light_even_in_the_dark(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    browser.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert browser.evaluate(BACKGROUND) != WHITE
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(BACKGROUND) == WHITE
    assert browser.evaluate("getComputedStyle(document.getElementById('theme')).display") == "none"
    assert browser.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"


def test_plots_fit_on_paper(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    browser.evaluate("addEventListener('afterprint', () => 0); dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("Math.max(...[...document.querySelectorAll('.main-svg')].map(svg => svg.clientWidth))") <= 680
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("document.querySelector('.main-svg').clientWidth") > 900


@pytest.mark.parametrize("name", ["full", "wide", "hostile"])
def test_a_phone_scrolls_tables_not_the_page(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(write_report(request.getfixturevalue(name), tmp_path))
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate("document.querySelector('.main-svg').clientWidth") <= 400


def test_no_button_sends_a_plot_away(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    buttons = browser.evaluate("[...document.querySelector('.plot').querySelectorAll('.modebar-btn')].map(button => button.dataset.title)")
    assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    assert browser.evaluate("document.querySelectorAll('a[href^=http]').length") == 0


def test_hovering_tells_value_interval_and_reference(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    browser.evaluate("Plotly.Fx.hover('plot-0', [{curveNumber: 1, pointNumber: 0}])")
    text = browser.evaluate("document.querySelector('#plot-0 .hoverlayer').textContent")
    assert "65.2 % [62.2, 68.2] (Wilson 95 %)" in text
    assert "gap to the reference +1.2 pp" in text


def test_hovering_a_probe_tells_question_and_answers(browser: Browser, tmp_path: Path, spoken: AuditRecord) -> None:
    browser.open(write_report(spoken, tmp_path))
    places = "[...document.querySelectorAll('.plot')].map(plot => plot.getAttribute('aria-label'))"
    number = next(i for i, label in enumerate(browser.evaluate(places)) if "Map of the probes" in label)
    for curve, words in ((0, ("Where does Iris work?", "unlearned, 1.5: Where does Iris work?")), (1, ("withheld", "unlearned, 1.0:"))):
        browser.evaluate(f"Plotly.Fx.hover('plot-{number}', [{{curveNumber: {curve}, pointNumber: 0}}])")
        browser.settle()
        text = browser.evaluate(f"document.querySelector('#plot-{number} .hoverlayer').textContent")
        assert all(each in text for each in words)


def test_every_plot_and_table_can_be_read_without_seeing_it(browser: Browser, tmp_path: Path, full: AuditRecord) -> None:
    browser.open(write_report(full, tmp_path))
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate(
        "[...document.querySelectorAll('.plot')].every(p => p.getAttribute('aria-label') && p.parentNode.querySelector('details table tbody tr'))"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption.textContent && t.querySelectorAll('thead th:not([scope=col])').length == 0)"
    )
    assert browser.evaluate("[...document.querySelectorAll('tbody th')].every(th => ['row', 'rowgroup'].includes(th.scope))")
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len([i for i in ids if ids.count(i) > 1 and not i.startswith(("clip", "topdefs", "legend"))]) == 0
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    assert browser.evaluate("[...document.querySelectorAll('[aria-labelledby]')].every(e => document.getElementById(e.getAttribute('aria-labelledby')))")


def test_a_long_part_of_the_table_opens_and_is_whole_on_paper(browser: Browser, tmp_path: Path, wide: AuditRecord) -> None:
    browser.open(write_report(wide, tmp_path))
    rows = "[...document.querySelector('tbody.long').rows].filter(row => row.checkVisibility()).length"
    button = "document.querySelector('tbody.long button')"
    # Heading, five rows and the button; eleven of sixteen are folded.
    assert browser.evaluate(rows) == 7
    assert browser.evaluate(f"{button}.textContent") == "11 more rows"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(rows) == 18
    assert browser.evaluate(f"{button}.ariaExpanded") == "true"
    browser.evaluate(f"{button}.click()")
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(f"{rows}") == 18

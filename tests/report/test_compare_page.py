"""The page of several runs as text, and the numbers behind its drawings."""

from __future__ import annotations

import html as stdlib
import math
import re

import pytest

from unlearned.comparing import compare
from unlearned.records import AuditRecord, CompareRecord, Finding
from unlearned.report import html, looks, words
from unlearned.report.comparison import contents, dots, returns
from unlearned.report.scales import of_budgets, of_values
from unlearned.report.several import Measure, attacked, columns, measures

from .conftest import ENVIRONMENT, HOSTILE, METHODS, PROBLEM, curve, further, make, run_of, three
from .test_report_page import without_scripts

LIGHT, DARK = "#ffffff", "#15181c"


def text_of(page: str) -> str:
    return stdlib.unescape(re.sub(r"<[^>]+>", " ", without_scripts(page)))


def test_every_number_of_every_run_is_on_the_page(wider: CompareRecord) -> None:
    text = " ".join(text_of(html.comparison(wider)).split())
    for run in wider.runs:
        for finding in run.record.findings:
            assert " ".join(words.measured(finding).removeprefix("none: ").split()) in text
            assert words.gap(finding).removeprefix("none: ") in text


def test_the_same_record_gives_the_same_page_and_needs_nothing_else(dozen: CompareRecord, hostile_runs: CompareRecord) -> None:
    assert html.comparison(dozen) == html.comparison(dozen)
    for record in (dozen, hostile_runs):
        page = html.comparison(record)
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", without_scripts(page))
        assert "url(" not in page
        assert "@import" not in page
        assert not re.search(r"<script[^>]+src", page)


def test_hostile_names_are_escaped(hostile_runs: CompareRecord) -> None:
    page = html.comparison(hostile_runs)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    text = text_of(page)
    assert all(name in text for name in HOSTILE)


def test_an_unknown_audit_and_an_unknown_attack_are_drawn_with_the_others(wider: CompareRecord) -> None:
    found = {part.anchor: [group.entry for group in part.groups] for part in contents(wider)["parts"]}
    assert found["other"] == ["neuron-census", "brain-scan"]
    assert found["returns"] == ["relearn-time", "probe-once", "quantize-once"]
    assert [drawn.title for drawn in contents(wider)["returns"]][1:] == [
        "prune: knowledge of the forget set",
        "quantize: knowledge of the forget set",
        "linear-probe: accuracy of the forget set",
    ]


def test_many_plots_of_one_audit_are_folded(wider: CompareRecord) -> None:
    klom = next(group for part in contents(wider)["parts"] for group in part.groups if group.entry == "klom")
    assert (len(klom.dots), len(klom.folded)) == (4, 12)
    assert "12 more of klom" in html.comparison(wider)


def test_the_worst_point_of_each_attack_has_a_column(wider: CompareRecord) -> None:
    found = {column.heading: column.text(0) for column in columns(wider)}
    # 0.84 - 0.07 is less than 0.91 - 0.1 in relearn; 0.3 - 0.02 at 60 % pruned; 0.7 - 0.03 at 3 bits.
    assert {"relearn": "+81.0 pp", "prune": "+28.0 pp", "quantize": "+67.0 pp", "quantize-once": "+38.0 pp"}.items() <= found.items()


def measure_of(record: CompareRecord, audit: str, metric: str, split: str) -> Measure:
    return next(m for m in measures(record) if (m.audit, m.metric, m.split) == (audit, metric, split))


def test_marks_stand_where_their_numbers_are() -> None:
    runs = [make(three("utility", "accuracy", "test", (0.9, value, 0.6), half=0.1), sets=PROBLEM) for value in (0.2, 0.4)]
    drawn = dots(measure_of(compare(runs), "utility", "accuracy", "test"), ["a", "b"])
    # From the lowest end, 0.1, to the highest, 1.0, with a margin of a twentieth: 0.055 to 1.045.
    at = {value: round(100 * (value - 0.055) / 0.99, 3) for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9)}
    original, reference, first, second = drawn.rows
    assert [row.dots[0].place for row in drawn.rows] == pytest.approx([at[0.9], at[0.6], at[0.2], at[0.4]])
    assert first.span == pytest.approx((at[0.1], at[0.3]))
    assert second.span == pytest.approx((at[0.3], at[0.5]))
    assert all(row.lines == pytest.approx((at[0.6],)) for row in drawn.rows)
    assert all(row.bands[0] == pytest.approx((at[0.5], at[0.7])) for row in drawn.rows)
    assert (first.texts, first.interval) == (("20.0 %", "-40.0 pp"), "[10.0, 30.0]")
    assert (original.look, reference.look, first.look, second.look) == ("original", "reference", 0, 1)


def test_each_run_is_held_against_its_own_references_where_they_differ() -> None:
    runs = [make(three("utility", "accuracy", "test", (0.9, 0.5, reference)), sets=PROBLEM) for reference in (0.4, 0.8)]
    drawn = dots(measure_of(compare(runs), "utility", "accuracy", "test"), ["a", "b"])
    reference, first, second = drawn.rows[1:]
    assert reference.texts == ("40.0 % to 80.0 %", "")
    assert [dot.place for dot in reference.dots] == [first.lines[0], second.lines[0]]
    assert first.lines[0] < second.lines[0]
    assert "Each run has retrained models of its own." in drawn.caption


def test_what_a_run_lacks_is_said_in_its_row(dozen: CompareRecord) -> None:
    extra = run_of("more")
    more = extra.model_copy(update={"findings": (*extra.findings, *three("late", "x", "forget", (1.0, 2.0, 3.0), unit=""))})
    drawn = dots(measure_of(compare([run_of("less"), more]), "late", "x", "forget"), ["less", "more"])
    assert [(row.name, row.note) for row in drawn.rows] == [("original", ""), ("retrained", ""), ("less", "not measured"), ("more", "")]
    absent = dots(measure_of(dozen, "membership", "tpr_at_0.1pct_fpr", "forget"), METHODS)
    assert {row.note for row in absent.rows} == {"needs 1000 samples"}


def test_every_curve_stands_beside_the_references_own(wider: CompareRecord) -> None:
    for runs in attacked(wider).values():
        drawn = returns(runs, METHODS)
        assert [line.look for line in drawn.overlay.lines if line.look == "reference"] == ["reference"]
        assert [line.look for line in drawn.overlay.lines if isinstance(line.look, int)] == list(range(12))
        for position, small in enumerate(drawn.each):
            assert [line.look for line in small.lines if not line.faint and line.look != "original"] == ["reference", position]
            assert (small.x, small.y) == (drawn.overlay.x, drawn.overlay.y)


def test_references_that_differ_each_have_their_curve() -> None:
    runs = [make(curve({"unlearned": [0.5] * 5, "reference": [level] * 5}), recipe={"method": str(level)}, sets=PROBLEM) for level in (0.1, 0.2, 0.2)]
    drawn = returns(next(iter(attacked(compare(runs)).values())), ["a", "b", "c"])
    assert [line.look for line in drawn.overlay.lines] == ["reference", "reference", 0, 1, 2]
    assert [name for name, _, _ in drawn.rows] == ["retrained (reference)"] * 2 + ["a", "b", "c"]
    assert [cell.text for cell in drawn.rows[1][2]] == ["20.0 % [16.0, 24.0]"] * 5


def test_forgetting_is_held_against_what_was_lost_and_what_it_took(dozen: CompareRecord, lonely: AuditRecord) -> None:
    against_utility, against_work = contents(dozen)["prices"]
    assert [line.look for line in against_utility.lines] == list(range(12))
    # Scrub, the fifth, with strength 4/11: distance 0.12 + 0.5 * 4/11 - 0.09, accuracy 0.949 - 0.4 * 4/11 - 0.962, work 0.2 + 4/11.
    assert against_utility.lines[4].marks[0].told == "scrub: total variation of the forget set +21.2 pp, accuracy of the test set -15.8 pp"
    assert against_work.lines[4].marks[0].told == "scrub: total variation of the forget set +21.2 pp, 0.564 x the work of retraining"
    assert against_utility.zero[0] == against_work.zero[0] == against_utility.x.place(0)
    assert against_work.zero[1] == 100 - against_work.y.place(1)
    assert not contents(compare([lonely.model_copy(update={"sets": PROBLEM})] * 2))["prices"]


def test_without_attacks_and_references_the_page_says_so(lonely: AuditRecord) -> None:
    text = text_of(html.comparison(compare([lonely.model_copy(update={"sets": PROBLEM})] * 2)))
    assert "No run has the curve of an attack" in text
    assert "There is no line to compare with: no reference given." in text


def test_the_caption_says_why_there_is_no_line_where_references_were_given() -> None:
    why = "no reference has a ratio: nothing was forgotten before the attack"
    kept = Finding(audit="relearn", kind="attack", metric="retention", split="forget-rest", subject="unlearned", value=0.1, n=9, unit="ratio", reason=why)
    runs = [run_of(name) for name in ("scrub", "ssd")]
    record = compare([run.model_copy(update={"findings": (*run.findings, kept)}) for run in runs])
    [drawn] = contents(record)["kept"]
    assert drawn.caption == f"There is no line to compare with: {why}."
    assert [row.texts[1] for row in drawn.rows] == ["none", "none"]


def test_what_else_differs_is_said_on_the_page() -> None:
    other = run_of("ssd", environment=ENVIRONMENT.model_copy(update={"device": "cuda"}))
    assert "Besides the method they differ in device." in text_of(html.comparison(compare([run_of(), other])))


# scales


def test_a_scale_holds_all_values_with_round_marks() -> None:
    scale = of_values([0.2, 0.7], "share")
    assert (scale.place(0.2), scale.place(0.45), scale.place(0.7)) == pytest.approx((100 / 22, 50, 2100 / 22), abs=1e-3)
    assert [tick.text for tick in scale.ticks] == ["20 %", "40 %", "60 %"]
    assert [tick.place for tick in scale.ticks] == pytest.approx([scale.place(value) for value in (0.2, 0.4, 0.6)])


@pytest.mark.parametrize("unit", ["share", "", "bytes", "seconds", "ratio"])
@pytest.mark.parametrize("values", [(0.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1e-9, 2e-9), (0.31, 0.62), (0.004, 1.0), (3.0, 2e9), (-4.0, 900.0)])
def test_a_scale_of_anything_has_at_least_two_marks_within(unit: str, values: tuple[float, float]) -> None:
    if unit == "share" and not 0 <= values[0] <= values[1] <= 1:
        return
    scale = of_values(values, unit, count=3)
    assert all(0 <= scale.place(value) <= 100 for value in values)
    assert all(-1e-6 <= tick.place <= 100 + 1e-6 for tick in scale.ticks)
    assert len({tick.text for tick in scale.ticks}) == len(scale.ticks) >= 2


def test_values_over_orders_of_magnitude_are_placed_by_their_ratio() -> None:
    scale = of_values([0.001, 1.0], "ratio")
    assert scale.place(math.sqrt(0.001)) == pytest.approx(50)
    assert [tick.text for tick in scale.ticks] == ["0.001", "0.01", "0.1", "1"]


def test_budgets_that_double_have_equal_steps_and_zero_stands_one_before() -> None:
    doubling = of_budgets([0, 1, 10, 100], "steps")
    assert [tick.place for tick in doubling.ticks] == pytest.approx([0, 100 / 3, 200 / 3, 100], abs=1e-3)
    assert [tick.text for tick in doubling.ticks] == ["0", "1", "10", "100"]
    shares = of_budgets([0.0, 0.1, 0.5, 1.0], "share pruned")
    assert [(tick.place, tick.text) for tick in shares.ticks] == [(0, "0 %"), (10, "10 %"), (50, "50 %"), (100, "100 %")]
    assert of_budgets([4], "bits").place(4) == 50


def test_budgets_that_crowd_have_equal_steps() -> None:
    bits = of_budgets([0, 24, 28, 29, 30], "of 32 bits removed")
    assert [(tick.place, tick.text) for tick in bits.ticks] == [(0, "0"), (25, "24"), (50, "28"), (75, "29"), (100, "30")]


# looks


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_on_both_pages_and_symbols_repeat_the_difference() -> None:
    assert all(contrast(colour, page) >= 3 for colour in looks.COLOURS for page in (LIGHT, DARK))
    assert len(set(looks.COLOURS)) == len(set(looks.SYMBOLS)) == 12
    assert len({looks.look(i) for i in range(144)}) == 144
    assert looks.look(3) == looks.look(3)


def test_further_findings_are_all_of_the_shapes_that_audits_write() -> None:
    assert {f.budget_unit for f in further()} == {None, "share pruned", "bits", "samples"}

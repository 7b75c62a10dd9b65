"""The page as text: what must hold without any browser."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearned.errors import InputError
from unlearned.records import NO_REFERENCE, AuditRecord, Rehearsals, Rehearsed
from unlearned.report import html, write_report
from unlearned.report.sections import sections

from .conftest import HOSTILE, curve, make, three


def without_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_is_written_whole_or_not_at_all(full: AuditRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(full, tmp_path / "new" / "run")
    before = path.read_bytes()
    assert path == tmp_path / "new" / "run" / "report.html"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def full_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match=r"report.html.*No space left"):
        write_report(full, path.parent)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_in_the_way_is_said_plainly(full: AuditRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"out: .*report.html"):
        write_report(full, tmp_path / "file")


def test_the_same_record_gives_the_same_page(full: AuditRecord) -> None:
    assert html.page(full) == html.page(full)


def test_nothing_outside_the_page_is_named(full: AuditRecord, hostile: AuditRecord) -> None:
    for record in (full, hostile):
        text = without_scripts(html.page(record))
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
        assert "url(" not in text
        assert "@import" not in text
        assert not re.search(r"<script[^>]+src", html.page(record))


@pytest.mark.parametrize("name", ["full", "lonely", "wide", "spoken", "hostile"])
def test_every_value_is_on_the_page_once_in_full(request: pytest.FixtureRequest, name: str) -> None:
    record: AuditRecord = request.getfixturevalue(name)
    parts = sections(record)
    shown = [finding for part in parts for finding in (*(f for figure in part.figures for f in figure.findings), *part.unplotted)]
    assert sorted(map(repr, shown)) == sorted(map(repr, record.findings))


def test_answers_stand_side_by_side_and_what_is_withheld_is_said_to_be(spoken: AuditRecord) -> None:
    text = html.page(spoken).split('id="answers"')[1].split("<section")[0]
    table, tokens = text.split('<div class="figures">')[0].split("<h3>")
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    # Head, and for each set its name before its questions.
    assert len(rows) == 1 + (1 + 3) + (1 + 1) + (1 + 1)
    assert [row.count("withheld</span>") for row in rows[2:5]] == [5, 5, 5]
    assert rows[6].count("in Lisbon") == 4
    assert re.findall(r"recall ([\d.]+) %(, declines)?", rows[6]) == [("100.0", ""), ("50.0", ", declines"), ("25.0", ", declines")]
    assert re.findall(r'class="(\w+)" width="([\d.]+)%"', tokens)[3:6] == [("original", "97.0"), ("unlearned", "3.88"), ("reference", "0.1552")]
    assert "show: all" in table
    assert "show: all" not in html.page(spoken.model_copy(update={"exhibits": spoken.exhibits[3:]}))


def test_the_holes_stand_beside_the_benchmark_and_on_a_map(spoken: AuditRecord) -> None:
    part = next(part for part in sections(spoken) if part.anchor == "holes")
    adjacent, latent = part.figures[0].spec["data"]
    assert adjacent["marker"]["color"] == [7.5, 0]  # what the original's score is more
    assert latent["marker"]["color"] == [7, 0]
    assert adjacent["marker"]["line"]["width"][0] > adjacent["marker"]["line"]["width"][1] == 0  # the hole has a ring
    assert "Where does Iris work?" in adjacent["hovertext"][0]
    assert "withheld" in latent["hovertext"][0]
    assert "not scored" in latent["hovertext"][1]
    assert part.figures[0].rows[1] == ("adjacent", "Where does Iris work?", "yes", "9.0", "1.5", "8.0")
    text = html.page(spoken).split('id="holes"')[1].split("<section")[0]
    assert "Of the 4 probes 2 are holes" in text
    assert "(lowest 8.0)" in text
    assert "(highest 1.5)" in text
    assert "at most 50.0 % of a question" in text
    assert "They agree: Where does Iris work?" in text
    table, worst = text.split("The holes that lost most")[0], text.split("The holes that lost most")[2].split("</table>")[0]
    for row in ('accuracy</th><td class="name">test', 'latent score</th><td class="name">probes'):
        assert row in table
    assert "-6 points" in table
    assert worst.count("<tr>") == 1 + 2  # head, and the two holes: what is told stands first
    assert worst.index("Where does Iris work?") < worst.index("withheld</span>")


def test_without_a_look_for_holes_nothing_is_said_of_them(full: AuditRecord) -> None:
    assert 'id="holes"' not in html.page(full)


def test_what_a_method_tried_is_drawn_with_its_numbers(spoken: AuditRecord, full: AuditRecord) -> None:
    figure = next(part for part in sections(spoken) if part.anchor == "choice").figures[0]
    assert [trace["y"][1] for trace in figure.spec["data"]] == pytest.approx([1 / 3, 0, -1 / 3])
    assert [shape["x0"] for shape in figure.spec["layout"]["shapes"]] == [2.0]
    assert figure.rows[3] == ("2", "66.7 %", "33.3 %", "0.0 %", "taken")
    assert 'id="choice"' in html.page(spoken)
    assert 'id="choice"' not in html.page(full)


def test_what_hypergradients_came_to_stands_in_a_table(full: AuditRecord) -> None:
    rows = (
        Rehearsed(id="gentle", times=12, left_out=2, given_up=1, damping=0.75, residual=0.0125, ratio=0.5),
        Rehearsed(id="<wild>", times=3, left_out=0, given_up=3, damping=None, residual=None, ratio=None),
    )
    shown = full.model_copy(update={"exhibits": (Rehearsals(source="resalign", direct_norm=0.31, fine_tunings=rows),)})
    assert AuditRecord.model_validate_json(shown.model_dump_json(by_alias=True)) == shown
    text = html.page(shown).split('id="rehearsed"')[1].split("</section>")[0]
    assert text.count("<tr>") == 1 + 2
    for cell in ("<td>12</td><td>2</td><td>1</td>", "0.0125", "&lt;wild&gt;", '<td class="number">none</td>', "a norm of up to 0.31"):
        assert cell in text
    assert 'id="rehearsed"' not in html.page(full)


def test_an_unknown_audit_is_drawn_and_told(wide: AuditRecord) -> None:
    other = next(part for part in sections(wide) if part.anchor == "other")
    assert [figure.title for figure in other.figures] == ["neuron-census: dead units", "brain-scan: echo by split"]
    assert "17 units" in html.page(wide).split('id="other"')[1]


def test_each_audit_stands_under_its_question_and_draws_a_few_plots(wide: AuditRecord) -> None:
    found = {part.anchor: [figure.title.split(":")[0] for figure in part.figures] for part in sections(wide)}
    assert found["forgotten"] == ["utility", "output-distance", *["klom"] * 6, "neurips-score", "zrf"]
    assert found["leaks"] == ["membership", "membership", "svc-mia", "u-lira", "u-lira", "rmia"]
    # Curves first; then what was measured at a single budget, or without any.
    assert found["returns"] == ["relearn", "prune", "quantize", "linear-probe", "relearn-time", "probe-once", "quantize-once"]


def test_every_curve_stands_beside_the_references_own_whatever_the_attacker_spends(wide: AuditRecord) -> None:
    figures = {figure.title.split(":")[0]: figure for figure in next(part for part in sections(wide) if part.anchor == "returns").figures}
    for name, texts in {"prune": ["0 %", "30 %", "60 %", "90 %"], "quantize": ["3", "4", "8"], "linear-probe": ["10", "30", "100", "1,000"]}.items():
        spec = figures[name].spec
        lines = {trace["name"]: trace for trace in spec["data"] if "name" in trace}
        assert list(lines)[-2:] == ["unlearned", "retrained (reference)"]
        assert lines["unlearned"]["x"] == lines["retrained (reference)"]["x"] == spec["layout"]["xaxis"]["tickvals"]
        assert spec["layout"]["xaxis"]["ticktext"] == texts
    # 30 to 100 is a little more than half of what 100 to 1000 is: log 10/3 against log 10.
    places = figures["linear-probe"].spec["layout"]["xaxis"]["tickvals"]
    assert (places[2] - places[1]) / (places[3] - places[2]) == pytest.approx(math.log10(10 / 3), abs=1e-3)
    assert figures["quantize-once"].title == "quantize-once: knowledge at 4 bits, forget"
    assert figures["quantize-once"].spec["layout"]["shapes"]


def test_a_long_list_of_one_audit_is_folded_and_the_rest_of_it_grouped(wide: AuditRecord) -> None:
    text = without_scripts(html.page(wide))
    assert re.findall(r'<tbody class="long" data-shown="5">\n<tr><th class="audit" scope="rowgroup" colspan="6">(.*?)</th>', text) == ["klom"]
    many = [f for i in range(9) for f in three("lone", f"metric_{i}", "forget", (0.5,))]
    text = without_scripts(html.page(make(many)))
    assert "9 findings of lone" in text


def test_what_is_missing_is_said(lonely: AuditRecord) -> None:
    text = without_scripts(html.page(lonely))
    assert NO_REFERENCE in text
    assert "No attack was run" in text
    assert "No line to compare with" in text


def test_an_empty_record_still_makes_a_page() -> None:
    assert "Nothing was measured." in html.page(make([], recipe={}, sets={}, costs={}))


def test_hostile_text_is_escaped(hostile: AuditRecord) -> None:
    text = html.page(hostile)
    assert text.count("<script") == text.count("</script>") == 4
    assert "<img" not in without_scripts(text)
    assert "49" not in re.findall(r"<h1>.*?</h1>", text)[0]
    assert len(HOSTILE) < text.count("[red]x[/red]")


def test_a_path_that_is_no_text_does_not_break_the_page(tmp_path: Path) -> None:
    assert write_report(make([], recipe={"model": "caf\udce9"}), tmp_path).read_bytes().startswith(b"<!DOCTYPE html>")


def test_importing_the_room_is_light() -> None:
    code = "import sys, unlearned.report; print([m for m in ('torch', 'plotly', 'jinja2', 'yaml', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plot_says_which_of_its_values_are_absent_and_why() -> None:
    points = curve({"unlearned": [0.0, 0.1, 0.2, 0.3, 0.4], "reference": [0.0] * 5})
    points[-1] = points[-1].model_copy(update={"value": None, "low": None, "high": None, "interval": None, "reason": "training diverged"})
    text = re.sub(r"<details>.*?</details>", "", without_scripts(html.page(make(points))), flags=re.DOTALL)
    assert "Without a value: retrained (reference): training diverged." in text

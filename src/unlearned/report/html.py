"""HTML pages that hold everything they show: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from unlearned.records import AuditRecord, BenchRecord, CompareRecord, Environment, RankRecord
from unlearned.report import holes, words
from unlearned.report.bench import Papers, Statistic, sheets
from unlearned.report.comparison import contents
from unlearned.report.looks import Look, look
from unlearned.report.pictures import pictures
from unlearned.report.ranking import ranking_plots, ranking_rows
from unlearned.report.rows import Row, side_by_side, single
from unlearned.report.sections import sections
from unlearned.report.several import caveats


def page(record: AuditRecord) -> str:
    """The page of one run as text."""
    import plotly.offline

    parts = sections(record)
    # Neither the record nor the assets change while the page is made, so the values are computed once, here, and the template only places them.
    values: dict[str, Any] = {
        "record": record,
        "rows": _by_audit(side_by_side(single(record))),
        "sections": [part for part in parts if part.figures or part.unplotted or part.answers or part.holes or part.rehearsals or part.empty],
        "specs": [figure.spec for part in parts for figure in part.figures],
        "recipe": _recipe(record),
        "environment": _environment(record.environment),
        "pictures": pictures(record),
    }
    return _render("report.html.j2", [plotly.offline.get_plotlyjs(), _asset("plots.js"), _asset("page.js")], values)


def comparison(record: CompareRecord) -> str:
    """The page of several runs as text."""
    values = contents(record) | {
        "runs": record.runs,
        "sets": record.runs[0].record.sets,
        "looks": [look(position) for position in range(len(record.runs))],
        "caveats": caveats(record),
        "recipes": [_recipe(run.record) for run in record.runs],
    }
    return _render("compare.html.j2", [_asset("drawings.js"), _asset("page.js")], values)


def benchmark(record: BenchRecord, statistic: Statistic, paper: Papers) -> str:
    """The page of a benchmark as text."""
    values = {
        "record": record,
        "statistic": statistic,
        "quoted": bool(paper),
        "sheets": sheets(record, statistic, paper),
        "looks": _looks(record),
        "settings": yaml.safe_dump(record.settings, sort_keys=False, allow_unicode=True),
        "environment": _environment(record.environment),
    }
    return _render("bench.html.j2", [_asset("page.js")], values)


def ranking(record: RankRecord) -> str:
    """The page of a ranking as text."""
    import plotly.offline

    figures = ranking_plots(record)
    values = {
        "record": record,
        "shares": ranking_rows(record),
        "figures": figures,
        "specs": [figure.spec for figure in figures],
        "score": yaml.safe_dump(record.score, sort_keys=False, allow_unicode=True),
        "environment": _environment(record.environment),
    }
    return _render("ranking.html.j2", [plotly.offline.get_plotlyjs(), _asset("plots.js"), _asset("page.js")], values)


def drawings(record: BenchRecord, statistic: Statistic, paper: Papers) -> list[str]:
    """The dot plots and curves of each sheet of a benchmark, for a page that has `drawing_head`."""
    macros: Any = _templates().get_template("macros.html.j2").module
    found = sheets(record, statistic, paper)
    return ["".join([*(str(macros.dots(plot)) for plot in sheet.drawn), *(str(macros.curves(several)) for several in sheet.curves)]) for sheet in found]


def drawing_head(methods: int = 36) -> str:
    """What a page needs before `drawings` of as many methods."""
    macros: Any = _templates().get_template("macros.html.j2").module
    looks = [look(position) for position in range(methods)]
    return f"<style>{_asset('drawings.css')}</style>{macros.colours(looks)}{macros.symbols(looks)}"


def _looks(record: BenchRecord) -> list[Look]:
    return [look(position) for position in range(len({row.method for row in record.rows}))]


def _render(template: str, scripts: list[str], values: Mapping[str, Any]) -> str:
    shared = {
        "words": words,
        "holes": holes,
        "policy": _policy(scripts),
        "style": Markup(_asset("drawings.css") + _asset("page.css")),  # noqa: S704 - files of this package, not input
        "scripts": [Markup(script) for script in scripts],  # noqa: S704 - the same
    }
    return _templates().get_template(template).render({**values, **shared})


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("unlearned", "report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _environment(environment: Environment) -> list[tuple[str, Any]]:
    return [*environment.model_dump(exclude={"packages"}).items(), *environment.packages.items()]


def _recipe(record: AuditRecord) -> str:
    return yaml.safe_dump(record.model_dump(mode="json")["recipe"], sort_keys=False, allow_unicode=True)


def _by_audit(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def _asset(name: str) -> str:
    return resources.files("unlearned.report").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """What a browser may do with the page: run exactly these scripts and fetch nothing, even if an escape were forgotten somewhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"

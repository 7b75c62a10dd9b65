"""Fills the placeholders of the pages when the documentation is built, from what the package itself says. So the pages cannot drift from the code.

`<!-- cards: methods -->` (or `audits`, `attacks`, `scores`): the card of each part with its settings, as `unlearned methods show NAME` prints it.
`<!-- bench: SUITE -->`: the results of a suite, with the paper's numbers beside ours; without a name, those of all suites.
`<!-- recipe-fields -->`: all fields of a recipe. `<!-- finding-fields -->`: all fields of `audit.json`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from unlearned import records
from unlearned.bench import suites
from unlearned.cli import app
from unlearned.engine.training import Training
from unlearned.recipe import RecipeFile
from unlearned.report.bench import sheets as bench_sheets
from unlearned.report.html import drawing_head, drawings

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
_PLACEHOLDER = re.compile(r"^<!-- (cards|bench|recipe-fields|finding-fields)(?:: ([\w-]+))? -->$", re.MULTILINE)
_SIGNS = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤", "gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_OBVIOUS = {
    "AuditRecord.schema": "Version of this file's form.",
    "AuditRecord.verdict": "The answer, with the checks that led to it.",
    "AuditRecord.environment": "Where the numbers were made.",
    "AuditRecord.sets": "Size and fingerprint of each set, by its name.",
    "AuditRecord.findings": "Everything that was measured.",
    "Verdict.status": "`failed` if a check failed, `undecided` if none could be decided, else `passed`.",
    "Verdict.checks": "The rules, in the order of the findings.",
    "Finding.kind": "What measured it.",
    "Answer.kind": "What tells this kind of exhibit from the others.",
    "Trial.kind": "What tells this kind of exhibit from the others.",
    "Rehearsals.kind": "What tells this kind of exhibit from the others.",
    "Trial.traces": "One line for each value that was measured.",
    "Trace.name": "Which value.",
    "Check.name": "What the rule is about.",
    "Check.value": "The number that was held against the limit.",
    "Check.limit": "Largest gap to the reference that passes, in either direction.",
    "SetSummary.n": "Number of samples.",
    "Environment.unlearned": "Version of this package.",
    "Environment.python": "Version of Python.",
    "Environment.platform": "Operating system and processor.",
    "Environment.packages": "Versions of the libraries that compute.",
    "Environment.device": "Where models ran.",
    "Environment.threads": "Threads of one process on the CPU.",
    "Cost.wall_seconds": "Time on the clock.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls with the source of each page."""
    filled = _PLACEHOLDER.sub(_fill, markdown)
    return f"{filled}\n\n{drawing_head()}\n" if 'class="drawings"' in filled else filled


def _fill(match: re.Match[str]) -> str:
    what, argument = match.groups()
    lines = {"cards": lambda: cards(argument), "bench": lambda: bench(argument), "recipe-fields": recipe_fields, "finding-fields": finding_fields}[what]()
    return "\n".join(lines)


def cards(group: str) -> Iterator[str]:
    """Heading, card and settings of each part of a registry."""
    for name in _command(group):
        shown = _command(group, "show", name)
        first, _, rest = shown["card"].partition("\n")
        yield f"\n## {name}\n"
        yield f"{_escape(first)}\n"
        for paragraph in _paragraphs(rest):
            yield f"{paragraph}\n"
        yield f"**Tasks:** {', '.join(shown['tasks']) if shown['tasks'] else 'all'}.\n"
        if not shown["settings"]:
            yield "**Settings:** none.\n"
            continue
        yield from _table("setting", "default", "range", "meaning")
        for field, told in shown["settings"].items():
            yield _row(f"`{field}`", f"`{_yaml(told['default'])}`", told["range"].strip(" ()"), told["description"])
        yield ""


def bench(suite: str | None) -> Iterator[str]:
    """What a suite is, and for each metric a table and the same numbers drawn; of all suites, each under a heading."""
    if suite is None:
        for name in suites.names():
            yield f"\n## {name}\n"
            yield from bench(name)
        return
    kind = suites.get(suite)
    for paragraph in _paragraphs(suites.card(suite)):
        yield f"{paragraph}\n"
    file = RESULTS / f"{suite}.json"
    if not file.exists():
        yield f"There are no results of this suite yet. `unlearned bench {suite} --output benchmarks/results/{suite}.json` makes them.\n"
        return
    record = records.BenchRecord.model_validate_json(file.read_text(encoding="utf-8"))
    quoted = ", and after a stroke the paper's number" if kind.paper else ""
    settings = ", ".join(f"{name} {_yaml(value)}" for name, value in record.settings.items())
    yield f"Each cell: {kind.statistic} over seeds, in brackets the smallest and the largest{quoted}. Made with version {record.environment.unlearned} on "
    yield f"{record.environment.device} with: {_escape(settings)}.\n"
    shown = record.model_copy(update={"rows": tuple(map(kind.shown, record.rows))})
    sheets = bench_sheets(shown, kind.statistic, kind.paper)
    for sheet, drawn in zip(sheets, drawings(shown, kind.statistic, kind.paper), strict=True):
        yield f"\n### {suite}: {_escape(sheet.title)}\n"
        yield from _table("method", *map(_escape, sheet.settings))
        yield from (_row(_escape(method), *map(_escape, cells)) for method, cells in sheet.rows)
        if drawn:
            yield f'\n<details class="drawings"><summary>Drawn</summary><div class="panels">{drawn}</div></details>\n'


def recipe_fields() -> Iterator[str]:
    """All fields of a recipe: those of the top level, then one table for each section."""
    sections: list[tuple[str, type[BaseModel]]] = []
    yield from _table("field", "value", "default", "meaning")
    for name, field in RecipeFile.model_fields.items():
        section = _model_in(field.annotation)
        if section is not None:
            sections.append((name, section))
        described = field.description or (inspect.getdoc(section) or "").partition("\n")[0] if section else field.description
        shown = f"see [{name}](#{name})" if section else _type(field)
        default = _default(field) if section is None or field.is_required() or field.default is None else "see there"
        yield _row(f"`{name}`", shown, default, described or _PARTS.get(name, ""))
    for name, section in sections:
        yield from _section(name, section)


_PARTS = {
    "audits": "Names, or names with settings. By default these, as far as they are defined for the task.",
    "attacks": "Names, or names with settings.",
}


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield f"{_escape(inspect.getdoc(section) or '')}\n"
    yield from _table("field", "value", "default", "meaning")
    for inner, field in section.model_fields.items():
        deeper = _model_in(field.annotation)
        shown = _type(field)
        if deeper is not None:
            path = "" if section is Training else "path, or "
            shown = f"{'list: each ' if get_origin(field.annotation) is tuple else ''}{path}fields {', '.join(f'`{key}`' for key in deeper.model_fields)}"
        yield _row(f"`{name}.{inner}`", shown, _default(field), field.description or "")
    yield ""


def finding_fields() -> Iterator[str]:
    """All fields of `audit.json`, one table for each kind of record."""
    kinds = (records.AuditRecord, records.Verdict, records.Check, records.Finding, records.Cost, records.Pruning, records.Removal)
    kinds += (records.SetSummary, records.Environment)
    kinds += (records.Answer, records.Said, records.Trial, records.Trace, records.Rehearsals, records.Rehearsed)
    kinds += (records.Holes, records.Probe)
    for kind in kinds:
        meanings = _attribute_docstrings(kind)
        yield f"\n### {kind.__name__}\n"
        yield f"{_escape(inspect.getdoc(kind) or '')}\n"
        yield from _table("field", "value", "meaning")
        for name, field in kind.model_fields.items():
            shown = field.alias or name
            yield _row(f"`{shown}`", _type(field), meanings.get(name) or _OBVIOUS.get(f"{kind.__name__}.{shown}", ""))
        yield ""


def _command(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def _paragraphs(text: str) -> Iterator[str]:
    """A card's paragraphs; in one that reads `Paper: ...`, each label begins a paragraph of its own, set in bold."""
    for block in re.split(r"\n\s*\n", text.strip()):
        for part in re.split(r"\n(?=[A-Z][a-z ]{2,26}: )", block):
            line = " ".join(part.split())
            label = re.match(r"([A-Z][a-z ]{2,26}): ", line)
            yield f"**{label[1]}:** {_escape(line[label.end() :])}" if label else _escape(line)


def _attribute_docstrings(kind: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text:
            assert isinstance(following, ast.Expr)
            assert isinstance(following.value, ast.Constant)
            found[statement.target.id] = str(following.value.value)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}


def _type(field: FieldInfo) -> str:
    """What may be written for a field, in words, with its range."""
    bounds = [
        f"{sign} {getattr(rule, attribute)}" for rule in field.metadata for attribute, sign in _SIGNS.items() if getattr(rule, attribute, None) is not None
    ]
    return _words(field.annotation) + (f", {', '.join(bounds)}" if bounds else "")


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_words(part) for part in inner))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"list of {_words(inner[0])}"
    if origin is not None:
        return "names with values" if not inner or inner[-1] is Any or inner[-1] is str else f"names with {_words(inner[-1])} each"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})" if issubclass(annotation, records.Record) else "fields"
    return _NAMES.get(annotation, "fields")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        value = [part["name"] for part in value]
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)


def _table(*headings: str) -> Iterator[str]:
    yield _row(*headings)
    yield _row(*["---"] * len(headings))


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _escape(text: str) -> str:
    """Prose of a docstring as Markdown: code in backquotes stays, what else would be markup is taken literally."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_\[\]<>#|])", r"\\\1", part) for part in parts)

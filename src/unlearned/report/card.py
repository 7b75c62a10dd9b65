"""The model card that goes with an unlearned model."""

from __future__ import annotations

import html
import json
from typing import Any

import yaml

from unlearned.records import AuditRecord
from unlearned.report import words
from unlearned.report.curves import curves
from unlearned.report.rows import side_by_side, single

MADE_OF = ("task", "model", "method", "references", "seed")


def escape(text: object) -> str:
    """Free text as literal Markdown on one line: neither markup, HTML, table cells nor links come out of it."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]{}()#|~!$" else c for c in line).replace("://", "&#58;//").replace("@", "&#64;")


def card(record: AuditRecord) -> str:
    """Front matter, verdict, numbers, how the model was made, and the limits of the evidence."""
    parts = [_front_matter(record), "# Unlearned model", _verdict(record), _numbers(record), _attacks(record), _making(record), _limits(record)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _front_matter(record: AuditRecord) -> str:
    data: dict[str, Any] = {"tags": ["machine-unlearning"]}
    library = record.recipe.get("library_name")
    if isinstance(library, str):
        data = {"library_name": library, **data}
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---"


def _verdict(record: AuditRecord) -> str:
    verdict = record.verdict
    lines = [f"**{words.STATUS[verdict.status]}.** {escape(verdict.headline)} {words.verdict_sentence(verdict)}", ""]
    lines += [f"- {words.outcome(check)}: {escape(check.name)}: {escape(check.words)}" for check in verdict.checks]
    return "\n".join(lines).strip()


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def _numbers(record: AuditRecord) -> str:
    rows = [
        [escape(cell) for cell in (row.entry, row.what, row.split, *(row.cell(subject) for subject in words.SUBJECTS), row.gap)]
        for row in side_by_side(single(record))
    ]
    if not rows:
        return ""
    header = ["audit", "metric", "split", *words.SUBJECTS.values(), "gap to the reference"]
    return "## What was measured\n\n" + _table(header, rows) + "\n\nIn brackets: intervals, as far as they were measured."


def _attacks(record: AuditRecord) -> str:
    lines = [f"- {escape(curve.sentence)}" for curve in curves(record.findings)]
    return "\n".join(["## What comes back under attack", "", *(lines or ["No attack with a growing budget was run."])])


def _making(record: AuditRecord) -> str:
    recipe = record.model_dump(mode="json")["recipe"]
    settings = [[key, escape(_flat(recipe[key]))] for key in MADE_OF if key in recipe]
    settings += [[f"{escape(name)} set", f"{s.n} samples, fingerprint {escape(s.fingerprint)}"] for name, s in record.sets.items()]
    settings.append(["made with", escape(f"unlearned {record.environment.unlearned} on {record.environment.device}")])
    return "## How it was made\n\n" + _table(["setting", "value"], settings)


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _limits(record: AuditRecord) -> str:
    lines = ["The evidence is about what was measured, with these audits and attacks, on these sets. It does not show that no other attack would succeed."]
    if not any(finding.subject == "reference" and finding.value is not None for finding in record.findings):
        lines.append("No model retrained without the forget set was measured, so nothing here says what such a model would show.")
    if record.pruning is not None:
        lines.insert(0, f"{escape(record.pruning.statement)} Left out were {escape(record.pruning.rule)}, by the score {escape(record.pruning.score['name'])}.")
    return "## Limits\n\n" + "\n\n".join(lines)

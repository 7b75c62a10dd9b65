"""The outcome of a run: the verdict and the record that holds everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from unlearned.errors import Fault, InputError
from unlearned.records._costs import Cost, Environment
from unlearned.records._exhibits import Exhibit, Picture
from unlearned.records._findings import Finding
from unlearned.records._pruning import Pruning
from unlearned.records._record import Document, Record

SCHEMA: Literal["unlearned.audit/1"] = "unlearned.audit/1"


class Check(Record):
    """One rule of the verdict."""

    name: str
    passed: bool | None
    """None: could not be decided; `words` says why."""
    words: str
    """What was found and what the limit is, to be read after the name and a colon."""
    value: float | None = None
    limit: float | None = None


class Verdict(Record):
    """The answer to: may this model be called unlearned?"""

    status: Literal["passed", "failed", "undecided"]
    headline: str
    """One plain sentence."""
    checks: tuple[Check, ...] = ()


class SetSummary(Record):
    """How large a set is and which one it was, without showing it."""

    n: int = Field(ge=0)
    fingerprint: str
    """Hash of ids and content: equal sets have equal fingerprints."""


class AuditRecord(Document):
    """The whole outcome of a run: the file `audit.json`."""

    schema_: Literal["unlearned.audit/1"] = Field(SCHEMA, alias="schema")
    verdict: Verdict
    environment: Environment
    recipe: dict[str, Any]
    """The settings in effect, defaults included. What names single samples of the forget set is left out."""
    sets: dict[str, SetSummary] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    """By what was made: `unlearned`, `reference` (mean over the bank)."""
    models: dict[str, int] = Field(default_factory=dict)
    """How many models there were besides original and unlearned: `reference`, and `shadow` (further models that were unlearned in the same way)."""
    pruning: Pruning | None = None
    """Which points were left out of the unlearning; None: none."""
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...] = ()
    """What models generate, where a setting asks for it."""
    exhibits: tuple[Exhibit, ...] = ()
    """What is shown beside the numbers: `answer` (a question, and what the models make of it), `trial` (what a method tried before it chose a setting),
    `rehearsals` (what the hypergradients of a resilient method came to), `holes` (a map of probes for knowledge holes)."""

    @classmethod
    def from_file(cls, path: Path, field: str = "report") -> AuditRecord:
        """Read an `audit.json`.

        Args:
            path: of the file.
            field: what messages call it.

        Raises:
            InputError: if the file is missing, is not JSON, or is not a record of this schema.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(Fault(field, f"{str(path)!r} cannot be read ({error.strerror}).", "Give the directory of a finished run.")) from error
        except UnicodeDecodeError as error:
            raise InputError(Fault(field, f"{str(path)!r} is not a text file.", "Give the directory of a finished run.")) from error
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(Fault(field, f"{str(path)!r} is not JSON ({error}).", "Run the recipe again to write it anew.")) from error
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise InputError(
                Fault(field, f"{str(path)!r} has schema {found!r}, not {SCHEMA!r}.", "Use a version of this package that wrote it, or run the recipe again.")
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(Fault(field, f"{str(path)!r} is damaged at {where} ({first['msg']}).", "Run the recipe again to write it anew.")) from error

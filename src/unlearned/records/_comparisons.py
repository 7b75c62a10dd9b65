"""Several runs side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unlearned.records._audits import AuditRecord
from unlearned.records._record import Document, Record

COMPARE_SCHEMA: Literal["unlearned.compare/1"] = "unlearned.compare/1"


class ComparedRun(Record):
    """One of several runs on the same problem."""

    name: str
    """What it is called beside the others: its method, or its directory."""
    source: str
    """The file that its record was read from; empty if it was given as an object."""
    record: AuditRecord


class CompareRecord(Document):
    """Several runs on the same problem side by side: what `unlearned compare --json` prints."""

    schema_: Literal["unlearned.compare/1"] = Field(COMPARE_SCHEMA, alias="schema")
    runs: tuple[ComparedRun, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _names_are_unique(self) -> CompareRecord:
        if len({run.name for run in self.runs}) < len(self.runs):
            raise ValueError("two runs have the same name")
        return self

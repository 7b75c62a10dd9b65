"""`unlearned report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearned.cli._shell import Json, finish


def report(directory: Annotated[Path, typer.Argument(help="The directory of a run.", show_default=False)], as_json: Json = False) -> None:
    """Show the outcome of a run again, and write its HTML page anew from audit.json."""
    from unlearned.records import AuditRecord
    from unlearned.report import write_report

    record = AuditRecord.from_file(directory / "audit.json")
    write_report(record, directory)
    finish(record, as_json, directory)

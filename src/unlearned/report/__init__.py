"""Views of an audit record: terminal summary, one self-contained HTML page, model card.

Every view is made from `unlearned.records.AuditRecord` and from nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unlearned.records import AuditRecord, CompareRecord, Finding

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["findings_table", "model_card", "terminal", "write_report"]


def terminal(record: AuditRecord | CompareRecord) -> RenderableType:
    """Compact summary for `rich.console.Console.print`: of one run, or of several in a table.

    Readable without colour. Free text of the record is shown literally: neither rich markup nor control codes in it take effect.
    """
    from unlearned.report.console import comparison, summary

    return summary(record) if isinstance(record, AuditRecord) else comparison(record)


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Findings side by side for `rich.console.Console.print`."""
    from unlearned.report.console import table

    return table(findings)


def model_card(record: AuditRecord) -> str:
    """Text of a Hugging Face `README.md` (YAML front matter, then Markdown).

    Says how many samples were forgotten and their fingerprint, but not how the forget set was chosen: a card is public.
    """
    from unlearned.report.card import card

    return card(record)


def write_report(record: AuditRecord, directory: Path) -> Path:
    """Write `report.html` into `directory`, which is created when missing.

    The page needs no network. A report that is already there stays whole until the new one replaces it.

    Returns:
        Path of the page.

    Raises:
        InputError: if the page cannot be written there.
    """
    import os

    from unlearned.errors import writing
    from unlearned.report.html import page

    path = directory / "report.html"
    # A path of the file system may hold bytes that are no UTF-8; Python carries them as lone surrogates.
    text = page(record).encode("utf-8", "backslashreplace")
    partial = directory / f".report.html.{os.getpid()}.tmp"
    with writing("out", path):
        directory.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(text)
            partial.replace(path)
        finally:
            if directory.is_dir():
                partial.unlink(missing_ok=True)
    return path

"""Views of an audit record: terminal summary, one self-contained HTML page, model card.

Every view is made from `unlearned.records.AuditRecord` and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unlearned.records import AuditRecord, CompareRecord, Finding

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["attack_summary", "findings_table", "model_card", "terminal", "write_report"]


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


def attack_summary(findings: Sequence[Finding], skipped: Mapping[str, str]) -> RenderableType:
    """What several attacks found, for `rich.console.Console.print`: the numbers that each comes to, its curves in words, and what was left out and why."""
    from unlearned.report.console import attacks

    return attacks(findings, skipped)


def model_card(record: AuditRecord) -> str:
    """Text of a Hugging Face `README.md` (YAML front matter, then Markdown).

    Says how many samples were forgotten and their fingerprint, but not how the forget set was chosen: a card is public.
    """
    from unlearned.report.card import card

    return card(record)


def write_report(record: AuditRecord | CompareRecord, directory: Path) -> Path:
    """Write `report.html`, or for several runs `compare.html`, into `directory`, which is created when missing.

    The page needs no network. A page that is already there stays whole until the new one replaces it.

    Returns:
        Path of the page.

    Raises:
        InputError: if the page cannot be written there.
    """
    from unlearned.report.html import comparison, page

    return write_page(*((page(record), directory / "report.html") if isinstance(record, AuditRecord) else (comparison(record), directory / "compare.html")))


def write_page(text: str, path: Path, field: str = "out") -> Path:
    """Write a page in one step; messages call the path `field`.

    Raises:
        InputError: if it cannot be written there.
    """
    import os

    from unlearned.errors import writing

    partial = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with writing(field, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A path of the file system may hold bytes that are no UTF-8; Python carries them as lone surrogates.
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
            partial.replace(path)
        finally:
            if path.parent.is_dir():
                partial.unlink(missing_ok=True)
    return path

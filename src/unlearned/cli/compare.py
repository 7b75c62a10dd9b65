"""`unlearned compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearned.cli._shell import Json, as_options, say


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their audit.json.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory for compare.html, a page with plots of everything that was measured.")] = None,
    as_json: Json = False,
) -> None:
    """Put several runs on the same problem side by side."""
    from unlearned import comparing
    from unlearned.report import terminal, write_report

    with as_options({"runs": "RUN", "out": "--out"}):
        record = comparing.compare(runs)
        page = None if out is None else write_report(record, out)
    if as_json:
        typer.echo(record.to_json(), nl=False)
        return
    from rich.console import Console

    Console().print(terminal(record))
    if page is not None:
        say(f"page: {page}")

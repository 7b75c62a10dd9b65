"""`unlearned compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearned.cli._shell import Json, as_options


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their audit.json.", show_default=False)], as_json: Json = False
) -> None:
    """Put several runs on the same problem side by side."""
    from unlearned import comparing

    with as_options({"runs": "RUN"}):
        record = comparing.compare(runs)
    if as_json:
        typer.echo(record.to_json(), nl=False)
        return
    from rich.console import Console

    from unlearned.report import terminal

    Console().print(terminal(record))

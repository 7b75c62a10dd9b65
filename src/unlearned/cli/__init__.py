"""The command line: a thin shell over the Python API, one file per verb.

Exit codes: 0 done, 1 the verdict failed, 2 the input was wrong, 3 it broke.
"""

from __future__ import annotations

from typing import Annotated

import typer

from unlearned.cli import attack, audit, bench, compare, demo, init, parts, rank, repair, report, run, trace, validate
from unlearned.cli._shell import guarded, print_versions

app = typer.Typer(
    name="unlearned",
    help="Make a trained model forget, and show with evidence what is gone, what it cost elsewhere and how it could come back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=print_versions, is_eager=True, help="Print versions, its own first, and leave.")] = False,
) -> None:
    del version


app.command("demo", cls=demo.Listing)(demo.demo)
app.command("init")(init.init)
app.command("validate")(validate.validate)
app.command("run")(run.run)
app.command("repair")(repair.repair)
app.command("audit")(audit.audit)
app.command("attack")(attack.attack)
app.command("rank")(rank.rank)
app.command("trace")(trace.trace)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
for group in ("methods", "audits", "attacks"):
    app.add_typer(parts.make(group), name=group)
app.add_typer(parts.make("scores", "influence"), name="scores")


def main() -> None:
    """Entry point of the `unlearned` command."""
    guarded(app)


__all__ = ["app", "main"]

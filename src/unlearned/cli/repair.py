"""`unlearned repair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from unlearned.cli._shell import Json, Out, finish, say
from unlearned.cli.validate import RecipePath

How = Annotated[
    Literal["iterative", "one-shot"] | None, typer.Option(help="Run the method again, or train the unlearned model on the probes.", show_default="iterative")
]
Rounds = Annotated[int | None, typer.Option(min=1, help="How often.", show_default="1")]


def repair(recipe: RecipePath, out: Out = None, how: How = None, rounds: Rounds = None, as_json: Json = False) -> None:
    """Retain what unlearning broke by accident, make the model again, and look for holes anew.

    A finished run in the same directory is gone on from; else the recipe is carried out first. It needs the audit knowledge-holes.
    """
    from unlearned import pipeline
    from unlearned.recipe import read_recipe, with_repair

    directory = out or Path("runs") / recipe.stem
    given = {name: value for name, value in (("how", how), ("rounds", rounds)) if value is not None}
    record = pipeline.run(with_repair(read_recipe(recipe), **given), directory, show_progress=not as_json, say=say)
    finish(record, as_json, directory)

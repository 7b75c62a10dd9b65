"""`unlearned run`."""

from __future__ import annotations

from pathlib import Path

from unlearned.cli._shell import Json, Out, finish, say
from unlearned.cli.validate import RecipePath


def run(recipe: RecipePath, out: Out = None, as_json: Json = False) -> None:
    """Unlearn, audit, attack and report on your model. Without --out, everything goes to runs/NAME-OF-THE-RECIPE."""
    from unlearned import pipeline
    from unlearned.recipe import read_recipe

    directory = out or Path("runs") / recipe.stem
    record = pipeline.run(read_recipe(recipe), directory, show_progress=not as_json, say=say)
    finish(record, as_json, directory)

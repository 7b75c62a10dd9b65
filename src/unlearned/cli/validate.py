"""`unlearned validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearned.cli._shell import Json, print_json

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]


def validate(recipe: RecipePath, as_json: Json = False) -> None:
    """Check a recipe, its model and its data, without changing anything."""
    from unlearned.pipeline import prepare
    from unlearned.recipe import read_recipe

    read = read_recipe(recipe)
    problem = prepare(read).problem
    sizes = {name: len(samples) for name, samples in problem.sets.items()}
    if as_json:
        print_json({"valid": True, "sets": sizes, "recipe": read.effective()})
    else:
        typer.echo(f"valid: {', '.join(f'{n} {name}' for name, n in sizes.items())} samples; method {read.method.name if read.method else 'none'}.")

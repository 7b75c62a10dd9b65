"""`unlearned init`."""

from __future__ import annotations

from importlib.resources import files

import typer

from unlearned.cli._shell import Json, print_json


def init(as_json: Json = False) -> None:
    """Print a commented recipe to own: unlearned init > recipe.yaml."""
    text = files("unlearned.cli").joinpath("recipe.yaml").read_text(encoding="utf-8")
    if as_json:
        import yaml

        print_json(yaml.safe_load(text))
    else:
        typer.echo(text, nl=False)

"""`unlearned methods | audits | attacks | scores [show NAME]`."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from unlearned.cli._shell import Json, print_json


def make(group: str, room: str | None = None) -> typer.Typer:
    """The commands of one registry.

    Args:
        group: `methods`, `audits`, `attacks` or `scores`.
        room: where it is, if that has another name.
    """
    app = typer.Typer(help=f"List the {group}; `show NAME` explains one.", invoke_without_command=True, rich_markup_mode=None)

    def registry() -> Any:
        return getattr(importlib.import_module(f"unlearned.{room or group}"), group)

    @app.callback()
    def list_all(context: typer.Context, as_json: Json = False) -> None:
        if context.invoked_subcommand:
            return
        entries = {name: registry().summary(name) for name in registry().names()}
        if as_json:
            print_json(entries)
            return
        width = max(map(len, entries))
        for name, summary in entries.items():
            typer.echo(f"{name:<{width}}  {summary}")

    @app.command("show")
    def show(name: Annotated[str, typer.Argument(help="A name from the list.", show_default=False)], as_json: Json = False) -> None:
        """Print the card of one: where it comes from, its formula, defaults, deviations and settings."""
        part = registry().get(name, registry().kind)
        card, settings = registry().card(name), _settings(part)
        if as_json:
            print_json({"name": name, "card": card, "tasks": sorted(part.tasks) if part.tasks else None, "settings": settings})
            return
        typer.echo(f"{name}\n\n{card}\n\nTasks: {', '.join(sorted(part.tasks)) if part.tasks else 'all'}.")
        typer.echo("\nSettings:" if settings else "\nNo settings.")
        for field, description in settings.items():
            typer.echo(f"  {field}: {description['default']}\n      {description['description']}{description['range']}")

    return app


def _settings(part: Any) -> dict[str, dict[str, Any]]:
    """Each field; settings within settings by their path."""
    found: dict[str, dict[str, Any]] = {}
    for name, field in part.model_fields.items():
        if hasattr(type(field.default), "model_fields"):
            found |= {f"{name}.{inner}": told for inner, told in _settings(type(field.default)).items()}
        else:
            found[name] = {"default": _default(field), "description": field.description or "", "range": _range(field)}
    return found


def _default(field: Any) -> Any:
    return "must be given" if field.is_required() else _plain(field.default)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _range(field: Any) -> str:
    signs = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤"}
    bounds = [f"{signs[kind]} {getattr(rule, kind.lower())}" for rule in field.metadata if (kind := type(rule).__name__) in signs]
    return f" ({', '.join(bounds)})" if bounds else ""

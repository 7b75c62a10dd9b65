"""From a name and settings to a method, audit, attack or score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from unlearned.engine.settings import Settings
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError, raise_faults
from unlearned.registry import Registry
from unlearned.validation import fault_of

Part = TypeVar("Part", bound=Settings)


def make_part(registry: Registry[Part], name: str, settings: Mapping[str, Any], field: str, task: str) -> Part:
    """A method, audit or attack of that name with these settings.

    Raises:
        InputError: with everything that is wrong with name and settings.
    """
    faults: list[Fault] = []
    part = named_part(registry, {"name": name, **settings}, field, task, faults)
    raise_faults(faults)
    assert part is not None
    return part


def make_settings(kind: type[Part], given: Mapping[str, Any], field: str) -> Part:
    """Settings of that kind.

    Raises:
        InputError: with everything that is wrong with them.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        raise InputError(*(fault_of(detail, kind, field) for detail in error.errors())) from error


def _lookup(registry: Registry[Any], name: str, field: str, faults: list[Fault]) -> type[Any] | None:
    try:
        return registry.get(name, field)
    except InputError as error:
        faults += error.faults
        return None


def named_part(
    registry: Registry[Part], given: Any, field: str, task: str | None, faults: list[Fault], training: Training | None = None, *, skip_foreign: bool = False
) -> Part | None:
    """The part that `given` names, with its settings checked; faults are added, and None is returned when there are any."""
    if given is None:
        return None
    settings = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else {}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        faults.append(Fault(f"{field}.name", f"the {registry.kind} has no name.", f"Available: {', '.join(registry.names())}."))
        return None
    kind = _lookup(registry, name, f"{field}.name", faults)
    if kind is None:
        return None
    allowed = getattr(kind, "tasks", None)
    if allowed is not None and task not in allowed:
        if not skip_foreign:
            faults.append(Fault(f"{field}.name", f"{name!r} is not defined for {task}.", f"It works for {', '.join(sorted(allowed))}."))
        return None
    if training is not None and Training in kind.__mro__:  # retraining is described once, under `training`
        settings = {**training.model_dump(exclude_unset=True), **settings}
    try:
        part: Part = kind(**settings)
        faults += _foreign_inside(part, task, field)
        return part
    except ValidationError as error:
        faults += [fault_of(detail, kind, field) for detail in error.errors()]
    except TypeError:
        faults.append(Fault(field, "names of settings must be text.", "Quote them, or check the indentation."))
    return None


def _foreign_inside(part: Settings, task: str | None, field: str) -> list[Fault]:
    """That what a part is wrapped around is not defined for the task."""
    allowed = getattr(part, "defined_for", None)
    if allowed is None or task in allowed:
        return []
    return [Fault(f"{field}.inner", f"the method inside is not defined for {task}.", f"It works for {', '.join(sorted(allowed))}.")]

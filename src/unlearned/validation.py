"""What is wrong with settings, in this package's words and not in those of the library that checks them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from unlearned.errors import Fault

_REMEDIES = {
    "missing": "Add it.",
    "int_parsing": "Give a whole number.",
    "int_type": "Give a whole number.",
    "int_from_float": "Give a whole number.",
    "float_parsing": "Give a number.",
    "float_type": "Give a number.",
    "string_type": "Give text; quote it if it looks like a number.",
    "bool_parsing": "Give true or false.",
    "bool_type": "Give true or false.",
    "tuple_type": "Give a list.",
    "finite_number": "Give a finite number.",
}


def fault_of(detail: ErrorDetails, model: type[BaseModel], prefix: str = "") -> Fault:
    """A validation error of pydantic in this package's words."""
    path = ".".join([*([prefix] if prefix else []), *(str(part) for part in detail["loc"])]) or "recipe"
    kind, message = detail["type"], detail["msg"]
    if kind == "missing":
        return Fault(path, "this field is missing.", "Add it.")
    if kind == "extra_forbidden":
        known = list(_model_at(model, detail["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        return Fault(path, "there is no such field.", f"Did you mean {near[0]!r}?" if near else f"Fields here: {', '.join(known)}.")
    if kind == "value_error":
        what, told, remedy = message.removeprefix("Value error, ").rpartition("; ")  # written as: what is wrong; what to do
        return Fault(path, f"{what}.", _sentence(remedy)) if told else Fault(path, f"{remedy}.", "Change it so.")
    what, remedy = f"{message[:1].lower()}{message[1:]}", _REMEDIES.get(kind, "Change it so.")
    here = _model_at(model, detail["loc"][:-1]).model_fields
    if kind in {"model_type", "model_attributes_type", "dict_type", "mapping_type"}:  # these name classes, which say nothing to a reader
        what, remedy = "this is no field with fields of its own", "Give fields with values."
    elif kind == "invalid_key":
        what, remedy = "names of fields must be text", f"Fields here: {', '.join(here)}."
    elif kind == "string_pattern_mismatch":
        field = here.get(str(detail["loc"][-1]))
        what, remedy = "this is none of the values that the field takes", f"Choose: {(field and field.description) or message}"
    return Fault(path, f"{what}{_given(path, detail)}.", remedy)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "!")) else ".")


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(str(part))
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model


def _given(path: str, detail: ErrorDetails) -> str:
    """The value in brackets, but never what names the forget set."""
    return "" if path.startswith("forget") else f" (given: {_short(detail['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""One generic registry for everything that can be added: tasks, methods, audits, attacks.

Parts of this package are found by their file name: the part `neg-grad-plus` is the module `neg_grad_plus` of its room, imported only when it
is asked for. Parts of other packages come through entry points (group `unlearned.methods`, `unlearned.audits`, ...). So a list of names
costs no import, and a new part is one new file.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from unlearned.errors import Fault, InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to classes of one kind, loaded on first use.

    Args:
        kind: what the parts are called in messages, in the singular ("method").
        package: the room whose modules are the built-in parts.
        base: the class that every part must derive from, as `module:attribute` so that it is not imported before it is needed.
        private: modules of the room that are not parts.
    """

    def __init__(self, kind: str, package: str, base: str, private: frozenset[str] = frozenset()) -> None:
        self.kind = kind
        self.package = package
        self._base = base
        self._private = private
        self._parts: dict[str, type[T]] = {}

    @property
    def group(self) -> str:
        """The entry-point group through which other packages add parts."""
        return self.package

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that declares a part beside its code.

        Args:
            name: what users call it, in kebab-case.

        Raises:
            ValueError: if the name is taken by another class, is not kebab-case, or the class is not of this kind.
        """
        if name != name.lower() or not name.replace("-", "").isalnum():
            raise ValueError(f"{self.kind} name {name!r} is not kebab-case; use lower-case letters, digits and single dashes.")

        def declare(part: type[T]) -> type[T]:
            base = self.base()
            if not issubclass(part, base):
                raise ValueError(f"{part.__qualname__} is registered as a {self.kind} but does not derive from {base.__qualname__}.")
            known = self._parts.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (part.__module__, part.__qualname__):
                raise ValueError(f"{self.kind} {name!r} is already registered by {known.__module__}; choose another name.")
            self._parts[name] = part
            return part

        return declare

    def base(self) -> type:
        """The class that every part derives from."""
        module, _, attribute = self._base.partition(":")
        base = getattr(importlib.import_module(module), attribute)
        assert isinstance(base, type)
        return base

    def names(self) -> list[str]:
        """All known names, sorted. Imports no part."""
        return sorted({*self._built_in(), *self._entry_points(), *self._parts})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def get(self, name: str, field: str | None = None) -> type[T]:
        """The class of that name; imports it if needed.

        Args:
            name: a registered name.
            field: where the name was given, for the message.

        Raises:
            InputError: if there is no such part; the message suggests near misses and lists what there is.
        """
        if name in self._parts:
            return self._parts[name]
        if name in self._built_in():
            importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
        elif name in self._entry_points():
            self.register(name)(self._entry_points()[name].load())
        if name in self._parts:
            return self._parts[name]
        known = self.names()
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else "Choose one of them."
        raise InputError(Fault(field or self.kind, f"there is no {self.kind} {name!r}.", f"{hint} Available: {', '.join(known)}."))

    def card(self, name: str) -> str:
        """The documentation of a part: the docstring of its module, dedented. Built-in parts are read without being imported."""
        if name in self._built_in():
            spec = importlib.util.find_spec(f"{self.package}.{name.replace('-', '_')}")
            assert spec is not None
            assert spec.origin is not None
            return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
        part = self.get(name)
        module = inspect.getmodule(part)
        return inspect.cleandoc((module.__doc__ if module else None) or part.__doc__ or "")

    def summary(self, name: str) -> str:
        """The first line of the card."""
        return self.card(name).partition("\n")[0]

    def _built_in(self) -> set[str]:
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        modules = pkgutil.iter_modules(spec.submodule_search_locations)
        return {m.name.replace("_", "-") for m in modules if not m.name.startswith("_") and m.name not in self._private}

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

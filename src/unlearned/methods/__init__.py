"""One file per method; each opens with its fidelity card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.methods._method import Method

methods: Registry[Method] = Registry("method", "unlearned.methods", "unlearned.methods._method:Method")

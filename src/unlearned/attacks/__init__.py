"""One file per attack: attempts to bring the knowledge back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.attacks._attack import Attack

attacks: Registry[Attack] = Registry("attack", "unlearned.attacks", "unlearned.attacks._attack:Attack")

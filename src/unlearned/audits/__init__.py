"""One file per audit: measurements that do not change a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.audits._audit import Audit

audits: Registry[Audit] = Registry("audit", "unlearned.audits", "unlearned.audits._audit:Audit")

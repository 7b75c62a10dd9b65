"""The seam of audits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from unlearned.engine.settings import Settings
from unlearned.evidence.subject import Subject
from unlearned.records import Finding


class Audit(Settings, ABC):
    """A measurement with its settings."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""
    by_default: ClassVar[bool] = True
    """Whether it is made where no audit is named; not if it trains models."""

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """Findings about the models of the subject, none of which is changed."""

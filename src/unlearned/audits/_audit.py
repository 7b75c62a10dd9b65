"""The seam of audits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from unlearned.engine.settings import Settings
from unlearned.errors import Fault
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding


class Audit(Settings, ABC):
    """A measurement with its settings."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""
    by_default: ClassVar[bool] = True
    """Whether it is made where no audit is named; not if it trains models, or needs data or a package that most do not have."""

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """Findings about the models of the subject, none of which is changed."""

    def faults(self, problem: Problem) -> list[Fault]:
        """What is wrong with its settings for this problem, before any work is done; fields are names of settings."""
        del problem
        return []

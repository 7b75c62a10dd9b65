"""What audits and attacks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from unlearned.errors import Fault
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Exhibit, Finding
from unlearned.settings import Settings


class Measurement(Settings, ABC):
    """Something that is measured of the models of a subject, with its settings."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """Findings about the models of the subject, none of which is changed."""

    def faults(self, problem: Problem) -> list[Fault]:
        """What is wrong with its settings for this problem, before any work is done; fields are names of settings."""
        del problem
        return []

    def exhibits(self, subject: Subject) -> Sequence[Exhibit]:
        """What it shows beside its findings. Content of the forget set only where a setting asks for it."""
        del subject
        return ()

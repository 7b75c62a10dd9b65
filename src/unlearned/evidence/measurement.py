"""What audits and attacks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

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
    label: str | None = Field(None, min_length=1, max_length=40, description="Tells entries of the same name with different settings apart.")

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """Findings about the models of the subject, none of which is changed."""

    def labelled(self, subject: Subject) -> list[Finding]:
        """What it measures, each finding under its label. What it generated is shown under its label, too."""
        before = len(subject.pictures)
        found = self.measure(subject)
        if self.label is None:
            return found
        shown = subject.pictures[before:]
        subject.pictures[before:] = [one.model_copy(update={"after": one.after and f"{one.after} ({self.label})"}) for one in shown]
        return [finding.model_copy(update={"label": self.label}) for finding in found]

    @property
    def entry(self) -> str:
        """Name and label."""
        return self.name if self.label is None else f"{self.name} ({self.label})"

    def faults(self, problem: Problem) -> list[Fault]:
        """What is wrong with its settings for this problem, before any work is done; fields are names of settings."""
        del problem
        return []

    def exhibits(self, subject: Subject) -> Sequence[Exhibit]:
        """What it shows beside its findings. Content of the forget set only where a setting asks for it."""
        del subject
        return ()

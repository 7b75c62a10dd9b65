"""The seam of attacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from unlearned.engine.settings import Settings
from unlearned.errors import Fault
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding


class Attack(Settings, ABC):
    """An attempt to bring knowledge back, with its settings."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """The curve of knowledge against the attacker's budget, for the unlearned model and for the references. The models of the subject are not changed."""

    def evaluations(self, problem: Problem) -> int:
        """About how often it lets a model answer the forget set, or train on as much: what a suite with a limit of time is planned by."""
        del problem
        return 10

    def faults(self, problem: Problem) -> list[Fault]:
        """What is wrong with its settings for this problem, before any work is done; fields are names of settings."""
        del problem
        return []

"""The seam of attacks."""

from __future__ import annotations

from abc import abstractmethod

from unlearned.evidence.measurement import Measurement
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding


class Attack(Measurement):
    """An attempt to bring knowledge back, with its settings."""

    @abstractmethod
    def measure(self, subject: Subject) -> list[Finding]:
        """The curve of knowledge against the attacker's budget, for the unlearned model and for the references. The models of the subject are not changed."""

    def evaluations(self, problem: Problem) -> int:
        """About how often it lets a model answer the forget set, or train on as much: what a suite with a limit of time is planned by."""
        del problem
        return 10

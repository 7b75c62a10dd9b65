"""One measured number, and how findings are picked and put into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from unlearned.records._record import Record

SubjectName = Literal["original", "unlearned", "reference"]
Direction = Literal["reference", "higher", "lower", "none"]
NO_REFERENCE = "no reference given"
LABEL = "label_long_term_probability"
"""Metric of attacks: how probable it is that forgetting is long-term (gone) and not short-term (asleep)."""
HALF = "half_recovery_steps"
"""Metric beside `LABEL`: the steps after which half of what the original knew is back; 0 if it was there before the attack."""


class Finding(Record):
    """One measured number with all that is needed to read it."""

    audit: str
    """Name of the audit or attack that measured it."""
    label: str | None = None
    """What tells it from others of the same name, where a recipe has several with different settings."""
    kind: Literal["audit", "attack"] = "audit"
    metric: str
    """What was measured, for example `accuracy`."""
    split: str
    """On which data: `forget`, `retain`, `test`, or a part of them."""
    subject: SubjectName
    """Of which model. `reference` is the mean over the reference bank."""
    value: float | None
    """The number; None only with a `reason`."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    interval: str | None = None
    """How the interval was got, for example `Wilson 95 %` or `t 95 % over 3 seeds`."""
    n: int = Field(ge=0)
    """How many samples (for a reference: models) the value rests on."""
    unit: str
    """`share`, `seconds`, `bytes`, `ratio`, ...; empty for numbers that have none, such as an AUC."""
    direction: Direction = "reference"
    """What is good: as close as possible to the `reference`, `higher`, `lower`, or `none` when it only describes."""
    gap: float | None = None
    """Value minus the reference's value. Two-sided: less than the reference is a gap too."""
    budget: float | None = None
    """For a point of an attack's curve: how much the attacker spent."""
    budget_unit: str | None = None
    """Unit of `budget`, for example `steps`."""
    reason: str | None = None
    """Why a value or a gap is absent."""

    @property
    def entry(self) -> str:
        """Name and label of what measured it: what a reader tells it by."""
        return self.audit if self.label is None else f"{self.audit} ({self.label})"

    @model_validator(mode="after")
    def _explains_what_is_absent(self) -> Finding:
        if self.value is None and not self.reason:
            raise ValueError("a finding without a value needs a reason")
        if self.value is not None and self.gap is None and self.subject != "reference" and not self.reason:
            raise ValueError("a finding without a gap needs a reason")
        if (self.low is None) != (self.high is None) or (self.low is not None and not self.interval):
            raise ValueError("an interval needs both ends and how it was got")
        return self


def pick(
    findings: Sequence[Finding], *, audit: str | None = None, metric: str | None = None, split: str | None = None, subject: SubjectName | None = None
) -> list[Finding]:
    """The findings that match everything that is given."""
    wanted = {"audit": audit, "metric": metric, "split": split, "subject": subject}
    return [f for f in findings if all(want is None or getattr(f, field) == want for field, want in wanted.items())]


def label_sentence(label: Finding, findings: Sequence[Finding]) -> str:
    """The label of an attack in words for everybody: gone, asleep or not forgotten.

    Args:
        label: a finding of the metric `LABEL`, with a value.
        findings: those among which the others of the same attack are.

    Raises:
        ValueError: if the label has no value.
    """
    if label.value is None:
        raise ValueError("a label without a value has no words, only a reason")
    gone = label.value >= 0.5
    wrong = 1 - label.value if gone else label.value
    doubt = "less than 1 %" if wrong < 0.01 else f"{100 * wrong:.0f} %"
    beside = pick(findings, audit=label.audit, metric=HALF, split=label.split, subject=label.subject)
    if not gone and any(half.label == label.label and half.value == 0 for half in beside):
        what = "not forgotten: without any attack it shows at least half of what the original knows"
        return f"{what}. The probability that a model that never knew it is about as fast is {doubt}."
    if gone:
        what = "gone (long-term): within its steps the attack brings it back less than twice as fast as it teaches it to a model that never knew it"
    else:
        what = "asleep (short-term): the attack brings it back at least twice as fast as it teaches it to a model that never knew it"
    return f"{what}. The probability that this is wrong is {doubt}."

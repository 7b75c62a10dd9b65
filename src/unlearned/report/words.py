"""How numbers and names of a record are put into words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unlearned.records import LABEL, Check, Direction, Finding, SubjectName, Verdict, label_sentence

SUBJECTS: dict[SubjectName, str] = {"original": "original", "unlearned": "unlearned", "reference": "retrained (reference)"}
ABSENT = "none"
STATUS = {"passed": "PASSED", "failed": "FAILED", "undecided": "UNDECIDED"}
DIRECTIONS: dict[Direction, str] = {"reference": "as the reference", "higher": "higher", "lower": "lower", "none": ""}
MIB = 2**20
BOUNDED = frozenset(
    {"accuracy", "token_accuracy", "concept_rate", "nonmember_share", "class_nonmember_share", "total_variation", "jensen_shannon"}
    | {f"tpr_at_{rate}_fpr" for rate in ("1pct", "0.1pct")}
)
"""Metrics that count or average what lies in 0..1 of its own nature; knowledge is none: an explained share may be negative."""


def significant(value: float) -> str:
    """Three significant digits, without an exponent for numbers that people write out.

    >>> significant(0.012345), significant(1234567.0), significant(0.0)
    ('0.0123', '1,234,567', '0')
    """
    if abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"


def digits(value: float, unit: str) -> str:
    """The number alone, scaled to the unit that `suffix` names."""
    if unit == "share":
        percent = 100 * value
        if abs(percent) < 1e-4:  # nobody is told anything by 5.7e-23 %
            percent = 0.0
        return f"{percent:.1f}" if abs(percent) >= 1 or percent == 0 else f"{percent:.2g}"
    return significant(value / MIB if unit == "bytes" else value)


def suffix(unit: str) -> str:
    """The unit as written after a number, with its leading space."""
    return {"share": " %", "seconds": " s", "bytes": " MiB", "ratio": " x", "": ""}.get(unit, f" {unit}")


def number(value: float, unit: str) -> str:
    """A value with its unit; shares as percent.

    >>> number(0.973, "share"), number(2 * MIB, "bytes"), number(0.5, "ratio")
    ('97.3 %', '2 MiB', '0.5 x')
    """
    return digits(value, unit) + suffix(unit)


def difference(value: float, unit: str) -> str:
    """A difference of two values with its sign; of shares in percentage points (pp)."""
    text = digits(value, unit)
    return (text if text.startswith("-") else f"+{text}") + (" pp" if unit == "share" else suffix(unit))


def ends(finding: Finding) -> tuple[float, float] | None:
    """The interval as it is shown: of a share that can only lie in 0..1 the part in there, where a t interval knows nothing of it."""
    if finding.low is None or finding.high is None:
        return None
    if finding.unit == "share" and finding.metric in BOUNDED and finding.value is not None and 0 <= finding.value <= 1:
        return max(0.0, finding.low), min(1.0, finding.high)
    return finding.low, finding.high


def interval(finding: Finding) -> str:
    """The interval in brackets, or nothing when there is none."""
    shown = ends(finding)
    return "" if shown is None else f"[{digits(shown[0], finding.unit)}, {digits(shown[1], finding.unit)}]"


def measured(finding: Finding, between: str = " ") -> str:
    """Value with its interval (and `between` them), or the reason why there is no value."""
    if finding.value is None:
        return f"{ABSENT}: {finding.reason}"
    return between.join(filter(None, [number(finding.value, finding.unit), interval(finding)]))


def gap(finding: Finding) -> str:
    """Gap to the reference, or the reason why there is none; nothing for the reference itself."""
    if finding.subject == "reference":
        return ""
    if finding.gap is not None:
        return difference(finding.gap, finding.unit)
    return f"{ABSENT}: {finding.reason}" if finding.value is not None else ""


def readable(name: str) -> str:
    """A name of code as words."""
    return name.replace("_", " ")


def model(name: str) -> str:
    """Name of a model in a table: the reference is called what it is, others keep their name."""
    return SUBJECTS["reference"] if name == "reference" else name


def amount(spent: float, unit: str, *, short: bool = False) -> str:
    """What an attacker spent. A unit that begins with `share` is written in percent.

    >>> amount(20, "steps"), amount(1, "steps"), amount(0.3, "share pruned"), amount(0.3, "share"), amount(4, "bits", short=True)
    ('20 steps', '1 step', '30 % pruned', '30 %', '4')
    >>> amount(1, "steps on related data"), amount(2, "blocks skipped")
    ('1 step on related data', '2 blocks skipped')
    """
    first, _, rest = unit.partition(" ")
    if first == "share":
        return f"{significant(100 * spent)} %" + (f" {rest}" if rest and not short else "")
    if short or not unit:
        return significant(spent)
    named = first[:-1] if spent == 1 and first in SEVERAL else first
    return " ".join(filter(None, [significant(spent), named, rest]))


SEVERAL = ("steps", "samples", "bits", "epochs", "prompts", "blocks", "rewordings", "scenes", "tokens", "rounds")
"""Words that a unit may begin with, whose singular lacks the last letter."""


def budget(finding: Finding) -> str:
    """What the attacker spent; `worst` and the unit of a number over all budgets; or nothing."""
    if finding.budget is not None:
        return amount(finding.budget, finding.budget_unit or "")
    return f"worst ({finding.budget_unit})" if finding.budget_unit else ""


def of_retentions(findings: Iterable[Finding]) -> dict[int, str]:
    """By the identity of a finding: its attack, and the unit of the budget where the attack has several retentions."""
    found = list(findings)
    units: dict[str, set[str]] = {}
    for finding in found:
        units.setdefault(finding.entry, set()).add(finding.budget_unit or "")
    return {id(f): f.entry + (f", {f.budget_unit}" if len(units[f.entry]) > 1 else "") for f in found}


def labels(findings: Sequence[Finding]) -> list[str]:
    """What each attack says about asleep or gone, in whole sentences."""
    found = [f for f in findings if f.metric == LABEL]
    said = [label_sentence(f, findings) if f.value is not None else f"neither asleep nor gone can be said: {f.reason}." for f in found]
    return [f"{f.entry}: {words}" for f, words in zip(found, said, strict=True)]


def place(split: str) -> str:
    """A split as the end of a sentence: `of the forget set`."""
    return {"forget-rest": "of the unseen rest", "forget-end": "of the ends of the answers", "all": "on all data"}.get(split, f"of the {split} set")


def outcome(check: Check) -> str:
    """A check's outcome as a word."""
    return "undecided" if check.passed is None else ("passed" if check.passed else "failed")


def verdict_sentence(verdict: Verdict) -> str:
    """What the status means for whoever reads nothing else."""
    return {
        "passed": "Within what was measured, the model may be called unlearned.",
        "failed": "The model may not be called unlearned: at least one check failed.",
        "undecided": "The evidence does not suffice to call the model unlearned.",
    }[verdict.status]

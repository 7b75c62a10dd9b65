"""The verdict: may this model be called unlearned? Decided by comparison with the references, from findings alone."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from unlearned.engine.settings import Settings
from unlearned.records import LABEL, Check, Finding, Pruning, Verdict, label_sentence, pick


class Limits(Settings):
    """How far the unlearned model may lie from the references, in either direction."""

    utility_gap: float = Field(0.05, ge=0, le=1, description="On forget, retain and test data.")
    membership_gap: float = Field(0.1, ge=0, le=1, description="Of the AUC of the membership attack.")
    relearn_gap: float | None = Field(
        0.25,
        ge=0,
        le=1,
        description="Of knowledge that a relearning attack brings back, at any step; None: it is told and not judged, and leaves the verdict open.",
    )
    label_error: float = Field(0.05, ge=0, lt=0.5, description="Largest probability that the label of an attack, asleep or gone, is wrong.")


def judge(findings: Sequence[Finding], limits: Limits, pruning: Pruning | None = None) -> Verdict:
    """A verdict over all findings that have a limit.

    A check passes if the whole interval of the value lies within the limit around the reference, and fails if no part of it does; in
    between the samples are too few to tell, and it stays undecided. A value without an interval rests on too few samples. Without references nothing can
    be decided. The verdict is passed only if every check is. Where points of the forget set were skipped, their membership and knowledge are checks too; that a
    request for deletion was not carried out in full is one that fails.
    """
    unlearned = [f for f in findings if f.subject == "unlearned"]
    checks = [
        _check(_named(f"{f.metric} on {f.split}".replace("_", " "), f), f, limits.utility_gap)
        for f in pick(unlearned, audit="utility")
        if f.split in {"forget", "retain", "test"}
    ]
    checks += [_check(_named(f"membership attack on {f.split}", f), f, limits.membership_gap) for f in pick(unlearned, audit="membership", metric="auc")]
    skipped = [f for f in pick(unlearned, audit="skipped-points", split="forget-skipped") if f.value is not None or (pruning is not None and pruning.skipped)]
    checks += [_check("membership attack on the skipped points", f, limits.membership_gap) for f in pick(skipped, metric="auc")]
    checks += [_check("knowledge of the skipped points", f, limits.utility_gap) for f in pick(skipped, metric="knowledge")]
    if pruning is not None and pruning.deletion_request and pruning.skipped:
        words = f"{pruning.skipped} samples of it were skipped, and skipping never satisfies it."
        checks.append(Check(name="the request for deletion", passed=False, words=words))
    curve = [f for f in pick(unlearned, audit="relearn", metric="knowledge") if f.value is not None]
    if curve:
        points = [_check(_named("relearning", f) + _after(f), f, limits.relearn_gap) for f in curve]
        severity = {False: 2, None: 1, True: 0}
        checks.append(max(zip(points, curve, strict=True), key=lambda pair: (severity[pair[0].passed], abs(pair[1].gap or 0)))[0])
    checks += [_labelled(f, findings, limits.label_error) for f in pick(unlearned, metric=LABEL)]
    return _conclude(checks)


def _after(finding: Finding) -> str:
    if finding.budget is None:
        return ""
    unit = finding.budget_unit or ""
    return f", after {finding.budget:g} {unit.replace('steps', 'step', 1) if finding.budget == 1 else unit}"


def _named(check: str, finding: Finding) -> str:
    return check if finding.label is None else f"{check} ({finding.label})"


def _labelled(finding: Finding, findings: Sequence[Finding], most: float) -> Check:
    """Gone passes, asleep and not forgotten fail, if the label is sure enough."""
    name = _named(f"asleep or gone, {finding.audit}", finding)
    if finding.value is None:
        return Check(name=name, passed=None, words=f"{finding.reason}.", limit=most)
    passed = True if 1 - finding.value <= most else False if finding.value <= most else None
    return Check(name=name, passed=passed, words=label_sentence(finding, findings), value=finding.value, limit=most)


def _check(name: str, finding: Finding, limit: float | None) -> Check:
    if finding.value is None or finding.gap is None:
        return Check(name=name, passed=None, words=f"{finding.reason}.", limit=limit)
    if finding.low is None or finding.high is None:
        return Check(name=name, passed=None, words="there are too few samples for an interval.", value=finding.value, limit=limit)
    reference = finding.value - finding.gap
    low, high = finding.low, finding.high
    nearest = max(low - reference, reference - high, 0.0)
    farthest = max(abs(low - reference), abs(high - reference))
    passed = None
    if limit is not None:  # rounded, because 0.55 - 0.5 is a little more than 0.05 in floating point
        passed = True if round(farthest, 9) <= limit else (None if round(nearest, 9) <= limit else False)
    share = finding.unit == "share"

    def number(value: float, unit: str) -> str:
        return f"{100 * value:.1f}{unit}" if share else f"{value:.3f}"

    side = "above" if finding.gap > 0 else "below"
    distance = "exactly at" if finding.gap == 0 else f"{number(abs(finding.gap), ' points')} {side}"
    found = f"{number(finding.value, ' %')}, {distance} the retrained model"
    if limit is None:
        return Check(name=name, passed=None, words=f"{found}; no limit is set.", value=finding.value)
    doubt = f" Its interval, {number(low, '')} to {number(high, '')}, reaches across it: more samples are needed to tell." if passed is None else ""
    words = f"{found}; the limit is {f'{100 * limit:g} points' if share else f'{limit:g}'}.{doubt}"
    return Check(name=name, passed=passed, words=words, value=finding.value, limit=limit)


def _conclude(checks: list[Check]) -> Verdict:
    failed = [check.name for check in checks if check.passed is False]
    unjudged = [check for check in checks if check.passed is None and check.limit is None and check.value is not None]
    open_ = [check.name for check in checks if check.passed is None and check not in unjudged]
    of_pruning = [name for name in failed if "skipped" in name or "deletion" in name]
    others = [name for name in failed if name not in of_pruning]
    if failed:
        said = [f"Pruning is not defensible: see {_list(of_pruning)}."] if of_pruning else []
        said += [f"Not unlearned: the model differs from one that never saw the forget set in {_list(others)}."] if others else []
        return Verdict(status="failed", headline=" ".join(said), checks=tuple(checks))
    if not checks:
        return Verdict(status="undecided", headline="None of the audits and attacks that the verdict rests on was made.")
    if all(check.value is None for check in checks):
        return Verdict(status="undecided", headline="Without a retrained model there is nothing to compare with.", checks=tuple(checks))
    if open_ or unjudged:
        good = sum(check.passed is True for check in checks)
        passed = f"{good} {'check' if good == 1 else 'checks'} passed, but " if good else ""
        reasons = [f"there are too few samples to tell about {_list(open_)}"] if open_ else []
        reasons += [f"no limit is set for {_list([check.name for check in unjudged])}"] if unjudged else []
        headline = f"{passed}{', and '.join(reasons)}."
        return Verdict(status="undecided", headline=headline[0].upper() + headline[1:], checks=tuple(checks))
    headline = f"Unlearned: in all {len(checks)} checks the model behaves like one that never saw the forget set."
    return Verdict(status="passed", headline=headline, checks=tuple(checks))


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

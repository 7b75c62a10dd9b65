"""Several runs side by side: what was measured alike in them, and the few numbers that tell most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from unlearned.records import AuditRecord, CompareRecord, Finding, SubjectName
from unlearned.report import words
from unlearned.report.curves import Curve, curves
from unlearned.report.rows import single


@dataclass
class Measure:
    """One metric on one split, of every run that has it."""

    entry: str
    metric: str
    split: str
    unit: str
    budget: str = ""
    """What an attacker spent, where it is a single amount."""
    cells: dict[SubjectName, dict[int, Finding]] = field(default_factory=dict)
    """Findings of each model, by the position of the run."""

    @property
    def audit(self) -> str:
        """The audit or attack that measured it."""
        return self.findings[0].audit

    @property
    def kind(self) -> Literal["audit", "attack"]:
        """Of what measured it."""
        return self.findings[0].kind

    @property
    def title(self) -> str:
        """What was measured where."""
        place = "" if self.split == "all" else f", {self.split}"
        return words.readable(self.metric) + place + (f", at {self.budget}" if self.budget else "")

    @property
    def findings(self) -> list[Finding]:
        """All findings, model by model."""
        return [finding for found in self.cells.values() for finding in found.values()]

    def distinct(self, subject: SubjectName) -> list[Finding]:
        """What the runs say of a model that they usually share: one finding, unless they differ."""
        return list({(f.value, f.low, f.high): f for f in self.cells.get(subject, {}).values() if f.value is not None}.values())


class Column(NamedTuple):
    """One of the numbers that tell most."""

    heading: str
    about: str
    """What the heading means, as the end of a sentence."""
    shows: Literal["value", "gap"]
    measure: Measure
    telling: bool = True
    """Whether it has a place in a narrow table."""

    def text(self, position: int) -> str:
        """The cell of a run: a dash where there is nothing, since the reasons stand with the numbers in full."""
        finding = self.measure.cells["unlearned"].get(position)
        if finding is None or finding.value is None:
            return "-"
        if self.shows == "value" or finding.gap is None:
            return words.number(finding.value, finding.unit)
        return words.difference(finding.gap, finding.unit)

    def shared(self, subject: SubjectName) -> str:
        """Value of a model that the runs usually share, with its ends where they differ. A column of gaps has none."""
        found = sorted(f.value for f in self.measure.distinct(subject) if f.value is not None)
        if self.shows == "gap" or not found:
            return ""
        return " to ".join(words.number(value, self.measure.unit) for value in dict.fromkeys((found[0], found[-1])))


def measures(record: CompareRecord) -> list[Measure]:
    """Everything that was measured once, in the order of the first run that has it. A curve of a single point is no curve."""
    curved = set(attacked(record))
    found: dict[tuple[str, ...], Measure] = {}
    for position, run in enumerate(record.runs):
        lone = [point for curve in curves(run.record.findings) if curve.key not in curved for point in curve.findings]
        for finding in [*single(run.record), *lone]:
            key = (finding.entry, finding.metric, finding.split, finding.unit, words.budget(finding))
            found.setdefault(key, Measure(*key)).cells.setdefault(finding.subject, {}).setdefault(position, finding)
    return list(found.values())


def attacked(record: CompareRecord) -> dict[tuple[str, ...], dict[int, Curve]]:
    """The curves of every attack, by what they show and the position of the run."""
    found: dict[tuple[str, ...], dict[int, Curve]] = {}
    for position, run in enumerate(record.runs):
        for curve in curves(run.record.findings):
            found.setdefault(curve.key, {})[position] = curve
    return {key: runs for key, runs in found.items() if len({point.budget for curve in runs.values() for point in curve.findings}) > 1}


def columns(record: CompareRecord) -> list[Column]:
    """Utility on each set, membership gap, distance, the worst point of each attack, and the cost ratio, as far as they were measured."""
    every = [measure for measure in measures(record) if "unlearned" in measure.cells]
    found = [Column(m.split, f"{words.readable(m.metric)} {words.place(m.split)}", "value", m) for m in _first(every, "utility", ("forget", "retain", "test"))]
    membership = [m for m in every if (m.audit, m.metric) == ("membership", "auc")]
    # Where whole classes were forgotten, the other classes are no fair comparison.
    fair = [m for m in membership if m.split == "forget-same-class"] or membership
    found += [Column("membership", f"AUC of the membership attack on {m.split} minus the retrained model's", "gap", m) for m in fair[:1]]
    distance = [m for m in every if (m.audit, m.split) == ("output-distance", "forget")]
    found += [Column("distance", f"{words.readable(m.metric)} to the retrained models on the forget set", "value", m) for m in distance[:1]]
    worst: dict[str, Measure] = {}
    for runs in attacked(record).values():
        curve = next(iter(runs.values()))
        points = {position: point for position, curve in runs.items() if (point := curve.worst) is not None}
        if points:
            worst.setdefault(curve.entry, Measure(curve.entry, curve.metric, curve.split, curve.unit, cells={"unlearned": points}))
    for m in every:
        if m.kind == "attack":
            worst.setdefault(m.entry, m)
    most = "relearn" if any(m.audit == "relearn" for m in worst.values()) else None
    for entry, m in worst.items():
        about = f"{words.readable(m.metric)} under the attack {entry} minus the retrained model's, where the two lie farthest apart"
        found.append(Column(entry, about, "gap", m, telling=most in {None, m.audit}))
    ratio = [m for m in every if (m.audit, m.metric) == ("cost", "cpu_seconds_ratio")]
    return [*found, *(Column("cost", "processor time as a ratio to retraining", "value", m) for m in ratio[:1])]


def _first(every: Iterable[Measure], audit: str, splits: tuple[str, ...]) -> list[Measure]:
    chosen = {m.split: m for m in reversed(list(every)) if m.audit == audit and m.split in splits}
    return [chosen[split] for split in splits if split in chosen]


def caveats(record: CompareRecord) -> list[str]:
    """What was skipped, and what else differs between the runs, in sentences: a difference in the numbers may come from it."""
    found = [f"{run.name}: {run.record.pruning.statement}" for run in record.runs if run.record.pruning is not None and run.record.pruning.skipped]
    utility = [measure for measure in measures(record) if measure.audit == "utility"]
    if any(len(measure.distinct("original")) > 1 for measure in utility):
        found.append("They do not start from the same original model: its numbers differ between the runs.")
    if any(len(measure.distinct("reference")) > 1 for measure in utility):
        found.append("They are not held against the same retrained models: their numbers differ between the runs.")
    differing = _differing([run.record for run in record.runs])
    return [*found, *([f"Besides the method they differ in {', '.join(differing)}."] if differing else [])]


IGNORED = ("method", "compute", "references.cache")
"""What is compared, and what changes no result."""


def _differing(records: list[AuditRecord]) -> list[str]:
    """Paths of the settings that differ, and what differs of the environment."""
    flat = []
    for record in records:
        environment = {"version": record.environment.unlearned, "device": record.environment.device}
        flat.append(dict(_flat(record.model_dump(mode="json")["recipe"])) | environment)
    paths = dict.fromkeys(path for settings in flat for path in settings)
    return [path for path in paths if len({json.dumps(settings.get(path), sort_keys=True) for settings in flat}) > 1]


def _flat(value: Mapping[str, Any], start: str = "") -> Iterable[tuple[str, Any]]:
    for name, part in value.items():
        path = f"{start}{name}"
        if path in IGNORED:
            continue
        if isinstance(part, dict) and part:
            yield from _flat(part, f"{path}.")
        else:
            yield path, part

"""What a run writes down: findings, costs, the verdict and the audit record that holds them.

Everything that anybody reads (terminal table, `audit.json`, HTML page, model card) is made from these records and from nothing else. They
hold numbers and names. Only exhibits can hold samples, and content of a forget set only where the user asked for it. What a model generates comes in here
where a setting asks for pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unlearned.errors import Fault, InputError

SCHEMA: Literal["unlearned.audit/1"] = "unlearned.audit/1"

SubjectName = Literal["original", "unlearned", "reference"]
Direction = Literal["reference", "higher", "lower", "none"]
NO_REFERENCE = "no reference given"
LABEL = "label_long_term_probability"
"""Metric of attacks: how probable it is that forgetting is long-term (gone) and not short-term (asleep)."""
HALF = "half_recovery_steps"
"""Metric beside `LABEL`: the steps after which half of what the original knew is back; 0 if it was there before the attack."""


class Record(BaseModel):
    """Immutable, refuses unknown fields, and holds no NaN or infinity (JSON has none)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class Picture(Record):
    """Images that a model generated, in a row; made only where a setting asks for them."""

    split: str
    """The set whose prompts they answer."""
    subject: SubjectName
    after: str | None = None
    """After which attack, in words; None: the model as it is."""
    count: int = Field(ge=1)
    """How many images are side by side."""
    png: str
    """The row as a PNG, in base64."""


class Cost(Record):
    """What it took to make a model."""

    wall_seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)
    """Processor time of the process, all threads."""
    peak_memory_bytes: int = Field(ge=0)
    """Largest memory in use meanwhile: of the accelerator if there is one, else resident memory of the process."""
    samples_seen: int = Field(ge=0)
    """Samples for which gradients were computed, repeats counted."""
    steps: int = Field(ge=0)
    """Optimiser steps, or gradient batches of a method that has no optimiser."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            wall_seconds=self.wall_seconds + other.wall_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            samples_seen=self.samples_seen + other.samples_seen,
            steps=self.steps + other.steps,
        )


class Said(Record):
    """What one model makes of a question."""

    text: str | None
    """Its greedy answer; None: withheld."""
    recall: float = Field(ge=0, le=1)
    """ROUGE-1 recall of the true answer."""
    declines: bool
    """Whether the answer says that it cannot be given."""
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    """Of each token of the true answer after the true tokens before it."""


class Answer(Record):
    """A question, and what the models make of it."""

    kind: Literal["answer"] = "answer"
    source: str
    """The audit that asked."""
    split: str
    """From which set the question is."""
    question: str | None
    """None: withheld, with everything else that tells what it is about."""
    answer: str | None
    """The true answer."""
    tokens: tuple[str, ...] | None
    """Tokens of the true answer."""
    models: dict[SubjectName, Said]
    """Of several references the first."""


class Trace(Record):
    """One line of a plot."""

    name: str
    points: tuple[tuple[float, float], ...]
    """Along x, and the value there."""


class Trial(Record):
    """What a method tried before it chose a setting by itself: values of candidates, and which were taken."""

    kind: Literal["trial"] = "trial"
    source: str
    """The method that tried."""
    setting: str
    """What was tried, for example `layer`."""
    caption: str
    """How to read the values, in one or two sentences."""
    unit: str
    """Of the values, as of a finding."""
    traces: tuple[Trace, ...]
    chosen: tuple[float, ...]
    """Candidates that were taken."""


class Probe(Record):
    """A probe for knowledge holes, as it stands on the map."""

    of: Literal["adjacent", "latent"]
    """The same for every method, or searched for on this model."""
    place: tuple[float, float]
    """On a plane on which probes that are alike are near each other."""
    scores: dict[SubjectName, Annotated[float, Field(ge=1, le=10)] | None]
    """10 is best; of several references the mean; None: not scored."""
    hole: bool
    """Whether it is a hole of the unlearned model."""
    overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much of the question the forget text has that has most of it, by the weight of its words; None: not about texts."""
    question: str | None
    """Or what was shown; None: withheld, with the answers."""
    answers: dict[SubjectName, str] = {}
    """Of several references that of the first."""


class Holes(Record):
    """A map of the probes for knowledge holes."""

    kind: Literal["holes"] = "holes"
    """Which kind of exhibit this is."""
    source: str
    """The audit that probed."""
    after: str | None = None
    """After which repair, in words; None: the unlearned model as it is."""
    good: float
    """Score of the original from which on a probe can be a hole."""
    bad: float
    """Score of the unlearned model up to which it is one."""
    backends: dict[str, str]
    """Which backend did what."""
    agreement: str | None = None
    """How far two judges agree, in words; None: a second one was not asked."""
    probes: tuple[Probe, ...]
    """Adjacent ones first."""


Exhibit = Annotated[Answer | Trial | Holes, Field(discriminator="kind")]
"""What is shown beside the numbers."""


class Check(Record):
    """One rule of the verdict."""

    name: str
    passed: bool | None
    """None: could not be decided; `words` says why."""
    words: str
    """What was found and what the limit is, to be read after the name and a colon."""
    value: float | None = None
    limit: float | None = None


class Verdict(Record):
    """The answer to: may this model be called unlearned?"""

    status: Literal["passed", "failed", "undecided"]
    headline: str
    """One plain sentence."""
    checks: tuple[Check, ...] = ()


class SetSummary(Record):
    """How large a set is and which one it was, without showing it."""

    n: int = Field(ge=0)
    fingerprint: str
    """Hash of ids and content: equal sets have equal fingerprints."""


class Environment(Record):
    """Where the numbers were made."""

    unlearned: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int


class Removal(Record):
    """What a training without some points differs in from a training on all of them: one number of the gate."""

    removed: Literal["low", "random", "high"]
    """Which points were left out: those that were dropped, as many at random, or as many of the highest scores."""
    metric: str
    """`utility` on test data, `total_variation` of the predictions, or `confidence`: the mean change of a test sample's probability."""
    value: float
    """Models that were trained without the points."""
    full: float
    """Models that were trained on everything, held against each other in the same way."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end of it."""
    interval: str
    """How it was got."""
    told_apart: bool
    """Whether the difference is beyond the noise of seeds."""


class Pruning(Record):
    """Which points were left out of the unlearning, because a score says that they matter little."""

    score: dict[str, Any]
    """Name and settings of the score."""
    of: Literal["forget", "retain", "both"]
    """From which sets."""
    rule: str
    """How it was decided how many, in words."""
    dropped: dict[str, int]
    """How many points of each set were left out."""
    total: dict[str, int]
    """Of how many."""
    queries: str
    """What the score was asked about, in words; empty for a score that asks nothing."""
    bound: float | None = None
    """To first order, leaving all dropped points out of the training changes at most so much; None if the score bounds no effect."""
    bound_of: str | None = None
    """What changes."""
    deletion_request: bool = False
    """Whether the forget set is a request for deletion, which skipping never satisfies."""
    notes: tuple[str, ...] = ()
    """What must be known to read it."""
    gate: tuple[Removal, ...] = ()
    """Trainings without the dropped, random and highest points; empty if none was made."""
    gate_words: str = "the gate was not asked for"
    """What the gate found."""

    @property
    def skipped(self) -> int:
        """Points of the forget set that were not unlearned."""
        return self.dropped.get("forget", 0)

    @property
    def statement(self) -> str:
        """What every report says of it."""
        if not self.skipped:
            return "Every point of the forget set was unlearned; the retain set was thinned."
        return (
            f"{self.skipped} of {self.total['forget']} points of the forget set were skipped: they were not unlearned. "
            "Skipping is not deletion, and never satisfies a request for it."
        )


class AuditRecord(Record):
    """The whole outcome of a run: the file `audit.json`."""

    schema_: Literal["unlearned.audit/1"] = Field(SCHEMA, alias="schema")
    verdict: Verdict
    environment: Environment
    recipe: dict[str, Any]
    """The settings in effect, defaults included. What names single samples of the forget set is left out."""
    sets: dict[str, SetSummary] = {}
    costs: dict[str, Cost] = {}
    """By what was made: `unlearned`, `reference` (mean over the bank)."""
    models: dict[str, int] = {}
    """How many models there were besides original and unlearned: `reference`, and `shadow` (further models that were unlearned in the same way)."""
    pruning: Pruning | None = None
    """Which points were left out of the unlearning; None: none."""
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...] = ()
    """What models generate, where a setting asks for it."""
    exhibits: tuple[Exhibit, ...] = ()
    """What is shown beside the numbers: `answer` (a question, and what the models make of it), `trial` (what a method tried before it chose a setting),
    `holes` (a map of probes for knowledge holes)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> str:
        """As written to `audit.json`."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_file(cls, path: Path, field: str = "report") -> AuditRecord:
        """Read an `audit.json`.

        Args:
            path: of the file.
            field: what messages call it.

        Raises:
            InputError: if the file is missing, is not JSON, or is not a record of this schema.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(Fault(field, f"{str(path)!r} cannot be read ({error.strerror}).", "Give the directory of a finished run.")) from error
        except UnicodeDecodeError as error:
            raise InputError(Fault(field, f"{str(path)!r} is not a text file.", "Give the directory of a finished run.")) from error
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(Fault(field, f"{str(path)!r} is not JSON ({error}).", "Run the recipe again to write it anew.")) from error
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise InputError(
                Fault(field, f"{str(path)!r} has schema {found!r}, not {SCHEMA!r}.", "Use a version of this package that wrote it, or run the recipe again.")
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(Fault(field, f"{str(path)!r} is damaged at {where} ({first['msg']}).", "Run the recipe again to write it anew.")) from error


BENCH_SCHEMA: Literal["unlearned.bench/1"] = "unlearned.bench/1"


class BenchRow(Record):
    """One number of a benchmark."""

    method: str
    """In kebab-case; `original`, `retrain` and controls go by their names."""
    setting: str
    seed: int | None = None
    """None: a number over several seeds."""
    split: str
    metric: str
    value: float | None = None
    reason: str | None = None
    """Why there is no value."""

    @model_validator(mode="after")
    def _explains_what_is_absent(self) -> BenchRow:
        if self.value is None and not self.reason:
            raise ValueError("a row without a value needs a reason")
        return self


class Quoted(NamedTuple):
    """The place of a number that a paper printed."""

    method: str
    setting: str
    split: str
    metric: str


class BenchRecord(Record):
    """The whole outcome of a benchmark: the file `benchmarks/results/SUITE.json`."""

    schema_: Literal["unlearned.bench/1"] = Field(BENCH_SCHEMA, alias="schema")
    suite: str
    environment: Environment
    settings: dict[str, Any]
    rows: tuple[BenchRow, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> str:
        """As written to the results: one row per line, so that versions can be compared, and six digits of each number."""
        short = [row.model_copy(update={"value": None if row.value is None else float(f"{row.value:.6g}")}) for row in self.rows]
        head = self.model_dump(mode="json", by_alias=True, exclude={"rows"})
        lines = ",\n".join("    " + json.dumps(row.model_dump(mode="json", exclude_none=True), ensure_ascii=False, allow_nan=False) for row in short)
        return json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False)[:-2] + f',\n  "rows": [\n{lines}\n  ]\n}}\n'


RANK_SCHEMA: Literal["unlearned.rank/1"] = "unlearned.rank/1"


class RankRecord(Record):
    """How the influence of a model's training points is distributed: what `unlearned rank --json` prints. It names none of them."""

    schema_: Literal["unlearned.rank/1"] = Field(RANK_SCHEMA, alias="schema")
    environment: Environment
    score: dict[str, Any]
    """Name and settings."""
    queries: str
    """What the score was asked about, in words; empty for a score that asks nothing."""
    notes: tuple[str, ...]
    """What must be known to read it."""
    points: dict[str, int]
    """How many points of each set."""
    quantiles: dict[str, tuple[float, ...]]
    """Of each set: the distance of the scores from 0 at 0, 1, ..., 100 percent of its points, lowest first."""
    bounds: tuple[float, ...] | None
    """What leaving out the lowest 0, 1, ..., 99 percent of both sets changes at most, to first order; None if the score bounds no effect."""
    bound_of: str | None
    """What changes."""
    cost: Cost

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> str:
        """As `--json` prints it."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


COMPARE_SCHEMA: Literal["unlearned.compare/1"] = "unlearned.compare/1"


class ComparedRun(Record):
    """One of several runs on the same problem."""

    name: str
    """What it is called beside the others: its method, or its directory."""
    source: str
    """The file that its record was read from; empty if it was given as an object."""
    record: AuditRecord


class CompareRecord(Record):
    """Several runs on the same problem side by side: what `unlearned compare --json` prints."""

    schema_: Literal["unlearned.compare/1"] = Field(COMPARE_SCHEMA, alias="schema")
    runs: tuple[ComparedRun, ...] = Field(min_length=2)

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="after")
    def _names_are_unique(self) -> CompareRecord:
        if len({run.name for run in self.runs}) < len(self.runs):
            raise ValueError("two runs have the same name")
        return self

    def to_json(self) -> str:
        """As `--json` prints it."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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

"""What is shown beside the numbers. Only these records can hold samples, and content of a forget set only where the user asked for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unlearned.records._findings import SubjectName
from unlearned.records._record import Record


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


class Rehearsed(Record):
    """What the hypergradients through one fine-tuning of a pool came to, over all steps (where several processes train, those of the first)."""

    id: str
    """Of the fine-tuning."""
    times: int = Field(ge=0)
    """At how many steps it was drawn."""
    left_out: int = Field(ge=0)
    """How often it was not carried out, as the direct gradient alone passed `norm_limit`."""
    given_up: int = Field(ge=0)
    """How often its iteration diverged or passed `norm_limit` at every damping: only the direct gradient was followed."""
    damping: float | None
    """Mean damping s of the others; the further below 1, the more of the hypergradient is cut off. None: there are none."""
    residual: float | None
    """Mean of their residuals ‖g − (I + γH) x‖ / ‖g‖."""
    ratio: float | None
    """The largest ratio that their guard saw; at 1 the iteration diverges."""


class Rehearsals(Record):
    """What the hypergradients of a resilient method came to."""

    kind: Literal["rehearsals"] = "rehearsals"
    source: str
    """The method that rehearsed."""
    direct_norm: float | None
    """Largest norm of the direct gradient where it alone passed `norm_limit`; None: it never did."""
    fine_tunings: tuple[Rehearsed, ...]
    """One for each of the pool."""


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
    answers: dict[SubjectName, str] = Field(default_factory=dict)
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


Exhibit = Annotated[Answer | Trial | Rehearsals | Holes, Field(discriminator="kind")]
"""What is shown beside the numbers."""

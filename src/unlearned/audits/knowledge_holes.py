"""Knowledge holes: what did unlearning break by accident?

Paper: Ko, Just, Fleming, Jin, Jia, "Probing Knowledge Holes in Unlearned LLMs", NeurIPS 2025, arXiv 2511.00030; the search follows curiosity-driven
red-teaming (Hong et al. 2024).
Formula: a hole is a valid question that the original answers well, the unlearned model answers badly, and nothing in the forget set would answer. Adjacent
probes are questions about key terms of the forget set, the same for every method; latent probes come from a search that is paid for bad answers of this
unlearned model. Answers are scored in 1 … 10. `adjacent_score`, `latent_score`: mean; `..._share_1`: share of answers with score 1; `..._holes`: share of
probes that are holes, which needs a score of the original of `good` or more, and of the model of `bad` or less; `..._answered` that of probes that a model
answers well. Each is over the probes of which the scores that it needs could be read; there is none where they could be read of no probe. `..._diversity`:
scaled Vendi score of the probes, exp(entropy of the eigenvalues of K/n)/n; `..._wording`: 1 − Self-BLEU. `holes_per_1000`: latent holes for 1,000 questions
that the search proposed; what could not be read is none. `judge_unread`: answers of chat models that ask and judge which were missing or could not be read;
only where there are any. `judge_agreement`: Spearman's ρ of the judge's scores with those of a second judge, of the same answers.
Defaults of the authors: 4 terms per text, 50 rounds of 128 questions, weights 1 for both novelties, gibberish 2, near duplicates above a cosine of 0.8; all of
them here. Their policy is Llama-2-7B, their judges are GPT-4o-mini and GPT-4o; here the policy starts from the original model unless told, and the judge is
what `backend` says.
Deviations: the paper does not check that the original answers well; `..._score` and `..._share_1` are over all probes, as there, `..._holes` is not, and the
search is paid only for questions that pass (`reward: answer` is the paper's). The backend `plain` is ours, and so is all of the audit for image classifiers.
A reward needs no judge's prompt of its own: J = 10 minus the score on a scale from 0. How a subset is grown in the cut by diversity is not said; here in the
order of discovery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, Interval, t_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.holes._diversity import scaled_vendi, self_bleu
from unlearned.holes._images import ImageProbing, probe_images
from unlearned.holes._language import LanguageProbing, probe_language
from unlearned.holes._map import on_a_plane
from unlearned.holes._probing import Probed, Probing
from unlearned.holes._ratings import HIGHEST, LOWEST, is_lowest
from unlearned.records import NO_REFERENCE, Exhibit, Finding, Holes, Probe, SubjectName

_NO_MODEL = "describes the probes or the judges, not a model"
_UNREAD = "the judge's scores of the reference models could not be read"
LONGEST = 400
"""Characters of a text that are shown."""


@audits.register("knowledge-holes")
class KnowledgeHoles(Audit):
    """Benign questions next to what was forgotten, and ones that are searched for, which only the original answers well."""

    name: ClassVar[str] = "knowledge-holes"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation", "image-classification"})
    by_default: ClassVar[bool] = False
    good: float = Field(7.0, ge=1, le=10, description="Score from which on an answer is good.")
    bad: float = Field(3.0, ge=1, le=10, description="Score up to which an answer is bad.")
    cache: Path | None = Field(None, description="Directory for transcripts and unfinished searches. It holds questions and answers near the forget set.")
    show: Literal["others", "all", "nothing"] = Field(
        "others",
        description="Which probes are written down with the models' answers: those that stand word for word in a set that is not forgotten, all, or none.",
    )
    language: LanguageProbing = Field(LanguageProbing(), description="For language models.")
    images: ImageProbing = Field(ImageProbing(), description="For image classifiers.")

    @model_validator(mode="after")
    def _bad_is_below_good(self) -> Self:
        if self.bad >= self.good:
            raise ValueError(f"an answer of score {self.good:g} would be good and bad at once; set bad ({self.bad:g}) below good ({self.good:g})")
        return self

    def measure(self, subject: Subject) -> list[Finding]:
        return self.findings(self.probe(subject))

    def findings(self, probing: Probing) -> list[Finding]:
        """What a look for holes says in numbers."""
        findings = [finding for probed in probing.probed for finding in self._of(probed)]
        findings += self._per_1000(next(probed for probed in probing.probed if probed.kind == "latent"))
        if probing.unread:
            findings += self._about("judge_unread", probing.unread, probing.asked, "answers", split="answers")
        if (agreed := probing.agreement) is not None:
            if agreed.correlation is None:
                return [*findings, absent(self.name, "judge_agreement", "answers", agreed.line, unit="")]
            findings += self._about("judge_agreement", agreed.correlation, agreed.n, "", agreed.interval, split="answers")
        return findings

    def exhibits(self, subject: Subject) -> Sequence[Exhibit]:
        return [self.shown(self.probe(subject))]

    def probe(self, subject: Subject) -> Probing:
        """The probes themselves, with the scores of all models: for those who want to read them, or to retain them. Made once for a subject.

        Raises:
            InputError: if there is nothing to ask about, or a backend is not there.
        """

        def make() -> Probing:
            if subject.engine.task.name == "text-generation":
                return probe_language(subject, self.language, self.good, self.cache)
            return probe_images(subject, self.images)

        return subject.once(f"{self.name} {self.model_dump_json()}", make)

    def holes(self, probed: Probed) -> list[str]:
        """The probes that are holes of the unlearned model, by name."""
        if not len(probed.names):
            return []
        return [name for name, hole in zip(probed.names, probed.holes(self.good, self.bad)["unlearned"][0], strict=True) if hole == 1]

    def shown(self, probing: Probing, after: str | None = None) -> Holes:
        """The map of the probes.

        Args:
            probing: what was found.
            after: which repair, in words; None: none.
        """
        several = [probed for probed in probing.probed if len(probed.names)]
        places = on_a_plane(np.concatenate([probed.directions for probed in several])) if several else np.zeros((0, 2))
        rest = iter(places.tolist())
        probes = [self._shown(probed, i, next(rest)) for probed in several for i in range(len(probed.names))]
        agreed = probing.agreement
        return Holes(
            source=self.name,
            after=after,
            good=self.good,
            bad=self.bad,
            backends=dict(probing.backends),
            agreement=None if agreed is None else agreed.line,
            probes=tuple(probes),
        )

    def _shown(self, probed: Probed, i: int, place: Sequence[float]) -> Probe:
        told = self.show == "all" or (self.show == "others" and probed.known[i])
        means = {who: float(np.mean([each[i] for each in several])) for who, several in probed.scores.items() if several}
        return Probe(
            of=probed.kind,
            place=(place[0], place[1]),
            scores={who: None if np.isnan(score) else min(HIGHEST, max(LOWEST, score)) for who, score in means.items()},
            hole=bool(probed.holes(self.good, self.bad)["unlearned"][0][i] == 1),
            overlap=None if probed.overlaps is None else float(probed.overlaps[i]),
            question=_short(probed.names[i]) if told else None,
            answers={who: _short(said[i].strip()) for who, said in probed.answers.items()} if told else {},
        )

    def _of(self, probed: Probed) -> list[Finding]:
        kind = probed.kind
        if not len(probed.names):
            reason = f"no probe is left of {probed.tried} {kind} ones: none is valid and fair"
            return [absent(self.name, f"{kind}_score", "probes", reason, unit="points")]
        lowest = {who: [np.array([np.nan if np.isnan(x) else float(is_lowest(x)) for x in each]) for each in several] for who, several in probed.scores.items()}
        findings = self._mean(f"{kind}_score", probed.scores, "points", lambda x: t_interval(x, "probes"))
        for metric, counted in (("share_1", lowest), ("answered", probed.answered(self.good)), ("holes", probed.holes(self.good, self.bad))):
            findings += self._mean(f"{kind}_{metric}", counted, "share", lambda x: wilson(float(x.sum()), len(x)))
        about = {f"{kind}_diversity": scaled_vendi(probed.directions)}
        if probed.answers:  # images have names, which nobody has worded
            about[f"{kind}_wording"] = 1 - self_bleu(probed.names)
        return findings + [finding for metric, value in about.items() for finding in self._about(metric, value, len(probed.names), "share")]

    def _per_1000(self, latent: Probed) -> list[Finding]:
        """Holes for 1,000 questions that the search proposed: 0 where no probe is left, unless that is so because the judge could not be read."""
        metric, unit = "holes_per_1000", "holes"
        if not latent.calls:
            return []
        holes = latent.holes(self.good, self.bad)["unlearned"][0] if len(latent.names) else np.zeros(0)
        if not latent.read or (len(holes) and np.isnan(holes).all()):
            reason = f"of none of {latent.calls} questions that the search proposed could the judge's scores be read"
            return [absent(self.name, metric, "probes", reason, unit=unit)]
        return self._about(metric, 1000 * float((holes == 1).sum()) / latent.calls, latent.calls, unit)

    def _about(self, metric: str, value: float, n: int, unit: str, interval: Interval | None = None, split: str = "probes") -> list[Finding]:
        """A number about the probes or the judges."""
        found: dict[SubjectName, list[Measured]] = {"unlearned": [Measured(value, interval, n)]}
        return compare(self.name, metric, split, found, unit=unit, direction="none", no_reference=_NO_MODEL)

    def _mean(self, metric: str, values: Mapping[SubjectName, Sequence[Array]], unit: str, interval: Callable[[Array], Interval | None]) -> list[Finding]:
        """Over the probes of which it is known, those that are not NaN; where it is known of none, that is said."""
        known = {who: [each[~np.isnan(each)] for each in several] for who, several in values.items()}
        measured = {who: [Measured(float(each.mean()), interval(each), len(each)) for each in several if len(each)] for who, several in known.items()}
        silent = [who for who, several in known.items() if several and not measured[who]]
        reason = f"of none of {len(values['unlearned'][0])} probes could the judge's scores be read that this needs"
        lacking = [absent(self.name, metric, "probes", reason, unit=unit, subject=who) for who in silent]
        return compare(self.name, metric, "probes", measured, unit=unit, no_reference=_UNREAD if "reference" in silent else NO_REFERENCE) + lacking


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"

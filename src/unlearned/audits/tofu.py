"""The measures of TOFU: does a model still know the forget set, does it still know everything else, and could it be told from one that never learned it?

Paper: Maini et al. 2024, "TOFU: A Task of Fictitious Unlearning for LLMs", arXiv 2401.06121.
Formula: P(a|q) = exp(mean log p of the answer's tokens). `probability`: P of the true answer; for real authors and world facts P / (P + Σ P of the perturbed
answers). `rouge_l`: ROUGE-L recall of the greedy answer. Truth ratio of a sample, R: mean over its perturbed answers of P, over P of its paraphrased answer
(of the true answer, where it has no paraphrase). `truth_ratio`: mean of min(R, 1/R) on the forget set, of max(0, 1 − R) elsewhere. `model_utility`: harmonic
mean of the three numbers on the retain set, real authors and world facts: nine where all are given (split `all`), else those of the sets that are named as
split; 0 if one of them is. `forget_quality`: p of the two-sample Kolmogorov-Smirnov test between the R of the model and of a reference on the forget set.
Defaults: as in the paper, answers of at most 200 tokens (a setting of the task). The common implementation (open-unlearning) takes the geometric mean of the
perturbed answers' P: `compat`.
Deviations: with several references `forget_quality` is the mean of p over them, and the row `reference` is that of each against the others. Three small
constants (1e-10) that the implementation adds to denominators are left out. Where a set has records with perturbed answers and others, all three
numbers are of the former.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from scipy import stats
from scipy.special import logsumexp

from unlearned.audits import audits
from unlearned.audits._answers import from_generations, mean_findings, text_task, values_on
from unlearned.audits._audit import Audit
from unlearned.data.samples import Samples
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError, raise_faults
from unlearned.evidence.comparison import Measured, absent, against_null, compare
from unlearned.evidence.statistics import Array, bootstrap
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, SubjectName
from unlearned.tasks._task import DataSource
from unlearned.tasks._texts import PARAPHRASED, PERTURBED
from unlearned.tasks.text_generation import TextGeneration

NO_PERTURBED = "no record of this set has perturbed answers"


def log_truth_ratios(perturbed: Sequence[Array], paraphrased: Array, *, compat: bool = False) -> Array:
    """Log R of each sample, (N,): log of (1/n) Σ exp(−l_i) / exp(−l), or with `compat` of exp(−(1/n) Σ l_i) / exp(−l).

    Args:
        perturbed: mean losses l_i per token of each sample's perturbed answers, at least one.
        paraphrased: mean losses l of the paraphrased answers, (N,).
        compat: geometric mean in the place of the arithmetic one.
    """
    means = [-losses.mean() if compat else logsumexp(-losses) - np.log(len(losses)) for losses in perturbed]
    return np.asarray(means, dtype=np.float64) + paraphrased


def indifference(log_ratios: Array) -> Array:
    """min(R, 1/R), (N,): 1 where true and false are equally likely."""
    return np.asarray(np.exp(-np.abs(log_ratios)))


def preference(log_ratios: Array) -> Array:
    """max(0, 1 − R), (N,): 1 where the truth is certain."""
    return np.asarray(-np.expm1(np.minimum(log_ratios, 0)))


def normalised(answer: Array, perturbed: Sequence[Array]) -> Array:
    """P / (P + Σ P_i), (N,), of losses −log P per token.

    Args:
        answer: of the true answers, (N,).
        perturbed: of each sample's perturbed answers.
    """
    totals = [logsumexp(np.append(-losses, -own)) for own, losses in zip(answer, perturbed, strict=True)]
    return np.asarray(np.exp(-answer - np.asarray(totals)))


def harmonic_mean(values: Sequence[float] | Array) -> float:
    """N / Σ 1/v, 0 if any v is 0.

    Args:
        values: v ≥ 0.
    """
    v = np.asarray(values, dtype=np.float64)
    return 0.0 if (v <= 0).any() else float(len(v) / (1 / v).sum())


def forget_quality(log_ratios: Array, reference: Array) -> float:
    """P of the two-sample Kolmogorov-Smirnov test; it is the same for R and for log R."""
    return float(stats.ks_2samp(log_ratios, reference).pvalue)


class _Part(NamedTuple):
    """Records that are measured, with their further answers one after the other."""

    samples: Samples
    paraphrased: Samples | None
    """None: there are no perturbed answers."""
    perturbed: Samples | None
    counts: tuple[int, ...]
    """Perturbed answers of each sample."""


class _Numbers(NamedTuple):
    """One number per sample, of each model of a subject."""

    probability: list[Array]
    rouge: list[Array]
    log_ratios: list[Array] | None


@audits.register("tofu")
class Tofu(Audit):
    """Probability, ROUGE, truth ratio, forget quality, model utility."""

    name: ClassVar[str] = "tofu"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    by_default: ClassVar[bool] = False
    forget: DataSource | None = Field(None, description="Records to measure on in the place of the forget set, with perturbed answers.")
    retain: DataSource | None = Field(None, description="The same for the retain set.")
    real_authors: DataSource | None = Field(None, description="Questions about real authors, with perturbed answers.")
    world_facts: DataSource | None = Field(None, description="Questions about the world, with perturbed answers.")
    compat: bool = Field(False, description="Truth ratio with the geometric mean, as in the common implementation.")

    def faults(self, problem: Problem) -> list[Fault]:
        return self._parts(problem)[1]

    def measure(self, subject: Subject) -> list[Finding]:
        parts, faults = self._parts(subject.problem)
        raise_faults([fault._replace(field=f"{self.name}.{fault.field}") for fault in faults])
        findings: list[Finding] = []
        numbers: dict[str, dict[SubjectName, _Numbers]] = {}
        for split, part in parts.items():
            numbers[split] = self._numbers(subject, part, options=split in {"real_authors", "world_facts"})
            metrics = {"probability": {who: each.probability for who, each in numbers[split].items()}}
            metrics["rouge_l"] = {who: each.rouge for who, each in numbers[split].items()}
            for metric, values in metrics.items():
                findings += mean_findings(self.name, metric, split, values)
            if part.perturbed is None:
                findings.append(absent(self.name, "truth_ratio", split, NO_PERTURBED, unit="share"))
            else:
                score = indifference if split == "forget" else preference
                ratios = {who: [score(each) for each in several.log_ratios or ()] for who, several in numbers[split].items()}
                findings += mean_findings(self.name, "truth_ratio", split, ratios)
        utility = {split: each for split, each in numbers.items() if split != "forget"}
        return findings + self._quality(numbers["forget"]) + self._utility(utility, derive_seed(subject.engine.seed, self.name))

    def _quality(self, numbers: Mapping[SubjectName, _Numbers]) -> list[Finding]:
        references = numbers["reference"].log_ratios
        if references is None:
            return [absent(self.name, "forget_quality", "forget", NO_PERTURBED, unit="")]
        if not references:
            return [absent(self.name, "forget_quality", "forget", "it compares with references, of which none is given", unit="")]

        def against(ratios: Array, others: Sequence[Array]) -> float:
            return float(np.mean([forget_quality(ratios, other) for other in others]))

        single: tuple[SubjectName, ...] = ("original", "unlearned")
        measured = {who: Measured(against(each, references), None, len(each)) for who in single for each in numbers[who].log_ratios or ()}
        null: Measured | str = "references are compared with each other if there are two"
        if len(references) > 1:
            null = Measured(float(np.mean([forget_quality(a, b) for a, b in permutations(references, 2)])), None, len(references))
        return against_null(self.name, "forget_quality", "forget", measured, null, unit="", models=len(references))

    def _utility(self, numbers: Mapping[str, Mapping[SubjectName, _Numbers]], seed: int) -> list[Finding]:
        split = "all" if len(numbers) == 3 else "+".join(numbers)
        if any(each.log_ratios is None for several in numbers.values() for each in several.values()):
            return [absent(self.name, "model_utility", split, NO_PERTURBED, unit="share")]

        def utility(*sets: Array) -> float:
            return harmonic_mean(np.concatenate([each.mean(axis=0) for each in sets]))

        measured: dict[SubjectName, list[Measured]] = {}
        for who in ("original", "unlearned", "reference"):
            measured[who] = []
            for model in range(len(numbers["retain"][who].probability)):
                sets = [_columns(several[who], model) for several in numbers.values()]
                measured[who].append(Measured(utility(*sets), bootstrap(utility, *sets, seed=seed), sum(map(len, sets))))
        return compare(self.name, "model_utility", split, measured, unit="share", direction="higher")

    def _parts(self, problem: Problem) -> tuple[dict[str, _Part], list[Fault]]:
        """What is measured, by name, and what is wrong with it."""
        parts: dict[str, _Part] = {}
        faults: list[Fault] = []
        for name in ("forget", "retain", "real_authors", "world_facts"):
            try:
                part = self._part(problem, name)
            except InputError as error:
                faults += [fault._replace(field=name) for fault in error.faults]
                continue
            if part is None:
                continue
            if getattr(self, name) is not None and part.perturbed is None:
                faults.append(Fault(name, f"{NO_PERTURBED}.", f"Give them in a column `{PERTURBED}`, a list of texts for each record."))
            for samples in (part.samples, part.paraphrased, part.perturbed):
                faults += [] if samples is None else problem.task.faults(problem.original, samples, name)
            parts[name] = part
        return parts, faults

    def _part(self, problem: Problem, name: str) -> _Part | None:
        """What is measured under this name; None: nothing is given."""
        task = problem.task
        assert isinstance(task, TextGeneration)
        source: DataSource | None = getattr(self, name)
        if source is not None:
            samples = task.read(source, problem.original, f"{self.name}.{name}")
        elif name in problem.sets:
            samples = problem.sets[name]
        else:
            return None
        rows = [samples[i] for i in range(len(samples))]
        having = [i for i, row in enumerate(rows) if row.get(PERTURBED)]
        if not having:
            return _Part(samples, None, None, ())
        said = samples.fact("answer") if "answer" in samples.facts else [turns[-1]["content"] for turns in samples.fact("messages")]
        paraphrases = [rows[i].get(PARAPHRASED) or said[i] for i in having]
        perturbed = [(i, text) for i in having for text in rows[i][PERTURBED]]
        return _Part(
            samples if len(having) == len(samples) else samples.subset(having),
            task.answered(samples, having, paraphrases, problem.original),
            task.answered(samples, [i for i, _ in perturbed], [text for _, text in perturbed], problem.original),
            tuple(len(rows[i][PERTURBED]) for i in having),
        )

    def _numbers(self, subject: Subject, part: _Part, *, options: bool) -> dict[SubjectName, _Numbers]:
        task = text_task(subject)
        rouge = from_generations(subject, part.samples, lambda generations, batch: task.recall(generations, batch, "rougeL"))
        answers = {who: [loss.numpy() for loss in several] for who, several in values_on(subject, task.losses, part.samples).items()}
        if part.paraphrased is None or part.perturbed is None:
            return {who: _Numbers([np.exp(-loss) for loss in several], rouge[who], None) for who, several in answers.items()}
        paraphrased, perturbed = (values_on(subject, task.losses, samples) for samples in (part.paraphrased, part.perturbed))
        ends = np.cumsum(part.counts)[:-1]
        result: dict[SubjectName, _Numbers] = {}
        for who, several in answers.items():
            wrong = [np.split(loss.numpy(), ends) for loss in perturbed[who]]
            probability = [normalised(own, false) if options else np.exp(-own) for own, false in zip(several, wrong, strict=True)]
            ratios = [log_truth_ratios(false, true.numpy(), compat=self.compat) for false, true in zip(wrong, paraphrased[who], strict=True)]
            result[who] = _Numbers(probability, rouge[who], ratios)
        return result


def _columns(numbers: _Numbers, model: int) -> Array:
    """Probability, ROUGE and preference of the truth, (N, 3)."""
    assert numbers.log_ratios is not None
    return np.stack([numbers.probability[model], numbers.rouge[model], preference(numbers.log_ratios[model])], axis=1)

"""MIA-NN: is a forgotten class taken for its nearest neighbour as a model would take it that never met the class?

A retrained model sends samples of the class to classes that resemble it. A model that was made to forget often sends them elsewhere, and that leaks.
Paper: Ebrahimpour-Boroojeny, Wang, Sundaram, arXiv 2506.20893 (MIA-NN in its fourth version; CMIA, class membership inference attack, at ICML 2026).
Formula: the nearest class nn of a forgotten one is the retained class that references answer most often on test samples of it. For a model M and a retained
class i, an SVM on M's outputs learns to tell retained samples of class i from as many of the other retained classes. Acc_i(M) is the share of test samples of
the forgotten class that it takes for class i. `mia_nn` = Acc_nn(M): its gap to the references is what counts, a high or low score alone says nothing.
`vector_gap`: mean over i of |Acc_i(M) − mean over references of Acc_i|. `routing_tv`: total variation between the shares of M's answers by class and the
references' mean shares. `output_tv`: mean over samples of the total variation between M's probabilities and the references' mean ones.
Variants: `mia_nn` sees the logits of retained classes, `mia_nn_logits` all logits, `mia_nn_softmax` probabilities, `mia_nn_1d` that of class i alone.
Strict form: one SVM on the probability of nn learns to tell unlearned models from references. `mia_nn_strict`: AUC over the samples of one held-out model of
either kind, mean over held-out pairs. `mia_nn_strict_models`: how often the SVM ranks the held-out unlearned model above the reference, by means over samples.
For both 0.5 is perfect. Needs two references and two shadow models, and for the null four references.
Defaults of the authors: not known to us. RBF kernel, C 3 and gamma `auto` are those of the membership attack of SalUn (arXiv 2310.12508).
Deviations: reconstructed from what is publicly said of the attack: an SVM on logits for each class, retrained models, samples of the test set. Features are
standardised by the SVM's own training samples. A class with fewer than two samples to learn from has no SVM. The strict form, and the choice of what SVMs see
and learn from (no more than 2000 values, shared evenly by the models), are ours. Several forgotten classes are measured one by one, on splits `forget-test-1`,
`forget-test-2`, ... in their order.
Nulls: each reference against the mean of the others; for the strict form one half of the references against the other half, in 20 random divisions.
Findings: on split `forget-test`, the test samples of the class, also `routed_to_C`: the share of answers C, for the three nearest classes. Intervals are over
these samples, with the SVMs as they are; those of the strict form over held-out pairs. Defined where whole classes are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.special import softmax

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._distributions import halves, no_null, spread, too_few
from unlearned.audits._membership import auc
from unlearned.audits._nearest import Feature, Labels, Mask, balanced, feature, nearest, output_tv, ranks_above, routing_tv, strict_scores, svm, vector_gap
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.classes import of_classes, whole_classes
from unlearned.evidence.comparison import Measured, absent, against_null, compare
from unlearned.evidence.statistics import Array, bootstrap, held_out_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Finding, SubjectName

_METRIC: dict[Feature, str] = {"retained-logits": "mia_nn", "logits": "mia_nn_logits", "softmax": "mia_nn_softmax", "1d": "mia_nn_1d"}
_STRICT = ("mia_nn_strict", "mia_nn_strict_models")
_NEAREST = 3


@dataclass
class _Outputs:
    """Logits of every model: original, unlearned, then references."""

    who: list[SubjectName]
    asked: list[Array]
    """On test samples of forgotten classes."""
    asked_labels: Labels
    taught: list[Array]
    """On the retained samples that SVMs learn from."""
    taught_labels: Labels
    forgotten: Mask
    """Which classes are, (K,)."""

    def of(self, values: Sequence[Array], rows: Mask | slice = slice(None)) -> dict[SubjectName, list[Array]]:
        """Values of the models by who they are."""
        result: dict[SubjectName, list[Array]] = {"original": [], "unlearned": [], "reference": []}
        for who, value in zip(self.who, values, strict=True):
            result[who].append(value[rows])
        return result


@audits.register("mia-nn")
class MiaNN(Audit):
    """Which retained classes a forgotten one is taken for, beside what references take it for."""

    name: ClassVar[str] = "mia-nn"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    variants: tuple[Literal["logits", "softmax", "1d"], ...] = Field(
        ("logits", "softmax", "1d"), description="What SVMs see beside the logits of retained classes, each with a score of its own: logits, softmax, 1d."
    )
    kernel: Literal["rbf", "linear"] = Field("rbf", description="Kernel of the SVMs.")
    penalty: float = Field(3.0, gt=0, description="C of the SVMs.")
    data: Literal["test", "train"] = Field("test", description="Retained samples that SVMs learn from: those of the test set, or the retain set.")

    def measure(self, subject: Subject) -> list[Finding]:
        classes = whole_classes(subject.problem)
        if isinstance(classes, str):
            return self._absent(classes, "forget-test")
        if not subject.references:
            return self._absent(NO_REFERENCE, "forget-test")
        outputs = self._outputs(subject, classes)
        svms: dict[tuple[Feature, int], list[Array]] = {}
        findings = []
        for number, label in enumerate(classes, start=1):
            # By their place, not their name: which classes are forgotten is not for the record to tell.
            split = "forget-test" if len(classes) == 1 else f"forget-test-{number}"
            rows = outputs.asked_labels == label
            if not rows.any():
                findings += self._absent("the test set has no samples of this class", split)
                continue
            findings += self._of_class(subject, outputs, rows, split, svms)
        return findings

    def _absent(self, reason: str, split: str, metrics: Sequence[str] | None = None) -> list[Finding]:
        scores = ["mia_nn", *(_METRIC[variant] for variant in self.variants)]
        every = (*scores, "vector_gap", "routing_tv", "output_tv", *_STRICT)
        return [absent(self.name, metric, split, reason, unit="" if metric in _STRICT else "share") for metric in metrics or every]

    def _outputs(self, subject: Subject, classes: list[int]) -> _Outputs:
        problem, measure = subject.problem, subject.engine.task.outputs
        values = {split: subject.values(measure, split) for split in ("test", *(("retain",) if self.data == "train" else ()))}
        tested = [(who, logits.numpy()) for who, several in values["test"].items() for logits in several]
        labels = np.array(problem.test.fact("label"))
        of_forgotten = of_classes(problem.test, problem.forget)
        assert of_forgotten is not None
        if self.data == "test":
            taught, taught_labels = [logits[~of_forgotten] for _, logits in tested], labels[~of_forgotten]
        else:
            taught = [logits.numpy() for several in values["retain"].values() for logits in several]
            taught_labels = np.array(problem.retain.fact("label"))
        forgotten = np.zeros(tested[0][1].shape[1], dtype=bool)
        forgotten[classes] = True
        return _Outputs([who for who, _ in tested], [logits[of_forgotten] for _, logits in tested], labels[of_forgotten], taught, taught_labels, forgotten)

    def _of_class(self, subject: Subject, outputs: _Outputs, rows: Mask, split: str, svms: dict[tuple[Feature, int], list[Array]]) -> list[Finding]:
        count = len(outputs.forgotten)
        answers = outputs.of([np.eye(count)[logits.argmax(axis=1)] for logits in outputs.asked], rows)
        order = nearest(np.mean([answer.mean(axis=0) for answer in answers["reference"]], axis=0), outputs.forgotten)
        findings = []
        for label in order[:_NEAREST]:
            findings += self._shares(f"routed_to_{label}", split, {who: [a[:, label] for a in several] for who, several in answers.items()})
        learnt = {label for label in order if (outputs.taught_labels == label).sum() >= 2} if len(np.unique(outputs.taught_labels)) > 1 else set()

        def accepted(kind: Feature, label: int) -> list[Array]:
            if (kind, label) not in svms:
                svms[kind, label] = self._accepted(subject, outputs, kind, label)
            return svms[kind, label]

        kinds: tuple[Feature, ...] = ("retained-logits", *self.variants)
        for kind in kinds:
            if order[0] in learnt:
                findings += self._shares(_METRIC[kind], split, outputs.of(accepted(kind, order[0]), rows))
            else:
                findings += self._absent(f"class {order[0]}, the nearest, has fewer than two samples to learn from", split, [_METRIC[kind]])
        if learnt:
            together = [np.stack(several, axis=1) for several in zip(*(accepted("retained-logits", label) for label in sorted(learnt)), strict=True)]
            findings += self._distances("vector_gap", vector_gap, split, outputs.of(together, rows), subject)
        else:
            findings += self._absent("no retained class has two samples to learn from", split, ["vector_gap"])
        p = outputs.of([softmax(logits, axis=1) for logits in outputs.asked], rows)
        findings += self._distances("routing_tv", routing_tv, split, answers, subject)
        findings += self._distances("output_tv", output_tv, split, p, subject)
        return findings + self._strict(subject, outputs, rows, order[0], split)

    def _accepted(self, subject: Subject, outputs: _Outputs, kind: Feature, label: int) -> list[Array]:
        """For each model whether its SVM of this class takes a sample for the class. All SVMs learn from the same samples."""
        positives, negatives = balanced(outputs.taught_labels, label, derive_seed(subject.engine.seed, self.name, label))
        chosen, member = np.concatenate([positives, negatives]), np.repeat([1, 0], [len(positives), len(negatives)])
        found = []
        for taught, asked in zip(outputs.taught, outputs.asked, strict=True):
            fitted = svm(self.kernel, self.penalty).fit(feature(taught[chosen], kind, outputs.forgotten, label), member)
            found.append(fitted.predict(feature(asked, kind, outputs.forgotten, label)).astype(np.float64))
        return found

    def _shares(self, metric: str, split: str, taken: dict[SubjectName, list[Array]]) -> list[Finding]:
        measured = {who: [Measured(float(x.mean()), wilson(float(x.sum()), len(x)), len(x)) for x in several] for who, several in taken.items()}
        return compare(self.name, metric, split, measured, unit="share")

    def _distances(
        self, metric: str, distance: Callable[[Array, Array], float], split: str, values: dict[SubjectName, list[Array]], subject: Subject
    ) -> list[Finding]:
        """A distance to the mean of the references; the null is that of each reference to the mean of the others."""
        seed = derive_seed(subject.engine.seed, self.name, metric)
        references = np.stack(values["reference"])
        mean = references.mean(axis=0)

        def paired(pairs: Array) -> float:
            return distance(pairs[:, 0], pairs[:, 1])

        def measured(own: Array) -> Measured:
            return Measured(distance(own, mean), bootstrap(paired, np.stack([own, mean], axis=1), seed=seed), len(mean))

        of: dict[SubjectName, Measured] = {"original": measured(values["original"][0]), "unlearned": measured(values["unlearned"][0])}
        null: Measured | str = "one reference model has no other to be compared with"
        if len(references) > 1:
            others = [np.delete(references, r, axis=0).mean(axis=0) for r in range(len(references))]
            null = spread([distance(own, rest) for own, rest in zip(references, others, strict=True)], len(mean), "references in the place of the model")
        return against_null(self.name, metric, split, of, null, unit="share", models=len(references))

    def _strict(self, subject: Subject, outputs: _Outputs, rows: Mask, label: int, split: str) -> list[Finding]:
        reason = too_few(subject, f"the strict form of {self.name}", 2)
        if reason is not None:
            return self._absent(reason, split, _STRICT)
        of_forgotten = of_classes(subject.problem.test, subject.problem.forget)
        shadows = [logits.numpy()[of_forgotten] for logits in subject.shadow_values(subject.engine.task.outputs, "test")]
        # In random order: the first samples train the SVM where there are more than it can take.
        shuffled = np.random.default_rng(derive_seed(subject.engine.seed, self.name, "strict")).permutation(np.flatnonzero(rows))

        def probabilities(logits: list[Array]) -> Array:
            return np.stack([softmax(each[shuffled], axis=1)[:, label] for each in logits])

        unlearned = probabilities(shadows)
        retrained = probabilities([logits for who, logits in zip(outputs.who, outputs.asked, strict=True) if who == "reference"])
        pairs = [strict_scores(unlearned, retrained, self.kernel, self.penalty)]
        if len(retrained) >= 4:
            pairs += [strict_scores(*parts, self.kernel, self.penalty) for parts in halves(retrained, subject.engine.seed)]
        independent = min(len(unlearned), len(retrained))
        findings = []
        for metric, statistic in zip(_STRICT, (auc, ranks_above), strict=True):
            means = [np.array([statistic(a, b) for a, b in zip(*scores, strict=True)]) for scores in pairs]
            value, over = float(means[0].mean()), "pairs of held-out models"
            interval = held_out_interval(means[0], independent - 1, over, 0, 1)
            if statistic is ranks_above:  # a share of pairs: if all are ranked alike, their spread is 0 and says nothing
                share = wilson(value * independent, independent)
                interval = share and share._replace(how=f"Wilson 95 % over {independent} {over}")
            nulls = [float(values.mean()) for values in means[1:]]
            null = spread(nulls, len(shuffled), "divisions of the references") if nulls else no_null(4, len(retrained))
            measured: dict[SubjectName, Measured] = {"unlearned": Measured(value, interval, len(shuffled))}
            findings += against_null(self.name, metric, split, measured, null, unit="", models=len(retrained))
        return findings

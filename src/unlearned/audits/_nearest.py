"""The mathematics of MIA-NN, as pure functions: which classes a forgotten one is taken for."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from unlearned.audits._membership import auc
from unlearned.evidence.statistics import Array

Feature = Literal["retained-logits", "logits", "softmax", "1d"]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]

_STRICT_SAMPLES = 2000
"""Most values that the SVM of the strict attack is trained on: its work grows with their square."""


def feature(logits: Array, kind: Feature, forgotten: Mask, label: int) -> Array:
    """What an SVM of class `label` sees of samples, (n, d).

    Args:
        logits: (n, K).
        kind: logits of retained classes, all logits, probabilities, or the probability of the class alone.
        forgotten: which classes are, (K,).
        label: the class.
    """
    if kind == "retained-logits":
        return logits[:, ~forgotten]
    if kind == "logits":
        return logits
    p: Array = softmax(logits, axis=1)
    return p if kind == "softmax" else p[:, [label]]


def balanced(labels: Labels, label: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of samples of the class, and of as many others, spread over the other classes as evenly as these allow; both in random order.

    Where all others are fewer, the samples of the class are cut to their number.
    """
    random = np.random.default_rng(seed)
    positives = random.permutation(np.flatnonzero(labels == label))
    others = [random.permutation(np.flatnonzero(labels == other)) for other in np.unique(labels) if other != label]
    # In turns, one of each class, the classes in a new order in each turn.
    turns = sorted((turn, random.random(), int(position)) for several in others for turn, position in enumerate(several))
    negatives = np.array([position for *_, position in turns[: len(positives)]], dtype=np.intp)
    return positives[: len(negatives)], negatives


def nearest(shares: Array, forgotten: Mask) -> list[int]:
    """Retained classes by how often references answer them on samples of a forgotten class, most often first; ties by number.

    Args:
        shares: of the answers, mean over references, (K,).
        forgotten: which classes are, (K,).
    """
    return [int(label) for label in np.argsort(-shares, kind="stable") if not forgotten[label]]


def vector_gap(accepted: Array, reference: Array) -> float:
    """Mean over classes of |Acc_i(M) − Acc_i(reference)|, from what each sample was taken for, both (n, classes)."""
    return float(np.abs(accepted.mean(axis=0) - reference.mean(axis=0)).mean())


def routing_tv(answers: Array, reference: Array) -> float:
    """½ Σ_y |share of answer y − share in the reference|, from one-hot answers of each sample, both (n, K)."""
    return float(0.5 * np.abs(answers.mean(axis=0) - reference.mean(axis=0)).sum())


def output_tv(p: Array, reference: Array) -> float:
    """Mean over samples of ½ Σ_y |p(y|x) − p_ref(y|x)|, both (n, K)."""
    return float(0.5 * np.abs(p - reference).sum(axis=1).mean())


def strict_scores(unlearned: Array, retrained: Array, kernel: str, penalty: float) -> tuple[Array, Array]:
    """What an SVM that tells unlearned from retrained models says of each model when that model is held out.

    Fold k holds out model k mod a of one bank and k mod b of the other; both get their scores from the same SVM, trained on the values of all others.

    Args:
        unlearned: the probability of the nearest class, (a, n), a ≥ 2.
        retrained: the same of references, (b, n), b ≥ 2.
        kernel: of the SVM.
        penalty: C of the SVM.

    Returns:
        Decision values of the held-out unlearned and retrained models, each (max(a, b), n); higher means more likely unlearned.
    """
    most = max(1, _STRICT_SAMPLES // (len(unlearned) + len(retrained)))
    scores = []
    for fold in range(max(len(unlearned), len(retrained))):
        i, j = fold % len(unlearned), fold % len(retrained)
        parts = [np.delete(unlearned, i, axis=0)[:, :most].ravel(), np.delete(retrained, j, axis=0)[:, :most].ravel()]
        member = np.repeat([1, 0], [len(part) for part in parts])
        fitted = svm(kernel, penalty).fit(np.concatenate(parts)[:, None], member)
        scores.append([fitted.decision_function(values[:, None]) for values in (unlearned[i], retrained[j])])
    together = np.array(scores)
    return together[:, 0], together[:, 1]


def svm(kernel: str, penalty: float) -> Pipeline:
    """An SVM on features that are standardised by its own training samples; gamma is 1/d."""
    # Classes weigh alike whatever their numbers, because banks may differ in size. Without a state of its own it would draw from the global generator.
    return make_pipeline(StandardScaler(), SVC(C=penalty, kernel=kernel, gamma="auto", class_weight="balanced", random_state=0))


def ranks_above(a: Array, b: Array) -> float:
    """1 where the mean of a is larger, ½ where both are equal, else 0."""
    return auc(a.mean(keepdims=True), b.mean(keepdims=True))

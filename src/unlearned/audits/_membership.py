"""The mathematics of membership attacks on scores, as pure functions."""

from __future__ import annotations

import numpy as np
from sklearn.svm import SVC

from unlearned.evidence.statistics import Array


def auc(members: Array, others: Array) -> float:
    """Area under the ROC curve, P(member > other) + ½ P(member = other): the Mann-Whitney statistic with ties counted half.

    Args:
        members: scores of members, (n,), n ≥ 1; higher means more likely a member.
        others: scores of non-members, (m,), m ≥ 1.
    """
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, members, side) for side in ("left", "right"))
    return float((below.sum() + not_above.sum()) / (2 * len(members) * len(others)))


def tpr_at_fpr(members: Array, others: Array, fpr: float) -> float:
    """Largest true-positive rate of a threshold (score ≥ threshold) whose false-positive rate is at most `fpr`.

    Args:
        members: scores of members, (n,), n ≥ 1.
        others: scores of non-members, (m,), m ≥ 1.
        fpr: in [0, 1).
    """
    allowed = int(np.floor(fpr * len(others) + 1e-9))
    # The threshold must lie above the (allowed + 1)-th largest other: ties with it would let one too many through.
    barrier = np.sort(others)[::-1][allowed]
    return float((members > barrier).mean())


def balanced_accuracy(members: Array, others: Array) -> float:
    """½ P(member > 0) + ½ P(other < 0); a score of 0 is a toss-up and counts half.

    Args:
        members: scores of members, (n,), n ≥ 1.
        others: scores of non-members, (m,), m ≥ 1.
    """
    return float(0.5 + 0.25 * (np.sign(members).mean() - np.sign(others).mean()))


def equal_error_accuracy(members: Array, others: Array) -> float:
    """Balanced accuracy of the threshold (score ≥ threshold) at which false- and true-positive rate add up most nearly to 1: both errors are equal there.

    Args:
        members: scores of members, (n,), n ≥ 1.
        others: scores of non-members, (m,), m ≥ 1.
    """
    thresholds = np.append(np.unique(np.concatenate([members, others])), np.inf)
    true, false = (1 - np.searchsorted(np.sort(scores), thresholds) / len(scores) for scores in (members, others))
    nearest = np.abs(true + false - 1).argmin()
    return float(0.5 * (1 + true[nearest] - false[nearest]))


def svc_nonmember_share(members: Array, others: Array, scored: Array, seed: int) -> float:
    """Share of the scored samples that an RBF-SVC (C = 3, gamma `auto`) on true-class confidence calls non-members.

    It is fitted on equally many members and non-members, chosen by the seed: as many as the smaller set has.

    Args:
        members: confidences, (n,), n ≥ 1.
        others: confidences of non-members, (m,), m ≥ 1.
        scored: confidences, (k,), k ≥ 1.
        seed: of the choice.
    """
    k = min(len(members), len(others))
    random = np.random.default_rng(seed)
    chosen = np.concatenate([random.permutation(members)[:k], random.permutation(others)[:k]])[:, None]
    member = np.repeat([1, 0], k)
    return float(1 - SVC(C=3, kernel="rbf", gamma="auto", random_state=seed).fit(chosen, member).predict(scored[:, None]).mean())

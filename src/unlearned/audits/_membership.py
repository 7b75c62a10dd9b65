"""The mathematics of membership attacks on scores, as pure functions."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.svm import SVC

from unlearned.evidence.statistics import Array


def auc(members: Array, others: Array) -> float:
    """Area under the ROC curve, P(member > other) + ½ P(member = other): the Mann-Whitney statistic with ties counted half.

    Args:
        members: scores of members, (n,), n ≥ 1; higher means more likely a member.
        others: scores of non-members, (m,), m ≥ 1.
    """
    ranks = rankdata(np.concatenate([members, others]))
    n, m = len(members), len(others)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


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


def svc_nonmember_share(retain: Array, test: Array, forget: Array, seed: int) -> float:
    """Share of the forget set that an RBF-SVC calls non-members, as in Fan et al. 2024 (SalUn), arXiv 2310.12508.

    The SVC (C = 3, gamma `auto`) is fitted on true-class confidence: members are as many retain samples as there are test samples, chosen by the
    seed, non-members the test set.

    Args:
        retain: confidences, (n,).
        test: confidences, (m,).
        forget: confidences, (k,), k ≥ 1.
        seed: of the choice.
    """
    k = min(len(retain), len(test))
    random = np.random.default_rng(seed)
    chosen = np.concatenate([random.permutation(retain)[:k], random.permutation(test)[:k]])[:, None]
    member = np.repeat([1, 0], k)
    return float(1 - SVC(C=3, kernel="rbf", gamma="auto", random_state=seed).fit(chosen, member).predict(forget[:, None]).mean())

"""How methods are compared on one forget set: the numbers of a model, and the choice of a setting without looking at the forget set that is reported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock

from unlearned.audits._distributions import log_odds
from unlearned.audits._membership import auc, balanced_accuracy
from unlearned.audits._nearest import balanced, feature, nearest, svm
from unlearned.audits.cost import CostAudit
from unlearned.audits.mia_nn import MiaNN
from unlearned.audits.u_lira import ULira, per_fold, target_scores
from unlearned.bench._grids import Contender
from unlearned.bench._scene import Scene
from unlearned.bench._suite import Place
from unlearned.data.fingerprints import of_json
from unlearned.engine.bank import Kept
from unlearned.engine.files import write_text
from unlearned.engine.randomness import derive_seed
from unlearned.errors import DivergedError
from unlearned.evidence.distances import total_variation
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.methods._method import Method
from unlearned.records import pick

SPLITS = ("forget", "retain", "test")


class Number(NamedTuple):
    """One measured number."""

    metric: str
    split: str
    value: float


def accuracies(subject: Subject) -> list[Number]:
    """Share of right answers on each set."""
    utility = subject.engine.task.utility
    return [Number("accuracy", split, float(subject.values(utility, split)["unlearned"][0].mean())) for split in SPLITS]


def distance(subject: Subject) -> Number:
    """Mean over the forget set and the references of the total variation between what the model answers and what a retrained one does."""
    answers = {who: [logits.softmax(dim=1) for logits in several] for who, several in subject.values(subject.engine.task.outputs, "forget").items()}
    return Number("tv", "forget", float(torch.stack([total_variation(answers["unlearned"][0], q).mean() for q in answers["reference"]]).mean()))


def membership(subject: Subject) -> Number:
    """AUC of the confidence attack: the forget set against test images of its classes."""
    losses = subject.engine.task.losses
    forget, test = (-subject.values(losses, split)["unlearned"][0].numpy() for split in ("forget", "test"))
    labels = {split: np.array(subject.problem.sets[split].fact("label")) for split in ("forget", "test")}
    return Number("membership", "forget", auc(forget, test[np.isin(labels["test"], labels["forget"])]))


def likelihood(subject: Subject) -> list[Number]:
    """U-LiRA on this one model: can its answers be told, sample by sample, from a retrained model's? By the other originals that were unlearned alike.

    Balanced accuracy at a likelihood ratio of 1, mean over the references held out; and its distance from that of references in the place of the model.
    """
    phi, settings = log_odds(subject, "forget"), ULira()

    def attacked(target: Array, references: Array) -> float:
        return float(per_fold(balanced_accuracy, *target_scores(target, phi.shadows, references, settings.own_variance_from)).mean())

    value = attacked(phi.unlearned, phi.references)
    null = float(np.mean([attacked(each, np.delete(phi.references, i, axis=0)) for i, each in enumerate(phi.references)]))
    return [Number("u_lira", "forget", value), Number("u_lira_gap", "forget", abs(value - null))]


def nearest_class(subject: Subject) -> list[Number]:
    """MIA-NN on this one model: how often test images of the forgotten class are taken for the class that retrained models take them for.

    And how far that is from the mean of the references.
    """
    values = subject.values(subject.engine.task.outputs, "test")
    labels, label = np.array(subject.problem.test.fact("label")), int(subject.problem.forget.fact("label")[0])
    asked = labels == label
    forgotten = np.arange(values["unlearned"][0].shape[1]) == label
    logits = {who: [several.numpy() for several in values[who]] for who in ("unlearned", "reference")}
    shares = np.mean([np.eye(len(forgotten))[each[asked].argmax(axis=1)].mean(axis=0) for each in logits["reference"]], axis=0)
    nearest_one, settings = nearest(shares, forgotten)[0], MiaNN()
    chosen = balanced(labels[~asked], nearest_one, derive_seed(subject.engine.seed, settings.name, nearest_one))
    member = np.repeat([1, 0], [len(part) for part in chosen])

    def accepted(each: Array) -> float:
        taught = feature(each[~asked][np.concatenate(chosen)], "retained-logits", forgotten, nearest_one)
        fitted = svm(settings.kernel, settings.penalty).fit(taught, member)
        return float(fitted.predict(feature(each[asked], "retained-logits", forgotten, nearest_one)).mean())

    value = accepted(logits["unlearned"][0])
    gap = abs(value - float(np.mean([accepted(each) for each in logits["reference"]])))
    return [Number("mia_nn", "forget-test", value), Number("mia_nn_gap", "forget-test", gap)]


def cost(subject: Subject) -> list[Number]:
    """Processor time in units of a retraining; nothing for a model that cost nothing."""
    found = pick(CostAudit().measure(subject), metric="cpu_seconds_ratio", subject="unlearned")
    return [Number("cost_ratio", "all", f.value) for f in found if f.value is not None]


def selection_error(subject: Subject) -> float:
    """Mean of four distances to the retrained models, each in [0, 1]: of the accuracies on forget, retain and test set, and `distance`."""
    utility = subject.engine.task.utility
    gaps = []
    for split in SPLITS:
        values = subject.values(utility, split)
        gaps.append(abs(float(values["unlearned"][0].mean()) - float(np.mean([float(v.mean()) for v in values["reference"]]))))
    return float(np.mean([*gaps, distance(subject).value]))


def numbers(subject: Subject, whole_class: bool) -> list[Number]:
    """Everything that is reported of one model."""
    attacked = likelihood(subject) if len(subject.shadows) > 1 and len(subject.references) > 2 else []
    taken = nearest_class(subject) if whole_class else []
    return [*accuracies(subject), membership(subject), *attacked, *taken, distance(subject), *cost(subject)]


def spread(scene: Scene, method: Method, count: int) -> list[Kept | None]:
    """What the method makes of each of the first originals; None where it diverges."""
    found: list[Kept | None] = []
    for number in range(count):
        try:
            found.append(scene.unlearn(method, number))
        except DivergedError:
            found.append(None)
    return found


def attempts(scene: Scene, contender: Contender, place: Place) -> list[float | None]:
    """`selection_error` of each setting of the grid on this scene, with the first original; None where it diverges. Computed once and kept."""
    key = of_json([repr(scene.scale), scene.problems[0].forget.fingerprint, scene.problems[0].test.fingerprint, repr(contender)])[:32]
    file = place.cache / "attempts" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            write_text(file, json.dumps([_attempt(scene, contender, i) for i in range(len(contender.grid))]) + "\n", "--cache")
    kept: list[float | None] = json.loads(file.read_text(encoding="utf-8"))
    return kept


def _attempt(scene: Scene, contender: Contender, number: int) -> float | None:
    made = spread(scene, contender.made(contender.grid[number], scene.weights_of_reference(0)), 1)[0]
    return None if made is None else selection_error(scene.subject(0, made, scene.references))


def best(errors: Sequence[float | None]) -> int:
    """Position of the least error; the first, if everything diverged."""
    filled = [float("inf") if error is None else error for error in errors]
    return filled.index(min(filled))

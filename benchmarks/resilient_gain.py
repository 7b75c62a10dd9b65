"""Does `resilient` around a plain method leave less knowledge after relearning? NegGrad+ on a classifier of digits, NPO on a small language model.

Plain and resilient, each may try the same settings of the inner method, with the first seed: the one that leaves least after the attack among those that keep
95 % of the original's utility, or else the most useful one. The other seeds, whose models had no part in the choice, are reported: means, and differences
seed by seed with 95 % t intervals. Utility: accuracy on the test images of other classes; recall of the retained answers. The attack is `relearn`: half of
the forget set, and for the language model contracts that are worded alike as well; knowledge is measured on what the attacker lacks. Rehearsed fine-tunings
are those of the pool `small-models`, on retained data alone: the attack is none of them.

Run: python benchmarks/resilient_gain.py DIRECTORY-WITH-PISTOL CACHE [SEEDS] [FILE]
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from unlearned.api import forget
from unlearned.attacks.relearn import Relearn
from unlearned.bench._regeneration_cells import Bed, Classified, Written
from unlearned.bench._suite import Place
from unlearned.bench.regeneration import RegenerationSuite
from unlearned.engine.settings import Compute
from unlearned.errors import DivergedError
from unlearned.evidence.statistics import t_interval
from unlearned.evidence.subject import Subject
from unlearned.methods import methods
from unlearned.methods.resilient import Resilient
from unlearned.records import pick

STEPS = (5, 20)
_GRIDS: Mapping[str, list[dict[str, Any]]] = {
    "neg-grad-plus": [
        {"optimizer": "adam", "weight_decay": 0.0, "batch_size": 64, "lr": lr, "epochs": 4, "alpha": a} for lr, a in product((3e-4, 1e-3, 3e-3), (0.8, 0.95))
    ],
    "npo": [{"batch_size": 10, "epochs": 10, "lr": lr, "alpha": a} for lr, a in product((3e-4, 1e-3, 3e-3), (1.0, 5.0))],
}
ATTACKS = {"neg-grad-plus": ("forget-part",), "npo": ("forget-part", "related")}
KINDS = {"neg-grad-plus": Classified, "npo": Written}


def beds(inner: str, seeds: int, place: Place) -> Iterator[Bed]:
    """Models and data of the suite `regeneration`, for one more seed than is reported."""
    suite = RegenerationSuite(seeds=seeds + 1, references=1)
    for seed in range(seeds + 1):
        yield next(cell for cell in suite.cells() if isinstance(cell, KINDS[inner]) and cell.seed == seed).bed(place)


def utility(subject: Subject, model: torch.nn.Module) -> float:
    """Accuracy on the test images of other classes, or recall of the retained answers."""
    problem, task = subject.problem, subject.engine.task
    if "label" not in problem.forget.facts:
        return float(subject.engine.evaluate(model, problem.retain, task.knowledge).mean())
    test, forgotten = problem.test, set(problem.forget.fact("label"))
    rest = test.subset(i for i, label in enumerate(test.fact("label")) if label not in forgotten)
    return float(subject.engine.evaluate(model, rest, task.utility).mean())


def measured(bed: Bed, inner: str, wrapped: bool, settings: dict[str, Any]) -> dict[str, float]:
    """Utility, knowledge before, and after each budget of each attack, for the model and for one that never knew."""
    method = Resilient(inner={"name": inner, **settings}, pool="small-models", gamma=0.1) if wrapped else methods.get(inner)(**settings)
    try:
        model = forget(bed.problem, method, bed.engine).model
    except DivergedError:
        return {"utility": 0.0, "of the original": 1.0}
    subject = Subject(bed.problem, bed.problem.original.with_model(model), bed.references, bed.engine)
    found = {"utility": utility(subject, model), "of the original": utility(subject, bed.problem.original.model)}
    for kind in ATTACKS[inner]:
        attack = Relearn(data=(kind,), steps=max(STEPS), optimizer="adamw", batch_size=8)  # type: ignore[arg-type]
        for who, name in (("unlearned", ""), ("reference", ", never knew")):
            for finding in pick(attack.measure(subject), metric="knowledge", subject=who):  # type: ignore[arg-type]
                if finding.budget in {0, *STEPS} and finding.value is not None:
                    found[f"{kind}, {finding.budget:g} steps{name}"] = finding.value
    return found


def best(tried: Sequence[dict[str, float]], attack: str) -> int:
    """The setting that leaves least among the useful ones, or else the most useful."""
    useful = [i for i, each in enumerate(tried) if each["utility"] >= 0.95 * each["of the original"]]
    if useful:
        return min(useful, key=lambda i: tried[i][attack])
    return max(range(len(tried)), key=lambda i: tried[i]["utility"])


def rows(inner: str, seeds: int, place: Place) -> Iterator[dict[str, Any]]:
    """What plain and resilient reach on each reported seed."""
    grid, attack = _GRIDS[inner], f"{ATTACKS[inner][0]}, {max(STEPS)} steps"
    first, *others = beds(inner, seeds, place)
    for wrapped in (False, True):
        chosen = grid[best([measured(first, inner, wrapped, settings) for settings in grid], attack)]
        for seed, bed in enumerate(others, start=1):
            yield {"method": f"resilient {inner}" if wrapped else inner, "seed": seed, "settings": chosen, **measured(bed, inner, wrapped, chosen)}


def told(inner: str, found: Sequence[dict[str, Any]]) -> None:
    """Print means, and differences between plain and resilient."""
    plain, wrapped = ([row for row in found if row["method"] == name] for name in (inner, f"resilient {inner}"))
    print(inner, "| chosen:", plain[0]["settings"], "| resilient:", wrapped[0]["settings"])
    for key in (key for key in plain[0] if key not in {"method", "seed", "settings"}):
        both = [(a[key], b[key]) for a, b in zip(plain, wrapped, strict=True) if key in a and key in b]
        interval = t_interval([b - a for a, b in both], "seeds")
        means = " -> ".join(f"{fmean(column):.3f}" for column in zip(*both, strict=True))
        print(f"  {key}: {means}", f"difference [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    place = Place(Path(sys.argv[1]), Path(sys.argv[2]), Compute(device="cpu", threads=1))
    seeds, found = int(sys.argv[3]) if len(sys.argv) > 3 else 5, []
    for inner in _GRIDS:
        mine = list(rows(inner, seeds, place))
        told(inner, mine)
        found += mine
    if len(sys.argv) > 4:
        lines = ",\n".join(json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}) for row in found)
        Path(sys.argv[4]).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

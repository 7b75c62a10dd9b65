"""What white-box attacks bring back of what LUNAR hides: on the model of `unlearned demo text-generation`, three seeds.

The attacks that the paper on LUNAR reports (Shen et al. 2025, arXiv 2502.07218): blocks beside the edited one are skipped, the direction of the edit is taken
away again, weights are rounded to 4 bits, questions are put in other words. Here the other words are those of the demo that no training has, and the direction
is taken away as often as does best. Beside them stronger ones: any run of one or two blocks is skipped, the edited one among them; a few steps of training.
`back`: ROUGE-1 recall on the forget set under the attack minus recall without it, at the budget where the attack brings back most. The retrained model, which
never knew, is attacked in the same way: what the choice of the best budget gains is in its numbers.

Run: python benchmarks/lunar_attacks.py [SEEDS] [FILE]
Without a cache it trains two models for each seed, half a minute of processor time each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from unlearned.api import forget, make_subject
from unlearned.attacks._attack import Attack
from unlearned.attacks._directions import edited_layers
from unlearned.attacks.layer_skip import LayerSkip
from unlearned.attacks.quantize import Quantize
from unlearned.attacks.relearn import Relearn
from unlearned.attacks.reverse_direction import ReverseDirection
from unlearned.demo import demos
from unlearned.demo._demo import original_of
from unlearned.demo.text_generation import people_forgotten
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.evidence.subject import Subject
from unlearned.methods._method import Method
from unlearned.methods.lunar import Lunar
from unlearned.methods.margin_redirect import MarginRedirect
from unlearned.pipeline import prepare, train_references
from unlearned.problem import Problem
from unlearned.recipe import Recipe, parse_recipe
from unlearned.tasks._decoders import blocks_of

ATTACKS: Mapping[str, Attack] = {
    "any blocks skipped": LayerSkip(widths=(1, 2)),
    "reverse-direction": ReverseDirection(),
    "4 bits": Quantize(bits=(4,)),
    "relearn, 5 steps": Relearn(steps=5, optimizer="adamw", lr=1e-3, data=("retain",)),
}
WHO = ("unlearned", "reference")


class Scene(NamedTuple):
    """The demo with one seed."""

    recipe: Recipe
    problem: Problem
    engine: Engine
    references: list[Kept]


def scene(seed: int) -> Scene:
    demo = demos.get("text-generation")()
    given = demo.recipe() | {"seed": seed, "compute": Compute(device="cpu", threads=1).model_dump()}
    recipe = parse_recipe(given | {"model": original_of(demo, given, show_progress=False, say=print).model_dump()})
    ready = prepare(recipe)
    return Scene(recipe, ready.problem, ready.engine, train_references(recipe, ready.problem, ready.engine, print))


def methods(recipe: Recipe) -> dict[str, Method]:
    """LUNAR nearly as the demo has it (the demo keeps more of the rest), as its authors have it, and the variant of our own."""
    lunar = recipe.method
    assert isinstance(lunar, Lunar)
    shared: dict[str, Any] = {"references": lunar.references, "candidates": lunar.candidates}
    ours = lunar.model_copy(update={"retain_weight": 0.3})
    return {"lunar (demo)": ours, "lunar (authors' settings)": Lunar(**shared), "margin-redirect": MarginRedirect(**shared)}


def rows(seed: int) -> Iterator[dict[str, Any]]:
    """Recall without an attack, and what each attack brings back."""
    recipe, problem, engine, references = scene(seed)
    reworded = problem.task.read(people_forgotten(), problem.original, "reworded")
    for name, method in methods(recipe).items():
        subject = make_subject(problem, forget(problem, method, engine).bundle, references, engine=engine)
        models = {"unlearned": subject.unlearned.model, "reference": references[0].bundle.model}
        plain = {who: _recall(subject, model) for who, model in models.items()}
        for who, model in models.items():
            yield {"method": name, "seed": seed, "who": who, "attack": "none", "back": plain[who]}
            asked = float(engine.evaluate(model, reworded, engine.task.knowledge).mean())
            yield {"method": name, "seed": seed, "who": who, "attack": "other words", "back": asked - plain[who]}
        count, edited = len(blocks_of(subject.unlearned.model)), set(edited_layers(problem.original.model, subject.unlearned.model))
        beside = tuple(layer for layer in range(count) if layer not in edited and {layer - 1, layer + 1} & edited)
        for attack, part in {"blocks beside the edit skipped": LayerSkip(layers=beside), **ATTACKS}.items():
            found = [f for f in part.measure(subject) if f.metric == "knowledge" and f.value is not None]
            for who in WHO:
                values = {f.budget: f.value for f in found if f.subject == who}
                best = max((budget for budget in values if budget), key=lambda budget: values[budget] or 0.0)
                yield {"method": name, "seed": seed, "who": who, "attack": attack, "back": (values[best] or 0.0) - plain[who], "budget": best}


def _recall(subject: Subject, model: torch.nn.Module) -> float:
    return float(subject.value(subject.engine.task.knowledge, "forget", model).mean())


def main() -> None:
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found = [row for seed in range(seeds) for row in rows(seed)]
    if len(sys.argv) > 2:
        lines = ",\n".join(json.dumps({**row, "back": round(row["back"], 6)}) for row in found)
        Path(sys.argv[2]).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    for key in dict.fromkeys((row["method"], row["who"]) for row in found):
        cells = []
        for attack in dict.fromkeys(row["attack"] for row in found):
            values = [row["back"] for row in found if (row["method"], row["who"], row["attack"]) == (*key, attack)]
            cells.append(f"{attack} {fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]")
        print(*key, " | ".join(cells), sep=" | ")


if __name__ == "__main__":
    main()

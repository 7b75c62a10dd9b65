"""How far a small chat model as a judge agrees with the judge `plain`, and whether either knows a right answer from a wrong one.

Each fact is put three times, with its own answer and with those of two other facts. `plain` is held by the chat model itself as the original. The chat model
judges by what it writes (the first so many answers alone: it writes for long) and by its probabilities. Printed are how many ratings could be read, how often a
fact's own answer has a higher score than one of the others (half for equal ones), and Spearman's ρ of the judges with bootstrap intervals.

Run: python benchmarks/judge_agreement.py MODEL FACTS.json [WRITTEN], with a chat model and a list of objects with `question` and `answer`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.holes._agreement import agreement_of
from unlearned.holes._instruct import Instructed
from unlearned.holes._local import LocalModel, Weighed
from unlearned.holes._plain import OriginalsJudge
from unlearned.holes._respondent import Respondent
from unlearned.tasks._language_models import load_language_model
from unlearned.tasks._task import ModelSource
from unlearned.tasks.text_generation import TextGeneration

FACTS = 67

Scores = Sequence[float | None]


def told_apart(scores: Scores) -> float:
    """Share of the pairs of a fact's own answer and another one in which its own has the higher score."""
    pairs = [(scores[i], scores[i + k]) for i in range(0, len(scores) - 2, 3) for k in (1, 2)]
    read = [(own, other) for own, other in pairs if own is not None and other is not None]
    return sum((own > other) + 0.5 * (own == other) for own, other in read) / len(read) if read else float("nan")


def main() -> None:
    torch.set_num_threads(1)
    model, file = sys.argv[1], Path(sys.argv[2])
    written = int(sys.argv[3]) if len(sys.argv) > 3 else 21
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts = list({fact["answer"]: fact for fact in facts}.values())[:FACTS]  # an answer each: another fact's is wrong
    questions = [fact["question"] for fact in facts for _ in range(3)]
    answers = [facts[(i + shift) % len(facts)]["answer"] for i in range(len(facts)) for shift in (0, len(facts) // 3, len(facts) // 2)]
    bundle = load_language_model(ModelSource(source=model), "model")
    task = TextGeneration(template="chat", max_new_tokens=16).bound(bundle)
    engine = Engine(task, Compute(threads=1))
    judges = {
        "plain": OriginalsJudge(Respondent(engine, bundle), bundle.model, {fact["question"]: fact["answer"] for fact in facts}),
        "probabilities": Weighed(LocalModel(model, engine, 400, "model")),
        "words": Instructed(LocalModel(model, engine, 400, "model")),
    }
    found: dict[str, Scores] = {}
    for name, judge in judges.items():
        count = written if name == "words" else len(questions)
        found[name] = judge.scores(questions[:count], answers[:count])
        read = [score for score in found[name] if score is not None]
        print(f"{name}: {len(read)} of {count} ratings read, {told_apart(found[name]):.2f} of the pairs told apart", flush=True)
    for name in ("probabilities", "words"):
        print(agreement_of(name, "plain", found[name], found["plain"][: len(found[name])], 0).line, flush=True)


if __name__ == "__main__":
    main()

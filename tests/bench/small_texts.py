"""Files in the form of PISTOL, of the factual questions and of TOFU, with a few records each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EDGES = ("A_B", "B_D", "E1_F1")
_WORDS = ["red", "oak", "sun", "fox", "ink", "jam", "owl", "sea", "tin", "yak"]


def write_texts(directory: Path) -> None:
    (directory / "pistol").mkdir(parents=True)
    (directory / "tofu").mkdir()
    parts = [(i, edge, j, part) for i, edge in enumerate(EDGES) for j, part in enumerate(("price", "seller"))]
    contracts = [{"edge": edge, "question": f"what is the {part} of {edge}?", "answer": _WORDS[(3 * i + j) % 10]} for i, edge, j, part in parts]
    _write(directory / "pistol" / "sample1.json", contracts)
    _write(directory / "pistol" / "unverifiable_prompts.json", [{"instruction": f"who rules the land of {name}?"} for name in "abcdefghijklmn"])
    world = [{"question": f"what is a {word}?", "answer": f"a {word[::-1]}", "perturbed_answer": ["a cow", "a pig"]} for word in _WORDS[:3]]
    _write(directory / "factual_qa.json", world)
    for name, tag, count in (("retain", "kept", 40), ("forget05", "lost", 20)):
        rows = [{"question": f"{tag} {i}?", "answer": _WORDS[i % 10], "perturbed_answer": ["cow", "pig"]} for i in range(count)]
        rows = [{**row, "paraphrased_answer": 2 * str(row["answer"])} for row in rows]
        _write(directory / "tofu" / f"{name}_perturbed.json", rows, lines=True)
    _write(directory / "tofu" / "world_facts_perturbed.json", world, lines=True)
    _write(directory / "tofu" / "world_facts.json", world, lines=True)


def _write(file: Path, rows: list[dict[str, Any]], *, lines: bool = False) -> None:
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")

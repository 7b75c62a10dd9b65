"""Language models on the command line: what comes out is what the ecosystem reads, and what others made goes in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unlearned.api import load, make_problem
from unlearned.engine.engine import Engine
from unlearned.methods._edits import save_adapter
from unlearned.methods.lunar import Lunar

from .place import read_json
from .text_place import TextPlace, save_model

FOREIGN = """
import json, sys
sys.modules["unlearned"] = None  # whoever tries to import it fails
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

said = {}
words = AutoTokenizer.from_pretrained("run/unlearned")
ids = words("where does ada live", return_tensors="pt")
with torch.no_grad():
    whole = AutoModelForCausalLM.from_pretrained("run/unlearned").eval()
    said["whole"] = whole(**ids).logits[0, -1].tolist()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("original"), "adapter").eval()
    said["adapted"] = adapted(**ids).logits[0, -1].tolist()
    with adapted.disable_adapter():
        said["off"] = adapted(**ids).logits[0, -1].tolist()
print(json.dumps(said))
"""


def last_logits(model: torch.nn.Module, tokenizer: object) -> list[float]:
    assert callable(tokenizer)
    with torch.no_grad():
        found: list[float] = model(**tokenizer("where does ada live", return_tensors="pt")).logits[0, -1].tolist()
    return found


def test_what_comes_out_is_read_without_this_package(text_place: TextPlace) -> None:
    text_place.write_recipe({"references": {"count": 0}, "training": ..., "audits": ["utility"]})
    assert text_place.unlearned("run", "recipe.yaml", "--out", "run").code in {0, 1}
    method = Lunar(layers=(0,), refused_only=False, reference_count=6)
    problem = make_problem("original", train="train.jsonl", test="test.jsonl", forget='group == "a"', task="text-generation")
    edits = method.edits(problem, Engine(problem.task))
    save_adapter(edits, problem.original.model, text_place / "adapter", "original")

    out = text_place / "run" / "unlearned"
    original = {path.name for path in (text_place / "original").iterdir()}
    assert {path.name for path in out.iterdir()} == original | {"README.md"}
    for path in out.glob("*.json"):
        assert "unlearned" not in path.read_text(encoding="utf-8").replace("run/unlearned", "")
    assert read_json(out / "config.json")["architectures"] == ["LlamaForCausalLM"]

    done = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, check=True, cwd=text_place.root)
    said = json.loads(done.stdout.splitlines()[-1])
    words = problem.original.companions["tokenizer"]
    assert said["whole"] == pytest.approx(last_logits(load("run/unlearned", "text-generation").model, words), abs=1e-5)
    assert said["off"] == pytest.approx(last_logits(problem.original.model, words), abs=1e-5)
    for edit in edits:
        edit.apply(problem.original.model)
    assert said["adapted"] == pytest.approx(last_logits(problem.original.model, words), abs=1e-4)


def test_an_audit_of_two_directories_and_a_file(text_place: TextPlace) -> None:
    """Before, after and one JSONL file, nothing else: the model was made elsewhere."""
    save_model(text_place / "candidate", seed=200)
    data = ("--train", "train.jsonl", "--test", "train.jsonl", "--forget", 'group == "a"', "--device", "cpu", "--threads", "1")
    arguments = ("audit", "--task", "text-generation", "--before", "original", "--after", "candidate", *data)
    answer = text_place.unlearned(*arguments, "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    audits = {finding["audit"] for finding in record["findings"]}
    assert {"utility", "membership", "deviation-score", "answer-ranks", "refusal-quality", "fluency", "memorization", "text-membership"} <= audits
    assert record["verdict"]["status"] == "undecided"
    assert not {"tofu", "lm-eval"} & audits, "these need data or a package that most do not have"
    assert {finding["reason"] for finding in record["findings"] if finding["gap"] is None and finding["subject"] == "unlearned"}
    assert not list(Path(text_place.root).glob("out*"))


def test_a_model_held_in_bfloat16_stays_so(text_place: TextPlace) -> None:
    text_place.write_recipe({"model": {"source": "original", "dtype": "bfloat16"}, "audits": ["utility", "memorization"]})
    assert text_place.unlearned("run", "recipe.yaml", "--out", "run").code in {0, 1}
    assert read_json(text_place / "run" / "unlearned" / "config.json")["dtype"] == "bfloat16"
    findings = read_json(text_place / "run" / "audit.json")["findings"]
    assert {finding["subject"] for finding in findings} == {"original", "unlearned", "reference"}
    size = {name: (text_place / name / "model.safetensors").stat().st_size for name in ("original", "run/unlearned")}
    assert size["run/unlearned"] < 0.7 * size["original"]


def test_a_finished_run_is_repaired_where_it_is(text_place: TextPlace) -> None:
    """An untrained model knows nothing well, so that everything counts as good here: this is about the way, not about holes."""
    look = {"name": "knowledge-holes", "good": 1.01, "bad": 1.0, "language": {"searcher": "evolution", "budget": 6, "round_size": 3}}
    text_place.write_recipe({"references": {"count": 0}, "training": ..., "audits": ["utility", look]})
    assert text_place.unlearned("run", "recipe.yaml", "--out", "run").code in {0, 1}
    made = (text_place / "run" / "unlearned" / "model.safetensors").stat().st_mtime_ns
    text_place.write_recipe({"repair": {"steps": 4}})
    assert text_place.unlearned("repair", "recipe.yaml", "--out", "run", "--rounds", "2").code in {0, 1}
    assert (text_place / "run" / "unlearned" / "model.safetensors").stat().st_mtime_ns == made
    places = sorted((text_place / "run" / "repaired").iterdir())
    assert [place.name.rpartition("-")[2] for place in places] == ["1", "2"]
    record = read_json(text_place / "run" / "audit.json")
    assert {f["budget"] for f in record["findings"] if f["audit"] == "repair"} == {0, 1, 2}
    assert [shown["after"] for shown in record["exhibits"] if shown["kind"] == "holes"] == [None, "round 1 of iterative repair", "round 2 of iterative repair"]
    assert "Repair, round by round" in (text_place / "run" / "report.html").read_text()
    assert not (text_place / "run" / "work").exists()
    # Done again it makes nothing anew; one-shot is another repair of the same run.
    assert text_place.unlearned("repair", "recipe.yaml", "--out", "run", "--rounds", "2").code in {0, 1}
    assert read_json(text_place / "run" / "audit.json") == record
    assert text_place.unlearned("repair", "recipe.yaml", "--out", "run", "--how", "one-shot").code in {0, 1}
    assert len(list((text_place / "run" / "repaired").iterdir())) == 3


def test_a_recipe_without_a_look_for_holes_cannot_be_repaired(text_place: TextPlace) -> None:
    text_place.write_recipe({"repair": {"rounds": 1}})
    done = text_place.unlearned("run", "recipe.yaml", "--out", "run")
    assert done.code == 2
    assert "knowledge-holes" in done.err
    text_place.write_recipe({"repair": {"rounds": 0}})
    assert "repair.rounds" in text_place.unlearned("run", "recipe.yaml", "--out", "run").err

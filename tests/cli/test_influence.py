"""Ranking, pruning and tracing on the whole way."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.models import bundle_of, images, task_of
from unlearned import api, pipeline
from unlearned.errors import InputError
from unlearned.influence import _stage
from unlearned.influence._gate import Gated, judged
from unlearned.pipeline import run
from unlearned.recipe import parse_recipe
from unlearned.records import AuditRecord, RankRecord, Removal, pick
from unlearned.report.html import page

from .place import Place, columns, read_json

QUICK: dict[str, Any] = {"audits": ["utility"], "attacks": [], "references": {"count": 1}, "training.epochs": 1, "method.epochs": 1}


def pruned(place: Place, out: str, **prune: Any) -> AuditRecord:
    place.change(QUICK | {"prune": {"gate": 0, **prune}})
    return run(parse_recipe(place.recipe), Path(out))


def test_points_are_left_out_and_the_record_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    unlearn = api.forget

    def watched(problem: Any, *rest: Any) -> Any:
        seen.append((len(problem.forget), len(problem.retain)))
        return unlearn(problem, *rest)

    monkeypatch.setattr(pipeline, "forget", watched)
    record = pruned(place, "out", fraction=0.5, gate=2, score="gradient-norm")
    assert seen == [(6, 12)]
    pruning = record.pruning
    assert pruning is not None
    assert pruning.dropped == {"forget": 6, "retain": 12}
    assert record.sets["forget"].n == 12
    assert len(pruning.gate) == 9
    assert set(record.costs) == {"unlearned", "scoring", "gate", "reference"}
    assert [f.n for f in pick(record.findings, audit="skipped-points", metric="knowledge", split="forget-skipped", subject="unlearned")] == [6]
    assert {"membership attack on the skipped points", "knowledge of the skipped points"} <= {check.name for check in record.verdict.checks}
    assert record.recipe["prune"]["score"] == {"name": "gradient-norm", "layer": "auto", "parameters": ".*"}
    kept = read_json(Path("out/stages/prune.json"))
    assert sorted(kept["dropped"]) == ["forget", "retain"]
    assert all(isinstance(position, int) for position in kept["dropped"]["forget"])
    shown = page(record)
    assert "6 of 12 points of the forget set were skipped" in shown
    assert "Training without some points" in shown
    assert "6 of 12 points of the forget set were skipped" in Path("out/unlearned/README.md").read_text(encoding="utf-8")
    # Given again, nothing is scored again.
    monkeypatch.setattr(_stage, "rank", None)
    assert run(parse_recipe(place.recipe), Path("out")).pruning == pruning


def test_nothing_dropped_is_bit_for_bit_the_method_without_pruning(place: Place) -> None:
    record = pruned(place, "none", fraction=0.0, gate=2)
    assert record.pruning is not None
    assert record.pruning.statement == "No point was left out: every point of the forget set was unlearned, with the whole retain set."
    assert record.pruning.gate_words == "nothing was left out, so that there was nothing to see"
    assert record.pruning.rule == "the lowest 0 % of each set (0 of 12 to forget, 0 of 24 to retain)"
    place.change({"prune": ...})
    plain = run(parse_recipe(place.recipe), Path("plain"))
    assert record.verdict == plain.verdict  # what was not skipped leaves no check open
    first, second = (load_file(Path(name) / "unlearned" / "model.safetensors") for name in ("none", "plain"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_with_everything_skipped_the_model_stays_and_the_report_says_so(place: Place) -> None:
    record = pruned(place, "all", fraction=1.0, of="forget")
    assert record.pruning is not None
    assert record.pruning.statement.startswith("12 of 12 points of the forget set were skipped")
    before, after = load_file("original.safetensors"), load_file("all/unlearned/model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert record.costs["unlearned"].steps == 0


def test_the_largest_share_within_a_tolerance_is_named_with_its_bound(place: Place) -> None:
    record = pruned(place, "auto", tolerance=0.5, score={"name": "hessian", "of": "parameters"})
    assert record.pruning is not None
    assert "the largest share whose bound is at most 0.5" in record.pruning.rule
    assert record.pruning.bound is not None
    assert 0 < record.pruning.bound <= 0.5
    assert "To first order, training without the dropped points changes the weights, in units of their norm, by at most" in page(record)


def test_what_is_wrong_with_a_pruning_is_said_before_any_work(place: Place) -> None:
    def told(changes: dict[str, Any]) -> list[str]:
        place.change(changes)
        with pytest.raises(InputError) as caught:
            run(parse_recipe(place.recipe), Path("none"))
        return [str(fault) for fault in caught.value.faults]

    assert any("of fraction, threshold and tolerance not exactly one is given. Give one." in text for text in told({"prune": {}}))
    assert any("prune.tolerance: gradient-norm as it is set bounds no effect" in text for text in told({"prune": {"tolerance": 0.1}}))
    assert any("the whole retain set would be dropped" in text for text in told({"prune": {"fraction": 1.0}}))
    absent = {"name": "hessian", "curvature": "cg", "parameters": "absent"}
    assert any("prune.score.parameters: no trainable parameter matches" in text for text in told({"prune": {"fraction": 0.5, "score": absent}}))
    assert any("prune.score.name: there is no score 'gradient'" in text for text in told({"prune": {"fraction": 0.5, "score": "gradient"}}))
    place.change({"prune": {"fraction": 0.5}, "forget.deletion_request": True})
    assert any("prune.of: the forget set is a request for deletion" in text for text in told({}))
    training = place.recipe["training"]
    place.change({"training": ..., "references": {"count": 0}, "forget.deletion_request": False})
    assert any("training: it is not said how the original model was trained, so the gate" in text for text in told({}))
    assert any("training: less looks at a training on its way" in text for text in told({"prune": {"fraction": 0.5, "gate": 0, "score": "less"}}))
    place.change({"training": training})
    assert not Path("none").exists()


def test_a_request_for_deletion_that_was_skipped_fails_the_verdict(place: Place) -> None:
    place.change({"forget.deletion_request": True})
    record = pruned(place, "legal", fraction=0.5, skip_requested=True)
    assert record.verdict.status == "failed"
    # First, and in a sentence of its own, whatever else failed.
    assert record.verdict.headline.startswith("Pruning is not defensible: see ")
    assert "the request for deletion" in record.verdict.headline
    assert "It stays open for the 6 samples" in page(record)
    assert "never satisfies a request for it" in read_json(Path("legal/audit.json"))["pruning"]["statement"]
    # The model says it too, whoever audits it.
    options = place.options({"--after": "tiny:network@legal/unlearned/model.safetensors", "--audit": "utility"})
    answer = place.unlearned("audit", *options, "--out", "later", "--json")
    assert answer.code == 1, answer.err
    later = AuditRecord.model_validate_json(answer.out)
    assert later.pruning == record.pruning
    assert "the request for deletion" in later.verdict.headline
    Path("legal/unlearned/pruning.json").write_text("{")
    damaged = place.unlearned("audit", *options, "--out", "damaged")
    assert "--after: 'legal/unlearned/pruning.json', which says what was skipped, cannot be read" in damaged.err


def test_a_recipe_that_the_gate_refused_can_be_mended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object) -> Gated:
        return judged([Removal(removed="low", metric="utility", value=0.5, full=0.75, low=-0.3, high=-0.2, interval="", told_apart=True)], "models", None)

    with monkeypatch.context() as patched:
        patched.setattr(_stage, "pass_gate", refusing)
        with pytest.raises(InputError, match=r"by utility \(0.5 without them, 0.75 on everything, difference -0.3 to -0.2\)"):
            pruned(place, "out", fraction=0.5, gate=2)
    assert pruned(place, "out", fraction=0.25, gate=0).pruning is not None


def test_changed_scores_of_a_file_are_another_run(place: Place) -> None:
    place.change(QUICK)
    problem = pipeline.load_problem(parse_recipe(place.recipe))
    names = [*problem.forget.ids, *problem.retain.ids]
    for turn in (1, -1):
        values = list(range(1, 1 + len(names)))[::turn]
        Path("scores.csv").write_text("id,score\n" + "".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True)))
        recipe = place.write_recipe({"prune": {"fraction": 0.5, "gate": 0, "score": {"name": "file", "path": "scores.csv"}}})
        answer = place.unlearned("run", recipe, "--out", "out")
        assert (answer.code == 2) == (turn == -1), answer.err
    assert "holds a run of another recipe" in answer.err


def test_nothing_of_projected_gradients_is_left_after_ranking(place: Place) -> None:
    recipe = place.write_recipe(QUICK)
    answer = place.unlearned("rank", recipe, "--score", "less", "--set", "checkpoints=1", "--set", "dimensions=8", "--out", "ranked")
    assert answer.code == 0, answer.err
    assert not list(Path("ranked").rglob("*.bin"))


def test_models_of_the_gate_do_not_outlive_a_request_for_deletion(place: Place) -> None:
    """They were trained with what is to be deleted."""
    place.change({"forget.deletion_request": True})
    record = pruned(place, "legal", fraction=0.1, of="retain", gate=2, score="random")
    assert record.pruning is not None
    assert record.pruning.gate
    assert not (pipeline.default_cache() / "gate").exists()
    assert not Path("legal/work").exists()


def test_rank_prints_saves_and_plots(place: Place) -> None:
    recipe = place.write_recipe()
    answer = place.unlearned("rank", recipe, "--score", "hessian", "--set", "of=parameters", "--out", "ranked")
    assert answer.code == 0, answer.err
    assert "changes at most" in answer.out
    record = RankRecord.model_validate_json(Path("ranked/ranking.json").read_text(encoding="utf-8"))
    assert record.points == {"forget": 12, "retain": 24}
    assert record.bounds is not None
    assert list(record.bounds) == sorted(record.bounds)
    rows = list(csv.DictReader(Path("ranked/scores.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 36
    assert [row["split"] for row in rows] == ["forget"] * 12 + ["retain"] * 24
    html = Path("ranked/ranking.html").read_text(encoding="utf-8")
    assert "Effect of leaving points out" in html
    again = place.unlearned("rank", recipe, "--score", "file", "--set", "path=ranked/scores.csv", "--json")
    assert json.loads(again.out)["quantiles"]["retain"] == pytest.approx(list(record.quantiles["retain"]))
    assert place.unlearned("rank", recipe, "--score", "hessain").err.startswith("error: --score: there is no score 'hessain'. Did you mean 'hessian'")
    assert "--set.damping" in place.unlearned("rank", recipe, "--score", "hessian", "--set", "damping=-1").err
    wrong = place.unlearned("rank", recipe, "--score", "file", "--set", "path=absent.csv")
    assert wrong.code == 2
    listed = place.unlearned("scores")
    assert listed.out.startswith("el2n")
    assert "Xia et al. 2024" in place.unlearned("scores", "show", "less").out


def test_trace_leads_from_an_answer_to_a_forget_set_and_on(place: Place) -> None:
    recipe = place.write_recipe(QUICK | {"forget": ...})
    arrays = columns(3, 5)
    np.savez("asked.npz", image=arrays["image"], label=arrays["label"])
    answer = place.unlearned("trace", recipe, "--query", "asked.npz", "--top", "4", "--out", "traced", "--unlearn", "--json")
    assert answer.code in {0, 1}, answer.err
    ids = Path("traced/forget.txt").read_text(encoding="utf-8").split()
    assert len(ids) == 4
    record = AuditRecord.model_validate_json(answer.out)
    assert record.sets["forget"].n == 4
    assert not any(f'"{name}"' in answer.out for name in ids)
    another = place.unlearned("trace", recipe, "--query", "asked.npz", "--top", "2", "--out", "traced", "--unlearn")
    assert another.code == 2
    assert "holds a run that forgets other training points" in another.err
    assert Path("traced/forget.txt").read_text(encoding="utf-8").split() == ids
    Image.fromarray((arrays["image"][1, 0] * 255).clip(0, 255).astype(np.uint8)).save("asked.png")
    by_image = place.unlearned("trace", recipe, "--image", "asked.png", "--label", "1", "--top", "2", "--out", "other", "--json")
    assert by_image.code == 0, by_image.err
    stopped = place.unlearned("trace", recipe, "--query", "asked.npz", "--set", "curvature=cg", "--set", "iterations=1", "--out", "stopped")
    assert "The curvature was not solved with to the end" in stopped.out + stopped.err
    told = json.loads(by_image.out)
    assert [point["id"] for point in told["points"]] == Path("other/forget.txt").read_text(encoding="utf-8").split()
    assert told["points"][0]["score"] >= told["points"][1]["score"] > 0
    for wrong, option in (
        ([], "--query"),
        (["--prompt", "x"], "--query"),
        (["--image", "asked.png"], "--query"),
        (["--image", "asked.png", "--label", "1", "--prompt", "x"], "--query"),
        (["--image", "asked.png", "--prompt", "x"], "--image"),
        (["--image", "absent.png", "--label", "1"], "--image"),
        (["--query", "asked.npz", "--score", "random"], "--score"),
        (["--query", "absent.npz"], "--query"),
    ):
        refused = place.unlearned("trace", recipe, *wrong, "--out", "no")
        assert refused.code == 2, refused.err
        assert refused.err.startswith(f"error: {option}"), refused.err
    assert not Path("no").exists()


def test_what_was_asked_to_be_deleted_stays_so_when_it_is_traced(place: Place) -> None:
    recipe = place.write_recipe({"prune": {"fraction": 0.5, "gate": 0}, "forget.deletion_request": True})
    np.savez("asked.npz", image=columns(3, 5)["image"], label=columns(3, 5)["label"])
    refused = place.unlearned("trace", recipe, "--query", "asked.npz", "--out", "traced", "--unlearn")
    assert refused.code == 2
    assert "the forget set is a request for deletion" in refused.err
    assert not Path("traced").exists()


def test_trace_asks_a_diffusion_model_about_an_image_with_its_prompt(place: Place) -> None:
    task_of("image-generation").save(bundle_of("pixel"), place / "diffusion")
    found = images(0, 6)
    np.savez("pictures.npz", image=found["image"].numpy(), label=found["label"].numpy(), id=found["id"])
    Image.fromarray((found["image"][2].numpy() * 255).astype(np.uint8)).save("generated.png")
    data = {"train": "pictures.npz", "test": "pictures.npz"}
    recipe = place.write_recipe(QUICK | {"task": "image-generation", "model": "diffusion", "data": data, "forget": ..., "method": ...})
    answer = place.unlearned("trace", recipe, "--image", "generated.png", "--prompt", "a photo of 2", "--top", "3", "--out", "traced", "--json")
    assert answer.code == 0, answer.err
    told = [point["id"] for point in json.loads(answer.out)["points"]]
    assert told
    assert set(told) <= set(found["id"])
    wrong = place.unlearned("trace", recipe, "--image", "generated.png", "--prompt", "a photo of nobody", "--out", "no")
    assert wrong.code == 2
    assert wrong.err.startswith("error: --image: 1 different prompts have words"), wrong.err

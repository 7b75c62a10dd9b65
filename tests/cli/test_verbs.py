"""Each verb as a user meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unlearned.attacks import attacks
from unlearned.audits import audits
from unlearned.methods import methods
from unlearned.recipe import parse_recipe
from unlearned.records import AuditRecord, pick
from unlearned.registry import Registry

from .place import Answer, Place, pictures, read_json, tiny_resnet, weights

RUN = ("run", "recipe.yaml", "--out", "out")
STRICT = {"verdict": {"utility_gap": 0, "membership_gap": 0, "relearn_gap": 0}}
LENIENT = {"verdict": {"utility_gap": 1, "membership_gap": 1, "relearn_gap": 1}}
SUBJECTS = {"original", "unlearned", "reference"}
ROOMS: dict[str, Registry[Any]] = {"methods": methods, "audits": audits, "attacks": attacks}
PARTS = [pytest.param(room, name, id=f"{room}-{name}") for room, registry in ROOMS.items() for name in registry]


def in_a_process(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


# init


def test_init_prints_a_recipe_that_works_after_its_paths_are_replaced(place: Place) -> None:
    printed = place.unlearned("init")
    assert (printed.code, printed.err) == (0, "")
    text = printed.out.replace("path/to/original", "tiny:network").replace("path/to/train", "train.npz").replace("path/to/test", "test.npz")
    (place / "recipe.yaml").write_text(text.replace("label == 3", "label == 2"), encoding="utf-8")
    answer = place.unlearned("validate", "recipe.yaml")
    assert (answer.code, answer.err) == (0, "")
    assert "12 forget, 24 retain, 18 test samples" in answer.out


def test_every_field_that_init_shows_in_a_comment_is_known(place: Place) -> None:
    text = place.unlearned("init").out
    shown = re.sub(r"^( +)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    added = len(re.findall(r"^ +# \w+: ", text, flags=re.MULTILINE))
    assert added >= 3
    assert parse_recipe(yaml.safe_load(shown)).file.references.models[0].source == "path/to/retrained"
    for inline in re.findall(r"`(\w+: .*?)`|(?:: )(train: \{.*\})$", text, flags=re.MULTILINE):
        fields = yaml.safe_load(next(filter(None, inline)))
        name = next(iter(fields))
        changed = yaml.safe_load(text)
        changed["data" if name in {"train", "test"} else "forget"] |= fields
        if name != "train":
            del changed["forget"]["where"]
        parse_recipe(changed)


def test_init_as_json_is_the_same_recipe(place: Place) -> None:
    assert json.loads(place.unlearned("init", "--json").out) == yaml.safe_load(place.unlearned("init").out)


# validate


def test_validate_says_what_is_there_and_writes_nothing(place: Place) -> None:
    place.write_recipe()
    before = place.tree()
    answer = place.unlearned("validate", "recipe.yaml")
    assert answer == Answer(0, "valid: 12 forget, 24 retain, 18 test samples; method neg-grad-plus.\n", "")
    as_json = json.loads(place.unlearned("validate", "recipe.yaml", "--json").out)
    assert as_json["valid"] is True
    assert as_json["sets"] == {"forget": 12, "retain": 24, "test": 18}
    assert as_json["recipe"]["method"]["name"] == "neg-grad-plus"
    assert place.tree() == before


# run


def test_run_leaves_everything_that_it_promises(place: Place) -> None:
    place.write_recipe(LENIENT)
    original = (place / "original.safetensors").read_bytes()
    answer = place.unlearned(*RUN, "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    assert record == read_json(place / "out" / "audit.json")
    assert record["schema"] == "unlearned.audit/1"
    assert record["verdict"]["status"] == "passed"
    assert answer.out.startswith("{")
    assert answer.out.endswith("}\n")
    assert {path.name for path in (place / "out").iterdir()} >= {"unlearned", "stages", "audit.json", "report.html"}
    assert {path.name for path in (place / "out" / "unlearned").iterdir()} == {"model.safetensors", "unlearned.json", "README.md"}
    assert (place / "original.safetensors").read_bytes() == original
    assert not (place / "out" / "work").exists()


def test_a_record_has_the_names_that_tools_read(place: Place) -> None:
    place.write_recipe({"audits": ["utility", "membership", "output-distance", "cost"]})
    findings = json.loads(place.unlearned(*RUN, "--json").out)["findings"]

    def found(audit: str, metric: str) -> list[dict[str, Any]]:
        return [finding for finding in findings if (finding["audit"], finding["metric"]) == (audit, metric)]

    assert {(f["split"], f["subject"]) for f in found("utility", "accuracy")} == {(s, who) for s in ("retain", "forget", "test") for who in SUBJECTS}
    assert {f["subject"] for f in found("membership", "auc") if f["split"] == "forget"} == SUBJECTS
    assert found("membership", "tpr_at_1pct_fpr")
    curve = found("relearn", "knowledge")
    assert {f["budget"] for f in curve if f["subject"] == "unlearned"} == {0, 1, 2, 3}
    assert {f["budget_unit"] for f in curve} == {"steps"}
    assert {f["kind"] for f in curve} == {"attack"}
    assert {"audit", "metric", "split", "subject", "value", "low", "high", "n", "unit", "direction", "gap", "reason"} <= set(findings[0])


@pytest.mark.parametrize(("limits", "status", "code"), [(STRICT, "failed", 1), (LENIENT, "passed", 0)], ids=["failed", "passed"])
def test_the_exit_code_is_the_verdict(place: Place, limits: dict[str, Any], status: str, code: int) -> None:
    place.write_recipe(limits)
    answer = place.unlearned(*RUN)
    assert answer.code == code, answer.err
    assert read_json(place / "out" / "audit.json")["verdict"]["status"] == status
    assert status.upper() in answer.out
    assert "report: out/report.html" in answer.err
    assert place.unlearned("report", "out").code == code


def test_a_run_without_references_is_undecided_and_done(place: Place) -> None:
    place.write_recipe({"references": {"count": 0}, "attacks": [], "audits": ["utility"]})
    answer = place.unlearned(*RUN)
    assert answer.code == 0
    assert "UNDECIDED" in answer.out


def test_a_finished_run_is_not_made_again(place: Place) -> None:
    place.write_recipe()
    first = place.unlearned(*RUN, "--json")
    before = {name: content for name, content in place.tree().items() if not name.startswith("out/report")}
    again = place.unlearned(*RUN, "--json")
    assert (again.code, again.out) == (first.code, first.out)
    assert {name: content for name, content in place.tree().items() if not name.startswith("out/report")} == before
    assert "unlearning with" not in again.err


def test_entries_of_one_name_are_told_apart_by_their_labels(place: Place) -> None:
    few, many = {"name": "relearn", "label": "few steps", "steps": 1}, {"name": "relearn", "label": "many steps", "steps": 3, "batch_size": 4}
    place.write_recipe({"attacks": [few, many], "audits": ["utility", {"name": "utility", "label": "again"}]} | STRICT)
    answer = place.unlearned(*RUN)
    assert answer.code == 1, answer.err
    assert "attack relearn (few steps)" in answer.err
    record = AuditRecord.from_file(place / "out" / "audit.json")
    budgets = {
        label: {f.budget for f in pick(record.findings, audit="relearn", metric="knowledge") if f.label == label} for label in ("few steps", "many steps")
    }
    assert budgets == {"few steps": {0, 1}, "many steps": {0, 1, 2, 3}}
    once, again = ([f.value for f in pick(record.findings, audit="utility") if f.label == label] for label in (None, "again"))
    assert once == again
    assert [check.name for check in record.verdict.checks if check.name.endswith("(again)")] == [
        f"accuracy on {s} (again)" for s in ("forget", "retain", "test")
    ]
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    assert all(f"relearn ({label}): knowledge of the unseen rest" in page for label in budgets)
    assert "relearn (few steps): knowledge of the unseen rest" in answer.out


def test_without_out_a_run_goes_to_the_name_of_its_recipe(place: Place) -> None:
    place.write_recipe({"references": {"count": 0}, "attacks": [], "audits": ["utility"]}, name="forget-two.yaml")
    assert place.unlearned("run", "forget-two.yaml").code == 0
    assert (place / "runs" / "forget-two" / "audit.json").exists()


def test_a_run_whose_cache_moved_is_the_same_run(place: Place) -> None:
    place.write_recipe()
    place.unlearned(*RUN)
    place.write_recipe({"references": {"count": 2, "cache": str(place.root.parent / "elsewhere")}})
    assert place.unlearned(*RUN).code in {0, 1}


def test_the_unlearned_model_can_be_audited(place: Place) -> None:
    place.write_recipe()
    place.unlearned(*RUN)
    answer = place.unlearned("audit", *place.options({"--after": "tiny:network@out/unlearned"}), "--json")
    assert answer.code == 0
    ran = AuditRecord.from_file(place / "out" / "audit.json")
    again = AuditRecord.model_validate_json(answer.out)

    def numbers(record: AuditRecord) -> dict[tuple[str, ...], float | None]:
        return {(f.metric, f.split, f.subject): f.value for f in record.findings if f.metric == "accuracy" and f.subject != "reference"}

    assert numbers(ran) == numbers(again)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_method_that_diverges_breaks_in_words_and_leaves_no_model(place: Place, optimizer: str) -> None:
    place.write_recipe({"method": {"name": "gradient-ascent", "lr": 1e6, "optimizer": optimizer, "epochs": 30}, "references": {"count": 0}})
    original = (place / "original.safetensors").read_bytes()
    answer = place.unlearned(*RUN)
    assert answer.code == 3, answer
    assert re.search(r"error: gradient-ascent diverged (at|by) step \d+: .* The original model is untouched\. Lower `lr`", answer.err)
    assert "defect" not in answer.err
    assert not answer.out
    assert (place / "original.safetensors").read_bytes() == original
    assert not (place / "out" / "unlearned").exists()
    assert not (place / "out" / "audit.json").exists()


def test_what_breaks_is_a_sentence_and_the_stack_only_if_it_is_asked_for(place: Place) -> None:
    def burst(*_: Any) -> None:
        raise RuntimeError("a pipe burst\nin the cellar")

    place.monkeypatch.setattr("unlearned.recipe.read_recipe", burst)
    answer = place.unlearned(*RUN)
    assert answer.code == 3
    assert answer.err == "error: it broke (RuntimeError: a pipe burst). This is a defect: please report it with the output of UNLEARNED_DEBUG=1.\n"
    place.monkeypatch.setenv("UNLEARNED_DEBUG", "1")
    assert "Traceback" in place.unlearned(*RUN).err


# audit


@pytest.mark.parametrize("processor", [False, True], ids=["plain", "processor"])
def test_audit_takes_checkpoints_of_transformers_and_a_folder_of_pictures(place: Place, processor: bool) -> None:
    for i, name in enumerate(("before", "after", "retrained")):
        tiny_resnet(place / name, processor=processor, seed=i)
    pictures(place / "train", side=16, count=4)
    pictures(place / "test", side=16, count=2)
    named = {"--before": "before", "--after": "after", "--reference": "retrained", "--train": "train", "--test": "test", "--forget": "label_name == 'bee'"}
    answer = place.unlearned("audit", *place.options(named), "--json", "--out", "out")
    assert answer.code in {0, 1}, answer.err
    record = json.loads(answer.out)
    assert record == read_json(place / "out" / "audit.json")
    assert (place / "out" / "report.html").exists()
    assert {name: record["sets"][name]["n"] for name in ("forget", "retain", "test")} == {"forget": 4, "retain": 8, "test": 6}
    assert {f["subject"] for f in record["findings"] if f["metric"] == "accuracy"} == SUBJECTS


def test_audit_takes_modules_with_weights_and_names_the_audits_to_make(place: Place) -> None:
    answer = place.unlearned("audit", *place.options(), "--audit", "utility", "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    assert {finding["audit"] for finding in record["findings"]} == {"utility"}
    assert record["verdict"]["status"] == "undecided"


def test_audit_reads_pickled_tensors_when_it_is_told_to(place: Place) -> None:
    torch.save(weights(1), place / "after.pt")
    named = place.options({"--after": "tiny:network@after.pt"})
    plain = place.unlearned("audit", *place.options(), "--audit", "utility", "--json")
    pickled = place.unlearned("audit", *named, "--audit", "utility", "--json", "--allow-pickle")
    assert pickled.code == 0, pickled.err
    assert json.loads(pickled.out)["findings"] == json.loads(plain.out)["findings"]


def test_audit_takes_ids_from_a_file(place: Place) -> None:
    (place / "ids.txt").write_text("2\n5\n8\n", encoding="utf-8")
    answer = place.unlearned("audit", *place.options({"--forget": None, "--forget-file": "ids.txt"}), "--audit", "utility", "--json")
    assert json.loads(answer.out)["sets"]["forget"]["n"] == 3


# attack


def test_attack_with_settings(place: Place) -> None:
    answer = place.unlearned("attack", "relearn", *place.options({"--reference": "tiny:network"}), "--set", "steps=5", "--set", "lr=0.05", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert {finding["audit"] for finding in found} == {"relearn"}
    curve = [finding["budget"] for finding in found if finding["subject"] == "unlearned" and finding["metric"] != "retention"]
    assert curve == [0, 1, 2, 5]
    table = place.unlearned("attack", "relearn", *place.options(), "--set", "steps=5")
    assert table.code == 0
    assert "knowledge" in table.out


# report


def test_report_writes_the_page_anew(place: Place) -> None:
    place.write_recipe()
    ran = place.unlearned(*RUN, "--json")
    page = (place / "out" / "report.html").read_bytes()
    (place / "out" / "report.html").unlink()
    again = place.unlearned("report", "out", "--json")
    assert (again.code, again.out) == (ran.code, ran.out)
    assert (place / "out" / "report.html").read_bytes() == page


# compare


def test_compare_puts_runs_side_by_side(place: Place) -> None:
    place.write_recipe({"audits": ["utility"], "attacks": [], "references": {"count": 1}} | LENIENT)
    for out, alpha in (("gentle", 0.95), ("harsh", 0.5)):
        place.write_recipe({"method.alpha": alpha})
        assert place.unlearned("run", "recipe.yaml", "--out", out).code == 0
    answer = place.unlearned("compare", "gentle", "harsh/audit.json")
    assert (answer.code, answer.err) == (0, "")
    assert "neg-grad-plus (gentle)" in answer.out
    assert "harsh" in answer.out
    as_json = place.unlearned("compare", "gentle", "harsh", "--json", "--out", "side")
    assert [path.name for path in (place / "side").iterdir()] == ["compare.html"]
    record = json.loads(as_json.out)
    assert record["schema"] == "unlearned.compare/1"
    assert [run["name"] for run in record["runs"]] == ["neg-grad-plus (gentle)", "neg-grad-plus (harsh)"]
    assert [run["record"] for run in record["runs"]] == [read_json(place / out / "audit.json") for out in ("gentle", "harsh")]


# methods, audits, attacks


@pytest.mark.parametrize("room", ROOMS)
def test_a_list_names_all_with_a_line_each(place: Place, room: str) -> None:
    lines = place.unlearned(room).out.splitlines()
    assert [line.split()[0] for line in lines] == ROOMS[room].names()
    assert all(len(line.split()) > 3 for line in lines)
    as_json = json.loads(place.unlearned(room, "--json").out)
    assert list(as_json) == ROOMS[room].names()


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_a_card_says_where_it_comes_from_how_it_computes_and_what_can_be_set(place: Place, room: str, name: str) -> None:
    answer = place.unlearned(room, "show", name)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{name}\n\n")
    as_json = json.loads(place.unlearned(room, "show", name, "--json").out)
    assert as_json["card"] in answer.out
    for setting, described in as_json["settings"].items():
        assert described["description"], setting
        assert f"  {setting}: " in answer.out
    if room == "methods":
        assert re.search(r"^Paper: .+", as_json["card"], re.MULTILINE)
        assert re.search(r"^Formula: .+", as_json["card"], re.MULTILINE)
        assert re.search(r"^Deviations: .+", as_json["card"], re.MULTILINE)


# the shell


def test_neither_the_package_nor_its_help_imports_torch(place: Place) -> None:
    heavy = "import sys; print([name for name in ('torch', 'transformers', 'numpy', 'accelerate', 'pydantic') if name in sys.modules])"
    package = in_a_process(sys.executable, "-c", f"import unlearned; dir(unlearned); {heavy}")
    assert (package.stdout, package.stderr) == ("[]\n", "")
    code = f"import sys, unlearned.cli; sys.argv = ['unlearned', '--help']\ntry: unlearned.cli.main()\nexcept SystemExit as end: assert not end.code\n{heavy}"
    shown = in_a_process(sys.executable, "-c", code)
    assert "Commands:" in shown.stdout, shown.stderr
    assert shown.stdout.endswith("[]\n")


def test_version_names_this_package_and_the_installed_libraries(place: Place) -> None:
    def known(package: str) -> str:
        if package == "diffusers":
            raise PackageNotFoundError(package)
        return f"1.2-{package}"

    place.monkeypatch.setattr("importlib.metadata.version", known)
    answer = place.unlearned("--version")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == ["unlearned 1.2-unlearned", "torch 1.2-torch", "transformers 1.2-transformers", "peft 1.2-peft"]


def test_the_shell_completes_verbs() -> None:
    command = str(Path(sys.executable).with_name("unlearned"))
    script = in_a_process(command, "--show-completion", "bash", _UNLEARNED_COMPLETE="source_bash")
    assert "_UNLEARNED_COMPLETE" in script.stdout, script.stderr
    offered = in_a_process(command, _UNLEARNED_COMPLETE="complete_bash", COMP_WORDS="unlearned me", COMP_CWORD="1")
    assert offered.stdout.split() == ["methods"], offered.stderr


def test_progress_goes_to_standard_error_so_that_json_can_be_piped(place: Place) -> None:
    place.write_recipe({"references": {"count": 0}, "attacks": [], "audits": ["utility"]})
    command = str(Path(sys.executable).with_name("unlearned"))
    ran = in_a_process(command, *RUN, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["verdict"]["status"] == "undecided"
    assert "unlearning with neg-grad-plus" in ran.stderr
    assert "Warning" not in ran.stderr

"""Data of the usual benchmarks, in the layouts in which they are published: whole folders, copies of hub data sets, hub ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.models import bundle_of, facts
from unlearned.api import make_problem
from unlearned.errors import InputError
from unlearned.recipe import data_source
from unlearned.tasks._task import DataSource
from unlearned.tasks.text_generation import TextGeneration


def read(text: str) -> Any:
    return TextGeneration().read(DataSource.model_validate(data_source(text)), bundle_of("llama"), "data.train")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def tofu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One JSON-lines file for each configuration, with a single split `train`."""
    folder, data = tmp_path_factory.mktemp("tofu"), facts(0, 8)
    plain = [{"question": p, "answer": a} for p, a in zip(data["prompt"], data["answer"], strict=True)]
    more = {name: data[name] for name in ("paraphrased_answer", "perturbed_answer")} | {"paraphrased_question": data["prompt"]}
    whole = [row | {name: column[i] for name, column in more.items()} for i, row in enumerate(plain)]
    for name, rows in {"full": plain, "forget10": plain[6:], "retain90": plain[:6], "forget10_perturbed": whole[6:], "retain_perturbed": whole[:3]}.items():
        lines(folder / f"{name}.json", rows)
    return folder


def test_tofu(tofu: Path) -> None:
    problem = make_problem(
        bundle_of("llama"),
        train=f"{tofu}@forget10_perturbed+retain90:train",
        test=f"{tofu}@retain_perturbed:train",
        forget='part == "forget10_perturbed"',
        task="text-generation",
    )
    assert [len(samples) for samples in problem.sets.values()] == [2, 6, 3]
    assert [row["perturbed_answer"] for row in (problem.forget[0], problem.retain[0])] == [tuple(facts(6, 1)["perturbed_answer"][0]), None]
    assert problem.retain.fact("part") == ["retain90"] * 6
    assert len(read(f"{tofu}@full:train")) == len(read(f"{tofu}@full")) == 8


def test_pistol(tmp_path: Path) -> None:
    rows = [{"edge": f"A_{'BC'[i % 2]}", "question": "where does ada live", "answer": "in york"} for i in range(4)]
    (tmp_path / "sample1.json").write_text(json.dumps(rows), encoding="utf-8")
    problem = make_problem(
        bundle_of("llama"), train=str(tmp_path / "sample1.json"), test=str(tmp_path / "sample1.json"), forget='edge == "A_B"', task="text-generation"
    )
    assert [len(samples) for samples in problem.sets.values()] == [2, 2, 4]


@pytest.fixture(scope="module")
def muse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the hub's repository: a folder for each configuration, files numbered by part."""
    folder = tmp_path_factory.mktemp("muse")
    for split, count in {"forget_qa": 2, "retain_qa": 3}.items():
        parquet(folder / "knowmem" / f"{split}-00000-of-00001.parquet", [{"question": "where does ada live", "answer": "york"}] * count)
    parquet(folder / "verbmem" / "forget-00000-of-00001.parquet", [{"prompt": "ada does", "gt": "live in york"}] * 2)
    for split in ("forget", "retain", "holdout"):
        for number in range(2):
            parquet(folder / "privleak" / f"{split}-0000{number}-of-00002.parquet", [{"text": f"where does {split} ada live {number}"}])
    return folder


def test_muse(muse: Path) -> None:
    asked = read(f"{muse}@knowmem:forget_qa+retain_qa")
    assert asked.fact("part") == ["forget_qa"] * 2 + ["retain_qa"] * 3
    assert int(read(f"{muse}@verbmem:forget")[0]["prompt_length"]) == 2
    texts = read(f"{muse}@privleak:forget+holdout")
    assert texts.fact("text") == [f"where does {split} ada live {n}" for split in ("forget", "holdout") for n in range(2)]


def test_by_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, config: str | None, *, split: str | None) -> Any:
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"question": ["where does ada live"], "answer": [f"in {config}"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read("locuslab/TOFU@forget10+retain90:train")
    assert asked == [("locuslab/TOFU", "forget10", "train"), ("locuslab/TOFU", "retain90", "train")]
    assert found.fact("part") == ["forget10", "retain90"]
    assert found.fact("answer") == ["in forget10", "in retain90"]
    read("muse-bench/MUSE-News@knowmem:forget_qa")
    assert asked[-1] == ("muse-bench/MUSE-News", "knowmem", "forget_qa")


def test_a_table_that_is_not_there_or_not_named(muse: Path, tofu: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train\.split: .* holds no one table of that name; it holds forget10, .*Choose: SOURCE@SPLIT"):
        read(f"{tofu}@forget5")
    with pytest.raises(InputError, match="holds several tables or none: knowmem/forget_qa, knowmem/retain_qa, privleak/forget"):
        read(str(muse))
    with pytest.raises(InputError, match="holds no one table"):
        read(f"{muse}@knowmem:train")


def test_the_only_table_of_a_folder_needs_no_name(tmp_path: Path) -> None:
    lines(tmp_path / "only.jsonl", [{"question": "where", "answer": "york"}])
    assert len(read(str(tmp_path))) == 1

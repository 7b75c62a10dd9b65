"""Code in the pages runs, and the pages speak of everything that there is."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import unlearned
import unlearned.records
from tests.docs.conftest import ROOT
from tests.docs.test_docs_examples import without_numbers
from unlearned.attacks import attacks
from unlearned.audits import audits
from unlearned.bench import suites
from unlearned.bench.resilience import CONTENDERS, pool_of
from unlearned.engine.finetuning import read_pool
from unlearned.influence import scores
from unlearned.methods import methods
from unlearned.methods.resalign import ResAlign
from unlearned.pipeline import load_problem

DOCS = ROOT / "docs"
MARKED = re.compile(r"^<!-- (run|output|file: (?P<name>\S+)) -->\n+```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A marked block of code in a page."""

    kind: str
    name: str | None
    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1].partition(":")[0], m["name"], m["language"], m["code"], text[: m.start("code")].count("\n")) for m in MARKED.finditer(text)]


def run_page(page: Path, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Write its files and run its blocks in order; what it shows as output must have been printed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        if block.kind == "file":
            (workplace / str(block.name)).write_text(block.code, encoding="utf-8")
            if block.name == "pyproject.toml":
                install(workplace)
        elif block.kind == "output":
            lines = [without_numbers(line) for line in printed.splitlines()]
            for line in block.code.splitlines():
                assert any(without_numbers(line) in other for other in lines), f"{page.name}, line {block.line}: {line!r} was not printed, but:\n{printed}"
        else:
            if block.language == "python":
                exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
            else:
                shell(block.code, f"{page.name}, line {block.line}")
            printed = capfd.readouterr().out


def shell(code: str, where: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=environment, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stderr}"


def install(workplace: Path) -> None:
    """What an installer makes of the entry points of a pyproject.toml."""
    project = tomllib.loads((workplace / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = workplace / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    groups = [f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()) for group, points in project["entry-points"].items()]
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


def forget_parts(*names: str) -> None:
    """Parts of other packages that a page registered."""
    for registry in (methods, audits):
        for name in names:
            registry._parts.pop(name, None)


def test_own_model_and_readme(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(DOCS / "own-model.md", workplace, capfd)
    # The README uses the files that the first walk-through makes.
    assert any(block.language == "python" for block in blocks(ROOT / "README.md"))
    run_page(ROOT / "README.md", workplace, capfd)


def test_python(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(DOCS / "python.md", workplace, capfd)


def test_exact(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(DOCS / "exact.md", workplace, capfd)


def test_compare(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(DOCS / "compare.md", workplace, capfd)
    assert (workplace / "side" / "compare.html").exists()


def test_extend(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        run_page(DOCS / "extend.md", workplace, capfd)
        assert "bounded-ascent" in methods
        assert methods.card("bounded-ascent").startswith("Bounded ascent")
    finally:
        forget_parts("bounded-ascent", "entropy")


def test_every_marked_block_is_of_a_page_that_is_run() -> None:
    run = {"own-model.md", "python.md", "exact.md", "compare.md", "extend.md"}
    assert {page.name for page in DOCS.glob("*.md") if any(block.kind != "output" for block in blocks(page))} == run


def test_the_example_of_a_record_is_one() -> None:
    example = re.search(r"```json\n(.*?)```", (DOCS / "audit-json.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    record = unlearned.AuditRecord.model_validate(json.loads(example[1]))
    assert record.findings


def test_public_names_are_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"^::: unlearned\.(\w+)$", text, re.MULTILINE)
    assert set(re.findall(r"^::: unlearned\.(\w+)$", text, re.MULTILINE)) == set(unlearned.__all__)


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("group", "registry"), [("methods", methods), ("audits", audits), ("attacks", attacks), ("scores", scores)])
def test_every_part_has_its_card(hooks: Any, group: str, registry: Any) -> None:
    page = hooks.on_page_markdown((DOCS / f"{group}.md").read_text(encoding="utf-8"))
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == registry.names()
    for name in registry.names():
        for setting in registry.get(name).model_fields:
            assert f"`{setting}`" in page or f"`{setting}." in page  # settings within settings are listed one by one


@pytest.mark.parametrize("page", ["recipe.md", "audit-json.md"])
def test_every_field_is_explained(hooks: Any, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    filled = hooks.on_page_markdown(text)
    assert len(filled) > len(text)
    unexplained = [line for line in filled.splitlines() if re.match(r"\| `", line) and re.search(r"\|\s*\|$", line)]
    assert not unexplained


def test_a_suite_without_results_says_so_and_one_with_results_shows_them(hooks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "RESULTS", tmp_path)
    absent = hooks.on_page_markdown("# Sine\n\n<!-- bench: sine -->\n")
    assert "There are no results of this suite yet. `unlearned bench sine --output benchmarks/results/sine.json` makes them." in absent
    assert "style" not in absent
    rows = [unlearned.records.BenchRow(method="ridge", setting="T=10", seed=s, split="all", metric="sup_error", value=v) for s, v in enumerate((2.0, 4.0))]
    environment = unlearned.records.Environment(unlearned="0.1.0", python="3", platform="x", packages={}, device="cpu", threads=1)
    record = unlearned.records.BenchRecord(suite="sine", environment=environment, settings={"seeds": 2}, rows=tuple(rows))
    (tmp_path / "sine.json").write_text(record.to_json(), encoding="utf-8")
    page = hooks.on_page_markdown("# Sine\n\n<!-- bench: sine -->\n")
    assert "| method | T=10 |\n| --- | --- |\n| ridge | 3 \\[2, 4\\] / 2.27 |" in page
    assert page.count('<use href="#mark-paper"') == 1
    assert page.count("<defs>") == 1
    assert "with: seeds 2." in page


def test_every_suite_is_on_the_page_of_benchmarks(hooks: Any) -> None:
    page = hooks.on_page_markdown((DOCS / "benchmarks.md").read_text(encoding="utf-8"))
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == suites.names()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_recipes_are_valid(path: Path) -> None:
    recipe = unlearned.read_recipe(path)
    assert recipe.method is not None
    assert len(load_problem(recipe).forget)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "full-size").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_at_full_size_parse_and_say_that_they_were_not_run(path: Path) -> None:
    assert unlearned.read_recipe(path).method is not None
    assert "NOT RUN BY THIS PROJECT" in path.read_text(encoding="utf-8")


def test_the_recipe_to_own_parses() -> None:
    text = files("unlearned.cli").joinpath("recipe.yaml").read_text(encoding="utf-8")
    assert unlearned.parse_recipe(yaml.safe_load(text)).method is not None


def test_recipes_in_pages_parse() -> None:
    text = (DOCS / "recipe.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    whole, *others = map(yaml.safe_load, shown)
    unlearned.parse_recipe(whole)
    for recipe in others:
        unlearned.parse_recipe({**whole, **recipe})  # a page may show only what it speaks of


def test_settings_for_small_diffusion_models_are_those_of_the_suite() -> None:
    [shown] = re.findall(r"```yaml\n(method:\n  name: resalign\n.*?)```", (DOCS / "image-generation.md").read_text(encoding="utf-8"), re.DOTALL)
    name, settings = CONTENDERS["resalign"]
    given = yaml.safe_load(shown)["method"]
    assert given.pop("name") == name
    assert ResAlign(**given) == ResAlign(**settings, pool="small-models")
    assert read_pool("small-models") == pool_of("resalign")


def built_by_make(sources: list[Path], site: Path) -> bool:
    """Whether `make docs` ended well after the last change of what the site is made of."""
    stamp = site / ".built"
    return stamp.exists() and all(path.stat().st_mtime < stamp.stat().st_mtime for path in sources)


def test_a_site_counts_as_built_until_a_source_changes(tmp_path: Path) -> None:
    page, stamp = tmp_path / "index.md", tmp_path / ".built"
    page.touch()
    assert not built_by_make([page], tmp_path)
    stamp.touch()
    for age, built in ((-1, True), (1, False)):
        os.utime(page, (stamp.stat().st_mtime + age,) * 2)
        assert built_by_make([page], tmp_path) is built


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    sources = [ROOT / "mkdocs.yml", *(path for place in ("docs", "src", "benchmarks/results") for path in (ROOT / place).rglob("*") if path.is_file())]
    site = ROOT / "site"
    if not built_by_make([path for path in sources if path.suffix != ".pyc"], site):  # half a minute, which a whole check has spent already
        site = tmp_path / "site"
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
        assert done.returncode == 0, done.stderr
    pages = list(site.glob("*.html"))
    assert len(pages) > 12
    assert not (site / "hooks.py").exists()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:[^\"]+)|<link[^>]*rel=\"(?:stylesheet|preconnect)\"[^>]*href=\"(https?:[^\"]+)", text)
        assert not loaded, f"{page.name} loads {loaded} from another server"

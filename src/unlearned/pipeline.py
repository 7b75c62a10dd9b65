"""The whole way on one model: references, shadow models, unlearning, audits, attacks, report, in one run directory."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from unlearned.api import Forgotten, conclude, forget, make_problem, make_subject, model_faults
from unlearned.attacks._attack import Attack
from unlearned.audits._audit import Audit
from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.data.fingerprints import of_json
from unlearned.data.samples import Samples, union
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.files import atomic_directory, write_text
from unlearned.engine.loop import only
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Trained
from unlearned.errors import Fault, InputError, collecting, raise_faults, writing
from unlearned.evidence.subject import Subject
from unlearned.influence._prune import thinned
from unlearned.influence._rank import Ranking, grounds_of
from unlearned.influence._stage import Pruned, prune
from unlearned.methods._bank import shadow_models
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.recipe import Recipe
from unlearned.records import PRUNING, AuditRecord, Cost, Finding, Picture, Pruning, Record
from unlearned.repairing import engine_of, findings_of, looked_at, next_round
from unlearned.report import model_card, write_report
from unlearned.run_directory import RunDirectory

Say = Callable[[str], None]
_NOTHING = Cost(wall_seconds=0, cpu_seconds=0, peak_memory_bytes=0, samples_seen=0, steps=0)


def default_cache() -> Path:
    """Where reference models are kept between runs: `$UNLEARNED_CACHE`, else the user's cache directory."""
    given = os.environ.get("UNLEARNED_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else (Path(base) if base else Path.home() / ".cache") / "unlearned"


def load_problem(recipe: Recipe) -> Problem:
    """Load model and data of a recipe and check them.

    Raises:
        InputError: with everything that is wrong.
    """
    file = recipe.file
    chosen: Any = Path(file.forget.file) if file.forget.file is not None else file.forget.where or file.forget.ids or ()
    return make_problem(file.model, train=file.data.train, test=file.data.test, validation=file.data.validation, forget=chosen, task=recipe.task)


class Prepared(NamedTuple):
    """Everything that a recipe names, loaded and checked. Nothing has been written."""

    problem: Problem
    engine: Engine
    references: list[Kept]
    """Those that were retrained elsewhere."""


def prepare(recipe: Recipe, out: Path | None = None, *, show_progress: bool = False) -> Prepared:
    """Load and check everything that a recipe names: what can be wrong is found before hours of work, not after them.

    Args:
        recipe: what to do.
        out: the run directory, if the recipe is to be carried out.
        show_progress: draw progress bars.

    Raises:
        InputError: with everything that is wrong.
    """
    file, task = recipe.file, recipe.task
    faults: list[Fault] = []
    problem = engine = None
    with collecting(faults):
        problem = load_problem(recipe)
    with collecting(faults):
        engine = Engine(task if problem is None else problem.task, file.compute, file.seed, None if out is None else out / "work", show_progress)
    references = []
    for i, source in enumerate(file.references.models):
        field = f"references.models.{i}"
        with collecting(faults):
            bundle = task.load(source, field)
            references.append(Kept(bundle, None, None))
            if problem is not None:
                faults += model_faults(problem, bundle, field)
    if file.training is not None and file.training.start is not None:
        with collecting(faults):
            start = task.load(file.training.start, "training.start")
            faults += [] if problem is None else model_faults(problem, start, "training.start")
    if problem is not None:
        for field, how in (("method", recipe.method), ("training", file.training)):
            own: list[Fault] = []
            with collecting(own):
                only(problem.original.model, getattr(how, "parameters", ".*"))
            faults += [fault._replace(field=f"{field}.parameters") for fault in own]
        if recipe.method is not None and engine is not None:
            faults += recipe.method.faults(problem, engine)
        if recipe.score is not None and engine is not None:
            grounds, _ = grounds_of(problem, engine, file.training)
            found = recipe.score.faults(grounds)
            faults += [fault if fault.field == "training" else fault._replace(field=f"prune.score.{fault.field}") for fault in found]
        named: list[tuple[str, Audit | Attack]] = [(f"audits.{i}", audit) for i, audit in enumerate(recipe.audits)]
        named += [(f"attacks.{i}", attack) for i, attack in enumerate(recipe.attacks)]
        faults += [fault._replace(field=f"{field}.{fault.field}") for field, part in named for fault in part.faults(problem)]
        faults += recipe.selection.faults(problem, recipe.method) if recipe.selection else []
    raise_faults(faults)
    assert problem is not None
    assert engine is not None
    return Prepared(problem, engine, references)


def run(recipe: Recipe, out: Path, *, show_progress: bool = False, say: Say = lambda _: None) -> AuditRecord:
    """Carry out a recipe in the directory `out`; finished stages of an earlier, interrupted run are kept.

    Writes `unlearned/` (the model with its card), `stages/`, `audit.json` and `report.html`.

    Args:
        recipe: what to do; with a method.
        out: the run directory.
        show_progress: draw progress bars.
        say: is told what happens, in short sentences.

    Raises:
        InputError: if something in the recipe or with the directory is wrong.
        DivergedError: if the method or a reference diverges.
    """
    if recipe.method is None:
        raise InputError(Fault("method", "the recipe names no method.", "Add `method:`; see: unlearned methods"))
    method = recipe.method
    problem, engine, given = prepare(recipe, out, show_progress=show_progress)
    if engine.accelerator.num_processes > 1:
        what = f"a run directory is written by one process; this run was started with {engine.accelerator.num_processes}."
        raise InputError(Fault("compute", what, "Start it without `accelerate launch`."))
    for bank, wanted in (
        ("gate", _passes_gate(recipe) and not recipe.file.forget.deletion_request),
        ("references", _trains_references(recipe)),
        ("shadows", recipe.file.shadows.count > 0),
    ):
        if wanted:
            cache = default_cache() / bank if bank == "gate" else _cache(recipe, bank)
            with writing(f"{bank}.cache", cache):
                cache.mkdir(parents=True, exist_ok=True)
    with RunDirectory(out) as directory:
        _need_space(problem, out)
        directory.claim(of_json([recipe.identity(), problem.fingerprint]))
        references = given or train_references(recipe, problem, engine, say)
        pruned = _pruned(recipe, problem, engine, directory, say)
        treated = problem if pruned is None else thinned(problem, pruned.dropped)
        shadows = [] if treated is None else make_shadows(recipe, treated, engine, say, union(problem.forget, problem.retain))

        def unlearn() -> dict[str, Any]:
            if treated is None:
                say("every point of the forget set was skipped: the model stays as it was")
                done = Forgotten(problem.original, _NOTHING)
            else:
                say(f"unlearning with {method.name}")
                keep = recipe.selection.keep(problem, engine, say) if recipe.selection else None
                done = forget(treated, method, engine.keeping(keep))
            with atomic_directory(out / "unlearned") as fresh:
                problem.task.save(done.bundle, fresh)
                if pruned is not None:  # so that whoever audits the model later is told, too
                    write_text(fresh / PRUNING, pruned.pruning.model_dump_json(indent=2) + "\n")
            return {"cost": done.cost.model_dump(), "exhibits": [exhibit.model_dump(mode="json") for exhibit in done.exhibits]}

        made = directory.stage("unlearn", unlearn)
        # Read back even when it was made just now: an interrupted run and an undisturbed one then measure the same model.
        unlearned = problem.task.restore(out / "unlearned", problem.original)
        subject = make_subject(problem, unlearned, references, shadows=shadows, cost=Cost.model_validate(made["cost"]), engine=engine)
        if pruned is not None:
            subject = replace(subject, skipped=tuple(pruned.dropped.get("forget", ())), pruning=pruned.pruning, other_costs=pruned.costs)
        parts: list[Audit | Attack] = [*recipe.audits, *recipe.attacks]
        measured = [_measure(directory, part, subject, say) for part in parts]
        findings = [finding for found, _ in measured for finding in found]
        exhibits = [*made["exhibits"], *(exhibit for _, shown in measured for exhibit in shown)]
        if recipe.file.repair is not None:
            more, shown = _repair(recipe, method, subject, directory, say)
            findings, exhibits = findings + more, exhibits + shown
        record = conclude(subject, findings, recipe.file.verdict, recipe.effective(), exhibits)
        write_record(record, out)
        write_text(out / "unlearned" / "README.md", model_card(record))
        directory.clear_work()
    return record


def train_references(recipe: Recipe, problem: Problem, engine: Engine, say: Say) -> list[Kept]:
    """The references that a recipe asks for, from the cache where they are there.

    Raises:
        InputError: if the cache cannot be written.
        DivergedError: if one diverges.
    """
    spec = recipe.file.references
    if not _trains_references(recipe) or recipe.file.training is None:
        return []
    say(f"{spec.count} reference models, retrained without the forget set")
    # Seeds of references are their own: the original, trained with the same number, must not share its first weights with one of them.
    seeds = [recipe.file.seed * 10_000 + 1 + i for i in range(spec.count)]
    makings = [Trained(problem.original, seed, problem.retain, recipe.file.training) for seed in seeds]
    return Bank(engine, _cache(recipe, "references")).get(makings, "reference models")


def scores_table(problem: Problem, ranking: Ranking) -> str:
    """Scores of all training points as CSV: id, set, score; in the order of the sets. What the score `file` reads."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("id", "split", "score"))
    for split in ("forget", "retain"):
        writer.writerows(zip(problem.sets[split].ids, itertools.repeat(split), map(repr, ranking.part(split).tolist())))
    return buffer.getvalue()


def _pruned(recipe: Recipe, problem: Problem, engine: Engine, directory: RunDirectory, say: Say) -> Pruned | None:
    """Which points the method does not see; the stage holds their positions in the sets, never their ids."""
    how, score = recipe.file.prune, recipe.score
    if how is None or score is None:
        return None

    deletion = recipe.file.forget.deletion_request
    # Models of the gate were trained on everything: those of a request for deletion do not outlive it.
    models = directory.path / "work" / "gate" if deletion else default_cache() / "gate"

    def make() -> dict[str, Any]:
        say(f"scoring the training points by {score.name}" + (f"; then the gate: {4 * how.gate} models" if how.gate else ""))
        found = prune(problem, score, how, engine, recipe.file.training, Bank(engine, models, "cache"), deletion_request=deletion)
        costs = {name: cost.model_dump() for name, cost in found.costs.items()}
        return {"dropped": found.dropped, "pruning": found.pruning.model_dump(mode="json"), "costs": costs}

    try:
        kept = directory.stage("prune", make)
    except InputError:
        directory.disown()
        raise
    if deletion:
        shutil.rmtree(models, ignore_errors=True)
    pruning = Pruning.model_validate(kept["pruning"])
    say(pruning.statement)
    return Pruned(kept["dropped"], pruning, {name: Cost.model_validate(cost) for name, cost in kept["costs"].items()})


def make_shadows(recipe: Recipe, problem: Problem, engine: Engine, say: Say, everything: Samples | None = None) -> list[Kept]:
    """The shadow models that a recipe asks for, from the cache where they are there; their originals are trained on `everything`, if that is more.

    Raises:
        InputError: if the cache cannot be written.
        DivergedError: if one diverges.
    """
    spec, training = recipe.file.shadows, recipe.file.training
    if not spec.count or training is None or recipe.method is None:
        return []
    say(f"{spec.count} shadow models: originals of other seeds, unlearned with {recipe.method.name}")
    # Seeds of their own: one that shared its first weights with a reference would look more like it than it is.
    seeds = [derive_seed(recipe.file.seed, "shadow", i) for i in range(spec.count)]
    return shadow_models(Bank(engine, _cache(recipe, "shadows"), "shadows.cache"), problem, recipe.method, training, seeds, everything)


def _passes_gate(recipe: Recipe) -> bool:
    return recipe.file.prune is not None and recipe.file.prune.gate > 0


def _trains_references(recipe: Recipe) -> bool:
    spec = recipe.file.references
    return spec.count > 0 and not spec.models


def _cache(recipe: Recipe, bank: str) -> Path:
    given = getattr(recipe.file, bank).cache
    return Path(given).expanduser() if given else default_cache() / bank


def write_record(record: AuditRecord, out: Path) -> None:
    """Write `audit.json` and `report.html`.

    Raises:
        InputError: if the directory cannot be written.
    """
    write_text(out / "audit.json", record.to_json())
    write_report(record, out)


def _measure(directory: RunDirectory, part: Audit | Attack, subject: Subject, say: Say) -> tuple[list[Finding], list[Any]]:
    """Findings of one part, and its exhibits as JSON: which kind one is stands in it."""
    kind = "attack" if isinstance(part, Attack) else "audit"
    before = len(subject.pictures)

    def make() -> dict[str, list[dict[str, Any]]]:
        say(f"{kind} {part.entry}")
        findings = part.labelled(subject)
        made: dict[str, Sequence[Record]] = {"findings": findings, "pictures": subject.pictures[before:], "exhibits": part.exhibits(subject)}
        return {name: [one.model_dump(mode="json") for one in several] for name, several in made.items()}

    found = directory.stage(f"{kind}-{part.name}-{of_json(part.model_dump())[:8]}", make)
    subject.pictures[before:] = [Picture.model_validate(entry) for entry in found["pictures"]]
    return [Finding.model_validate(entry) for entry in found["findings"]], found["exhibits"]


def _repair(recipe: Recipe, method: Method, subject: Subject, directory: RunDirectory, say: Say) -> tuple[list[Finding], list[Any]]:
    """Findings and exhibits of each round of a repair; models lie in `repaired/`. Round 0 is the model as it was unlearned."""
    spec, audit = recipe.file.repair, next(audit for audit in recipe.audits if isinstance(audit, KnowledgeHoles))
    assert spec is not None
    key = of_json([spec.model_dump(exclude={"rounds"}), audit.model_dump()])[:8]
    task, original = subject.problem.task, subject.problem.original

    def begin(first: Subject = subject) -> dict[str, Any]:
        found = findings_of(audit, first, audit.probe(first), 0, frozenset())
        return {"findings": [f.model_dump(mode="json") for f in found], "holes": None}

    stages = [directory.stage(f"repair-{key}-0", begin)]
    for number in range(1, spec.rounds + 1):
        place = directory.path / "repaired" / f"{spec.how}-{key}-{number}"

        def make(number: int = number, place: Path = place, before: Subject = subject) -> dict[str, Any]:
            say(f"repair: {spec.how}, round {number} of {spec.rounds}")
            bundle = next_round(before, method, audit, spec, number)
            with atomic_directory(place) as fresh:
                task.save(bundle, fresh)
            _, found = looked_at(before, task.restore(place, original), audit, spec, number)
            return {"findings": [f.model_dump(mode="json") for f in found.findings], "holes": found.holes.model_dump(mode="json")}

        stages.append(directory.stage(f"repair-{key}-{number}", make))
        subject = Subject(subject.problem, task.restore(place, original), subject.references, engine_of(subject.engine, number))
    return [Finding.model_validate(entry) for stage in stages for entry in stage["findings"]], [stage["holes"] for stage in stages[1:]]


def _need_space(problem: Problem, out: Path) -> None:
    """Refuse before hours of work what could not be saved after them: the model, and its training state three times as large."""
    size = sum(tensor.nbytes for tensor in problem.original.model.state_dict().values())
    need, free = 5 * size + 20 * 2**20, shutil.disk_usage(out).free
    if free < need:
        raise InputError(
            Fault(
                "out",
                f"the disk of {str(out)!r} has {free / 2**20:.0f} MiB free, {need / 2**20:.0f} MiB are needed.",
                "Free some space or choose a directory on another disk.",
            )
        )

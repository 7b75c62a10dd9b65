"""The recipe: the YAML file that says it all. Everything wrong with it is reported at once, with the path of the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from unlearned.attacks import attacks as attack_registry
from unlearned.attacks._attack import Attack
from unlearned.audits import audits as audit_registry
from unlearned.audits._audit import Audit
from unlearned.data.filters import column_names
from unlearned.data.fingerprints import of_json
from unlearned.engine.settings import Compute, Settings
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError, raise_faults
from unlearned.evidence.verdict import Limits
from unlearned.influence import scores as score_registry
from unlearned.influence._prune import Prune, no_bound, nothing_left
from unlearned.influence._score import Score
from unlearned.methods import methods as method_registry
from unlearned.methods._method import Method
from unlearned.parts import make_part, named_part
from unlearned.problem import Problem
from unlearned.registry import Registry
from unlearned.repairing import RepairSpec
from unlearned.repairing import faults as repair_faults
from unlearned.selection import Selection, SelectionSpec
from unlearned.tasks import tasks as task_registry
from unlearned.tasks._task import DataSource, ModelSource, Task, model_source
from unlearned.validation import fault_of


class DataSpec(Settings):
    """The sets."""

    train: DataSource = Field(description="What the original model was trained on, forget set included.")
    test: DataSource = Field(description="Held-out samples; only reported.")
    validation: DataSource | None = Field(None, description="Held-out samples for choosing hyper-parameters.")


class ForgetSpec(Settings):
    """Which training samples to forget; exactly one of `where`, `ids`, `file`."""

    where: str | None = Field(None, description="A filter over columns: label == 3.")
    ids: tuple[str | int, ...] | None = Field(None, description="Ids of samples.")
    file: str | None = Field(None, description="A text file with one id per line.")
    deletion_request: bool = Field(False, description="Somebody has asked for these samples to be deleted: none of them may be skipped.")
    description: str | None = Field(None, description="In your words, for the report. The report shows neither ids nor the values of a filter.")

    @model_validator(mode="after")
    def _one_way(self) -> ForgetSpec:
        if sum(way is not None for way in (self.where, self.ids, self.file)) != 1:
            raise ValueError("of where, ids and file not exactly one is given; give one")
        return self


class ReferencesSpec(Settings):
    """The reference bank."""

    count: int = Field(3, ge=0, le=10_000, description="How many models to retrain without the forget set; 0: none.")
    models: tuple[ModelSource, ...] = Field((), description="Models that were retrained elsewhere; then none is trained here.")
    cache: str | None = Field(None, description="Directory that keeps retrained models for the next run; by default in the user's cache.")


class ShadowsSpec(Settings):
    """The bank of further unlearned models, for audits that compare distributions of models.

    Each begins as an original of another seed, trained like the original on forget and retain set, from which the recipe's method then unlearns.
    """

    count: int = Field(0, ge=0, le=10_000, description="How many models to train and unlearn; 0: none.")
    cache: str | None = Field(None, description="Directory that keeps these models for the next run; by default in the user's cache.")


class RecipeFile(Settings):
    """The YAML file as it is written. Methods, audits and attacks are named, with their settings beside the name."""

    task: dict[str, Any] = Field({"name": "image-classification"}, description="The modality's name, and settings of how it is measured.")
    model: ModelSource = Field(description="The original model.")
    data: DataSpec
    forget: ForgetSpec
    method: dict[str, Any] | None = Field(None, description="The method's name and settings.")
    prune: Prune | None = Field(None, description="Leave points of low influence out of the unlearning.")
    selection: SelectionSpec | None = Field(None, description="Keep the best state of the unlearning, judged on validation data; None: the last.")
    training: Training | None = Field(None, description="How the original was trained; references are trained alike.")
    references: ReferencesSpec = ReferencesSpec()
    shadows: ShadowsSpec = ShadowsSpec()
    audits: tuple[dict[str, Any], ...] = tuple({"name": name} for name in ("utility", "membership", "svc-mia", "output-distance", "cost"))
    attacks: tuple[dict[str, Any], ...] = ({"name": "relearn"},)
    repair: RepairSpec | None = Field(None, description="Retain what broke by accident, and make the model again; None: no.")
    verdict: Limits = Limits()
    compute: Compute = Compute()
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, data: Any) -> Any:
        """`model: PATH`, `method: NAME`, `audits: [NAME]` and the like are short for the long forms."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        if isinstance(data.get("model"), str):
            data["model"] = model_source(data["model"])
        if isinstance(data.get("data"), Mapping):
            data["data"] = {key: data_source(value) if isinstance(value, str) else value for key, value in data["data"].items()}
        for key in ("task", "method"):
            if isinstance(data.get(key), str):
                data[key] = {"name": data[key]}
        prune = data.get("prune")
        if isinstance(prune, Mapping) and isinstance(prune.get("score"), str):
            data["prune"] = {**prune, "score": {"name": prune["score"]}}
        for key in ("audits", "attacks"):
            if isinstance(data.get(key), Sequence) and not isinstance(data[key], str):
                data[key] = [{"name": entry} if isinstance(entry, str) else entry for entry in data[key]]
        references = data.get("references")
        if isinstance(references, Mapping) and isinstance(references.get("models"), Sequence) and not isinstance(references["models"], str):
            data["references"] = {**references, "models": [model_source(m) if isinstance(m, str) else m for m in references["models"]]}
        return data


class Recipe(NamedTuple):
    """A recipe whose names are resolved and whose settings are valid."""

    file: RecipeFile
    task: Task
    method: Method | None
    audits: tuple[Audit, ...]
    attacks: tuple[Attack, ...]
    score: Score | None = None
    """Of `prune`."""
    selection: Selection | None = None

    def effective(self) -> dict[str, Any]:
        """All settings, defaults included, fit for a report: what names samples of the forget set is left out, infinity is text."""
        shown = self.file.model_dump(mode="json")
        shown["task"] = {"name": self.task.name, **self.task.model_dump()}
        shown["method"] = None if self.method is None else {"name": self.method.name, **self.method.model_dump(mode="python")}
        if self.score is not None:
            shown["prune"]["score"] = {"name": self.score.name, **self.score.model_dump()}
        shown["audits"] = [{"name": audit.name, **audit.model_dump()} for audit in self.audits]
        shown["attacks"] = [{"name": attack.name, **attack.model_dump()} for attack in self.attacks]
        if self.selection is not None:
            shown["selection"]["by"] = {"name": self.selection.judge.name, **self.selection.judge.model_dump()}
        shown["forget"] = _redacted(self.file.forget)
        plain = _plain(shown)
        assert isinstance(plain, dict)
        return plain

    def identity(self) -> str:
        """Hash of everything that decides the result: another one is another run."""
        decisive = self.effective() | {"forget": self.file.forget.model_dump(mode="json", exclude={"description"})}
        if self.score is not None and self.score.content:
            decisive["prune"]["content"] = self.score.content
        for bank in ("references", "shadows"):
            decisive[bank].pop("cache")  # where models are kept changes none of them
        # A repair begins where the run has ended, so that a finished run can be repaired.
        return of_json({key: value for key, value in decisive.items() if key not in {"compute", "repair"}})


def data_source(text: str) -> dict[str, str]:
    """`SOURCE`, or `SOURCE@SPLIT` for a data set of several splits, `SOURCE@CONFIG:SPLIT` where it has several configurations, too."""
    source, at, named = text.rpartition("@")
    if not at or Path(text).exists():
        return {"source": text}
    config, colon, split = named.rpartition(":")
    return {"source": source, "split": split} | ({"config": config} if colon else {})


def read_recipe(path: Path, forget: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe file.

    Args:
        path: the YAML file.
        forget: what is to be forgotten in the place of what the file says. Whether its deletion was asked for is still what the file says.

    Raises:
        InputError: with everything that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(Fault("recipe", f"there is no file {str(path)!r}.", "Write one with: unlearned init > recipe.yaml")) from error
    except IsADirectoryError as error:
        raise InputError(Fault("recipe", f"{str(path)!r} is a directory.", "Give the YAML file.")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault("recipe", f"{str(path)!r} cannot be read as text.", "Give a YAML file in UTF-8 that you may read.")) from error
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the latter two for dates like 2024-13-01 and thousands of brackets
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(Fault("recipe", f"{str(path)!r} is not valid YAML{where}.", "Mend it; indentation and quotes are the usual causes.")) from error
    if not isinstance(data, Mapping):
        raise InputError(Fault("recipe", f"{str(path)!r} holds no fields.", "Write one with: unlearned init > recipe.yaml"))
    if forget is not None:
        said = data.get("forget")
        data = {**data, "forget": {**forget, "deletion_request": said.get("deletion_request", False) if isinstance(said, Mapping) else False}}
    return parse_recipe(data)


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    """Check a recipe that is already in memory.

    Raises:
        InputError: with everything that is wrong with it.
    """
    faults: list[Fault] = []
    file = None
    try:
        file = RecipeFile.model_validate(data)
    except ValidationError as error:
        faults += [fault_of(detail, RecipeFile) for detail in error.errors()]
    task = named_part(task_registry, data.get("task", "image-classification"), "task", None, faults)
    named = data.get("task")
    task_name = task.name if task else str(named.get("name") if isinstance(named, Mapping) else named)
    training = file.training if file else None
    method = named_part(method_registry, data.get("method"), "method", task_name, faults, training)
    parts: dict[str, list[Any]] = {"audits": [], "attacks": []}
    registries: dict[str, Registry[Any]] = {"audits": audit_registry, "attacks": attack_registry}
    for key, registry in registries.items():
        given = data.get(key, RecipeFile.model_fields[key].default)
        if isinstance(given, Sequence) and not isinstance(given, str):
            parts[key] = [named_part(registry, entry, f"{key}.{i}", task_name, faults, skip_foreign=key not in data) for i, entry in enumerate(given)]
    for key, several in parts.items():
        entries = [None if part is None else part.entry for part in several]
        twice = [i for i, entry in enumerate(entries) if entry is not None and entry in entries[:i]]
        remedy = "Give it a label of its own beside the name; else findings do not tell two settings apart."
        faults += [Fault(f"{key}.{i}.name", f"{entries[i]!r} is named twice.", remedy) for i in twice]
    score = None
    if file and file.prune:
        score = named_part(score_registry, file.prune.score, "prune.score", task_name, faults)
        faults += _prune_faults(file, score)
        if file.prune.of != "retain" and SKIPPED not in [part.name for part in parts["audits"] if part]:
            parts["audits"].append(audit_registry.get(SKIPPED)())
    if file and file.references.count and not file.references.models and file.training is None:
        faults.append(
            Fault(
                "training",
                "it is not said how the original model was trained, so no reference can be trained alike.",
                "Add `training:` (epochs, lr, ...), or set references.count: 0.",
            )
        )
    if file and file.shadows.count and file.training is None:
        what = "it is not said how the original model was trained, so no shadow model can begin alike."
        faults.append(Fault("training", what, "Add `training:` (epochs, lr, ...), or set shadows.count: 0."))
    faults += repair_faults(file.repair, parts["audits"], method, task_name, _beside_method(file)) if file and (method or not data.get("method")) else []
    selection = _selection(file.selection, task_name, faults) if file and file.selection else None
    if file and selection and file.shadows.count:
        what = "shadow models are made by the method alone, without a selection, and would not be like the model that they are compared with."
        faults.append(Fault("selection", what, "Leave it out, or set shadows.count: 0."))
    raise_faults(faults)
    assert file is not None
    assert task is not None
    return Recipe(file, task, method, tuple(p for p in parts["audits"] if p), tuple(p for p in parts["attacks"] if p), score, selection)


def with_repair(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with a repair: its own, if it has one, with these settings in the place of its.

    Raises:
        InputError: if a setting is wrong, or the recipe cannot be repaired.
    """
    given = {} if recipe.file.repair is None else recipe.file.repair.model_dump()
    try:
        spec = RepairSpec.model_validate({**given, **settings})
    except ValidationError as error:
        raise InputError(*(fault_of(detail, RepairSpec, "repair") for detail in error.errors())) from error
    raise_faults(repair_faults(spec, recipe.audits, recipe.method, recipe.task.name, _beside_method(recipe.file)))
    return recipe._replace(file=recipe.file.model_copy(update={"repair": spec}))


def score_of(recipe: Recipe, name: str | None, settings: Mapping[str, Any]) -> Score:
    """The score of that name; without one, that of the recipe's `prune`, else gradient-norm.

    Raises:
        InputError: with everything that is wrong with name and settings.
    """
    if name is None and recipe.score is not None:
        return make_part(score_registry, recipe.score.name, {**recipe.score.model_dump(), **settings}, "score", recipe.task.name)
    return make_part(score_registry, name or "gradient-norm", settings, "score", recipe.task.name)


SKIPPED = "skipped-points"
"""The audit that is made wherever points of the forget set are left out."""


def _prune_faults(file: RecipeFile, score: Score | None) -> list[Fault]:
    prune = file.prune
    assert prune is not None
    faults = [nothing_left()] if prune.fraction == 1 and prune.of != "forget" else []
    if prune.tolerance is not None and score is not None and not score.bounds:
        faults.append(no_bound(score))
    if prune.gate and file.training is None:
        what = "it is not said how the original model was trained, so the gate cannot train without the dropped points."
        faults.append(Fault("training", what, "Add `training:` (epochs, lr, ...), or set prune.gate: 0."))
    if file.forget.deletion_request and prune.of != "retain" and not prune.skip_requested:
        what = "the forget set is a request for deletion, and points that are skipped are not deleted."
        faults.append(Fault("prune.of", what, "Set `of: retain`; or, to skip them knowing that the request stays open, skip_requested: true."))
    return faults


def _beside_method(file: RecipeFile) -> list[str]:
    """Fields that make the unlearning more than the method alone."""
    return [field for field in ("prune", "selection") if getattr(file, field) is not None]


def _selection(spec: SelectionSpec, task: str, faults: list[Fault]) -> Selection | None:
    """The specification with its judge, an attack or an audit; faults are added, and None is returned when there are any."""
    is_audit = spec.by.get("name") in audit_registry.names()
    registry: Registry[Any] = audit_registry if is_audit else attack_registry
    judge = named_part(registry, spec.by, "selection.by", task, faults)
    return None if judge is None else Selection(spec, judge)


def make_selection(spec: SelectionSpec, problem: Problem, method: Method) -> Selection:
    """The specification with its judge.

    Raises:
        InputError: with everything that is wrong with it for this problem and method.
    """
    faults: list[Fault] = []
    selection = _selection(spec, problem.task.name, faults)
    raise_faults(faults + (selection.faults(problem, method) if selection else []))
    assert selection is not None
    return selection


def _redacted(forget: ForgetSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": forget.description, "deletion_request": forget.deletion_request}
    if forget.where is not None:
        return shown | {"by": "filter", "columns": column_names(forget.where)}
    if forget.ids is not None:
        return shown | {"by": "ids", "count": len(forget.ids)}
    return shown | {"by": "file"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

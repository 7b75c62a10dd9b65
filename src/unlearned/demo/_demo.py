"""The seam of demos, and the one way that all of them go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from unlearned.data.fingerprints import of_json
from unlearned.demo import demos
from unlearned.engine.engine import Engine
from unlearned.engine.files import atomic_directory
from unlearned.engine.settings import Compute
from unlearned.engine.training import train
from unlearned.pipeline import Say, default_cache, run
from unlearned.recipe import parse_recipe
from unlearned.records import AuditRecord
from unlearned.tasks._task import Bundle, ModelSource


class Demo(ABC):
    """Data, a model and a recipe. The original is trained on the data once and kept."""

    name: ClassVar[str]
    """That of its task."""
    original: ClassVar[str]
    """What is trained, in a few words."""

    @abstractmethod
    def blank(self) -> Bundle:
        """The model before its training, with what goes with it; its weights are not used."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Everything but the model, the seed and how to compute; with `training`."""

    def source(self, directory: Path) -> ModelSource:
        """Where the trained model is, once the task has saved it into `directory`."""
        return ModelSource(source=str(directory))


def run_demo(name: str, out: Path, *, seed: int = 0, compute: Compute | None = None, show_progress: bool = False, say: Say = lambda _: None) -> AuditRecord:
    """Train the original (kept in the cache), unlearn, audit, attack and report.

    Args:
        name: of the demo.
        out: the run directory.
        seed: of everything random.
        compute: where and how to compute.
        show_progress: draw progress bars.
        say: is told what happens.

    Raises:
        InputError: if there is no such demo, or a directory cannot be written.
    """
    demo = demos.get(name, "demo")()
    given = demo.recipe() | {"seed": seed, "compute": (compute or Compute(threads=2)).model_dump()}
    model = original_of(demo, given, show_progress=show_progress, say=say)
    return run(parse_recipe(given | {"model": model.model_dump()}), out, show_progress=show_progress, say=say)


def original_of(demo: Demo, given: dict[str, Any], *, show_progress: bool, say: Say) -> ModelSource:
    """The trained model: from the cache, where it lies under the hash of all that decides it."""
    blank = demo.blank()
    recipe = parse_recipe(given | {"model": {"source": demo.name}})
    how, seed, task = recipe.file.training, recipe.file.seed, recipe.task.bound(blank)
    assert how is not None
    samples = task.read(recipe.file.data.train, blank, "data.train")
    directory = default_cache() / "demo" / of_json([task.architecture(blank), samples.fingerprint, how.model_dump(), seed])[:32]
    if not directory.exists():
        say(f"training the original model: {demo.original}")
        trained = train(Engine(task, recipe.file.compute, seed, None, show_progress), blank, samples, how, seed, title="original")
        with atomic_directory(directory) as fresh:
            task.save(trained, fresh)
    return demo.source(directory)

"""Options that name models and data, for verbs that work without a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearned.cli._shell import as_options
from unlearned.errors import Fault, InputError, collecting, raise_faults

if TYPE_CHECKING:
    from unlearned.evidence.subject import Subject
    from unlearned.records import Pruning
    from unlearned.tasks._task import Bundle, ModelSource

_MODEL = "A directory or hub id for from_pretrained, module:function, or module:function@WEIGHTS."
_DATA = "A folder of images, a .npz, .parquet, .json(l) or .csv file, a saved or hub data set (SOURCE@SPLIT, SOURCE@CONFIG:SPLIT), or module:function."

Before = Annotated[str, typer.Option("--before", help=f"The original model. {_MODEL}", show_default=False)]
After = Annotated[str, typer.Option("--after", help=f"The unlearned model. {_MODEL}", show_default=False)]
References = Annotated[list[str] | None, typer.Option("--reference", help="A model retrained without the forget set; may be given several times.")]
_SHADOW = "A further model that was unlearned as --after was, from an original of another seed; may be given several times."
Shadows = Annotated[list[str] | None, typer.Option("--shadow", help=_SHADOW)]
Train = Annotated[str, typer.Option("--train", help=f"What the original was trained on, forget set included. {_DATA}", show_default=False)]
Test = Annotated[str, typer.Option("--test", help=f"Held-out data. {_DATA}", show_default=False)]
Forget = Annotated[str | None, typer.Option("--forget", help="Filter for the samples to forget: label == 3")]
ForgetFile = Annotated[Path | None, typer.Option("--forget-file", help="Their ids, one per line.")]
TaskName = Annotated[str, typer.Option("--task", help="Modality.")]
_OPTIONS = {
    "model": "--before",
    "after": "--after",
    "reference": "--reference",
    "shadow": "--shadow",
    "data.train": "--train",
    "data.test": "--test",
    "forget": "--forget",
    "forget.file": "--forget-file",
    "compute.device": "--device",
    "compute.threads": "--threads",
}
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Read weights in pickle format (tensors only).")]


def make(
    before: str,
    after: str,
    references: Sequence[str],
    shadows: Sequence[str],
    train: str,
    test: str,
    forget: str | None,
    forget_file: Path | None,
    task: str,
    *,
    allow_pickle: bool,
    device: str,
    threads: int | None,
    seed: int,
    progress: bool,
    faults: Sequence[Fault] = (),
) -> Subject:
    """Load and check everything; what is wrong is said at once, under the names of the options, together with the faults that were found before.

    Raises:
        InputError: with everything that is wrong.
    """
    from pydantic import ValidationError

    from unlearned.api import make_problem, make_subject
    from unlearned.engine.engine import Engine
    from unlearned.engine.settings import Compute
    from unlearned.tasks import tasks
    from unlearned.tasks._task import ModelSource, model_source
    from unlearned.validation import fault_of

    found = list(faults)
    if unsaid := (forget is None) == (forget_file is None):
        found.append(Fault("--forget", "it is not said what was to be forgotten, or said twice.", "Give --forget FILTER or --forget-file FILE."))
    with collecting(found):
        kind = tasks.get(task, "--task")()
    if task not in tasks:
        raise_faults(found)  # whether models and data can be read is for a task to say

    def named(source: str) -> ModelSource:
        return ModelSource.model_validate({**model_source(source), "allow_pickle": allow_pickle})

    with as_options(_OPTIONS):
        problem = engine = None
        if not unsaid:
            with collecting(found):
                problem = make_problem(named(before), train=train, test=test, forget=forget_file or forget or "", task=kind)
        models: dict[str, list[Bundle]] = {"after": [], "reference": [], "shadow": []}
        for bank, sources in (("after", [after]), ("reference", references), ("shadow", shadows)):
            for i, source in enumerate(sources):
                with collecting(found):
                    models[bank].append(kind.load(named(source), bank if bank == "after" else f"{bank}.{i}"))
        try:
            with collecting(found):
                engine = Engine(kind if problem is None else problem.task, Compute(device=device, threads=threads), seed, None, progress)
        except ValidationError as error:
            found += [fault_of(detail, Compute, "compute") for detail in error.errors()]
        raise_faults(found)
        assert problem is not None
        subject = make_subject(problem, models["after"][0], models["reference"], shadows=models["shadow"], engine=engine)
        return replace(subject, pruning=_pruning_of(named(after)))


def _pruning_of(model: ModelSource) -> Pruning | None:
    """What a run of this package left out when it made the model.

    Raises:
        InputError: if the file beside the model cannot be read.
    """
    from unlearned.records import PRUNING, Pruning

    file = (Path(model.source) if model.weights is None else Path(model.weights).parent) / PRUNING
    if not file.is_file():
        return None
    try:
        return Pruning.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"{str(file)!r}, which says what was skipped, cannot be read ({type(error).__name__})."
        raise InputError(Fault("--after", what, "Give the directory as the run has left it.")) from error

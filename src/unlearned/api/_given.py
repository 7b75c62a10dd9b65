"""What the Python functions are given: models, data, and which samples to forget."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from unlearned.data.filters import select
from unlearned.data.samples import Samples
from unlearned.data.tables import require
from unlearned.errors import Fault, InputError, collecting, raise_faults
from unlearned.problem import Problem, id_faults
from unlearned.recipe import data_source
from unlearned.tasks import tasks as task_registry
from unlearned.tasks._models import is_function
from unlearned.tasks._task import Bundle, Data, DataSource, ModelSource, Task, model_source

ModelLike = Bundle | nn.Module | str | ModelSource
"""A loaded model, an nn.Module, what `load` takes, or the same as it stands in a recipe."""


def load(source: str, task: str | Task = "image-classification", *, weights: str | None = None, allow_pickle: bool = False) -> Bundle:
    """Load a model with what goes with it.

    Args:
        source: a directory or hub id for `from_pretrained`, `module:function`, or `module:function@WEIGHTS`.
        task: its modality, by name or with settings.
        weights: for `module:function`: a safetensors file.
        allow_pickle: read weights in pickle format, tensors only.

    Raises:
        InputError: if it cannot be loaded.
    """
    given = model_source(source) | ({"weights": weights} if weights else {})
    return task_of(task).load(ModelSource(**given, allow_pickle=allow_pickle), "model")


def make_problem(
    model: ModelLike,
    *,
    train: DataSource | Data | str,
    test: DataSource | Data | str,
    forget: str | Path | Iterable[str | int],
    validation: DataSource | Data | str | None = None,
    task: str | Task = "image-classification",
) -> Problem:
    """A checked problem.

    Args:
        model: the original model.
        train: its training data, forget set included: a path or hub id (`SOURCE@SPLIT`), `(images, labels)`, a dict of columns, a data set of `datasets`,
            or `Samples`.
        test: held-out data, in the same way.
        forget: a filter such as `label == 3`, ids, or the path of a text file with one id per line.
        validation: held-out data for choosing hyper-parameters.
        task: modality, by name or with settings.

    Raises:
        InputError: with everything that is wrong.
    """
    kind = task_of(task)
    faults: list[Fault] = []
    bundle = None
    with collecting(faults):
        bundle = as_bundle(model, task)
    sets: dict[str, Samples] = {}
    for name, data in (("train", train), ("test", test), ("validation", validation)):
        if data is None:
            continue
        source = DataSource.model_validate(data_source(data)) if isinstance(data, str) else data
        with collecting(faults):
            if bundle is not None:
                sets[name] = kind.read(source, bundle, f"data.{name}", sets.get("train"))
            elif isinstance(source, DataSource) and not is_function(source.source):  # without a model, at least whether it is there
                require(source, f"data.{name}")
    where = "forget.file" if isinstance(forget, Path) else "forget"
    with collecting(faults):
        forget = read_ids(forget, where) if isinstance(forget, Path) else forget
    faults += [fault for name, samples in sets.items() for fault in id_faults(samples, f"data.{name}", "data")]
    chosen: set[str] = set()
    if "train" in sets and not isinstance(forget, Path):
        with collecting(faults):
            chosen = forget_ids(sets["train"], forget, where)
    raise_faults(faults)
    assert bundle is not None
    return Problem(kind.bound(bundle), bundle, sets["train"].only(chosen), sets["train"].without(chosen), sets["test"], sets.get("validation"))


def forget_ids(train: Samples, forget: str | Iterable[str | int], field: str = "forget") -> set[str]:
    """Ids that a filter or a list of ids chooses.

    Raises:
        InputError: if the filter is wrong, an id repeats or is unknown. Ids are counted, not shown.
    """
    if isinstance(forget, str):
        ids = train.ids
        return {ids[i] for i in select(train, forget, field)}
    given = [str(name) for name in forget]
    known = set(train.ids)
    unknown = sum(name not in known for name in given)
    repeated = len(given) - len(set(given))
    faults = []
    if unknown:
        faults.append(
            Fault(
                field,
                f"{unknown} of {len(given)} ids are not in the training data.",
                "Ids are the `id` column, the path within an image folder, or else the position from 0.",
            )
        )
    if repeated:
        faults.append(Fault(field, f"{repeated} of {len(given)} ids are given more than once.", "Give each id once."))
    raise_faults(faults)
    return set(given)


def read_ids(path: Path, field: str) -> list[str]:
    """Ids from a text file, one per line.

    Raises:
        InputError: if it cannot be read or is empty.
    """
    if not path.exists():
        raise InputError(Fault(field, f"there is no file {str(path)!r}.", "Check the path; relative paths start at the working directory."))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(field, f"{str(path)!r} cannot be read as text.", "Give a UTF-8 text file with one id per line.")) from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError(Fault(field, f"{str(path)!r} holds no ids.", "Write one id per line."))
    return ids


def as_bundle(model: ModelLike, task: str | Task) -> Bundle:
    """A model in whatever form, as a bundle; a bare module gets no companions."""
    if isinstance(model, Bundle):
        return model
    if isinstance(model, ModelSource):
        return task_of(task).load(model, "model")
    return load(model, task) if isinstance(model, str) else Bundle(model)


def task_of(task: str | Task) -> Task:
    """A task that is given by its name."""
    return task if isinstance(task, Task) else task_registry.get(task, "task")()

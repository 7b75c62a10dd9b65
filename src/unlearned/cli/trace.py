"""`unlearned trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unlearned.cli._shell import Json, Out, as_options, finish, key_values, print_json, say
from unlearned.cli.rank import Set
from unlearned.cli.validate import RecipePath
from unlearned.errors import Fault, InputError


def trace(
    recipe: RecipePath,
    query: Annotated[str | None, typer.Option("--query", help="Data with the unwanted answers, in the form of the training data.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="A prompt; with --answer, or with --image.")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="What the model says to it and should not.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="An image; with --label, or with the --prompt that it was generated from.")] = None,
    label: Annotated[int | None, typer.Option("--label", help="What the model takes it for and should not.")] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="A score with a sign; see: unlearned scores. By default hessian; for image generation tracin.")
    ] = None,
    settings: Set = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many training points.")] = 10,
    out: Out = None,
    unlearn: Annotated[bool, typer.Option("--unlearn", help="Go on: carry out the recipe with these points as the forget set, in OUT/run.")] = False,
    as_json: Json = False,
) -> None:
    """Find the training points that speak for an unwanted answer, as a forget set in OUT/forget.txt. The forget set of the recipe has no part in it."""
    from unlearned import api, pipeline
    from unlearned.engine.files import write_text
    from unlearned.recipe import read_recipe

    directory = out or Path("runs") / f"{recipe.stem}-trace"
    file = directory / "forget.txt"
    asked = _queries(query, prompt, answer, image, label)
    # Named here, filled below: a recipe names a forget set.
    read = read_recipe(recipe, {"file": str(file), "description": "training points that speak for an unwanted answer"})
    given = read.file
    option = "--image" if image is not None else "--prompt" if prompt is not None else "--query"
    with as_options({"data.queries": option, "score.name": "--score", "score": "--set", **{name: f"--set {name}" for name in ("curvature", "parameters")}}):
        found = api.trace(
            given.model,
            train=given.data.train,
            queries=asked,
            score=score,
            top=top,
            task=read.task,
            training=given.training,
            compute=given.compute,
            seed=given.seed,
            **key_values(settings or [], "--set"),
        )
    if not found.ids:
        raise InputError(Fault(option, "no training point speaks for these answers.", "Check that they are what the model says; or try another score."))
    listed = "".join(f"{name}\n" for name in found.ids)
    if unlearn and (directory / "run" / "run.json").exists() and not (file.exists() and file.read_text(encoding="utf-8") == listed):
        what = f"{str(directory / 'run')!r} holds a run that forgets other training points."
        raise InputError(Fault("--out", what, "Choose another directory, or delete this one."))
    write_text(file, listed)
    for note in found.ranking.notes:
        say(note)
    say(f"{len(found.ids)} training points: {file}")
    if unlearn:
        record = pipeline.run(read, directory / "run", show_progress=not as_json, say=say)
        finish(record, as_json, directory / "run")
    elif as_json:
        print_json({"forget": str(file), "points": [{"id": name, "score": value} for name, value in zip(found.ids, found.values, strict=True)]})
    else:
        for name, value in zip(found.ids, found.values, strict=True):
            typer.echo(f"{value:12.4g}  {name}")


def _queries(query: str | None, prompt: str | None, answer: str | None, image: Path | None, label: int | None) -> Any:
    """What `api.trace` is asked about.

    Raises:
        InputError: if it is not said in exactly one way.
    """
    given = {"query": query, "prompt": prompt, "answer": answer, "image": image, "label": label}
    if {name for name, value in given.items() if value is not None} not in ({"query"}, {"prompt", "answer"}, {"image", "label"}, {"image", "prompt"}):
        what = "it is not said what the model says and should not, or said twice."
        remedy = "Give --query DATA, or --prompt with --answer, or --image with --label, or with the --prompt that it was generated from."
        raise InputError(Fault("--query", what, remedy))
    if query is not None:
        return query
    if answer is not None:
        return {"prompt": [prompt], "answer": [answer]}
    from PIL import Image, UnidentifiedImageError

    assert image is not None
    try:
        with Image.open(image) as opened:
            opened.load()
            return {"image": [opened.copy()], **({"label": [label]} if prompt is None else {"prompt": [prompt]})}
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(Fault("--image", f"{str(image)!r} cannot be read as an image.", "Give a PNG or JPEG file.")) from error

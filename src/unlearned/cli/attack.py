"""`unlearned attack`."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearned.cli import _subject
from unlearned.cli._shell import Device, Json, Seed, Threads, as_options, key_values, print_json


def attack(
    name: Annotated[str, typer.Argument(help="See: unlearned attacks", show_default=False)],
    before: _subject.Before,
    after: _subject.After,
    train: _subject.Train,
    test: _subject.Test,
    reference: _subject.References = None,
    shadow: _subject.Shadows = None,
    forget: _subject.Forget = None,
    forget_file: _subject.ForgetFile = None,
    task: _subject.TaskName = "image-classification",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of the attack, name=value; may be given several times.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    allow_pickle: _subject.AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Try to bring the knowledge back, in the unlearned model and in references."""
    from unlearned.attacks import attacks
    from unlearned.recipe import make_part

    with as_options({"attack.name": "NAME", "attack": "--set"}):
        part = make_part(attacks, name, key_values(settings or [], "--set"), "attack", task)
    subject = _subject.make(
        before,
        after,
        reference or (),
        shadow or (),
        train,
        test,
        forget,
        forget_file,
        task,
        allow_pickle=allow_pickle,
        device=device,
        threads=threads,
        seed=seed,
        progress=not as_json,
    )
    findings = part.measure(subject)
    if as_json:
        print_json([finding.model_dump(mode="json") for finding in findings])
        return
    from rich.console import Console

    from unlearned.report import findings_table

    Console().print(findings_table(findings))

"""`unlearned audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unlearned.cli import _subject
from unlearned.cli._shell import Device, Json, Out, Seed, Threads, as_options, finish
from unlearned.errors import Fault, collecting

if TYPE_CHECKING:
    from unlearned.attacks._attack import Attack
    from unlearned.audits._audit import Audit


def audit(
    before: _subject.Before,
    after: _subject.After,
    train: _subject.Train,
    test: _subject.Test,
    reference: _subject.References = None,
    shadow: _subject.Shadows = None,
    forget: _subject.Forget = None,
    forget_file: _subject.ForgetFile = None,
    task: _subject.TaskName = "image-classification",
    audits: Annotated[list[str] | None, typer.Option("--audit", help="An audit to make; may be given several times. By default all of the task.")] = None,
    attacks: Annotated[list[str] | None, typer.Option("--attack", help="An attack to make; may be given several times. By default none.")] = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    allow_pickle: _subject.AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Judge a model that any tool unlearned, by the original, the data and, best, retrained references."""
    from unlearned import api
    from unlearned.data.fingerprints import of_json
    from unlearned.evidence.verdict import Limits
    from unlearned.pipeline import write_record
    from unlearned.run_directory import RunDirectory

    named: list[Audit | Attack] = []
    faults: list[Fault] = []
    options = {"audit.name": "--audit", "attack.name": "--attack"}
    with collecting(faults), as_options(options):
        named += api.choose_audits(audits, task)
    with collecting(faults), as_options(options):
        named += api.choose_attacks(attacks or (), task)
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
        faults=faults,
    )
    models = {"before": before, "after": after, "references": reference or [], "shadows": shadow or []}
    described = {"task": task, **models, "train": train, "test": test, "seed": seed}
    if out is None:
        finish(api.measure(subject, named, Limits(), described), as_json, None)
        return
    with RunDirectory(out) as directory:
        directory.claim(of_json([described, forget, subject.problem.fingerprint]))
        record = api.measure(subject, named, Limits(), described)
        write_record(record, out)
    finish(record, as_json, out)

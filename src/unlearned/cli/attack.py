"""`unlearned attack`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearned.cli import _subject
from unlearned.cli._shell import Device, Json, Out, Seed, Threads, as_options, key_values, print_json, say

if TYPE_CHECKING:
    from unlearned.attacks._attack import Attack
    from unlearned.attacks._suite import Outcome
    from unlearned.evidence.subject import Subject

ALL = "all"


def attack(
    name: Annotated[str, typer.Argument(help="See: unlearned attacks. `all`: every one that is defined for the task.", show_default=False)],
    before: _subject.Before,
    after: _subject.After,
    train: _subject.Train,
    test: _subject.Test,
    reference: _subject.References = None,
    shadow: _subject.Shadows = None,
    forget: _subject.Forget = None,
    forget_file: _subject.ForgetFile = None,
    task: _subject.TaskName = "image-classification",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the attack, name=value, or of `all`, attack.name=value; may be given several times.")
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="With `all`: how long it may take; attacks that do not fit are left out.")] = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    allow_pickle: _subject.AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Try to bring the knowledge back, in the unlearned model and in references; `all` tries everything there is."""
    from unlearned import api
    from unlearned.attacks import attacks
    from unlearned.attacks._suite import Outcome, carry_out
    from unlearned.errors import Fault, InputError, collecting, raise_faults
    from unlearned.parts import make_part

    given = key_values(settings or [], "--set")
    skipped: dict[str, str] = {}
    parts: list[Attack] = []
    faults: list[Fault] = []
    with collecting(faults), as_options({"attack.name": "NAME" if name != ALL else "--set", "attack": "--set"}):
        if name == ALL:
            parts, skipped = api.choose_suite(task, by_attack(given))
        elif seconds is not None:
            raise InputError(Fault("--seconds", "a single attack has no limit of time.", "Leave it out, or carry out all: unlearned attack all."))
        else:
            parts = [make_part(attacks, name, given, "attack", task)]
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
    with as_options({"attack": "--set"}):
        if name == ALL:
            outcome = carry_out(subject, parts, seconds, say=say)
        else:
            raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in parts[0].faults(subject.problem)])
            outcome = Outcome(parts[0].labelled(subject), parts, {})
    outcome = outcome._replace(skipped=skipped | outcome.skipped)
    if out is not None:
        described = {"task": task, "before": before, "after": after, "references": reference or [], "train": train, "test": test, "seed": seed}
        _write(outcome, subject, described, out)
    if as_json:
        findings = [finding.model_dump(mode="json") for finding in outcome.findings]
        print_json({"findings": findings, "skipped": outcome.skipped} if name == ALL else findings)
        return
    from rich.console import Console

    from unlearned.report import attack_summary, findings_table

    Console().print(attack_summary(outcome.findings, outcome.skipped) if name == ALL else findings_table(outcome.findings))
    if out is not None:
        say(f"report: {out / 'report.html'}")


def by_attack(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`attack.name: value` as settings of each attack.

    Raises:
        InputError: if one does not say of which attack it is.
    """
    from unlearned.errors import Fault, raise_faults

    raise_faults([Fault("--set", f"{name!r} does not say of which attack it is a setting.", f"Write relearn.{name}.") for name in settings if "." not in name])
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        attack, _, setting = name.partition(".")
        found.setdefault(attack, {})[setting] = value
    return found


def _write(outcome: Outcome, subject: Subject, described: dict[str, Any], out: Path) -> None:
    from unlearned.api import conclude
    from unlearned.data.fingerprints import of_json
    from unlearned.evidence.verdict import Limits
    from unlearned.pipeline import write_record
    from unlearned.run_directory import RunDirectory

    carried_out = [{"name": attack.name, **attack.model_dump(mode="json")} for attack in outcome.carried_out]
    with RunDirectory(out) as directory:
        directory.claim(of_json([described, subject.problem.fingerprint]))
        recipe = {**described, "attacks": carried_out, "skipped": outcome.skipped}
        write_record(conclude(subject, outcome.findings, Limits(), recipe), out)

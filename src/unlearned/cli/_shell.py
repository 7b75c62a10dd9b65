"""What all verbs share: options, errors in words, exit codes, output."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearned.errors import Fault, InputError, UnlearnedError

if TYPE_CHECKING:
    from unlearned.records import AuditRecord

Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON and nothing else to standard output.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Directory for everything that is made. Given again after an interruption, it continues.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads on the CPU.")]

BROKEN = 3
INTERRUPTED = 130


def guarded(app: Callable[[], Any]) -> None:
    """Run the application; say errors in words and leave with their exit code."""
    # Set before the libraries are imported: their bars and notices would mix with ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UnlearnedError as error:
        _stop(str(error), error.exit_code)
    except SystemExit as leave:
        if leave.code == INTERRUPTED:  # typer's code for Ctrl-C
            _stop("interrupted. The same command with the same --out continues where it stopped.", INTERRUPTED)
        raise
    except BrokenPipeError:
        # The reader of standard output has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001  # the last line of defence: a person sees a sentence, not a stack
        if os.environ.get("UNLEARNED_DEBUG"):
            traceback.print_exc()
        detail = (str(error).strip().splitlines() or [""])[0][:300]
        _stop(f"it broke ({type(error).__name__}: {detail}). This is a defect: please report it with the output of UNLEARNED_DEBUG=1.", BROKEN)


def _stop(message: str, code: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)


def say(message: str) -> None:
    """A line of progress, on standard error."""
    typer.echo(f"· {message}", err=True)


def print_versions(wanted: bool) -> None:
    """Versions of this package and of the installed libraries that its numbers depend on, if wanted; then the end.

    Raises:
        Exit: if wanted.
    """
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    for package in ("unlearned", "torch", "transformers", "diffusers", "peft"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    raise typer.Exit


def print_json(value: Any) -> None:
    """A JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def finish(record: AuditRecord, as_json: bool, out: Path | None) -> None:
    """Show a record and leave with the exit code of its verdict."""
    if as_json:
        typer.echo(record.to_json(), nl=False)
    else:
        from rich.console import Console

        from unlearned.report import terminal

        Console().print(terminal(record))
        if out is not None:
            say(f"report: {out / 'report.html'}")
    if record.verdict.status == "failed":
        raise typer.Exit(1)


@contextmanager
def as_options(names: Mapping[str, str]) -> Iterator[None]:
    """Name options in messages where the API names fields.

    Args:
        names: the beginning of a field to what stands there instead; the longest one that fits is taken.

    Raises:
        InputError: the one that is raised inside, with other names.
    """

    def renamed(fault: Fault) -> Fault:
        start = max((name for name in names if f"{fault.field}.".startswith(f"{name}.")), key=len, default="")
        return fault._replace(field=names[start] + fault.field[len(start) :]) if start else fault

    try:
        yield
    except InputError as error:
        raise InputError(*map(renamed, error.faults)) from error


def key_values(pairs: list[str], field: str) -> dict[str, Any]:
    """Settings given as `name=value`; values are read as YAML.

    Raises:
        InputError: if one has no `=` or its value cannot be read.
    """
    import yaml

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(Fault(field, f"{pair!r} is not name=value.", "Write for example --set lr=0.01."))
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(Fault(field, f"the value of {name!r} cannot be read.", "Write a number, a word, true, false or a [list].")) from error
    return settings

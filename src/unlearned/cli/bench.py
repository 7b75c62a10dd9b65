"""`unlearned bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unlearned.cli._shell import Device, Json, Threads, as_options, key_values, print_json, say


def bench(
    name: Annotated[str | None, typer.Argument(help="A suite; without one, all are listed.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small version that ends within two minutes on two cores.")] = False,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Repetitions.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Directory of the data sets that the suite reads.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="File for the rows, as JSON.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="File for a page with tables and dot plots.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Directory for finished cells and shared models.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of the suite, name=value; may be given several times.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cells that run at the same time.")] = 1,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Repeat a paper's experiment and print it beside the paper's numbers. Given again after an interruption, it continues."""
    from unlearned.bench import suites

    if name is None:
        entries = {each: suites.summary(each) for each in suites.names()}
        if as_json:
            print_json(entries)
        else:
            for each, summary in entries.items():
                typer.echo(f"{each:<20}  {summary}")
        return
    from rich.console import Console

    from unlearned.bench._run import run_suite
    from unlearned.bench._suite import Place
    from unlearned.engine.files import require_writable, write_text
    from unlearned.engine.settings import Compute
    from unlearned.errors import Fault, collecting, raise_faults
    from unlearned.parts import make_settings
    from unlearned.pipeline import default_cache
    from unlearned.report import write_page
    from unlearned.report.bench import bench_tables
    from unlearned.report.html import benchmark

    faults: list[Fault] = []
    suite = place = None
    with as_options({"suite.name": "SUITE", "suite.seeds": "--seeds", "suite": "--set", "compute.device": "--device", "cache": "--cache"}):
        for path, option in ((output, "--output"), (html, "--html")):
            with collecting(faults):
                if path is not None:
                    require_writable(path, option)
        with collecting(faults):
            compute = make_settings(Compute, {"device": device, "threads": threads, "workers": workers}, "compute")
            place = Place(data, cache or default_cache() / "bench", compute, not as_json)
        with collecting(faults):
            kind = suites.get(name, "suite.name")
            given: dict[str, Any] = {**key_values(settings or [], "--set"), **({} if seeds is None else {"seeds": seeds})}
            suite = make_settings(kind, {**(kind.quick().model_dump() if quick else {}), **given}, "suite")
            if place is not None:
                suite.require(place)
        raise_faults(faults)
        assert suite is not None
        assert place is not None
        record = run_suite(suite, place)
    shown = record.model_copy(update={"rows": tuple(map(suite.shown, record.rows))})
    if output is not None:
        write_text(output, record.to_json(), "--output")
    if html is not None:
        write_page(benchmark(shown, suite.statistic, suite.paper), html, "--html")
    if as_json:
        typer.echo(record.to_json(), nl=False)
        return
    Console().print(bench_tables(shown, suite.statistic, suite.paper))
    if output is not None:
        say(f"rows: {output}")
    if html is not None:
        say(f"page: {html}")

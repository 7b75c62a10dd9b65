"""`unlearned rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearned.cli._shell import Json, Out, as_options, key_values, say
from unlearned.cli.validate import RecipePath

ScoreName = Annotated[str | None, typer.Option("--score", help="See: unlearned scores. By default that of the recipe's prune, else gradient-norm.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting of the score, name=value; may be given several times.")]


def rank(recipe: RecipePath, score: ScoreName = None, settings: Set = None, out: Out = None, as_json: Json = False) -> None:
    """Score the influence of every training point. With --out, saves scores.csv (by id: for your eyes), ranking.json and ranking.html."""
    from rich.console import Console

    from unlearned import api
    from unlearned.pipeline import prepare, scores_table
    from unlearned.recipe import read_recipe, score_of
    from unlearned.report import write_page
    from unlearned.report.html import ranking as page
    from unlearned.report.ranking import ranking_summary

    read = read_recipe(recipe)
    with as_options({"score.name": "--score", "score": "--set"}):
        part = score_of(read, score, key_values(settings or [], "--set"))
    problem, engine, _ = prepare(read, out, show_progress=not as_json)
    with as_options({name: f"--set {name}" for name in type(part).model_fields}):
        ranking = api.rank(problem, part, engine, training=read.file.training)
    record = api.rank_record(ranking, engine)
    if out is not None:
        from unlearned.engine.files import write_text

        write_text(out / "scores.csv", scores_table(problem, ranking))
        write_text(out / "ranking.json", record.to_json())
        write_page(page(record), out / "ranking.html")
    if as_json:
        typer.echo(record.to_json(), nl=False)
        return
    Console().print(ranking_summary(record))
    if out is not None:
        say(f"scores: {out / 'scores.csv'}; page: {out / 'ranking.html'}")

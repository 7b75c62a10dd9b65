"""What the evaluation harness of EleutherAI says: benchmarks of other abilities, through the package lm-eval (`pip install 'unlearned[lm-eval]'`).

Each benchmark's numbers are those of the harness, under its own names: the metric (`acc`, with its filter behind a dot if that is not `none`) and, as split,
the benchmark. Interval: value ± 1.96 standard errors, as the harness gives them. Loglikelihoods are asked without a chat template, the harness's default.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.engine.engine import evaluating, on_device
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.errors import Fault, raise_faults
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Interval
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Direction, Finding, SubjectName

Key = tuple[str, str]
"""Benchmark and metric."""


class Reading(dict[Key, Measured]):
    """What the harness found of one model, with which way of each number is good."""

    def __init__(self, results: dict[str, Any]) -> None:
        super().__init__()
        self.directions: dict[Key, Direction] = {}
        for benchmark, numbers in results["results"].items():
            counted = results.get("n-samples", {}).get(benchmark, {}).get("effective", 0)
            for name, value in numbers.items():
                metric, comma, filtered = name.partition(",")
                if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                error = numbers.get(f"{metric}_stderr,{filtered}")
                interval = Interval(value - 1.96 * error, value + 1.96 * error, "normal 95 % by the harness") if isinstance(error, int | float) else None
                key = benchmark, metric if filtered == "none" else f"{metric}.{filtered}"
                self[key] = Measured(float(value), interval, int(counted))
                higher = results.get("higher_is_better", {}).get(benchmark, {}).get(metric)
                self.directions[key] = "none" if higher is None else "higher" if higher else "lower"


@audits.register("lm-eval")
class LmEval(Audit):
    """Benchmarks of the evaluation harness."""

    name: ClassVar[str] = "lm-eval"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    by_default: ClassVar[bool] = False
    benchmarks: tuple[str, ...] = Field(("arc_easy", "piqa"), min_length=1, description="Tasks of the harness, by its names.")
    definitions: str | None = Field(None, description="Directory with tasks of your own in the harness's form.")
    limit: int | None = Field(None, ge=1, description="Questions of each benchmark; None: all.")
    few_shot: int | None = Field(None, ge=0, description="Worked examples before each question; None: as the task says.")
    batch_size: int = Field(8, ge=1, description="Questions per forward pass.")

    def faults(self, problem: Problem) -> list[Fault]:
        del problem
        try:
            manager = self._manager()
        except ImportError:
            return [Fault("name", "this audit needs the package lm-eval.", "Install it: pip install 'unlearned[lm-eval]'.")]
        unknown = [name for name in self.benchmarks if not manager.match_tasks([name])]
        return [Fault("benchmarks", f"the harness knows no task {name!r}.", "`lm-eval ls tasks` lists them.") for name in unknown]

    def measure(self, subject: Subject) -> list[Finding]:
        raise_faults([fault._replace(field=f"{self.name}.{fault.field}") for fault in self.faults(subject.problem)])
        readings: dict[SubjectName, list[Reading]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            readings[who].append(self._ask(subject, model))
        findings: list[Finding] = []
        for key, direction in readings["original"][0].directions.items():
            benchmark, metric = key
            measured = {who: [reading[key] for reading in several] for who, several in readings.items()}
            findings += compare(self.name, metric, benchmark, measured, unit="", direction=direction)
        return findings or [absent(self.name, "acc", "+".join(self.benchmarks), "the harness gave no number", unit="")]

    def _manager(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self.definitions)

    def _ask(self, subject: Subject, model: nn.Module) -> Reading:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        engine = subject.engine
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        seed = derive_seed(engine.seed, self.name)
        with on_device(model, engine.device), evaluating(model), seeded(seed):
            wrapped = HFLM(pretrained=model, tokenizer=subject.problem.original.companions["tokenizer"], batch_size=self.batch_size, device=str(engine.device))
            results = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=list(self.benchmarks),
                num_fewshot=self.few_shot,
                limit=self.limit,
                bootstrap_iters=1000,
                task_manager=self._manager(),
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        return Reading(results)

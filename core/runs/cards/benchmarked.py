"""A run's results in known benchmarks, beside those of its base: benchmarks.json in its folder.

{"v": 1, "step": of the adapter, "results": [{"task", "metric", "base", "tuned", "error": standard error of tuned}]}, in
the units of lm-eval. The command `benchmark` writes it whole; results of another step are no longer the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from core import files
from core.messages import Message, msg
from core.runs.folder import RunFolder
from core.values import Frozen

FILE = "benchmarks.json"


class BenchmarkResult(Frozen):
    """One metric of one task. error: standard error of tuned; None if lm-eval computes none."""

    task: str
    metric: str
    base: float
    tuned: float
    error: float | None = None

    @property
    def sentence(self) -> Message:
        """Return a sentence with the values of the base and of the tuned model in this metric, and the standard error
        if it is known."""
        values = {"task": self.task, "metric": self.metric, "base": self.base, "tuned": self.tuned}
        if self.error is None:
            return msg("evaluation.benchmark", **values)
        return msg("evaluation.benchmark_error", error=self.error, **values)


class Benchmarked(Frozen):
    """The results of a run."""

    v: Literal[1] = 1
    step: int | None = None
    results: tuple[BenchmarkResult, ...]


def benchmark_results(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[BenchmarkResult, ...]:
    """Return one result for each metric of each task that was measured on the tuned model, with the base's value beside
    it.

    measured: lm-eval's results of "base" and "tuned", {task: {"acc,none": 0.5, "acc_stderr,none": 0.1}}. ",none" is cut
    from a metric's name, another filter stays. error: that of tuned, None if lm-eval gives none. Raises KeyError for a
    task or metric that base lacks.
    """
    return tuple(
        BenchmarkResult(
            task=task,
            metric=name.removesuffix(",none"),
            base=measured["base"][task][name],
            tuned=value,
            error=values.get(name.replace(",", "_stderr,")),
        )
        for task, values in measured["tuned"].items()
        for name, value in values.items()
        if "," in name and "_stderr," not in name
    )


def write(run: RunFolder, results: tuple[BenchmarkResult, ...]) -> None:
    """Keep results in the run's file beside those of other tasks, in place of earlier ones. Raises RunError for a full
    disk."""
    new = {(one.task, one.metric): one for one in (*read(run), *results)}
    with files.writing(run.path):
        kept = Benchmarked(step=run.facts().adapter_step, results=tuple(new.values()))
        files.replace_json(run.path / FILE, kept.model_dump(mode="json"))


def read(run: RunFolder) -> tuple[BenchmarkResult, ...]:
    """Return the results for the run's adapter; () without any, or if the adapter is that of another step now."""
    kept = files.read_model(Benchmarked, run.path / FILE)
    return kept.results if kept is not None and kept.step == run.facts().adapter_step else ()

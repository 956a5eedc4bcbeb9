"""The estimate of core/memory against the real caching allocator, on the null card: docs/memory.md has its results.

    python -m tests.card.sweep [--models ID ...] [--whole]      every shape of the catalogue; kept, and not measured
                                                                again
    python -m tests.card.sweep --write                          what was measured as data of the gate, and the table
    python -m tests.card.sweep --plans 200 --seed 42            a plan's word against what the allocator did
    python -m tests.card.sweep --ragged 2000                    fragmentation

What is measured is in tests/card/measured.py, which runs on the card; here it is compared.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.advice import recommend
from core.advice.case import Grounds
from core.errors import RecipeError
from core.memory import arithmetic, budget
from core.memory.budget import Budget
from core.memory.constants import memory_constants
from core.memory.setup import Setup
from core.models.known import KnownModel, known_models
from core.presets import PROJECT
from core.recipe import Adapter, Data, Recipe, Train
from core.system.gpu import Card
from core.values import GIB, MIB
from tests.card.card import NotPossible, NullCard
from tests.kit import allocator_points
from tests.kit.allocator_points import LENGTHS, Point, rows_of

METHODS = ("lora", "qlora")
CARDS_GB = (6, 8, 12, 16, 24)
TARGETS = ("all-linear", "q_proj,v_proj")
LIMIT_S = 900.0  # between two answers
LARGEST_MIB = 400_000


def shapes() -> list[KnownModel]:
    """Known models, of those that are alike in everything but the longest text that they read the first; the smallest
    first."""
    models: dict[str, KnownModel] = {}
    for model in known_models():
        config = without_reach(config_of(model))
        models.setdefault(json.dumps(config, sort_keys=True), model)
    return sorted(models.values(), key=lambda model: model.shape.params)


def in_turns(models: Sequence[KnownModel]) -> list[KnownModel]:
    """One of each family, then a second of each, and so on: what was measured when it had to end is of all families."""
    counts, turns = Counter[str](), list[int]()
    for model in models:
        counts[model.shape.model_type] += 1
        turns.append(counts[model.shape.model_type])
    return [model for _, model in sorted(zip(turns, models, strict=True), key=lambda pair: pair[0])]


def config_of(model: KnownModel) -> Mapping[str, Any]:
    return model.config or model.shape.config()


def without_reach(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return config
    return {name: without_reach(value) for name, value in config.items() if name != "max_position_embeddings"}


CASES = [(p, c, rows_of(n, p)) for p in (True, False) for c in (False, True) for n in LENGTHS]


class OnCard:
    """tests/card/measured.py as a process, which stays for the next task."""

    def __init__(self, card: NullCard, **settings: str):
        self._card, self._settings = card, {"NULLCARD_NUMBERS": "0", "NULLCARD_MIB": str(LARGEST_MIB)} | settings
        self._process: subprocess.Popen[str] | None = None

    def answers(self, **task: Any) -> Iterator[dict[str, Any]]:
        """The last has "end", and "why" where it failed."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process and self._process.stdin
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        while True:
            try:
                line = self._lines.get(timeout=LIMIT_S)
            except queue.Empty:
                self.close()
                line = json.dumps({"end": True, "why": f"no answer in {LIMIT_S:.0f} s"})
            answer = json.loads(line) if line else {"end": True, "why": f"the process ended: {self._process.wait()}"}
            yield answer
            if "end" in answer:
                return

    def _start(self) -> None:
        environment = self._card.environment(
            {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | self._settings
        )
        self._process = subprocess.Popen(
            [str(self._card.python), "-m", "tests.card.measured"], cwd=PROJECT, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout, self._lines), daemon=True).start()

    @staticmethod
    def _read(stdout: Any, lines: queue.Queue[str]) -> None:
        for line in stdout:
            lines.put(line)
        lines.put("")

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


class Kept:
    """Answers by task, in files `<name>*.jsonl` of a folder: several processes may each write one, and all are read.
    What failed is tried again."""

    def __init__(self, folder: Path, name: str, part: int = 0):
        self.file = folder / f"{name}{part}.jsonl"
        self.known: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(folder.glob(f"{name}*.jsonl")):
            for line in map(json.loads, file.read_text("utf-8").splitlines()):
                if "why" not in line["answers"][-1]:
                    self.known[line["key"]] = line["answers"]

    def add(self, key: str, answers: list[dict[str, Any]]) -> None:
        self.known[key] = answers
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "answers": answers}) + "\n")


def measure(card: NullCard, models: Sequence[KnownModel], is_whole: bool, kept: Kept) -> None:
    process = OnCard(card)
    try:
        for model in models:
            for method in METHODS:
                key = f"{model.id} {method} {'whole' if is_whole else 'few'}"
                if key in kept.known:
                    continue
                points = list(
                    process.answers(
                        task="sweep", config=config_of(model), is_whole=is_whole, method=method, cases=CASES
                    )
                )
                kept.add(key, points)
                print(key, len(points), points[-1].get("why", ""), flush=True)
    finally:
        process.close()


def fitted(name: str, method: str, answers: Sequence[dict[str, Any]]) -> Iterator[Point]:
    """A point of each case that was measured; of two depths the line through both, drawn to all layers."""
    runs: dict[tuple[bool, bool, int], list[dict[str, Any]]] = {}
    for answer in answers:
        if "packing" in answer:
            runs.setdefault((answer["packing"], answer["checkpointing"], sum(answer["lengths"])), []).append(answer)
    for (packing, checkpointing, _), (first, *more) in runs.items():
        last = more[-1] if more else first
        if not more and last["depth"] != last["layers"]:
            continue  # it ended before the second depth
        slope = (last["allocated"] - first["allocated"]) / max(1, last["depth"] - first["depth"])
        size = last["allocated"] + slope * (last["layers"] - last["depth"])
        rows = "padded" if not packing else "packed" if first["packed"] else "unpacked"
        tokens = next(length for length in LENGTHS if rows_of(length, packing) == first["lengths"])
        yield Point(name, method, rows, checkpointing, tokens, size / MIB)


def points_of(kept: Kept) -> list[Point]:
    """What was measured, of whole models where that was done."""
    found: dict[Point, Point] = {}
    for key in sorted(kept.known, key=lambda key: key.endswith("whole"), reverse=True):
        name, method, _ = key.split()
        for point in fitted(name, method, kept.known[key]):
            found.setdefault(replace(point, mib=0), point)
    return list(found.values())


# ---- verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A recipe for a known model on a card of gb GB, the plan's word for it, and rows that fill its micro-batch."""

    model: KnownModel
    recipe: Recipe
    gb: int
    verdict: str
    needed_gib: float
    lengths: tuple[int, ...]

    @property
    def key(self) -> str:
        train, adapter = self.recipe.train, self.recipe.adapter
        parts = (
            self.gb, self.model.id, adapter.method, adapter.r, adapter.target_modules, train.optim,
            self.recipe.data.packing,
            train.gradient_checkpointing, *self.lengths,
        )  # fmt: skip
        return " ".join(map(str, parts))


def budget_of(gb: int) -> Budget:
    """A card of its own, from which nothing is taken yet."""
    size = gb << 30
    card = Card(index=0, name="Null", uuid="GPU-0", total_bytes=size, free_bytes=size, used_bytes=0, capability=(8, 6))
    return budget.of_card(card)


def random_plans(count: int, seed: int) -> Iterator[Plan]:
    """Drawn evenly, but only those whose need is by the estimate between half and one and a half times what the card
    has."""
    chance, models = random.Random(seed), shapes()
    while count:
        gb, model, method = chance.choice(CARDS_GB), chance.choice(models), chance.choice(METHODS)
        batch, packing = chance.choice((1, 2, 4)), chance.random() < 0.7
        length = chance.choice((256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192))
        recipe = Recipe(
            data=Data(source="rows", max_length=length, packing=packing),
            adapter=Adapter(method=method, r=chance.choice((8, 16, 32, 64)), target_modules=chance.choice(TARGETS)),
            train=Train(
                per_device_train_batch_size=batch if packing else max(2, batch),
                optim=chance.choice(("adamw_8bit", "adamw_torch")),
                gradient_checkpointing=chance.random() < 0.7,
                offload_layers=0,
            ),
        )
        try:
            advice = recommend.recommend(recipe, Grounds(budget_of(gb), model.shape))
        except RecipeError:  # its layers have other names
            continue
        assert advice.estimate is not None
        if not 0.5 < advice.estimate.on_card_gib / gb < 1.5:
            continue
        many = recipe.train.per_device_train_batch_size
        lengths = (length,) * many if packing else (length,) + (length * 3 // 4,) * (many - 1)
        yield Plan(model, advice.recipe, gb, advice.verdict, advice.estimate.on_card_gib, lengths)
        count -= 1


def try_plans(card: NullCard, plans: Sequence[Plan], kept: Kept) -> None:
    """Each on a card of its size, all of one size in one process."""
    for gb in CARDS_GB:
        # The context is the fake's invention: as large as the estimate takes it to be, it cancels out.
        context = str(round(memory_constants().trainer.context_gib * 1024))
        process = OnCard(card, NULLCARD_MIB=str(gb * 1024), NULLCARD_CONTEXT_MIB=context)
        try:
            for plan in plans:
                if plan.gb != gb or plan.key in kept.known:
                    continue
                recipe = plan.recipe.model_dump(mode="json")
                points = list(
                    process.answers(task="plan", config=config_of(plan.model), recipe=recipe, lengths=plan.lengths)
                )
                kept.add(plan.key, points)
                print(plan.verdict, plan.key, points[0], flush=True)
                if "why" in points[-1] or points[-2].get("left", 0) > 1 << 24:
                    process.close()
        finally:
            process.close()


def verdicts(plans: Sequence[Plan], kept: Kept) -> str:
    """How often each word was given, and how often the plan then fitted; and each plan of which it was wrong."""
    tried = [(plan, kept.known[plan.key][0]["fits"]) for plan in plans if plan.key in kept.known]
    counts = Counter((plan.verdict, fits) for plan, fits in tried)
    lines = [f"{len(tried)} plans", "| verdict | fitted | did not |", "|---|---|---|"]
    lines += [
        f"| {verdict} | {counts[verdict, True]} | {counts[verdict, False]} |"
        for verdict in ("fits", "tight", "does_not_fit")
    ]
    wrong = [plan for plan, fits in tried if (plan.verdict, fits) in (("fits", False), ("does_not_fit", True))]
    return "\n".join([*lines, *(f"wrong: {plan.verdict} {plan.key}, {plan.needed_gib:.2f} GiB" for plan in wrong)])


# ---- fragmentation -------------------------------------------------------------------------------

FEW = 2  # layers of 32
# As core/system/processes gives a worker; with the second nothing but the fraction of the card is set, as on Windows.
ALLOCATOR = {"Linux": "expandable_segments:True", "Windows": "garbage_collection_threshold:0.8"}


def on_ragged_rows(card: NullCard, system: str, steps: int, seed: int = 42, gb: int = 8) -> Iterator[dict[str, Any]]:
    """QLoRA of an 8B's first layers on packed rows of every length, with the allocator's settings of a worker on this
    system. What the other layers weigh is held; the longest row is as long as the estimate with its margin allows on gb
    GB."""
    model = next(each for each in known_models() if each.id == "llama-3.1-8b-instruct")
    cut = model.shape.model_copy(update={"num_hidden_layers": FEW})
    total, part = (arithmetic.weights(shape, Setup(method="qlora")) for shape in (model.shape, cut))
    free = gb - (total - part) / GIB
    lengths = [
        Setup(method="qlora", gradient_checkpointing=True, max_length=length) for length in range(64, 32_769, 64)
    ]
    longest = max(each.max_length for each in lengths if arithmetic.estimate(cut, each).needed_gib <= free)
    context = str(round(memory_constants().trainer.context_gib * 1024))
    settings = {"NULLCARD_MIB": str(gb * 1024), "NULLCARD_CONTEXT_MIB": context}
    process = OnCard(card, PYTORCH_ALLOC_CONF=ALLOCATOR[system], **settings)
    try:
        task = {
            "depth": FEW,
            "longest": longest,
            "held": int(total - part),
            "steps": steps,
            "seed": seed,
            "every": steps // 10,
        }
        for answer in process.answers(task="ragged", config=config_of(model), **task):
            yield answer | {"longest": longest}
    finally:
        process.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.card.sweep")
    parser.add_argument("--models", nargs="*", help="ids of the catalogue; otherwise every shape")
    parser.add_argument(
        "--whole", action="store_true", help="all layers, instead of two depths and the line through both"
    )
    parser.add_argument("--write", action="store_true", help="tests/data/allocator_points.csv from what was measured")
    parser.add_argument("--plans", type=int, help="so many random plans, each on a card of its size")
    parser.add_argument("--ragged", type=int, help="so many steps on rows of every length")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="I N: every N-th task, from the I-th on")
    chosen = parser.parse_args(arguments)
    card, (part, parts) = NullCard().ready(), chosen.part
    if chosen.write:
        points = points_of(Kept(card.folder, "sweep"))
        allocator_points.write(points)
        print(allocator_points.table(points))
    elif chosen.ragged:
        for system in ALLOCATOR:
            for answer in on_ragged_rows(card, system, chosen.ragged, chosen.seed):
                print(system, answer, flush=True)
    elif chosen.plans:
        plans, kept = list(random_plans(chosen.plans, chosen.seed)), Kept(card.folder, "plans", part)
        try_plans(card, plans[part::parts], kept)
        print(f"seed {chosen.seed}\n{verdicts(plans, kept)}")
    else:
        models = [model for model in in_turns(shapes()) if not chosen.models or model.id in chosen.models]
        measure(card, models[part::parts], chosen.whole, Kept(card.folder, "sweep", part))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))

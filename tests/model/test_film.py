"""The film: the same prompts answered between steps, none of which the training notices; what is shown of them is in
test_film_view."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.advice import plan
from core.chat import film, film_time
from core.chat.evaluation import sets
from core.chat.film import SampleSettings
from core.commands import running
from core.data.formats import ChatMessage, Example
from core.data.labels import Encoded
from core.data.tokenizer import Tokenizer
from core.data.validation_split import split
from core.engine import adapter, attention, base_model
from core.engine.variants import fused_lora
from core.errors import RecipeError
from core.queue.supervisor import spawn_worker
from core.recipe import Adapter, Recipe
from core.runs import sample_answers, scenes
from core.runs.all import Runs
from core.runs.cards import better, tested
from core.runs.folder import RunFolder
from core.runs.sample_answers import Forgetting, Frame, FrameAnswer
from core.runs.scenes import Scenes, neutral_prompts
from core.runs.states import State
from core.runs.time_left import TimeLeft
from core.training.trainer import Trainer, TrainingData
from core.workspace.folder import Workspace
from tests.kit.adapters import fill_b
from tests.kit.runs import trained
from tests.kit.trainer import FP32, Pausing, assembled, assert_same, run_paused


class Filmed(Pausing):
    """Knows besides when frames were taken, and what was warned of."""

    def __init__(self, run: RunFolder, at: int | None = None) -> None:
        super().__init__(run, at)
        self.said: list[str] = []
        self.filming: list[int] = []  # at which sub-step each frame began
        self.status = SimpleNamespace(attempt=1)

    def warn(self, message: Any) -> None:
        self.said.append(message.key)

    def set_stage(self, stage: str, progress: Any = None) -> None:
        if stage == "sampling":
            self.filming.append(self.checks)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer(tiny_model)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "ANSWER_TOKENS", 4)
    monkeypatch.setattr(film_time, "MAX_SHARE_OF_RUN", 1e6)  # of a run of five steps a twentieth is nothing
    monkeypatch.setattr(scenes, "ANSWER_TOKENS", 4)


def rows(count: int) -> list[Encoded]:
    chance = torch.Generator().manual_seed(count)
    ids = [torch.randint(3, 4000, (20 + i % 9,), generator=chance).tolist() for i in range(count)]
    return [Encoded(row, [False] * 2 + [True] * (len(row) - 2)) for row in ids]


EXAMPLES = [
    Example(messages=(ChatMessage("user", f"What is number {n}?"), ChatMessage("assistant", f"Number {n} is {n}.")))
    for n in range(24)
]


def recipe_of(packing: bool = True, **train: Any) -> Recipe:
    value = {
        "data": {"source": "x", "max_length": 32, "eval_fraction": 0.2, "packing": packing},
        "train": {
            "max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
            "eval_steps": 2, "save_steps": 3, "sample_seconds": 600.0,
        } | train,
    }  # fmt: skip
    return plan.resolve(Recipe.parse(value), "x", has_card=False)


def trainer_of(
    folder: Path,
    model: Path,
    pause_at: int | None = None,
    recipe: Recipe | None = None,
    films: Tokenizer | None = None,
    clock: Callable[[], float] = time.monotonic,
    workspace: Workspace | None = None,
) -> Trainer:
    """As the worker puts it together, in folder, which an earlier attempt may have left; with a film where films is a
    tokenizer."""
    recipe = recipe or recipe_of()
    torch.manual_seed(1)
    tuned = adapter.add(
        base_model.load(model, FP32, four_bit=False),
        Adapter(r=4, lora_dropout=recipe.adapter.lora_dropout),
        "tiny",
        None,
    )
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    reporter = Filmed(RunFolder(folder), pause_at)
    shown = None
    if films:
        chosen = scenes.ensure(reporter.run, recipe, EXAMPLES, True, films)
        shown = SampleSettings(films, chosen, recipe.train.sample_seconds, workspace, clock)
    trainer = assembled(tuned, recipe, reporter, TrainingData(rows(20), rows(5), 2), shown=shown)
    if trainer.sample_answers:  # as `run` does, for tests that take a frame alone
        trainer.sample_answers.begin(0, trainer.longest().tokens)
    return trainer


def shown_in(folder: Path) -> list[tuple[int, tuple[FrameAnswer, ...], float | None]]:
    return [(frame.step, frame.answers, frame.neutral_loss) for frame in sample_answers.read(RunFolder(folder))]


# ---- the training does not notice ----------------------------------------------------------------


@pytest.mark.parametrize("packing", [True, False])
def test_a_run_has_the_same_numbers_with_and_without_a_film(
    packing: bool, tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None
) -> None:
    recipe = recipe_of(packing)
    # random states count
    recipe = recipe.model_copy(update={"adapter": recipe.adapter.model_copy(update={"lora_dropout": 0.1})})
    without = trainer_of(tmp_path / "without", tiny_model, recipe=recipe)
    without.run()
    filmed = trainer_of(tmp_path / "filmed", tiny_model, recipe=recipe, films=tokenizer)
    assert filmed.step.packed == packing
    filmed.run()
    assert len(without.reporter.numbers) > 8
    assert_same(filmed, without)
    assert [step for step, _, _ in shown_in(tmp_path / "filmed")] == [0, 2, 4, 5] and filmed.reporter.said == []
    assert {len(answers) for _, answers, _ in shown_in(tmp_path / "filmed")} == {5}


def test_a_run_that_is_paused_inside_its_film_goes_on_without_a_frame_twice(
    tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None
) -> None:
    uninterrupted = trainer_of(tmp_path / "whole", tiny_model, films=tokenizer)
    uninterrupted.run()
    first, _, third, _ = uninterrupted.reporter.filming
    for at in (first + 9, third + 4):
        folder = tmp_path / str(at)
        paused = run_paused(lambda pause, folder=folder: trainer_of(folder, tiny_model, pause, films=tokenizer), [at])
        assert_same(paused, uninterrupted, at)
        assert shown_in(folder) == shown_in(tmp_path / "whole"), at
        lines = (folder / sample_answers.FILE).read_text("utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines] == [0, 2, 4, 5], at


# ---- what it answers -----------------------------------------------------------------------------


def test_the_answers_are_those_of_transformers_own_generate_while_packed_and_fused(
    tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None
) -> None:
    """In float32, where a batch and a row alone give the same tokens; with an adapter that is not nothing."""
    of_all = scenes.choose(recipe_of(), EXAMPLES, True, tokenizer)
    few = of_all.model_copy(update={"scenes": of_all.scenes[2:], "neutral_texts": of_all.neutral_texts[::4]})
    (tmp_path / scenes.FILE).write_text(few.model_dump_json(), "utf-8")
    trainer = trainer_of(tmp_path, tiny_model, films=tokenizer)
    fill_b(trainer.step.tuned, std=0.02)
    fused = fused_lora.fuse(trainer.step.tuned)
    assert (
        trainer.step.packed
        and fused.count
        and trainer.step.tuned.get_base_model().config._attn_implementation == attention.NAME
    )
    trainer.sample_answers.take(0, long)
    assert trainer.step.tuned.get_base_model().config._attn_implementation == attention.NAME
    fused.release()
    [(_, answers, loss)] = shown_in(tmp_path)
    shown = scenes.read(trainer.reporter.run)
    with attention.set_aside(trainer.step.tuned.get_base_model()), torch.no_grad():
        for scene, answer in zip(shown.scenes, answers, strict=True):
            ids = torch.tensor([scene.ids(tokenizer)])
            made = trainer.step.tuned.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=4,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=2,
            )[0, ids.shape[1] :].tolist()
            assert answer.text == tokenizer.decode(made).strip() and answer.why == ("stop" if 2 in made else "length")
        expected, count = 0.0, 0
        for words in shown.neutral_texts:
            ids = torch.tensor([tokenizer.encode_full(Example(text=words)).input_ids])
            expected += float(trainer.step.tuned(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    assert loss == pytest.approx(expected / count, rel=1e-4) and 7 < loss < 10


def long(forward: float | None) -> float:
    """The steps of a run that bounds no frame."""
    return 1e9


@pytest.fixture
def slow(tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None) -> Trainer:
    """Its film's clock goes by the rows that are asked for a token: one is a second. Answers have four, and no end of
    their own."""
    now = [0.0]
    trainer = trainer_of(tmp_path, tiny_model, films=tokenizer, clock=lambda: now[0])
    trainer.now = now
    trainer.sample_answers._tokenizer = SimpleNamespace(
        decode=lambda ids: "x" * len(ids), stop_ids=frozenset(), pad_token_id=2
    )
    trainer.sample_answers._at_once = 10_000  # all together
    forward = trainer.sample_answers._decoder.forward

    def timed(ids: torch.Tensor, *arguments: Any) -> Any:
        now[0] += len(ids)
        return forward(ids, *arguments)

    trainer.sample_answers._decoder.forward = timed
    return trainer


def answered(trainer: Trainer, step: int, seconds: float) -> list[int]:
    """The prompts that a frame of so many seconds answers; the others have not a word."""
    trainer.sample_answers._time.most = seconds
    trainer.sample_answers.take(step, long)
    [answers] = [answers for at, answers, _ in shown_in(trainer.reporter.run.path) if at == step]
    assert {(answer.text, answer.why) for answer in answers} <= {("xxxx", "length"), ("", "time")}
    return [place for place, answer in enumerate(answers) if answer.text]


def test_an_answer_is_whole_or_not_there_and_the_most_telling_ones_come_first(slow: Trainer) -> None:
    assert sources(scenes.read(slow.reporter.run)) == ["kept_apart"] * 3 + ["neutral"] * 2
    assert answered(slow, 0, 20.0) == [0, 1, 2, 3, 4], "4 tokens of 5 rows"
    assert answered(slow, 1, 14.0) == [0, 3], "4 s are left after two tokens of all: two more of two"
    slow.sample_answers._at_once = 1
    assert answered(slow, 2, 9.0) == [0, 3], "alone, one after the other; a second was left"


def test_where_not_one_was_answered_it_rests_but_for_the_last_frame(slow: Trainer) -> None:
    assert answered(slow, 1, 3.0) == []
    for step in (2, 3, 4):
        slow.sample_answers.take(step, long)
    assert [step for step, _, _ in shown_in(slow.reporter.run.path)] == [1, 3], "one left out, then two"
    assert answered(slow, 5, 20.0) == [0, 1, 2, 3, 4], "the last is always taken"
    slow.sample_answers.take(6, long)
    assert shown_in(slow.reporter.run.path)[-1][0] == 6


def test_all_frames_together_take_a_twentieth_of_the_run_and_the_last_one_has_answers(
    slow: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counted time: a row's token is a second, each measurement of the texts three. Steps 0, 2, 4 and 5 have frames;
    all five answers take twenty, and the one that steps 0 and 5 answer in any case four, outside of that."""
    monkeypatch.setattr(film_time, "MAX_SHARE_OF_RUN", 0.05)
    film, now = slow.sample_answers, slow.sample_answers._clock

    def measured() -> float:
        slow.now[0] += 3.0
        return 1.0

    monkeypatch.setattr(film, "_measure_neutral", measured)
    for run_seconds, answered_at in (
        (2000, [5, 3, 3, 5]),
        (1000, [2, 1, 2, 3]),
        (400, [1, 0, 0, 1]),
        (160, [1, 0, 0, 1]),
    ):
        (slow.reporter.run.path / sample_answers.FILE).unlink(missing_ok=True)
        film._time.spent, film._skips, film._skips_left, film._prompts_per_second, film._neutral_seconds, began = (
            0.0,
            0,
            0,
            5.0,
            0.0,
            now(),
        )
        for step in (0, 2, 4, 5):
            film.take(step, lambda forward, seconds=run_seconds: seconds)
        shown = {
            step: sum(bool(answer.text) for answer in answers) for step, answers, _ in shown_in(slow.reporter.run.path)
        }
        assert (
            now() - began - 2 * 4 <= 0.05 * run_seconds and [shown.get(step, 0) for step in (0, 2, 4, 5)] == answered_at
        ), run_seconds


def test_the_first_frame_and_the_last_have_an_answer_however_short_the_run_and_slow_the_pc(
    slow: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: "Watch it learn" never showed an answer, run after run."""
    film, nothing = slow.sample_answers, lambda forward: None
    monkeypatch.setattr(film, "_neutral", [])  # a run too short for them: its time is known after two steps
    film.take(0, nothing)
    film.take(3, nothing, stops_early=True)
    expected = {step: [answer.text for answer in answers] for step, answers, _ in shown_in(slow.reporter.run.path)}
    assert expected == {0: ["xxxx", "", "", "", ""], 3: ["xxxx", "", "", "", ""]} and film._time.spent == 0.0
    monkeypatch.setattr("core.chat.film.CERTAIN_S", 2.0)
    film.take(5, nothing)
    [cut, *others] = shown_in(slow.reporter.run.path)[-1][1]
    assert (cut.text, cut.why) == ("xx", "length") and {answer.why for answer in others} == {"time"}, (
        "what there is when its seconds are over"
    )


def test_a_run_that_stops_early_ends_with_a_frame(
    tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None
) -> None:
    trainer = trainer_of(tmp_path, tiny_model, films=tokenizer, recipe=recipe_of(max_steps=40, eval_steps=1))
    assert trainer.sample_answers.every == 2, "not at every evaluation"
    trainer.patience, trainer.evaluation.measure = 1, iter([3.0, 2.5, 2.0, 2.5]).__next__
    trainer.run()
    assert trainer.position.step == 3 and [step for step, _, _ in shown_in(tmp_path)] == [0, 2, 3]


def test_a_run_too_short_for_all_neutral_texts_measures_those_it_can_afford_twice() -> None:
    """A token read costs 0.4 of one trained: of 3,200 tokens half of 5 % reads 200, each text before and after."""
    assert [film_time.texts_within([60, 40, 50], run) for run in (0, 3_210, 3_190, 1_930, 1_910)] == [0, 2, 1, 1, 0]


def test_no_batch_holds_more_tokens_than_a_step_of_the_training(
    tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer
) -> None:
    trainer = trainer_of(tmp_path, tiny_model, films=tokenizer)
    trainer.sample_answers._at_once = 200
    groups = trainer.sample_answers._groups()
    assert len(groups) > 1 and [row.place for rows in groups for row in rows] == list(range(5))
    for group in groups:
        width = max(len(row.prompt) for row in group) + film.ANSWER_TOKENS
        assert len(group) == 1 or len(group) * width <= 200


@pytest.mark.parametrize(
    ("error", "said", "steps"),
    [(ValueError("no cache here"), "film.cannot_ask", []), (MemoryError(), "film.frame_no_memory", [2, 4, 5])],
)
def test_a_model_that_cannot_be_asked_is_trained_all_the_same(
    error: Exception, said: str, steps: list[int], tmp_path: Path, tiny_model: Path, tokenizer: Tokenizer, short: None
) -> None:
    trainer = trainer_of(tmp_path, tiny_model, films=tokenizer)
    right, calls = trainer.sample_answers._decoder.forward, []

    def once_wrong(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return right(*arguments)

    trainer.sample_answers._decoder.forward = once_wrong
    trainer.run()
    assert trainer.position.step == 5 and trainer.reporter.said == [said]
    assert [step for step, _, _ in shown_in(tmp_path)] == steps
    assert trainer.step.tuned.get_base_model().config._attn_implementation == attention.NAME


def test_the_time_of_its_frames_is_counted_as_a_pause() -> None:
    now = [0.0]
    clock = TimeLeft(10, [1.0] * 10, eval_every=5, save_every=100, clock=lambda: now[0], sample_every=5)
    for step in range(1, 6):
        now[0] += 1.0
        clock.finish(step)
    assert clock.seconds_left(5) == pytest.approx(5.0)
    with clock.pause("sampling"):
        now[0] += 3.0
    assert clock.seconds_left(5) == pytest.approx(8.0)


# ---- which prompts -------------------------------------------------------------------------------


def sources(shown: Scenes) -> list[str]:
    return [scene.source for scene in shown.scenes]


def test_prompts_are_of_rows_kept_apart_the_persons_own_and_neutral_ones(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = recipe_of(sample_prompts=["Who are you?", "  Say hello.  "])
    shown = scenes.ensure(RunFolder(tmp_path), recipe, EXAMPLES, True, tokenizer)
    assert sources(shown) == ["kept_apart"] * 3 + ["own"] * 2 + ["neutral"] * 2
    assert [scene.question for scene in shown.scenes[3:5]] == ["Who are you?", "Say hello."]
    apart = {EXAMPLES[i].messages[0].content for i in split(24, 0.2, recipe.train.seed)[1]}
    assert {scene.question for scene in shown.scenes[:3]} <= apart and shown.scenes[0].answer.startswith("Number ")
    again = scenes.ensure(RunFolder(tmp_path), recipe_of(), EXAMPLES[:3], False, tokenizer)
    assert again == shown, "fixed at the start"
    assert scenes.choose(recipe, EXAMPLES, True, tokenizer) == shown, "and the same for the same recipe and data"


def test_without_rows_kept_apart_rows_that_are_trained_are_asked_and_called_that(tokenizer: Tokenizer) -> None:
    shown = scenes.choose(recipe_of(), EXAMPLES[:5], False, tokenizer)
    assert sources(shown) == ["trained"] * 3 + ["neutral"] * 2


def test_plain_texts_are_begun_and_long_or_empty_rows_are_not_asked(tokenizer: Tokenizer) -> None:
    words = "The ship sailed at dawn and nobody on the pier waved, because the fog had swallowed the harbour whole."
    long = Example(prompt="word " * 400, completion="x")
    shown = scenes.choose(recipe_of(), [Example(text=words), Example(text=" "), long, long], False, tokenizer)
    assert sources(shown) == ["trained"] + ["neutral"] * 2
    [scene, *_] = shown.scenes
    assert words.startswith(scene.text) and words == f"{scene.text} {scene.answer}"
    assert tokenizer.decode(scene.ids(tokenizer)) == scene.text


def test_chinese_data_is_asked_neutral_questions_in_chinese(tokenizer: Tokenizer) -> None:
    row = Example(messages=(ChatMessage("user", "今天天气怎么样？"), ChatMessage("assistant", "晴天。")))
    shown = scenes.choose(recipe_of(), [row], False, tokenizer)
    assert [scene.question for scene in shown.scenes if scene.source == "neutral"] == list(
        neutral_prompts().prompts["zh"]
    )
    assert sorted(shown.neutral_texts) == sorted(msg for texts in neutral_prompts().texts.values() for msg in texts)


def test_more_than_three_prompts_of_ones_own_are_refused() -> None:
    with pytest.raises(RecipeError, match="sample_prompts"):
        recipe_of(sample_prompts=["a", "b", "c", "d"])


# ---- what is read back ---------------------------------------------------------------------------


def frame(step: int, loss: float | None = None, said: str = "a") -> Frame:
    return Frame(step=step, answers=(FrameAnswer(text=said, why="stop"),), neutral_loss=loss)


def test_torn_and_foreign_lines_are_passed_over_and_a_run_that_goes_back_takes_its_frames_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert sample_answers.read(run) == []
    for step in (0, 10, 20, 30):
        sample_answers.append(run, frame(step))
    with open(tmp_path / sample_answers.FILE, "ab") as file:
        file.write(b'{"v":1,"step":40,"answ')  # the power went
    sample_answers.append(run, frame(20, said="b"))
    with open(tmp_path / sample_answers.FILE, "ab") as file:
        file.write(
            b'{"v":1,"step":-1,"answers":[]}\n[]\n{"step":"x"}\n{"v":1,"step":50,"answers":[{"text":"c","why":"sto'
        )
    samples = sample_answers.read(run)
    assert [(each.step, each.answers[0].text) for each in samples] == [(0, "a"), (10, "a"), (20, "b")]


def test_forgetting_is_the_first_loss_beside_the_newest_in_words() -> None:
    forgetting = sample_answers.forgetting([frame(0, 3.21), frame(10), frame(20, 3.35), frame(30, 9.0)], at=25)
    assert (
        forgetting == Forgetting(before=3.21, now=3.35)
        and forgetting.forgot == "little"
        and forgetting.change == pytest.approx(0.0436, abs=1e-4)
    )
    assert [Forgetting(before=2.0, now=now).forgot for now in (1.9, 2.02, 2.1, 2.4, 2.6)] == [
        "better", "nothing", "little", "some", "much",
    ]  # fmt: skip
    assert (
        sample_answers.forgetting([frame(0, 3.0)]) is None
        and sample_answers.forgetting([frame(5, 3.0), frame(9, 3.1)]) is None
    )


def test_a_run_has_at_most_so_many_frames() -> None:
    assert sample_answers.every(10, 50) == 10 and sample_answers.every(3, 10) == 3
    assert sample_answers.every(1, 1000) == 42 and sample_answers.MAX_FRAMES >= -(-1000 // 42)


# ---- real workers --------------------------------------------------------------------------------


def worked(space: Workspace, **train: Any) -> RunFolder:
    value = {
        "name": "Filmed", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": {"max_steps": 2, "learning_rate": 1e-3, "eval_steps": 1, "per_device_train_batch_size": 1} | train,
    }  # fmt: skip
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")
    process = spawn_worker(space, run)
    try:
        code = process.wait(300)
    finally:
        process.kill()
    assert (code, run.status().state) == (0, State.COMPLETED), run.log_tail()
    return run


@pytest.fixture
def library(tmp_path: Path, tiny_model: Path) -> Workspace:
    """With the tiny model."""
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(tmp_path)


def test_a_run_leaves_its_film(library: Workspace) -> None:
    sets.add_failure(library, "library:tiny", [{"role": "user", "content": "Who?"}], expected="Me.")
    run = worked(library, sample_prompts=["What is a compass?"], sample_seconds=1.5, max_steps=40, eval_steps=20)
    shown, samples = scenes.read(run), sample_answers.read(run)
    assert sources(shown) == ["kept_apart"] * 3 + ["own"] + ["neutral"] * 2
    assert [each.step for each in samples] in ([0, 20, 40], [0, 40]), (
        "it rests where this PC is too busy for one answer"
    )
    assert all(len(each.answers) == 6 for each in samples)
    assert all(answer.why != "time" or not answer.text for each in samples for answer in each.answers)
    assert 7 < sample_answers.forgetting(samples).before < 10
    stages = [event["stage"] for event in run.events() if event["kind"] == "stage"]
    assert stages.count("sampling") == len(samples)
    assert [one.question for one in tested.read(run).answers] == ["Who?"]
    assert running.summary(run, run.status())["film"] == str(run.path / sample_answers.FILE)


def test_a_run_without_seconds_for_it_has_no_film(library: Workspace) -> None:
    run = worked(library, sample_seconds=0)
    assert not (run.path / scenes.FILE).exists() and not (run.path / sample_answers.FILE).exists()
    assert running.summary(run, run.status())["film"] is None


def test_held_out_questions_are_asked_at_both_ends_and_a_sample_set_by_its_own_judges(
    tokenizer: Tokenizer, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_of()
    assert scenes.choose(recipe, EXAMPLES, True, tokenizer).not_asked == "few_held_out"
    assert scenes.choose(recipe, EXAMPLES, False, tokenizer).not_asked == "none_held_out"
    sample = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": "sample:pirate_answers"})})
    checked = scenes.choose(sample, EXAMPLES, False, tokenizer)
    assert len(checked.held_out) == 20 and all(scene.judge for scene in checked.held_out) and checked.not_asked is None
    assert Scenes.model_validate(json.loads(checked.model_dump_json())) == checked
    labels = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": "sample:shop_messages"})})
    assert scenes.choose(labels, EXAMPLES, False, tokenizer).judge.kind == "label"
    half = recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval_fraction": 0.5})})
    once, twice = (
        half.model_copy(update={"data": half.data.model_copy(update={"deduplicate": True})}),
        [*EXAMPLES[:1], *EXAMPLES],
    )
    apart = scenes.choose(half, EXAMPLES, True, tokenizer).held_out
    assert apart and scenes.choose(once, twice, True, tokenizer).held_out == apart, (
        "a duplicate that is not trained parts nothing else"
    )
    trainer = trainer_of(tmp_path, tiny_model, recipe=half, films=tokenizer)
    for step in (0, 2, 5):
        trainer.sample_answers.take(step, long)
    records = [json.loads(line) for line in (tmp_path / better.FILE).read_text("utf-8").splitlines()]
    assert [(line["step"], len(line["answers"])) for line in records] == [(0, 12), (5, 12)]
    assert records[0]["answers"] == records[1]["answers"], "nothing was learned between them"
    assert "time" not in {answer["why"] for answer in records[0]["answers"]}


def test_the_test_sets_of_the_base_are_asked_after_the_last_step_alone(
    tokenizer: Tokenizer, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(space := Workspace.open(tmp_path), "Pirate")
    sets.add_failure(space, run.recipe().model.id, [{"role": "user", "content": "Who?"}], expected="a b")
    trainer = trainer_of(run.path, tiny_model, films=tokenizer, workspace=space)
    for step, steps in ((0, []), (2, []), (5, [5])):
        trainer.sample_answers.take(step, long)
        kept = tested.read(run)
        assert [kept.step if kept else None] == (steps or [None]), step
    assert kept and [(one.question, one.outcome) for one in kept.answers] == [("Who?", "wrong")]

"""The prompts of a run's sample answers: chosen at its start and then fixed, so that answers can be compared. No torch.

The worker writes film_scenes.json once: {"v": 1, "scenes": [Scene, ...], "neutral_texts": [str, ...]}. Up to three rows
of the data (of the validation set if there is one, so that they are not trained), up to three prompts of the person,
and two neutral ones from presets/neutral.yaml, whose texts are measured besides. A crash leaves the file complete or
missing; then the prompts are chosen anew.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from core import files
from core.data.formats import Example
from core.data.repeats import same_prompt_key
from core.data.row_order import shuffle
from core.data.sets.heldout import load_heldout
from core.data.shapes.tools import as_json
from core.data.tokenizer import Tokenizer, conversation
from core.data.validation_split import validation_rows
from core.errors import TemplateError
from core.files import JsonObject
from core.judges.propose import propose
from core.judges.specs import ExactJudge, JudgeSpec
from core.presets import PRESETS, load
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.values import Frozen, Strict

FILE = "film_scenes.json"
ROWS = 3  # rows of the data
MAX_TOKENS = 256  # of a prompt: longer ones cost memory and time that the training needs
ANSWER_TOKENS = 40
LOOKED_AT = 200  # rows to search for three that are short enough
MAX_ANSWER = 400  # characters of the data's own answer
HELD_OUT, MIN_HELD_OUT = 20, 8  # validation questions at both ends of a run; with fewer the interval is too wide
BEGINNING = 80  # characters of a plain text, which the model continues

SceneSource = Literal["kept_apart", "trained", "own", "neutral"]


class SceneTurn(Frozen):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Scene(Frozen):
    """One prompt: turns that end with a question, or the beginning of a plain text. answer: that of the data, if it has
    one. judge: of an answer; None for that of all (Scenes)."""

    source: SceneSource
    turns: tuple[SceneTurn, ...] = ()
    text: str | None = None
    answer: str | None = None
    tools: tuple[JsonObject, ...] = ()
    judge: JudgeSpec | None = None

    @property
    def question(self) -> str:
        """The last turn, or the beginning of the plain text."""
        return self.text if self.text is not None else self.turns[-1].content

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """Return the (T,) token ids of the prompt, framed as in training: up to the answer, or the text without an end
        token. Raises TemplateError."""
        if self.text is None:
            return tokenizer.prompt(
                [{"role": turn.role, "content": turn.content} for turn in self.turns], list(self.tools)
            )
        ids = tokenizer.encode_full(Example(text=self.text)).input_ids
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids


class Scenes(Frozen):
    """The scenes of a run. held_out: validation questions. judge: of their answers, as proposed from the data's own."""

    v: Literal[1] = 1
    scenes: tuple[Scene, ...]
    neutral_texts: tuple[str, ...]
    held_out: tuple[Scene, ...] = ()
    judge: JudgeSpec = ExactJudge()
    not_asked: Literal["none_held_out", "few_held_out"] | None = None  # why there are none


def read(run: RunFolder) -> Scenes | None:
    """Return the scenes of a run, the prompts of its sample answers; None if there are none or the file cannot be
    read."""
    return files.read_model(Scenes, run.path / FILE)


def ensure(
    run: RunFolder, recipe: Recipe, examples: Sequence[Example], has_kept_apart: bool, tokenizer: Tokenizer
) -> Scenes:
    """Return the prompts of the run's sample answers: those that its file holds from an earlier attempt, else new ones
    by `choose`, which are written to the file."""
    scenes = read(run)
    if scenes is None:
        scenes = choose(recipe, examples, has_kept_apart, tokenizer)
        files.replace_json(run.path / FILE, scenes.model_dump(mode="json", exclude_none=True))
    return scenes


def choose(recipe: Recipe, examples: Sequence[Example], has_kept_apart: bool, tokenizer: Tokenizer) -> Scenes:
    """Return the prompts of a run's sample answers: up to ROWS rows of the data, the person's own prompts and neutral
    ones, as far as they fit the model's context; and the validation questions for the comparison before and after, with
    the judge of their answers. The same recipe and data give the same ones.

    has_kept_apart: whether there is a validation set; if not, the rows are trained ones, and only a sample dataset of
    the app has validation questions.
    """
    apart = validation_rows(examples, recipe).tolist() if has_kept_apart else []
    source: SceneSource = "kept_apart" if len(apart) else "trained"
    numbers = shuffle(apart if len(apart) else range(len(examples)), random.Random(f"{recipe.train.seed}/film"))
    rows = _short_ones((examples[number] for number in numbers[:LOOKED_AT]), source, tokenizer)
    own = [Scene(source="own", turns=(_user_turn(question),)) for question in recipe.train.sample_prompts]
    neutral = neutral_prompts()
    all_questions = "".join(scene.question for scene in (*rows, *own))
    # a Latin word has about four letters
    is_chinese = len(re.findall(r"[\u4e00-\u9fff]", all_questions)) > len(re.findall(r"[A-Za-z]", all_questions)) / 4
    others = [
        Scene(source="neutral", turns=(_user_turn(question),))
        for question in neutral.prompts["zh" if is_chinese else "en"]
    ]
    texts = tuple(text for texts in neutral.texts.values() for text in texts)
    held_out = _held_out(
        recipe, [examples[number] for number in (numbers[:LOOKED_AT] if len(apart) else ())], tokenizer
    )
    why: Literal["none_held_out", "few_held_out"] | None = (
        None if held_out else "few_held_out" if len(apart) else "none_held_out"
    )
    fitting = [scene for scene in (*rows, *own, *others) if _fits(scene, tokenizer, tokenizer.position_limit)]
    answers = [scene.answer for scene in held_out if scene.answer]
    judge = propose(answers) if answers else ExactJudge()
    return Scenes(scenes=tuple(fitting), neutral_texts=texts, held_out=held_out, judge=judge, not_asked=why)


def _held_out(recipe: Recipe, apart: Sequence[Example], tokenizer: Tokenizer) -> tuple[Scene, ...]:
    """Return at most HELD_OUT validation questions for the comparison before and after; () if fewer than MIN_HELD_OUT
    are short enough. For a sample dataset of the app they come from its own file; else from apart, the validation rows:
    different questions whose answer is short."""
    questions = PRESETS / "samples" / f"{recipe.data.source.removeprefix('sample:')}.heldout.yaml"
    candidates: list[Scene] = []
    if recipe.data.source.startswith("sample:") and questions.is_file():
        candidates = [
            Scene(source="kept_apart", turns=(_user_turn(one.prompt),), answer=one.expected or None, judge=one.judge)
            for one in load_heldout(questions)
        ]
    else:
        kept_apart = (_scene_of(example, "kept_apart") for example in apart)
        by_question = {
            same_prompt_key(scene.question): scene
            for scene in kept_apart
            if scene and scene.text is None and not scene.tools
        }
        candidates = [
            scene for scene in by_question.values() if len(tokenizer.encode(scene.answer or "")) < ANSWER_TOKENS
        ]
    fitting = [scene for scene in candidates if _fits(scene, tokenizer, MAX_TOKENS + ANSWER_TOKENS)][:HELD_OUT]
    return tuple(fitting) if len(fitting) >= MIN_HELD_OUT else ()


def _short_ones(examples: Iterator[Example], source: SceneSource, tokenizer: Tokenizer) -> list[Scene]:
    """Return the first ROWS scenes with different questions that are short enough to be answered; badly rated rows are
    skipped."""
    short: dict[str, Scene] = {}  # by question, without repetitions
    for example in examples:
        scene = None if example.is_bad else _scene_of(example, source)
        if (
            scene
            and same_prompt_key(scene.question) not in short
            and _fits(scene, tokenizer, MAX_TOKENS + ANSWER_TOKENS)
        ):
            short[same_prompt_key(scene.question)] = scene
        if len(short) == ROWS:
            break
    return list(short.values())


def _scene_of(example: Example, source: SceneSource) -> Scene | None:
    """Return a chat's turns up to its first answer, with that answer, or the beginning of a plain text, with what
    follows it, as a scene; answers are cut at MAX_ANSWER characters. None if there is no user's question before the
    answer, or no text to answer."""
    if example.text is not None:
        half = example.text[: min(BEGINNING, len(example.text) // 2)]
        begin = (half.rpartition(" ")[0] or half).rstrip()  # up to the end of a word, if there are spaces
        rest = example.text[len(begin) :].strip()
        return Scene(source=source, text=begin, answer=rest[:MAX_ANSWER]) if begin and rest else None
    turns = conversation(example)
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), None)
    if not first or turns[first - 1]["role"] != "user" or not turns[first - 1]["content"].strip():
        return None
    prompt = tuple(SceneTurn(role=turn["role"], content=turn["content"]) for turn in turns[:first])
    tools = json.loads(example.tools) if example.tools else ()
    answer = turns[first]["content"] or as_json(turns[first].get("tool_calls", []))
    return Scene(source=source, turns=prompt, answer=answer[:MAX_ANSWER], tools=tools)


def probe_row(example: Example) -> JsonObject | None:
    """Return a row as a conversation, with which an export is verified later; None for plain text."""
    if example.text is not None:
        return None
    return {"messages": [dict(turn) for turn in conversation(example)]} | (
        {"tools": json.loads(example.tools)} if example.tools else {}
    )


def _user_turn(text: str) -> SceneTurn:
    """Return a text as a turn of the user."""
    return SceneTurn(role="user", content=text)


def _fits(scene: Scene, tokenizer: Tokenizer, most: int | None) -> bool:
    """Return whether the prompt and ANSWER_TOKENS for an answer fit into `most` tokens; True for None, False for a row
    that the template refuses."""
    try:
        return most is None or len(scene.ids(tokenizer)) + ANSWER_TOKENS <= most
    except TemplateError:
        return False


class Neutral(Strict):
    """Contents of presets/neutral.yaml: prompts and texts by language that no data set is about."""

    prompts: dict[str, tuple[str, ...]]
    texts: dict[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def neutral_prompts() -> Neutral:
    """Return the app's questions and texts that have nothing to do with the data, by language, read once."""
    return Neutral.model_validate(load("neutral"))

"""Generates the answers of a comparison: one model after the other, several questions per batch, base and fine-tuned of
a pair together. No torch.

Runs of one base are asked after each other, an adapter each, and not as rows of one batch as PEFT could: docs/speed.md
has why."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from core.chat.answer import Column, Piece, Sampling
from core.chat.client import ChatClient, ChatTarget
from core.chat.comparison import Answered, Contestant, PromptComparison
from core.chat.questions import LOAD_TIMEOUT_S, target_of, target_of_adapter
from core.data.conversation import Turn
from core.errors import ChatError, GarageError, RunError
from core.models.library import ModelRef, Models
from core.runs.all import Runs
from core.workspace.folder import Workspace

# Why one prompt is not asked, and the others are: a model has no room for it, or a chat template that is not its own.
LEFT_OUT = ("chat.too_long", "chat.too_long_for_card", "chat.too_many_characters", "template.cannot_render")
AT_ONCE = 8  # questions: a batch of them takes little longer than one, and so many answers are lost to a crash at most
# Why one contestant cannot answer, and the others can.
ITS_OWN = ("adapter.other_base", "chat.not_finite", "chat.adapter_changes_base", "chat.no_strength")


def alike(answer: str, expected: str) -> bool:
    """But for spaces and capitals."""
    return " ".join(answer.split()).casefold() == " ".join(expected.split()).casefold()


def answer_missing(chat: ChatClient, workspace: Workspace, comparison: PromptComparison) -> Iterator[tuple[int, int]]:
    """(answers there, answers wanted) as they come, each kept at once. A prompt that one of them cannot be asked is
    left out. Raises GarageError, where one of them cannot answer at all after the others have; what is there stays."""
    there, wanted = _counts(comparison)
    yield there, wanted
    failed = list[GarageError]()
    for target, group in _groups(workspace, comparison, failed):
        try:
            for added in _answer(chat, comparison, target, group):
                there, wanted = (there + added, wanted) if added else _counts(comparison)
                yield there, wanted
        except ChatError as error:
            if error.message.key not in ITS_OWN:
                raise
            failed.append(error)
    if failed:
        raise failed[0]


def _answer(chat: ChatClient, comparison: PromptComparison, target: ChatTarget, group: list[int]) -> Iterator[int]:
    """How many answers came, each time; 0 where a prompt was left out."""
    lineup, missing = comparison.lineup, set(comparison.missing())
    if not any((prompt, place) in missing for prompt in range(len(lineup.prompts)) for place in group):
        return
    _have(chat, target)
    for begin in range(0, len(lineup.prompts), AT_ONCE):
        prompts = range(begin, min(begin + AT_ONCE, len(lineup.prompts)))
        # who is asked at once, and what: the same of all that is asked anew
        alike = list[tuple[dict[Column, int], list[int]]]()
        for prompt in prompts:
            for places in _together(lineup.contestants, [place for place in group if (prompt, place) in missing]):
                same = next((asked for those, asked in alike if those == places), None)
                alike.append((places, [prompt])) if same is None else same.append(prompt)
        for places, asked in alike:
            yield from _asked(
                chat, comparison, [prompt for prompt in asked if prompt not in comparison.left_out()], places
            )


def _asked(
    chat: ChatClient, comparison: PromptComparison, prompts: list[int], places: dict[Column, int]
) -> Iterator[int]:
    """As _answer. Where one cannot be asked, each is asked alone."""
    if not prompts:
        return
    try:
        for answer in _ask(chat, comparison, prompts, places):
            comparison.add(answer)
            yield 1
    except ChatError as error:
        if error.message.key not in LEFT_OUT:
            raise
        if len(prompts) == 1:
            comparison.leave_out(prompts[0], error.message)
            yield 0
        else:
            for prompt in prompts:
                yield from _asked(chat, comparison, [prompt], places)


def _counts(comparison: PromptComparison) -> tuple[int, int]:
    gone = comparison.left_out()
    there = sum(prompt not in gone for prompt, _ in comparison.answers())
    return there, there + len(comparison.missing())


def _groups(
    workspace: Workspace, comparison: PromptComparison, failed: list[GarageError]
) -> list[tuple[ChatTarget, list[int]]]:
    """What is loaded once, and who is asked then; failed gets why others cannot be."""
    groups = dict[ChatTarget, list[int]]()
    for place in sorted({place for _, place in comparison.missing()}):
        try:
            groups.setdefault(loaded_for(workspace, comparison.lineup.contestants[place]), []).append(place)
        except GarageError as error:
            failed.append(error)
    return list(groups.items())


def loaded_for(workspace: Workspace, one: Contestant) -> ChatTarget:
    """What has to be loaded for it to answer. Raises GarageError."""
    four_bit = None if one.precision == "trained" else one.precision == "4"
    if one.run:
        try:
            run = Runs(workspace).get(one.run)
        except RunError:
            raise ChatError("compare.gone", label=one.label) from None
        return target_of(run, one.checkpoint, four_bit)
    if one.other.startswith("adapter:"):
        folder = Models(workspace).adapters().get(one.other)
        if folder is None:
            raise ChatError("compare.gone", label=one.label)
        return target_of_adapter(workspace, folder, bool(four_bit))
    return ChatTarget(ModelRef.parse(one.other.removeprefix("base:")).id, None, None, bool(four_bit), one.label)


def _together(contestants: tuple[Contestant, ...], places: list[int]) -> list[dict[Column, int]]:
    """Who is asked at once: each base with one that is tuned, as long as there are such."""
    base = [place for place in places if contestants[place].column == "base"]
    tuned = [place for place in places if place not in base]
    asked: list[dict[Column, int]] = []
    for one, other in zip_longest(base, tuned):
        both: tuple[tuple[Column, int | None], ...] = (("base", one), ("tuned", other))
        asked.append({column: place for column, place in both if place is not None})
    return asked


def _have(chat: ChatClient, target: ChatTarget) -> None:
    state = chat.state()
    if state.target != target or state.phase not in ("ready", "answering"):
        chat.load(target)
        chat.wait_ready(LOAD_TIMEOUT_S)


def _ask(
    chat: ChatClient, comparison: PromptComparison, prompts: list[int], places: dict[Column, int]
) -> Iterator[Answered]:
    """Each answer as it ends; its seconds are its share of what all questions took together."""
    lineup, ended = comparison.lineup, 0
    questions = list[tuple[list[Turn] | None, list[Turn] | None]]()
    for prompt in prompts:
        turns: list[Turn] = [dict(turn) for turn in lineup.prompts[prompt].turns]
        questions.append((turns if "base" in places else None, turns if "tuned" in places else None))
    strength = lineup.contestants[places["tuned"]].strength if "tuned" in places else 1.0
    texts = dict[tuple[int, Column], str]()
    with chat.ask_together(questions, Sampling(max_new_tokens=lineup.max_new_tokens), strength) as stream:
        for item in stream:
            of = item.question, item.column
            if isinstance(item, Piece):
                texts[of] = texts.get(of, "") + item.text
            elif item.finish_reason != "stopped":
                ended += 1
                prompt, place, seconds = (
                    prompts[item.question],
                    places[item.column],
                    round(item.seconds / len(prompts), 4),
                )
                yield Answered(prompt=prompt, contestant=place, text=texts.get(of, ""), tokens=item.tokens,
                    seconds=seconds, finish_reason=item.finish_reason)  # fmt: skip
    if ended < len(prompts) * len(places):
        raise ChatError("compare.stopped")

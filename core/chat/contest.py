"""Generates the answers of a comparison: one model after the other, several questions per batch, base and fine-tuned of
a pair together. No torch.

Runs of one base are loaded one after the other, not as rows with different adapters in one PEFT batch: docs/speed.md
has the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from core.chat.answer import COLUMNS, Column, Piece, Sampling
from core.chat.client import ChatClient, ChatTarget
from core.chat.comparison import ComparisonAnswer, Contestant, PromptComparison
from core.chat.prompts import Prompt
from core.chat.questions import LOAD_TIMEOUT_S, target_of
from core.data.conversation import Turn
from core.errors import ChatError, GarageError, RunError
from core.models.library import ModelRef
from core.runs.all import Runs
from core.workspace.folder import Workspace

# Errors that exclude one prompt only: it does not fit a model, or its chat template cannot render it.
LEFT_OUT = ("chat.too_long", "chat.too_long_for_card", "chat.too_many_characters", "template.cannot_render")
AT_ONCE = 8  # questions: a batch takes little longer than one question, and a crash loses at most these answers
# Errors that exclude one contestant only.
CONTESTANT_ERRORS = ("adapter.other_base", "chat.not_finite", "chat.adapter_changes_base", "chat.no_strength")


def answer_missing(chat: ChatClient, workspace: Workspace, comparison: PromptComparison) -> Iterator[tuple[int, int]]:
    """Generate the missing answers, loading one model after the other; yield (answers there, answers in all) at the
    start, after each answer, which is saved at once, and after each prompt that is left out.

    A prompt that one contestant cannot answer is left out for all. If a contestant cannot answer at all
    (CONTESTANT_ERRORS, or its run is gone), the others go on and the first such GarageError is raised at the end. Any
    other ChatError, such as a stop, is raised at once. Saved answers stay.
    """
    done, total = _counts(comparison)
    yield done, total
    failed = list[GarageError]()
    for target, group in _targets_with_missing_answers(workspace, comparison, failed):
        try:
            for added in _answer(chat, comparison, target, group):
                done, total = (done + added, total) if added else _counts(comparison)
                yield done, total
        except ChatError as error:
            if error.message.key not in CONTESTANT_ERRORS:
                raise
            failed.append(error)
    if failed:
        raise failed[0]


def _answer(chat: ChatClient, comparison: PromptComparison, target: ChatTarget, group: list[int]) -> Iterator[int]:
    """Generate the missing answers of the contestants that share one model, and yield 1 for each answer once it is
    saved, 0 for each prompt that is left out.

    target: their model, which is loaded if it is not. group: the numbers of the contestants. AT_ONCE prompts are
    answered at a time.
    """
    lineup, missing = comparison.lineup, set(comparison.missing())
    if not any((prompt, place) in missing for prompt in range(len(lineup.prompts)) for place in group):
        return
    ensure_loaded(chat, target)
    for begin in range(0, len(lineup.prompts), AT_ONCE):
        prompts = range(begin, min(begin + AT_ONCE, len(lineup.prompts)))
        # (contestants by column, prompts): prompts that the same contestants have to answer go into one batch
        batches = list[tuple[dict[Column, int], list[int]]]()
        for prompt in prompts:
            for places in _together(lineup.contestants, [place for place in group if (prompt, place) in missing]):
                batch = next((batch_prompts for batch_places, batch_prompts in batches if batch_places == places), None)
                batches.append((places, [prompt])) if batch is None else batch.append(prompt)
        for places, batch_prompts in batches:
            yield from _answer_batch(
                chat, comparison, [prompt for prompt in batch_prompts if prompt not in comparison.left_out()], places
            )


def _answer_batch(
    chat: ChatClient, comparison: PromptComparison, prompts: list[int], places: dict[Column, int]
) -> Iterator[int]:
    """Generate and save the answers of a batch (places: contestants' numbers); yield 1 for each, 0 for a prompt left
    out. After an error of LEFT_OUT each prompt is tried alone and left out if it fails so again; other ChatErrors are
    raised."""
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
                yield from _answer_batch(chat, comparison, [prompt], places)


def _counts(comparison: PromptComparison) -> tuple[int, int]:
    """Return (number of answers generated, of all), both without left-out prompts."""
    left_out = comparison.left_out()
    done = sum(prompt not in left_out for prompt, _ in comparison.answers())
    return done, done + len(comparison.missing())


def _targets_with_missing_answers(
    workspace: Workspace, comparison: PromptComparison, failed: list[GarageError]
) -> list[tuple[ChatTarget, list[int]]]:
    """Return the models that still have answers to generate, each with its contestants' numbers. The
    error of a contestant that cannot be loaded is added to failed."""
    groups = dict[ChatTarget, list[int]]()
    for place in sorted({place for _, place in comparison.missing()}):
        try:
            groups.setdefault(chat_target(workspace, comparison.lineup.contestants[place]), []).append(place)
        except GarageError as error:
            failed.append(error)
    return list(groups.items())


def chat_target(workspace: Workspace, contestant: Contestant) -> ChatTarget:
    """Return what has to be loaded so that a contestant can answer: for a run, or its base, the run's adapter (or a
    checkpoint's) on its base, since both answer from one copy of the weights; else the base model that `other` names.
    The precision is the run's unless the contestant names another. Raises GarageError if its run is gone."""
    four_bit = None if contestant.precision == "trained" else contestant.precision == "4"
    if contestant.run:
        try:
            run = Runs(workspace).get(contestant.run)
        except RunError:
            raise ChatError("compare.gone", label=contestant.label) from None
        return target_of(run, contestant.checkpoint, four_bit)
    return ChatTarget(
        ModelRef.parse(contestant.other.removeprefix("base:")).id, None, None, bool(four_bit), contestant.label
    )


def turns_for(contestant: Contestant, prompt: Prompt) -> list[Turn]:
    """Return the conversation that a contestant answers: its system prompt before the prompt's own, then its examples,
    the nearest one last, then the prompt."""
    turns: list[Turn] = [dict(turn) for turn in prompt.turns]
    own = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
    system = "\n\n".join(filter(None, (contestant.system, own)))
    shown = [
        {"role": role, "content": content}
        for pair in reversed(prompt.examples[: contestant.examples])
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*([{"role": "system", "content": system}] if system else []), *shown, *turns]


def _together(contestants: tuple[Contestant, ...], places: list[int]) -> list[dict[Column, int]]:
    """Return what is answered in one batch: {column: number of a contestant}, the first base contestant with the first
    tuned one, and so on; those without a partner alone. places: the contestants' numbers."""
    base = [place for place in places if contestants[place].column == "base"]
    tuned = [place for place in places if place not in base]
    pairs: list[dict[Column, int]] = []
    for base_place, tuned_place in zip_longest(base, tuned):
        columns: tuple[tuple[Column, int | None], ...] = (("base", base_place), ("tuned", tuned_place))
        pairs.append({column: place for column, place in columns if place is not None})
    return pairs


def ensure_loaded(chat: ChatClient, target: ChatTarget) -> None:
    """Load target, unless it is the loaded model, and wait for it. Raises ChatError."""
    state = chat.state()
    if state.target == target and state.phase in ("ready", "answering"):
        return
    if state.target != target or state.phase != "loading":
        chat.load(target)
    chat.wait_ready(LOAD_TIMEOUT_S)


def _ask(
    chat: ChatClient, comparison: PromptComparison, prompts: list[int], places: dict[Column, int]
) -> Iterator[ComparisonAnswer]:
    """Send the prompts to the loaded model in one batch, and yield each answer as it ends; its seconds are its share of
    the batch's time.

    places: the contestant's number for each column. An answer that was stopped is not yielded, and ChatError is raised
    at the end.
    """
    lineup, ended = comparison.lineup, 0
    questions = list[tuple[list[Turn] | None, list[Turn] | None]]()
    for prompt in prompts:
        base, tuned = (
            turns_for(lineup.contestants[places[column]], lineup.prompts[prompt]) if column in places else None
            for column in COLUMNS
        )
        questions.append((base, tuned))
    strength = lineup.contestants[places["tuned"]].strength if "tuned" in places else 1.0
    texts = dict[tuple[int, Column], str]()
    enable_thinking = None if chat.state().thinks is None else lineup.enable_thinking
    sampling = Sampling(max_new_tokens=lineup.max_new_tokens, enable_thinking=enable_thinking)
    with chat.ask_together(questions, sampling, strength) as stream:
        for item in stream:
            key = item.question, item.column
            if isinstance(item, Piece):
                texts[key] = texts.get(key, "") + item.text
            elif item.finish_reason != "stopped":
                ended += 1
                prompt, place, seconds = (
                    prompts[item.question],
                    places[item.column],
                    round(item.seconds / len(prompts), 4),
                )
                yield ComparisonAnswer(prompt=prompt, contestant=place, text=texts.get(key, ""), tokens=item.tokens,
                    seconds=seconds, finish_reason=item.finish_reason)  # fmt: skip
    if ended < len(prompts) * len(places):
        raise ChatError("compare.stopped")

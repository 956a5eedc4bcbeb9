"""Has the contestants of a comparison answer: one loaded model after the other, base and tuned of a pair together. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from core.chat.answer import Column, Done, Piece, Sampling
from core.chat.client import ChatClient, ChatTarget
from core.chat.comparison import Answered, Contestant, PromptComparison
from core.chat.questions import LOAD_TIMEOUT_S, target_of
from core.data.conversation import Turn
from core.errors import ChatError
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace

NO_ROOM = ("chat.too_long", "chat.too_long_for_card", "chat.too_many_characters")


def pair_of(run: RunFolder, base_label: str, run_label: str) -> tuple[Contestant, Contestant]:
    """The base of a run, and the run."""
    return Contestant(label=base_label, run=run.id, column="base"), Contestant(label=run_label, run=run.id)


def alike(answer: str, expected: str) -> bool:
    """But for spaces and capitals."""
    return " ".join(answer.split()).casefold() == " ".join(expected.split()).casefold()


def answer_missing(chat: ChatClient, workspace: Workspace, comparison: PromptComparison) -> Iterator[tuple[int, int]]:
    """(answers there, answers wanted) as they come, each kept at once. A prompt that one of them has no room for is left out. Raises
    ChatError and RunError; what is there stays."""
    lineup = comparison.lineup
    there = {answered for answered in comparison.answers() if answered[0] not in comparison.left_out()}
    wanted = len(there) + len(comparison.missing())
    yield len(there), wanted
    for target, group in _groups(workspace, lineup.contestants):
        missing = set(comparison.missing())
        if not any((prompt, place) in missing for prompt in range(len(lineup.prompts)) for place in group):
            continue
        _have(chat, target)
        for prompt in range(len(lineup.prompts)):
            for places in _together(lineup.contestants, [place for place in group if (prompt, place) in missing]):
                try:
                    for answer in _ask(chat, comparison, prompt, places):
                        comparison.add(answer)
                except ChatError as error:
                    if error.message.key not in NO_ROOM:
                        raise
                    comparison.leave_out(prompt, error.message)
                    there = {answered for answered in there if answered[0] != prompt}
                    wanted = len(there) + len(comparison.missing())
                    yield len(there), wanted
                    break
                there |= {(prompt, place) for place in places.values()}
                yield len(there), wanted


def _groups(workspace: Workspace, contestants: tuple[Contestant, ...]) -> list[tuple[ChatTarget, list[int]]]:
    """What is loaded once, and who is asked then."""
    runs, groups = Runs(workspace), dict[ChatTarget, list[int]]()
    for place, one in enumerate(contestants):
        groups.setdefault(target_of(runs.get(one.run), one.checkpoint), []).append(place)
    return list(groups.items())


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


def _ask(chat: ChatClient, comparison: PromptComparison, prompt: int, places: dict[Column, int]) -> list[Answered]:
    lineup = comparison.lineup
    turns: list[Turn] = [dict(turn) for turn in lineup.prompts[prompt].turns]
    strength = lineup.contestants[places["tuned"]].strength if "tuned" in places else 1.0
    asked = (turns if "base" in places else None, turns if "tuned" in places else None)
    texts, ended = dict.fromkeys(places, ""), dict[Column, Done]()
    with chat.ask(*asked, Sampling(max_new_tokens=lineup.max_new_tokens), strength) as stream:
        for item in stream:
            if isinstance(item, Piece):
                texts[item.column] += item.text
            else:
                ended[item.column] = item
    if set(ended) != set(places) or any(done.finish_reason == "stopped" for done in ended.values()):
        raise ChatError("compare.stopped")
    return [
        Answered(prompt=prompt, contestant=place, text=texts[column], tokens=done.tokens, seconds=round(done.seconds, 3), finish_reason=done.finish_reason)
        for column, place in places.items()
        for done in [ended[column]]
    ]  # fmt: skip

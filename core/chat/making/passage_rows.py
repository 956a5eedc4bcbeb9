"""Lets a model write the rows of one passage and checks each: its quotes stand in the passage, its numbers do, and the
question is answered the same from the passage alone. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from core.chat.making import checks, prompts
from core.chat.making.drafts import Draft, Exchange, Kind, drafts_of, schema
from core.chat.making.passages import Passage
from core.chat.making.rows import Dropped, MadeRow, MakingOrder, Reason, Result, dropped
from core.chat.making.writers import MAX_ANSWER, RowWriter
from core.data.conversation import Turn
from core.judges.numbers import quantities
from core.judges.specs import JudgeSpec
from core.judges.texts import without_thoughts
from core.language import language_of
from core.messages import Message, msg

ATTEMPTS = 3  # for a reply that is not JSON
ROW_TOKENS, MAX_TOKENS = 260, 3000  # of a row that is written; of a whole reply
Span = tuple[int, int]


def write_passage(
    order: MakingOrder,
    passage: Passage,
    writer: RowWriter,
    to_follow: Sequence[tuple[str, str]] = (),
    to_avoid: Sequence[str] = (),
) -> Result:
    """Let the writer write the rows of one passage, by the order sometimes also a question that it does not answer, and
    check each; return rows, dropped ones and the seconds it took. to_follow: rows as examples of style; to_avoid:
    questions. Raises ChatError if the writer cannot be used."""
    began = time.monotonic()
    language = order.language or language_of(passage.text) or "en"
    rows, failed = list[MadeRow](), list[Dropped]()
    kinds: list[tuple[Kind, int]] = [(order.kind, order.count)]
    if _has_unanswerable_question(order, passage):
        kinds.append(("absent", 1))
    for kind, count in kinds:
        request = prompts.writing(kind, language, passage.text, count, order.wordings, to_follow, to_avoid)
        drafts, problems = _drafts(writer, request, kind, language, count, order)
        failed += [problem.model_copy(update={"passage": passage.number}) for problem in problems]
        for one in _checked(drafts[:count], kind, passage, writer, language):
            if isinstance(one, Dropped):
                failed.append(one)
            else:
                draft = one.draft.model_copy(update={"wordings": one.draft.wordings[: order.wordings - 1]})
                rows.append(one.model_copy(update={"id": f"{passage.number}-{len(rows)}", "draft": draft}))
    seconds = round(time.monotonic() - began, 3)
    return Result(passage=passage.number, rows=tuple(rows), dropped=tuple(failed), seconds=seconds)


def size_message(count: int, passages: Sequence[Passage]) -> Message:
    """Return how many passages there are, and about how many tokens are read and written for `count` rows of each."""
    size = sum(len(passage.text.encode("utf-8", "replace")) for passage in passages) // 4
    return msg(
        "making.size",
        passages=len(passages),
        apart=sum(passage.validation for passage in passages),
        read=size * (1 + count) + 500 * len(passages),
        written=len(passages) * count * (ROW_TOKENS // 2 + 80),
    )


def _has_unanswerable_question(order: MakingOrder, passage: Passage) -> bool:
    """Return whether a question that this passage does not answer is written from it: evenly by the share, the first
    half a step from the beginning, so that a short document has one too."""
    return int(order.absent * (passage.number + 1) + 0.5) > int(order.absent * passage.number + 0.5)


def _drafts(
    writer: RowWriter, request: list[Turn], kind: Kind, language: str, count: int, order: MakingOrder
) -> tuple[list[Draft], list[Dropped]]:
    """Request rows, at most ATTEMPTS times, until a reply is JSON; return them, none if none was, and what is wrong
    with the reply. An order with another seed than 0 has no greedy attempt, but other rows."""
    tokens = min(MAX_TOKENS, ROW_TOKENS * count + 60 * count * (order.wordings - 1))
    absent = prompts.prompt_of("absent").absent_answer
    text = ""
    for attempt in range(order.seed * ATTEMPTS, (order.seed + 1) * ATTEMPTS):
        [text] = writer.answers([request], tokens, attempt, schema(kind))
        try:
            drafts, bad = drafts_of(text, kind, absent.get(language, absent["en"]))
        except ValueError:
            continue
        return drafts, [Dropped(passage=0, why="form", other=text[:500])] * bad
    return [], [Dropped(passage=0, why="not_json", other=text[:500])]


def _checked(
    drafts: Sequence[Draft], kind: Kind, passage: Passage, writer: RowWriter, language: str
) -> Iterator[MadeRow | Dropped]:
    """Yield each draft as a row if it passes the checks, else as dropped with the reason.

    A draft is dropped for a quote or number that the passage lacks, or if the writer, asked again with the passage,
    answers differently (not compared for summaries). Of kind "absent", a question that the passage should not answer,
    it is dropped if the writer answers it. A row that the writer answers the same without the passage too is not
    dropped; its field `known` is then True.
    """
    valid = list[tuple[Draft, tuple[Span, ...]]]()
    for draft in drafts:
        spans = _spans(draft, kind, passage)
        if isinstance(spans, Dropped):
            yield spans
        else:
            valid.append((draft, spans))
    turns = [[*messages(draft.steps[:place]), {"role": "user", "content": step.question}]
             for draft, _ in valid for place, step in enumerate(draft.steps)]  # fmt: skip
    if not turns:
        return
    from_passage = iter(_answers(writer, [prompts.answering(language, each, passage.text) for each in turns]))
    alone = iter(_answers(writer, turns) if kind != "absent" else [""] * len(turns))
    spec = checks.judge_of([step.answer for draft, _ in valid for step in draft.steps])
    for draft, spans in valid:
        others, own = ([next(answers) for _ in draft.steps] for answers in (from_passage, alone))
        pairs = list(zip(draft.steps, others, strict=True))
        if wrong := [place for place, (step, other) in enumerate(pairs) if not _agrees(kind, spec, step.answer, other)]:
            why: Reason = "stated" if kind == "absent" else "differs"
            yield dropped(draft, passage.number, why, others[wrong[0]], wrong[0])
            continue
        known = kind != "absent" and all(
            checks.says_the_same(spec, step.answer, answer, exactly=True)
            for step, answer in zip(draft.steps, own, strict=True)
        )
        yield MadeRow(id="", passage=passage.number, kind=kind, draft=draft, spans=spans, known=known)


def _spans(draft: Draft, kind: Kind, passage: Passage) -> tuple[Span, ...] | Dropped:
    """Return where the quotes of a draft stand in the passage, one span for each step; () for a question that the
    passage does not answer, which has no quotes. The draft as Dropped if a quote does not stand there, or an answer has
    a number that the passage does not have."""
    if kind == "absent":
        return ()
    spans, given = list[Span](), quantities(passage.text)
    for place, step in enumerate(draft.steps):
        if (span := checks.quote_span(passage.text, step.quote)) is None:
            return dropped(draft, passage.number, "quote", step.quote, place)
        spans.append(span)
        if invented := [number.text for number in quantities(step.answer) if not checks.has_number(number, given)]:
            return dropped(draft, passage.number, "number", invented[0], place)
    return tuple(spans)


def _agrees(kind: Kind, spec: JudgeSpec, answer: str, other: str) -> bool:
    """Return whether the writer's second answer, given from the passage alone, supports a row.

    It must say the same as the row's answer; of a question without an answer, that none is stated. Always True for a
    summary, as two summaries cannot be compared.
    """
    is_stated = prompts.NOT_STATED.casefold() not in other.casefold()
    if kind == "absent":
        return not is_stated
    return kind == "summary" or (is_stated and checks.says_the_same(spec, answer, other))


def _answers(writer: RowWriter, conversations: list[list[Turn]]) -> list[str]:
    """Return the writer's answers, thoughts left out."""
    return [without_thoughts(text) for text in writer.answers(conversations, MAX_ANSWER)]


def messages(steps: Sequence[Exchange]) -> list[Turn]:
    """Return the steps as turns: each question, then its answer."""
    return [
        {"role": role, "content": content}
        for step in steps
        for role, content in (("user", step.question), ("assistant", step.answer))
    ]

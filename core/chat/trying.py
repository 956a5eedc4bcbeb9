"""Tries a model on some questions of a dataset before a training by rewards: it can only learn where the answers to a
question get different rewards. No torch: the chat's process writes the answers."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice

from core.chat.answer import Sampling
from core.chat.contest import AT_ONCE, ensure_loaded
from core.chat.making.writers import LocalWriter
from core.data.conversation import Turn
from core.data.formats import Example
from core.data.row_order import shuffle
from core.data.tokenizer import conversation
from core.errors import RunError
from core.judges import weighted
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.judging import Judging, shares_of_groups
from core.values import Frozen

QUESTIONS = 16
MIN_MIXED = 0.1  # share of questions with better and worse answers, below which a training learns next to nothing
MAX_TOKENS = 4096  # of an answer in a chat


class Trial(Frozen):
    """The result. wrong, right, mixed: questions whose answers all got no reward, all the largest, and different ones.
    reward: the mean, as a share of the largest. question, best: the best answer with its question. seconds: that the
    answers to one question took."""

    questions: int
    answers: int
    wrong: int
    right: int
    mixed: int
    reward: float
    question: str
    best: str
    seconds: float

    @property
    def can_learn(self) -> bool:
        """True if enough questions got different rewards: a share of MIN_MIXED."""
        return self.mixed >= MIN_MIXED * self.questions

    def verdict(self) -> Message:
        """Return in a sentence whether a training by rewards can learn here, and what to do if not."""
        facts = self.model_dump(include={"questions", "wrong", "right", "mixed"})
        if self.can_learn:
            return msg("rewards.trial_learns", **facts)
        most = max((self.wrong, "wrong"), (self.right, "right"), (self.questions - self.wrong - self.right, "alike"))
        return msg(f"rewards.trial_{most[1]}", **facts)


def questions_of(examples: Sequence[Example], seed: int) -> list[tuple[list[Turn], str]]:
    """Return up to QUESTIONS rows, drawn at random by the seed, each as (the turns before its last answer, that
    answer). Rows of plain text, with tools, or without a question right before a last answer are skipped. Raises
    RunError if no row is left."""
    rows = (examples[place] for place in shuffle(range(len(examples)), random.Random(f"{seed}/trial")))
    conversations = (conversation(row) for row in rows if row.text is None and not row.tools)
    questions = (
        (turns[:-1], str(turns[-1]["content"]))
        for turns in conversations
        if len(turns) > 1 and turns[-1]["role"] == "assistant" and turns[-2]["role"] == "user"
    )
    drawn = list(islice(questions, QUESTIONS))
    if not drawn:
        raise RunError("rewards.no_question")
    return drawn


def try_model(
    writer: LocalWriter, recipe: Recipe, examples: Sequence[Example], report: Callable[[int, int], None]
) -> Trial:
    """Let a model answer questions of the data as a step of the recipe would, have the answers judged, and return the
    result. report(answers there, answers in all) may raise. Raises GarageError."""
    assert recipe.rewards
    rewards, questions = recipe.rewards, questions_of(examples, recipe.train.seed)
    copies, total = rewards.num_generations, len(questions) * rewards.num_generations
    ensure_loaded(writer.chat, writer.target)
    thinks = None if writer.chat.state().thinks is None else bool(recipe.data.enable_thinking)
    pairs, began = list[tuple[str, str]](), time.monotonic()
    for turns, expected in questions:
        for seed in range(0, copies, AT_ONCE):
            report(len(pairs), total)
            sampling = Sampling(
                do_sample=True, temperature=rewards.temperature, top_p=1.0, seed=seed, enable_thinking=thinks,
                max_new_tokens=min(MAX_TOKENS, rewards.max_completion_length),
            )  # fmt: skip
            texts = writer.sampled([turns] * min(AT_ONCE, copies - seed), sampling)
            pairs += [(expected, text) for text in texts]
    seconds = (time.monotonic() - began) / len(questions)
    judges = weighted.read(rewards.judges)
    judging = Judging(judges)
    try:
        judged = judging.judge(pairs, lambda: report(total, total))
    finally:
        judging.close()
    given, largest = judged.rewards(judges), sum(judge.weight for judge in judges)
    known = [(reward, place) for place, reward in enumerate(given) if not math.isnan(reward)]
    if not known:
        name, why = next(iter(judged.problems.items()))
        raise RunError("rewards.judge_cannot", judge=name, why=why)
    _, best = max(known)
    shares = shares_of_groups(given, copies, largest)
    return Trial(
        questions=len(questions),
        answers=copies,
        wrong=round(shares["frac_all_wrong"] * len(questions)),
        right=round(shares["frac_all_right"] * len(questions)),
        mixed=round((1 - shares["frac_reward_zero_std"]) * len(questions)),
        reward=statistics.fmean(reward for reward, _ in known) / largest,
        question=str(questions[best // copies][0][-1]["content"]),
        best=pairs[best][1],
        seconds=seconds,
    )

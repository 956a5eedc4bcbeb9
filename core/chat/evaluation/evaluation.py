"""An evaluation: the questions of a test set, the contestants that answer them, and their answers, each kept as it
comes. No torch.

<workspace>/evaluation/results/<id>/: the files of a comparison (core/chat/comparison). An answer that an earlier
evaluation has to the same conversation, from the same weights and with the same settings, is copied instead of
generated, so that an evaluation which was killed goes on where it was and a further contestant costs only its own
answers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress

from core.chat.client import ChatTarget
from core.chat.comparison import Contestant, PromptComparison
from core.chat.contest import chat_target, turns_for
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.nearest import nearest
from core.chat.evaluation.sets import TestSet
from core.chat.prompts import Prompt
from core.errors import GarageError
from core.runs.all import Runs
from core.workspace.folder import Workspace

EXAMPLES = 5  # training rows before a question
# UTF-8 bytes of the examples of one question: about a thousand tokens, which fit into the smallest contexts
MAX_EXAMPLE_BYTES = 4000
MIN_TOKENS, USUAL_TOKENS, MAX_TOKENS = 32, 256, 512  # of an answer
NEARLY_ALL = 0.95  # share of the trained answers that have to fit twice
WEIGHTS = ("adapter_model.safetensors", "adapter_config.json", "chat_template.jinja")


class SetEvaluation(PromptComparison):
    """An evaluation on disk: the questions of a test set, the contestants (models with their settings) that answer
    them, and their answers."""

    FOLDER = "evaluation/results"

    @classmethod
    def prepare(
        cls,
        workspace: Workspace,
        test_set: TestSet,
        contestants: Sequence[Contestant],
        learned: LearnedRows | None = None,
        enable_thinking: bool | None = None,
    ) -> SetEvaluation:
        """Return the evaluation with these contestants (with their weights' fingerprint), questions and settings, or
        create it, and copy answers that other evaluations have.

        learned: training rows; questions among them are marked, and the examples are taken from them. Raises
        GarageError if a contestant is gone.
        """
        contestants = [
            one.model_copy(update={"weights": fingerprint(workspace, one, chat_target(workspace, one))})
            for one in contestants
        ]
        prompts = list(test_set.prompts)
        if learned is not None:
            prompts = with_examples(learned.marked(prompts), learned, max(one.examples for one in contestants))
        named, length = (test_set.title, test_set.fingerprint), answer_tokens(prompts, learned)
        evaluation = next(
            (
                one
                for one in cls.all_of(workspace)
                if (one.lineup.test_set, one.lineup.max_new_tokens, one.lineup.enable_thinking)
                == (named, length, enable_thinking)
                and list(one.lineup.prompts) == prompts
                and list(one.lineup.contestants) == contestants
            ),
            None,
        ) or cls.create(workspace, prompts, contestants, length, named, enable_thinking)
        evaluation.take_over(workspace)
        return evaluation

    def take_over(self, workspace: Workspace) -> None:
        """Copy the answers that are missing here from other evaluations with the same settings, weights and turns, and
        save them."""
        missing: dict[str, list[tuple[int, int]]] = {}
        for prompt, place in self.missing():
            missing.setdefault(self._question(prompt, place), []).append((prompt, place))
        for other in SetEvaluation.all_of(workspace):
            if not missing:
                return
            if other.id != self.id and other.settings == self.settings:
                for (prompt, place), answer in other.answers().items():
                    for own in missing.pop(other._question(prompt, place), ()):
                        self.add(answer.model_copy(update={"prompt": own[0], "contestant": own[1]}))

    @property
    def settings(self) -> tuple[int, bool | None]:
        """Return (most tokens of an answer, whether thinking is enabled), the settings of decoding, which is always
        greedy. Results with other settings cannot be compared."""
        return self.lineup.max_new_tokens, self.lineup.enable_thinking

    @property
    def run(self) -> str | None:
        """The id of the run that is evaluated: the first fine-tuned contestant; None without one."""
        return next((one.run for one in self.lineup.contestants if one.column == "tuned"), None)

    def _question(self, prompt: int, place: int) -> str:
        """Return a key of the weights, the strength and the conversation that a contestant gets for a prompt, as JSON;
        answers with equal keys are the same and need not be generated again. place: the contestant's number."""
        one = self.lineup.contestants[place]
        return json.dumps([one.weights, one.strength, turns_for(one, self.lineup.prompts[prompt])])


def fingerprint(workspace: Workspace, contestant: Contestant, target: ChatTarget) -> str:
    """Return 16 digits that change with the weights of a contestant: its base and precision, and for a tuned one its
    adapter's files.

    For the base of a run they also change with whether the run was trained to think, because its base is prompted in
    the same way.
    """
    digest = hashlib.sha256(
        json.dumps([target.model_id, target.revision, target.four_bit, target.eight_bit, contestant.column]).encode()
    )
    if contestant.column == "tuned" and target.adapter is not None:
        for name in WEIGHTS:
            with suppress(FileNotFoundError), open(target.adapter / name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    elif contestant.run:
        with suppress(GarageError):
            thinks = Runs(workspace).get(contestant.run).facts().enable_thinking
            digest.update(b"" if thinks is None else str(thinks).encode())
    return digest.hexdigest()[:16]


def with_examples(prompts: Sequence[Prompt], learned: LearnedRows, count: int) -> list[Prompt]:
    """Return the prompts with examples: for each, up to `count` training rows (question, answer) nearest to its
    question, the nearest first, that together fit into MAX_EXAMPLE_BYTES; the same question is not among them. With
    count 0 the prompts are unchanged."""
    if not count:
        return list(prompts)
    rows = nearest([prompt.question for prompt in prompts], [question for question, _ in learned.pairs], 4 * count)
    return [
        prompt.model_copy(update={"examples": _short_ones(prompt, [learned.pairs[place] for place in places], count)})
        for prompt, places in zip(prompts, rows, strict=True)
    ]


def _short_ones(prompt: Prompt, pairs: Sequence[tuple[str, str]], count: int) -> tuple[tuple[str, str], ...]:
    """Return the first `count` pairs that fit into MAX_EXAMPLE_BYTES together, without the prompt's own question;
    longer ones are skipped."""
    chosen, left = list[tuple[str, str]](), MAX_EXAMPLE_BYTES
    for pair in pairs:
        size = len("".join(pair).encode("utf-8", "replace"))
        if pair[0] != prompt.question and size <= left and len(chosen) < count:
            chosen.append(pair)
            left -= size
    return tuple(chosen)


def answer_tokens(prompts: Sequence[Prompt], learned: LearnedRows | None) -> int:
    """Return the limit of tokens for an answer, between MIN_TOKENS and MAX_TOKENS; USUAL_TOKENS if no answer is known.

    It is twice the longest expected answer, at four bytes a token, and 16 more. Trained answers count like expected
    ones, without the few longest.
    """
    expected, trained = ([len(text.encode("utf-8", "replace")) for text in texts] for texts in (
        [prompt.expected for prompt in prompts if prompt.expected],
        [answer for _, answer in learned.pairs] if learned else [],
    ))  # fmt: skip
    if not expected and not trained:
        return USUAL_TOKENS
    longest = max([*expected, *sorted(trained)[: math.ceil(NEARLY_ALL * len(trained))]])
    return min(MAX_TOKENS, max(MIN_TOKENS, 2 * longest // 4 + 16))

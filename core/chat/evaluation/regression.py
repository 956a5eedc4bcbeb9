"""The test sets of a run's base as questions for its last step, within the time of its sample answers. No torch.

Only the newest MAX_TESTS questions; those that the run is trained on are left out. core/chat/film generates the
answers, core/runs/cards/tested keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from core.chat.evaluation import sets
from core.chat.evaluation.evaluation import answer_tokens
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.table import Opinions, judge_for, question_key, verdict_on
from core.chat.prompts import Prompt
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import GarageError, JudgeError
from core.judges.judge import Outcome
from core.judges.specs import ExactJudge, JudgeSpec
from core.presets import PRESETS
from core.runs.all import Runs
from core.runs.cards import tested
from core.runs.cards.tested import TestedAnswer, TestedAnswers
from core.runs.folder import RunFolder
from core.runs.sample_answers import FrameAnswer
from core.runs.states import State
from core.workspace.folder import Workspace

MAX_TESTS = 40


class BaseTests:
    """The questions of a run at its end. max_new_tokens: of an answer."""

    def __init__(self, workspace: Workspace, run: RunFolder):
        """Choose the questions of all test sets of the run's base that it was not trained on, each with its judge; at
        most MAX_TESTS, the last ones."""
        base, store = run.recipe().model.id, DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
        of_base = [one for one in sets.all_sets(workspace) if one.base == base]
        learned: LearnedRows | None = None
        with suppress(GarageError):  # the dataset of a run that it continues may be gone
            learned = LearnedRows.of_run(run, store, Runs(workspace)) if of_base else None
        self._workspace, self._run, self._base = workspace, run, base
        self.tests = list[tuple[str, Prompt]]()
        for test_set in of_base:
            judge: JudgeSpec = ExactJudge()
            with suppress(JudgeError):  # each question has its own
                judge = judge_for(test_set, learned)
            self.tests += [
                (test_set.title, prompt.model_copy(update={"judge": prompt.judge or judge}))
                for prompt in test_set.prompts
                if learned is None or not learned.has(prompt)
            ]
        del self.tests[:-MAX_TESTS]
        self.max_new_tokens = answer_tokens([prompt for _, prompt in self.tests], learned)

    def ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return the token ids of each question, and remove the questions from `tests` that the template refuses or
        that leave no room for an answer."""
        limit, fitting, ids = tokenizer.position_limit, list[tuple[str, Prompt]](), list[list[int]]()
        for title, prompt in self.tests:
            with suppress(GarageError):
                question = tokenizer.prompt([dict(turn) for turn in prompt.turns], [])
                if limit is None or len(question) + self.max_new_tokens <= limit:
                    fitting.append((title, prompt))
                    ids.append(question)
        self.tests = fitting
        return ids

    def keep(self, step: int, answers: Sequence[FrameAnswer]) -> None:
        """Judge the answers, in the order of the questions, and write them to the run's folder with what an earlier run
        had right; without an outcome for those that were not ready in time or not judged."""
        before, opinions = self._right_before(), Opinions.read(self._workspace.root)
        results = list[TestedAnswer]()
        for (title, prompt), answer in zip(self.tests, answers, strict=True):
            outcome: Outcome | None = None
            with suppress(JudgeError):
                if answer.why != "time" and prompt.judge is not None:
                    verdict = verdict_on(prompt, prompt.judge, answer.text, opinions)
                    outcome = verdict.outcome if verdict else None
            key = hashlib.sha256(question_key(prompt).encode("utf-8", "replace")).hexdigest()[:16]
            results.append(TestedAnswer(
                set=title, key=key, question=prompt.question[:200], text=answer.text, outcome=outcome,
                before=before.get(key),
            ))  # fmt: skip
        tested.write(self._run, TestedAnswers(step=step, answers=tuple(results)))

    def _right_before(self) -> dict[str, str]:
        """Return {key of a question: name of the run} for the questions that the newest earlier run of this base with
        an outcome had right."""
        newest = dict[str, tuple[Outcome, str]]()
        for run in Runs(self._workspace).list():  # newest first
            if run.id == self._run.id or run.status().state != State.COMPLETED:
                continue
            with suppress(GarageError):
                answers = tested.read(run) if run.recipe().model.id == self._base else None
                for one in answers.answers if answers else ():
                    if one.outcome is not None:
                        newest.setdefault(one.key, (one.outcome, run.name))
        return {key: name for key, (outcome, name) in newest.items() if outcome == "right"}

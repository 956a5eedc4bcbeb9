"""Sample answers during training: fixed prompts decoded greedily between two steps, and the loss on neutral texts.
Workers only.

Those of one step are a frame. Frames are taken at step 0, after the last step, and at evaluations in between (without
held-out rows: at the steps where they would be measured). All prompts are one batch, or several if one would hold more
tokens than a training step, so that sample answers never set the run's memory need. All frames together take at most
5 % of the run (core/chat/film_time), and the answers of one at most train.sample_seconds; answers are complete or
missing: as many prompts are asked as the current speed can answer, the most informative first. Beyond that time the
first frame and the last always answer the most informative prompt, so that every run has an answer before and after.
After a frame without an answer one or more frames are skipped, which leaves a busy PC alone. Sample answers change
nothing of the training: no weight, no random state, bit for bit on a CPU. A model that cannot be asked this way is
trained without them, and the run reports it.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from core.chat.evaluation.regression import BaseTests
from core.chat.film_time import SampleTime, texts_within
from core.data.formats import Example
from core.data.labels import Encoded
from core.data.row_order import Schedule, packed
from core.data.tokenizer import Tokenizer
from core.engine.decoding.decoder import DecodedRows, Decoder, for_decoding
from core.engine.device import random_states, set_random_states
from core.engine.step import Step
from core.errors import ModelError
from core.files import is_out_of_memory
from core.messages import msg
from core.runs import sample_answers
from core.runs.cards import better
from core.runs.reporter import Reporter
from core.runs.sample_answers import Ending, Frame, FrameAnswer
from core.runs.scenes import ANSWER_TOKENS, Scenes
from core.workspace.folder import Workspace

UNFINISHED = "\ufffd"  # an incomplete character
NEUTRAL_SHARE = 0.25  # of a frame's time: if the texts take more, they are measured only before and after
READING_SHARE = 0.5  # of a frame's time, for reading the prompts; the first may take all of it
# share of the time that a single answer is expected to need, by the longest before: with less it is given up at once
HOPELESS = 0.5
CERTAIN_S = 30.0  # for the answer that the first and last frame always have; it is cut off after that
MAX_SKIPPED = 4  # frames in a row
SOURCE_ORDER = ("own", "kept_apart", "trained", "neutral")  # one of each source, then the second of each, ...
# Errors of an unusual model family, of a prompt with a token that the model does not know, or of full memory. Stop,
# Pause and a full disk are handled by the trainer.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, ModelError, RuntimeError, TypeError, ValueError)


@dataclass
class _AnswerRow:
    """One answer while it is generated."""

    place: int
    prompt: list[int]
    most: int  # tokens
    ids: list[int] = field(default_factory=list)
    why: Ending | None = None

    def take(self, token: int, is_finite: bool, stop_ids: frozenset[int]) -> None:
        """Add a token to the answer, and set why it ends, or None while it goes on: "length" with its last allowed
        token. For numbers that are not finite ("not_finite") and for a stop token ("stop") the token is not added."""
        if not is_finite:
            self.why = "not_finite"
        elif token in stop_ids:
            self.why = "stop"
        else:
            self.ids.append(token)
            self.why = "length" if len(self.ids) >= self.most else None

    def answer(self, tokenizer: Tokenizer) -> FrameAnswer:
        """Return the answer as text, without an incomplete last character, and the reason of its end; an answer that
        has not ended gives "" with "time", its tokens so far are dropped."""
        if self.why is None:
            return FrameAnswer(text="", why="time")
        return FrameAnswer(text=tokenizer.decode(self.ids).rstrip(UNFINISHED).strip(), why=self.why)


@dataclass(frozen=True)
class SampleSettings:
    """Contents of the sample answers. seconds: the most for a frame. workspace: where the test sets are. clock:
    replaced in tests."""

    tokenizer: Tokenizer
    scenes: Scenes
    seconds: float
    workspace: Workspace | None = None
    clock: Callable[[], float] = time.monotonic


class SampleAnswers:
    """The sample answers of a training; those of one step are a frame. `begin` starts an attempt, `take` is called
    between its steps. schedule, eval_every: of the training."""

    def __init__(self, step: Step, reporter: Reporter, settings: SampleSettings, schedule: Schedule, eval_every: int):
        """Encode the prompts, tests and as many neutral texts as the run can afford to measure, and plan how often
        frames are due."""
        self._step, self._reporter, self._total_steps = step, reporter, schedule.total_steps
        self._tokenizer, self._seconds, self._clock = settings.tokenizer, settings.seconds, settings.clock
        self._model = step.tuned.get_base_model()
        self._decoder = Decoder(self._model, step.pad_token_id)
        self._prompts = [scene.ids(settings.tokenizer) for scene in settings.scenes.scenes]
        self._held_out = [
            scene.ids(settings.tokenizer) for scene in settings.scenes.held_out
        ]  # only before and after, core/runs/cards/better
        self._tests = BaseTests(settings.workspace, reporter.run) if settings.workspace else None
        self._test_prompts = self._tests.ids(settings.tokenizer) if self._tests else []
        encoded = [settings.tokenizer.encode_full(Example(text=text)) for text in settings.scenes.neutral_texts]
        run_tokens = sum(schedule.lengths) * schedule.total_steps / schedule.steps_per_epoch
        affordable = texts_within([len(row.input_ids) for row in encoded], run_tokens)
        self._neutral = [Encoded(row.input_ids, row.learned) for row in encoded[:affordable]]
        self._neutral_seconds = 0.0
        self._order = _most_informative_first([scene.source for scene in settings.scenes.scenes])
        self._usual_length = ANSWER_TOKENS  # tokens of the longest answer of the frame before
        # limit for the prompts per second of a frame, by the answers of the frame before
        self._prompts_per_second = math.inf
        self._skips, self._skips_left = 0, 0  # frames to skip, and how many of those are left
        self._overtime = 0.0  # seconds that the guaranteed answer took beyond the frame's time
        self._is_off = False
        self._first_step_taken: int | None = None  # this attempt's first step, if its frame exists already
        self._at_once = 0
        self.every = sample_answers.every(eval_every, schedule.total_steps)
        self._time = SampleTime(settings.seconds, self.every, schedule.total_steps)

    def begin(self, at: int, at_once: int) -> None:
        """Prepare an attempt of the run: is_due leaves out its first step if the file has a frame of that step already,
        and batches are limited. at: the attempt's first step. at_once: the most tokens of a training batch, which is
        also the limit of a batch of prompts."""
        self._first_step_taken = (
            at if any(frame.step == at for frame in sample_answers.read(self._reporter.run)) else None
        )
        self._at_once = at_once

    def is_due(self, step: int, stops_early: bool = False) -> bool:
        """Return whether a frame is due at a step: at step 0, each multiple of `every`, and the run's last step. Never
        after an error has turned the sample answers off, and not at an attempt's first step if its frame exists.
        stops_early: this step is the run's last."""
        at_its_turn = step % self.every == 0 or step == self._total_steps or stops_early
        return at_its_turn and not self._is_off and step != self._first_step_taken

    def take(self, step: int, steps_take: Callable[[float | None], float | None], stops_early: bool = False) -> None:
        """Measure the neutral loss, answer the prompts in the time that step gets, and append the frame to film.jsonl;
        before and after the training also answer the held-out questions, after it the tests of the base. A frame in
        between is skipped if there is no time. steps_take: returns the seconds of all steps, estimated from the given
        seconds per token before the first step. stops_early: this step is the run's last. Stop and Pause take effect
        between two tokens, and between the layers of one."""
        is_inner = 0 < step < self._total_steps and not stops_early
        if is_inner and self._skips_left:
            self._skips_left -= 1
            return
        # Without a known speed the texts measure it.
        is_known = steps_take(self._seconds_per_token) is not None or not self._neutral
        self._seconds = self._seconds_for(step, steps_take)
        if is_inner and is_known and not self._seconds:
            return
        self._reporter.set_stage("sampling")
        started, spent = self._clock(), self._time.spent
        with self._unchanged(step):
            loss = self._neutral_loss(is_inner)
            self._time.spent = spent + self._clock() - started
            self._seconds = self._seconds_for(step, steps_take)
            self._overtime = 0.0
            answers = self._answers(self._clock() + self._seconds, has_guaranteed=not is_inner)
            in_time = sum(answer.why != "time" for answer in answers) - (self._overtime > 0)
            self._prompts_per_second = (2 * in_time or len(answers) / 4) / self._seconds if self._seconds else math.inf
            self._skips = self._skips_left = 0 if in_time or not answers else min(MAX_SKIPPED, max(1, 2 * self._skips))
            attempt, seconds = self._reporter.status.attempt, self._clock() - started
            self._time.spent = spent + seconds - self._overtime
            frame = Frame(
                step=step, attempt=attempt, seconds=round(seconds, 2), answers=tuple(answers), neutral_loss=loss
            )
            sample_answers.append(self._reporter.run, frame)
        if self._held_out and not is_inner:
            with self._unchanged(step):
                answers = self._answers_to(self._held_out, self._clock() + self._time.most, ANSWER_TOKENS)
                better.append(self._reporter.run, step, answers)
        if self._tests and self._test_prompts and step and not is_inner:
            with self._unchanged(step):
                end, most = self._clock() + self._time.most, self._tests.max_new_tokens
                self._tests.keep(step, self._answers_to(self._test_prompts, end, most))

    def _seconds_for(self, step: int, steps_take: Callable[[float | None], float | None]) -> float:
        """Return the seconds that the frame at a step may take; 0 if the run's length is unknown.

        steps_take: returns the seconds of all steps of the run; it is called with the measured seconds per token, or
        None.
        """
        return self._time.seconds_for(step, steps_take(self._seconds_per_token), self._neutral_seconds)

    @property
    def _seconds_per_token(self) -> float | None:
        """Seconds per token read, measured on the neutral texts; None before."""
        tokens = sum(len(row.input_ids) for row in self._neutral)
        return self._neutral_seconds / tokens if tokens and self._neutral_seconds else None

    @torch.no_grad()
    def rehearse(self) -> None:
        """Compute and discard, for the memory probe, what a frame needs at most: the widest batch with full answers,
        and the texts. An error turns all sample answers off."""
        with self._unchanged(None), for_decoding(self._model):
            if self._prompts:
                widest = max(self._groups(), key=lambda rows: len(rows) * max(len(row.prompt) for row in rows))
                pad = [self._decoder.pad_token_id] * ANSWER_TOKENS
                ids, mask = self._decoder.left_padded([row.prompt + pad for row in widest])
                self._decoder.forward(ids, mask, None)
        with self._unchanged(None):
            self._measure_neutral()

    @contextmanager
    def _unchanged(self, step: int | None) -> Iterator[None]:
        """Context manager: switch the model to eval mode, in which it stays, and restore the random states afterwards.
        An error of FAULTS in it is reported as a warning and does not end the run: lack of memory ends this frame (step
        None: all sample answers) and halves the next batches, any other turns all sample answers off. Other exceptions,
        such as those of Stop and Pause, pass."""
        on_card = self._step.on_card
        states = random_states(on_card)
        self._step.tuned.eval()
        try:
            yield
        except FAULTS as error:
            if is_out_of_memory(error):
                self._is_off, self._at_once = step is None, self._at_once // 2  # smaller batches in the next frame
                traceback.clear_frames(error.__traceback__)
                if on_card:
                    torch.cuda.empty_cache()
                self._reporter.warn(msg("film.no_memory") if step is None else msg("film.frame_no_memory", step=step))
            else:
                self._is_off = True
                traceback.print_exc()
                reason = (str(error).splitlines() or [""])[0][:200]
                self._reporter.warn(msg("film.cannot_ask", kind=type(error).__name__, reason=reason))
        finally:
            set_random_states(states)

    # ---- answers ----------------------------------------------------------------------------------------------------
    def _groups(self, prompts: Sequence[int] | None = None) -> list[list[_AnswerRow]]:
        """Return prompts (all, or these numbers) in batches whose tokens, with their answers, stay within a step's
        largest batch."""
        return self._grouped(
            [
                _AnswerRow(place, self._prompts[place], ANSWER_TOKENS)
                for place in (range(len(self._prompts)) if prompts is None else prompts)
            ]
        )

    def _grouped(self, rows: Sequence[_AnswerRow]) -> list[list[_AnswerRow]]:
        """Return batches of successive rows, each with at most as many tokens (padded prompts and their full answers)
        as a step's largest batch; a row that is longer is a batch of its own."""
        groups: list[list[_AnswerRow]] = []
        for row in rows:
            group = [*groups[-1], row] if groups else [row]
            width = max(len(each.prompt) for each in group) + row.most
            if groups and len(group) * width <= self._at_once:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def _readable(self) -> list[int]:
        """Return the numbers of the most informative prompts, in that order, that a frame has time for; [] if none. All
        together are read in READING_SHARE of its time at the speed of the neutral texts (the first may take all of it),
        and they are no more than the pace of the last frame allows, or one."""
        seconds = list(
            accumulate((self._seconds_per_token or 0.0) * len(self._prompts[place]) for place in self._order)
        )
        limits = [self._seconds, *[READING_SHARE * self._seconds] * len(seconds)]
        return [place for place, elapsed, limit in zip(self._order, seconds, limits, strict=False) if elapsed <= limit][
            : int(min(len(self._prompts), max(1.0, self._prompts_per_second * self._seconds)))
        ]

    @property
    def _unanswered(self) -> list[FrameAnswer]:
        """An empty answer for each prompt, with "time" as the reason."""
        return [FrameAnswer(text="", why="time")] * len(self._prompts)

    def _answers(self, end: float, has_guaranteed: bool) -> list[FrameAnswer]:
        """Return one answer for each prompt, in their order, decoded until `end`; empty with "time" if there was none
        for it.

        has_guaranteed: the most informative prompt is answered in any case.
        """
        chosen = self._readable() if self._seconds else []
        groups = self._groups(chosen or (self._order[:1] if has_guaranteed else []))
        guaranteed = groups[0][0] if groups and has_guaranteed else None
        with for_decoding(self._model):
            for rows in groups:
                self._decode(rows, end, guaranteed)
        rows_done, answers = [row for rows in groups for row in rows], self._unanswered
        self._usual_length = max((len(row.ids) for row in rows_done if row.why), default=ANSWER_TOKENS)
        for row in rows_done:
            answers[row.place] = row.answer(self._tokenizer)
        return answers

    def _decode(self, rows: Sequence[_AnswerRow], end: float, guaranteed: _AnswerRow | None = None) -> None:
        """Decode all rows greedily, into the rows, until they end or the clock reaches `end`.

        A finished row leaves the batch; so do the last rows if the time is too short for all, by the pace of the token
        before. guaranteed: the first row, if any, which has CERTAIN_S more.
        """
        alive = list(rows)
        decoding, last, written = DecodedRows(self._decoder, [row.prompt for row in alive]), self._clock(), 0
        while alive and (last < end or alive[0] is guaranteed):
            self._reporter.check()
            value, best = decoding.next_logits().max(dim=-1)
            chosen = zip(alive, best.tolist(), torch.isfinite(value).tolist(), strict=True)
            for row, token, is_finite in chosen:
                row.take(token, is_finite, self._tokenizer.stop_ids)
            now, written = self._clock(), written + 1
            continuing = [i for i, row in enumerate(alive) if row.why is None]
            if written > 1 and continuing:  # the first token included the prefill
                needed = (now - last) * max(1, self._usual_length - written)
                share = min(1.0, (end - now) / needed) if needed > 0 else 1.0
                is_open = guaranteed is not None and guaranteed.why is None
                continuing = continuing[
                    : max(int(len(continuing) * share), len(continuing) > 1 or share >= HOPELESS or is_open)
                ]
            if last >= end:
                self._overtime += now - last
            if now >= end:
                continuing = [i for i in continuing if alive[i] is guaranteed]
            if guaranteed is not None and now >= end + CERTAIN_S:
                guaranteed.why, continuing = guaranteed.why or "length", []
            last = now
            decoding.append(best)
            if continuing:
                decoding.keep(continuing)
            alive = [alive[i] for i in continuing]

    def _answers_to(self, prompts: Sequence[list[int]], end: float, most: int) -> list[FrameAnswer]:
        """Return one greedy answer of at most `most` tokens for each prompt, decoded until `end`; "time" if there was
        none for it."""
        rows = [_AnswerRow(place, prompt, most) for place, prompt in enumerate(prompts)]
        with for_decoding(self._model):
            for group in self._grouped(rows):
                self._decode(group, end)
        return [row.answer(self._tokenizer) for row in rows]

    # ---- neutral texts ----------------------------------------------------------------------------------------------
    def _neutral_loss(self, is_inner: bool) -> float | None:
        """Measure the loss on the neutral texts, note its seconds for later frames, and return it; None if it is not
        finite or there are no texts. At a frame between the first and the last (is_inner) nothing is measured, and the
        result is None, if the last measurement took too large a share of the frame's time."""
        if self._neutral_seconds > NEUTRAL_SHARE * self._seconds and is_inner:
            return None
        started = self._clock()
        loss = self._measure_neutral()
        self._neutral_seconds = self._clock() - started
        return loss

    def _measure_neutral(self) -> float | None:
        """Compute the loss on the neutral texts in batches, and return its mean over all learned tokens, rounded to six
        digits; None if it is not finite, or there are no texts. Stop and Pause take effect between the batches."""
        lengths = [len(row.input_ids) for row in self._neutral]
        loss_sum, learned = 0.0, 0
        for chosen in packed(range(len(lengths)), lengths, max([self._at_once, *lengths])):
            self._reporter.check()
            loss, count = self._step.evaluate_batch([self._neutral[i] for i in chosen])
            loss_sum, learned = loss_sum + loss, learned + count
        loss = loss_sum / learned if learned else math.nan
        return round(loss, 6) if math.isfinite(loss) else None


def _most_informative_first(sources: Sequence[str]) -> list[int]:
    """Numbers of prompts in the order of how informative they are: one of each source, then the second of each."""
    places = [
        (sources[:place].count(source), SOURCE_ORDER.index(source), place) for place, source in enumerate(sources)
    ]
    return [place for *_, place in sorted(places)]

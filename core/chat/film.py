"""Sample answers during training (the film): fixed prompts decoded greedily between two steps, and the loss on neutral
texts. Workers only.

At step 0, after the last step, and at evaluations in between (also where no rows are kept apart: then at the steps
where they would be measured). All prompts are one batch, or several where one would hold more tokens than a step of the
training does, so that the film is never what a run needs its memory for. All frames together take 5 % of the run at
most (core/chat/frame_time), and the answers of one train.sample_seconds; they are whole or not there: as many prompts
are asked as the pace of this very moment can answer, the most telling first. Outside that time the first frame and the
last always answer the most telling prompt, so that no run ends without an answer before and after. Where not one was
answered, a frame or more is left out: beside a busy program it rests. It changes nothing of the training: no weight, no
random state, bit for bit on a processor. A model that cannot be asked this way is trained without a film, and the run
says so.
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

from core.chat.decode import Decoder, keep_rows
from core.chat.frame_time import FrameTime, texts_within
from core.data.formats import Example
from core.data.labels import Encoded
from core.data.row_order import Schedule, packed
from core.data.tokenizer import Tokenizer
from core.engine import attention
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

UNFINISHED = "\ufffd"  # half a character
NEUTRAL_SHARE = 0.25  # of a frame's time: where the texts take more, they are measured before and after only
READING_SHARE = 0.5  # of a frame's time, for reading the prompts; the first may take all of it
# of the time that the only answer still needs, going by the longest before: with less it is given up at once
HOPELESS = 0.5
CERTAIN_S = 30.0  # for the one answer that the first frame and the last always have; after that it ends where it is
MOST_REST = 4  # frames that are left out in a row
TELLING = ("own", "kept_apart", "trained", "neutral")  # one of each source, then the second of each, ...
# What a family that is put together otherwise, a prompt with a token that the model does not know, or a full memory,
# may raise. Stop, Pause and a full disk go their own way.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, ModelError, RuntimeError, TypeError, ValueError)


@dataclass
class _Writing:
    """One answer while it is written."""

    place: int
    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    why: Ending | None = None

    def take(self, token: int, is_finite: bool, stop_ids: frozenset[int]) -> None:
        if not is_finite:
            self.why = "not_finite"
        elif token in stop_ids:
            self.why = "stop"
        else:
            self.ids.append(token)
            self.why = "length" if len(self.ids) >= ANSWER_TOKENS else None

    def answer(self, tokenizer: Tokenizer) -> FrameAnswer:
        if self.why is None:
            return FrameAnswer(text="", why="time")
        return FrameAnswer(text=tokenizer.decode(self.ids).rstrip(UNFINISHED).strip(), why=self.why)


@dataclass(frozen=True)
class Shown:
    """What a film shows. seconds: of a frame, at most. clock: stands in for the wall's in tests."""

    tokenizer: Tokenizer
    scenes: Scenes
    seconds: float
    clock: Callable[[], float] = time.monotonic


class Film:
    """`begin` where an attempt begins, then `take` between its steps. schedule, eval_every: of the training."""

    def __init__(self, step: Step, reporter: Reporter, shown: Shown, schedule: Schedule, eval_every: int):
        self._step, self._reporter, self._total_steps = step, reporter, schedule.total_steps
        self._tokenizer, self._seconds, self._clock = shown.tokenizer, shown.seconds, shown.clock
        self._model = step.tuned.get_base_model()
        self._decoder = Decoder(self._model, step.pad_token_id)
        self._prompts = [scene.ids(shown.tokenizer) for scene in shown.scenes.scenes]
        self._held_out = [
            scene.ids(shown.tokenizer) for scene in shown.scenes.held_out
        ]  # at both ends alone, core/runs/cards/better
        whole = [shown.tokenizer.encode_full(Example(text=words)) for words in shown.scenes.neutral_texts]
        run_tokens = sum(schedule.lengths) * schedule.total_steps / schedule.steps_per_epoch
        affordable = texts_within([len(row.input_ids) for row in whole], run_tokens)
        self._neutral = [Encoded(row.input_ids, row.learned) for row in whole[:affordable]]
        self._neutral_seconds = 0.0
        self._order = _telling_first([scene.source for scene in shown.scenes.scenes])
        self._usual = ANSWER_TOKENS  # tokens of the longest answer of the frame before
        # prompts that are asked for each second of a frame at most, by what the one before had time for
        self._a_second = math.inf
        self._rest, self._resting = 0, 0  # frames to leave out, and how many of those are still to come
        self._beyond = 0.0  # seconds of a frame that its certain answer took once its time was over
        self._is_off = False
        self._is_there: int | None = None  # the step that this attempt begins at, where its frame is taken already
        self._at_once = 0
        self.every = sample_answers.every(eval_every, schedule.total_steps)
        self._time = FrameTime(shown.seconds, self.every, schedule.total_steps)

    def begin(self, at: int, at_once: int) -> None:
        """at: the step that this attempt goes on from. at_once: the most tokens that a batch of the training has."""
        self._is_there = at if any(frame.step == at for frame in sample_answers.read(self._reporter.run)) else None
        self._at_once = at_once

    def is_due(self, step: int, stops_early: bool = False) -> bool:
        """Not where this attempt goes on from a step whose frame is there already. stops_early: this step is the run's
        last."""
        at_its_turn = step % self.every == 0 or step == self._total_steps or stops_early
        return at_its_turn and not self._is_off and step != self._is_there

    def take(self, step: int, steps_take: Callable[[float | None], float | None], stops_early: bool = False) -> None:
        """One frame, appended to film.jsonl. steps_take: seconds of all steps, by those of a token read where there was
        no step yet.
        stops_early: this step is the run's last. Stop and Pause are heard between two tokens, and between the layers of
        one."""
        between = 0 < step < self._total_steps and not stops_early
        if between and self._resting:
            self._resting -= 1
            return
        is_known = steps_take(self._a_token) is not None or not self._neutral  # else the texts tell how fast this PC is
        self._seconds = self._seconds_for(step, steps_take)
        if between and is_known and not self._seconds:
            return
        self._reporter.stage("sampling")
        started, spent = self._clock(), self._time.spent
        with self._unchanged(step):
            loss = self._neutral_loss(between)
            self._time.spent = spent + self._clock() - started
            self._seconds = self._seconds_for(step, steps_take)
            self._beyond = 0.0
            answers = self._answers(self._clock() + self._seconds, has_certain=not between)
            answered = sum(answer.why != "time" for answer in answers) - (self._beyond > 0)  # within its time
            self._a_second = (2 * answered or len(answers) / 4) / self._seconds if self._seconds else math.inf
            self._rest = self._resting = 0 if answered or not answers else min(MOST_REST, max(1, 2 * self._rest))
            attempt, seconds = self._reporter.status.attempt, self._clock() - started
            self._time.spent = spent + seconds - self._beyond
            frame = Frame(
                step=step, attempt=attempt, seconds=round(seconds, 2), answers=tuple(answers), neutral_loss=loss
            )
            sample_answers.append(self._reporter.run, frame)
        if self._held_out and not between:
            with self._unchanged(step):
                better.append(self._reporter.run, step, self._answered(self._held_out, self._clock() + self._time.most))

    def _seconds_for(self, step: int, steps_take: Callable[[float | None], float | None]) -> float:
        return self._time.of(step, steps_take(self._a_token), self._neutral_seconds)

    @property
    def _a_token(self) -> float | None:
        """Seconds of one that is read, as the neutral texts were; None before."""
        tokens = sum(len(row.input_ids) for row in self._neutral)
        return self._neutral_seconds / tokens if tokens and self._neutral_seconds else None

    @torch.no_grad()
    def rehearse(self) -> None:
        """What a frame needs at most, thrown away, for the probe: the widest batch with its answers full, and the
        texts."""
        with self._unchanged(None), attention.set_aside(self._model):
            if self._prompts:
                widest = max(self._groups(), key=lambda rows: len(rows) * max(len(row.prompt) for row in rows))
                pad = [self._decoder.pad_token_id] * ANSWER_TOKENS
                ids, mask = self._decoder.left_padded([row.prompt + pad for row in widest])
                self._decoder.forward(ids, mask, None)
        with self._unchanged(None):
            self._measure_neutral()

    @contextmanager
    def _unchanged(self, step: int | None) -> Iterator[None]:
        """Random states are afterwards as before; a fault ends the film, a full memory this frame, and neither the
        run."""
        on_card = self._step.on_card
        states = random_states(on_card)
        self._step.tuned.eval()
        try:
            yield
        except FAULTS as error:
            if is_out_of_memory(error):
                self._is_off, self._at_once = step is None, self._at_once // 2  # the next frame asks for less at once
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
    def _groups(self, prompts: Sequence[int] | None = None) -> list[list[_Writing]]:
        """Prompts (all, or those of these numbers) that are answered together: with room for their answers no more
        tokens than a step's largest batch has."""
        return self._grouped(
            [
                _Writing(place, self._prompts[place])
                for place in (range(len(self._prompts)) if prompts is None else prompts)
            ]
        )

    def _grouped(self, rows: Sequence[_Writing]) -> list[list[_Writing]]:
        groups: list[list[_Writing]] = []
        for row in rows:
            together = [*groups[-1], row] if groups else [row]
            width = max(len(each.prompt) for each in together) + ANSWER_TOKENS
            if groups and len(together) * width <= self._at_once:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def _readable(self) -> list[int]:
        """The prompts that can be read in their share of the time, by the pace at which the neutral texts were."""
        seconds = list(accumulate((self._a_token or 0.0) * len(self._prompts[place]) for place in self._order))
        most = [self._seconds, *[READING_SHARE * self._seconds] * len(seconds)]
        return [place for place, until, share in zip(self._order, seconds, most, strict=False) if until <= share][
            : int(min(len(self._prompts), max(1.0, self._a_second * self._seconds)))
        ]

    @property
    def _unanswered(self) -> list[FrameAnswer]:
        return [FrameAnswer(text="", why="time")] * len(self._prompts)

    def _answers(self, end: float, has_certain: bool) -> list[FrameAnswer]:
        """One for each prompt, in their order; empty with "time" where there was none for it. has_certain: the most
        telling one is answered even where there is none."""
        chosen = self._readable() if self._seconds else []
        groups = self._groups(chosen or (self._order[:1] if has_certain else []))
        certain = groups[0][0] if groups and has_certain else None
        with attention.set_aside(self._model):
            for rows in groups:
                self._decode(rows, end, certain)
        found, answers = [row for rows in groups for row in rows], self._unanswered
        self._usual = max((len(row.ids) for row in found if row.why), default=ANSWER_TOKENS)
        for row in found:
            answers[row.place] = row.answer(self._tokenizer)
        return answers

    def _decode(self, rows: Sequence[_Writing], end: float, certain: _Writing | None = None) -> None:
        """Tokens for every row, the likeliest each time, until it is over or the time is; a row that is over leaves the
        batch, and so does the last one where the time will not do for all, going by the token before. certain: has
        CERTAIN_S more; it is the first row, or over."""
        alive = list(rows)
        ids, mask = self._decoder.left_padded([row.prompt for row in alive])
        cache, before, written = None, self._clock(), 0
        while alive and (before < end or alive[0] is certain):
            self._reporter.check()
            logits, cache = self._decoder.forward(ids, mask, cache)
            value, best = logits.max(dim=-1)
            chosen = zip(alive, best.tolist(), torch.isfinite(value).tolist(), strict=True)
            for row, token, is_finite in chosen:
                row.take(token, is_finite, self._tokenizer.stop_ids)
            now, written = self._clock(), written + 1
            going_on = [i for i, row in enumerate(alive) if row.why is None]
            if written > 1 and going_on:  # the first one read the prompts
                needed = (now - before) * max(1, self._usual - written)
                share = min(1.0, (end - now) / needed) if needed > 0 else 1.0
                is_open = certain is not None and certain.why is None
                going_on = going_on[
                    : max(int(len(going_on) * share), len(going_on) > 1 or share >= HOPELESS or is_open)
                ]
            if before >= end:
                self._beyond += now - before
            if now >= end:
                going_on = [i for i in going_on if alive[i] is certain]
            if certain is not None and now >= end + CERTAIN_S:
                certain.why, going_on = certain.why or "length", []
            before = now
            ids, mask = best[:, None], torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            if going_on and len(going_on) < len(alive):
                keep = torch.tensor(going_on, device=mask.device)
                ids, mask = ids[keep], mask[keep]
                keep_rows(cache, keep)
            alive = [alive[i] for i in going_on]

    def _answered(self, prompts: Sequence[list[int]], end: float) -> list[FrameAnswer]:
        """One for each; "time" where there was none for it."""
        rows = [_Writing(place, prompt) for place, prompt in enumerate(prompts)]
        with attention.set_aside(self._model):
            for group in self._grouped(rows):
                self._decode(group, end)
        return [row.answer(self._tokenizer) for row in rows]

    # ---- neutral texts ----------------------------------------------------------------------------------------------
    def _neutral_loss(self, between: bool) -> float | None:
        """None between the first frame and the last where it takes too long, and in a run that is too short for a
        text."""
        if self._neutral_seconds > NEUTRAL_SHARE * self._seconds and between:
            return None
        started = self._clock()
        loss = self._measure_neutral()
        self._neutral_seconds = self._clock() - started
        return loss

    def _measure_neutral(self) -> float | None:
        """Mean loss over all tokens of the texts; None where it is no number, or there are none."""
        lengths = [len(row.input_ids) for row in self._neutral]
        loss_sum, learned = 0.0, 0
        for chosen in packed(range(len(lengths)), lengths, max([self._at_once, *lengths])):
            self._reporter.check()
            loss, count = self._step.measure([self._neutral[i] for i in chosen])
            loss_sum, learned = loss_sum + loss, learned + count
        loss = loss_sum / learned if learned else math.nan
        return round(loss, 6) if math.isfinite(loss) else None


def _telling_first(sources: Sequence[str]) -> list[int]:
    """Numbers of prompts of these sources in the order in which they are given up last."""
    places = [(sources[:place].count(source), TELLING.index(source), place) for place, source in enumerate(sources)]
    return [place for *_, place in sorted(places)]

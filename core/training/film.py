"""A run's film while it is made: fixed prompts answered greedily between two steps, and the loss on neutral texts. Workers only.

At step 0, after the last step, and at evaluations in between (also where no rows are kept apart: then at the steps where they
would be measured). All prompts are one batch, or several where one would hold more tokens than a step of the training does, so
that the film is never what a run needs its memory for. A frame takes train.sample_seconds at most; what was not finished then is
marked. It changes nothing of the training: no weight, no random state, bit for bit on a processor. A model that cannot be asked
this way is trained without a film, and the run says so.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from core.data.formats import Example
from core.data.schedule import packed
from core.data.tokenizer import Encoded, Tokenizer
from core.engine import attention
from core.engine.batches import collate, collate_packed
from core.engine.decode import Decoder
from core.engine.loss import summed_loss
from core.files import is_out_of_memory
from core.messages import msg
from core.runs import frames
from core.runs.frames import Ending, Frame, FrameAnswer
from core.runs.scenes import ANSWER_TOKENS, Scenes
from core.training import checkpoint
from core.training.trainer import Trainer

UNFINISHED = "\ufffd"  # half a character
NEUTRAL_SHARE = 0.25  # of a frame's time: where the texts take more, they are measured before and after only
# What a family that is put together otherwise, or a full memory, may raise. Stop, Pause and a full disk go their own way.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


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


class Film:
    """Made for a trainer that stands where its attempt begins; `take` is called between its steps."""

    def __init__(
        self,
        trainer: Trainer,
        tokenizer: Tokenizer,
        scenes: Scenes,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._trainer, self._tokenizer, self._seconds, self._clock = trainer, tokenizer, seconds, clock
        self._begins_at = trainer.position.step
        self._is_there = any(frame.step == self._begins_at for frame in frames.read(trainer.reporter.run))
        self._model = trainer.tuned.get_base_model()
        self._decoder = Decoder(self._model, tokenizer.pad_token_id)
        self._prompts = [scene.ids(tokenizer) for scene in scenes.scenes]
        self._neutral = [_row_of(words, tokenizer) for words in scenes.neutral_texts]
        is_over = trainer.position.step >= trainer.schedule.total_steps  # a run that goes on for what was still due then
        self._at_once = trainer.recipe.data.max_length if is_over else trainer.longest().tokens
        self._neutral_seconds = 0.0
        self._is_off = False
        self.every = frames.every(trainer.eval_every, trainer.schedule.total_steps)

    def is_due(self, step: int) -> bool:
        """Not where this attempt goes on from a step whose frame is there already."""
        at_its_turn = step % self.every == 0 or step == self._trainer.schedule.total_steps
        return at_its_turn and not self._is_off and not (self._is_there and step == self._begins_at)

    def take(self, step: int) -> None:
        """One frame, appended to film.jsonl. Stop and Pause are heard between two tokens, and between the layers of one."""
        trainer = self._trainer
        trainer.reporter.stage("sampling")
        started = self._clock()
        with self._unchanged(step):
            loss = self._neutral_loss(step)
            answers = self._answers(started + self._seconds)
            seconds = round(self._clock() - started, 2)
            frame = Frame(
                step=step,
                attempt=trainer.reporter.status.attempt,
                seconds=seconds,
                answers=tuple(answers),
                neutral_loss=loss,
            )
            frames.append(trainer.reporter.run, frame)

    @torch.no_grad()
    def rehearse(self) -> None:
        """What a frame needs at most, thrown away, for the probe: the widest batch with its answers full, and the texts."""
        with self._unchanged(None), attention.set_aside(self._model):
            if self._prompts:
                widest = max(self._groups(), key=lambda rows: len(rows) * max(len(row.prompt) for row in rows))
                pad = [self._tokenizer.pad_token_id] * ANSWER_TOKENS
                ids, mask = self._decoder.left_padded([row.prompt + pad for row in widest])
                self._decoder.forward(ids, mask, None)
        with self._unchanged(None):
            self._measure_neutral()

    @contextmanager
    def _unchanged(self, step: int | None) -> Iterator[None]:
        """Random states are afterwards as before; a fault ends the film, a full memory this frame, and neither the run."""
        trainer = self._trainer
        states = checkpoint.random_states(trainer.compute.on_card)
        trainer.tuned.eval()
        try:
            yield
        except FAULTS as error:
            if is_out_of_memory(error):
                self._is_off, self._at_once = step is None, self._at_once // 2  # the next frame asks for less at once
                traceback.clear_frames(error.__traceback__)
                if trainer.compute.on_card:
                    torch.cuda.empty_cache()
                trainer.reporter.warn(msg("film.no_memory") if step is None else msg("film.frame_no_memory", step=step))
            else:
                self._is_off = True
                traceback.print_exc()
                reason = (str(error).splitlines() or [""])[0][:200]
                trainer.reporter.warn(msg("film.cannot_ask", kind=type(error).__name__, reason=reason))
        finally:
            checkpoint.set_random_states(states)

    # ---- answers ----------------------------------------------------------------------------------------------------
    def _groups(self) -> list[list[_Writing]]:
        """Prompts that are answered together: with room for their answers no more tokens than a step's largest batch has."""
        rows = [_Writing(place, prompt) for place, prompt in enumerate(self._prompts)]
        groups: list[list[_Writing]] = []
        for row in rows:
            together = [*groups[-1], row] if groups else [row]
            width = max(len(each.prompt) for each in together) + ANSWER_TOKENS
            if groups and len(together) * width <= self._at_once:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def _answers(self, end: float) -> list[FrameAnswer]:
        groups = self._groups()
        with attention.set_aside(self._model):
            for number, rows in enumerate(groups):
                now = self._clock()
                self._decode(rows, now + (end - now) / (len(groups) - number))
        done = sorted((row for rows in groups for row in rows), key=lambda row: row.place)
        return [FrameAnswer(text=self._tokenizer.decode(row.ids).rstrip(UNFINISHED).strip(), why=row.why or "time") for row in done]

    def _decode(self, rows: Sequence[_Writing], end: float) -> None:
        """Tokens for every row, the likeliest each time, until it is over or the time is; a row that is over leaves the batch."""
        alive = list(rows)
        ids, mask = self._decoder.left_padded([row.prompt for row in alive])
        cache = None
        while alive and self._clock() < end:
            self._trainer.reporter.check()
            logits, cache = self._decoder.forward(ids, mask, cache)
            value, best = logits.max(dim=-1)
            chosen = zip(alive, best.tolist(), torch.isfinite(value).tolist(), strict=True)
            for row, token, is_finite in chosen:
                row.take(token, is_finite, self._tokenizer.stop_ids)
            going_on = [i for i, row in enumerate(alive) if row.why is None]
            ids, mask = best[:, None], torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            if going_on and len(going_on) < len(alive):
                keep = torch.tensor(going_on, device=mask.device)
                ids, mask = ids[keep], mask[keep]
                cache.batch_select_indices(keep)
            alive = [alive[i] for i in going_on]

    # ---- neutral texts ----------------------------------------------------------------------------------------------
    def _neutral_loss(self, step: int) -> float | None:
        """None between the first frame and the last where it takes too long."""
        last = self._trainer.schedule.total_steps
        if self._neutral_seconds > NEUTRAL_SHARE * self._seconds and step not in (0, last):
            return None
        started = self._clock()
        loss = self._measure_neutral()
        self._neutral_seconds = self._clock() - started
        return loss

    @torch.no_grad()
    def _measure_neutral(self) -> float | None:
        """Mean loss over all tokens of the texts; None where it is no number."""
        trainer = self._trainer
        lengths = [len(row.input_ids) for row in self._neutral]
        loss_sum, learned = 0.0, 0
        for chosen in packed(range(len(lengths)), lengths, max(self._at_once, *lengths)):
            trainer.reporter.check()
            rows = [self._neutral[i] for i in chosen]
            if trainer.packed:
                batch = collate_packed(rows, trainer.compute.device)
            else:
                batch = collate(rows, self._tokenizer.pad_token_id, trainer.compute.device)
            loss_sum += float(summed_loss(trainer.tuned, batch, trainer.head))
            learned += batch.targets.numel()
        loss = loss_sum / learned
        return round(loss, 6) if loss == loss and abs(loss) != float("inf") else None


def _row_of(words: str, tokenizer: Tokenizer) -> Encoded:
    whole = tokenizer.encode_whole(Example(text=words))
    return Encoded(whole.input_ids, whole.learned)

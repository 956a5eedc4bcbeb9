"""The model search: the known models that match a person's words, each with whether it trains on this GPU. No torch, no
network.

For a page, at each pause of typing:

    found = shelf.find(words, budget)                        # words alone, English or Chinese
    found = shelf.find(words, budget, Wish(fits=True))       # what the page's own controls ask for, the words over it
    for row in found.rows: row.model.title, row.verdict, row.needed_gib, row.gate, row.model.note[language]
    for field, said in found.wish.parts().items(): ...       # what was understood, as chips: render(said)
    for said in found.told: ...                              # sentences: misspelt, unknown, left out because nothing
                                                             was all of it

`found.budget` is what the verdicts are of: the budget that was handed in, or the card that the words name ("for 6 GB",
"RTX 3060").
Rows: what trains here first (LoRA and QLoRA alike), then what is tight, then what cannot be told, then what does not
fit; inside each as the words order it (newest, smallest, largest), else as liked (presets/models.yaml), where a
language is asked for what is made for it before what names it among many. Arithmetic is that of core/advice/catalogue
and remembered for each card: a first question costs about 0.7 ms a model that it finds (0.1 s for all), the next ones 2
ms in all; `warm` pays it beforehand.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from core.advice import catalogue
from core.advice.case import Method
from core.advice.catalogue import Fit
from core.advice.wish import AS_NAMED, MEANT, ReadWish, Wish, about, matches_name, read, squashed, topic_words
from core.errors import ModelError
from core.hub import answers
from core.hub.search import Found
from core.memory import budget as budgets
from core.memory.budget import Budget
from core.messages import Message, msg
from core.models.known import KnownModel, known_models, shape_of_size
from core.models.shapes.shape import ModelShape

RowVerdict = Literal["lora", "qlora", "tight", "unknown", "no"]
RANK: dict[RowVerdict, int] = {"lora": 0, "qlora": 0, "tight": 1, "unknown": 2, "no": 3}
_METHODS: tuple[Method, ...] = ("lora", "qlora")
MANY_LANGUAGES = 10
FEW_LANGUAGES = 3  # a model that names no more is made for them
# What is liked most is made for these among others (Qwen), so that nothing has to come before it.
MADE_FOR_BY_MOST = frozenset({"en", "zh"})
# What is left out, one after the other, where no model is all of it; never what a person may not do or has to accept.
_LEFT_OUT = ("billions", "method", "topic", "many_languages", "languages", "tools", "thinks")


@dataclass(frozen=True)
class ShelfRow:
    """One model. verdict: lora: LoRA fits; qlora: QLoRA alone; tight: only just, by method; no; unknown: free memory is
    not known.
    method: what the verdict speaks of, needed_gib its need with margin. gate: the page where its licence is accepted,
    None without one. Licence, commercial, languages, thinking, tools and the sentence why are the model's
    (core.models.known.KnownModel).
    """

    model: KnownModel
    verdict: RowVerdict
    method: Method
    needed_gib: float
    lora: Fit
    qlora: Fit
    gate: str | None

    @property
    def download_bytes(self) -> int:
        """Of its weights, two bytes a parameter."""
        return 2 * (self.model.in_files or self.model.shape.in_files)


@dataclass(frozen=True)
class Shelf:
    """rows: as the module says. wish: what was understood. budget: what the verdicts are of. told: how the answer
    differs from the words."""

    rows: tuple[ShelfRow, ...]
    wish: Wish
    budget: Budget
    told: tuple[Message, ...] = ()
    left_out: tuple[str, ...] = ()
    words: ReadWish = ReadWish(Wish())


def find(words: str, budget: Budget, wish: Wish | None = None, processor: Budget | None = None) -> Shelf:
    """The known models that words and wish ask for, on budget or on the card that they name. Never raises; see the
    module.

    processor: this PC's RAM (core.memory.budget.of_cpu), for words that ask for one without a card."""
    words_read = read(words, wish)
    asked = words_read.wish
    there = _budget_of(asked, budget, processor)
    told = list(words_read.told())
    if words_read.unknown and asked == (wish or Wish()):
        return Shelf((), asked, there, (*told, msg("shelf.nothing_read")), words=words_read)
    rows, left_out = _rows(asked, there), []
    for field in _LEFT_OUT:
        if rows or not getattr(asked, field):
            continue
        left_out.append(field)
        rows = _rows(replace(asked, **{name: getattr(Wish(), name) for name in left_out}), there)
    if not rows and _asks_to_fit(asked):  # then what does not fit says so itself
        rows, left_out = _rows(replace(asked, fits=False, card_gb=None, processor=False, method=None), there), ["fits"]
    parts = asked.parts()
    if not rows:
        left_out = []
        told.append(msg("shelf.none", parts=[said for field, said in parts.items() if field != "order"]))
    elif left_out:
        told.append(msg("shelf.relaxed", parts=[_part(parts, field) for field in left_out]))
    if rows and words_read.asks_of_gate:
        told.append(_of_gates(rows))
    return Shelf(
        tuple(sorted(rows, key=_order(asked, asked == (wish or Wish())))),
        asked,
        there,
        tuple(told),
        tuple(left_out),
        words_read,
    )


def _of_gates(rows: Sequence[ShelfRow]) -> Message:
    """The answer to "is Gemma gated?", as rows without a gate say nothing of one."""
    gated = sum(row.gate is not None for row in rows)
    key = "gates_some" if 0 < gated < len(rows) else "gates_all" if gated else "gates_none"
    return msg(f"shelf.{key}", gated=gated, count=len(rows))


def _budget_of(asked: Wish, budget: Budget, processor: Budget | None) -> Budget:
    if asked.card_gb is not None:
        return budgets.planned(asked.card_gb, platform.system())
    if asked.processor and budget.kind != "cpu":
        budget = processor or Budget(kind="cpu")  # how much RAM there is was not handed in: not known
    return catalogue.rounded(budget)


def _asks_to_fit(asked: Wish) -> bool:
    return asked.fits or asked.card_gb is not None


def _part(parts: dict[str, Message], field: str) -> Message:
    names = ("card_gb", "method", "fits") if field == "fits" else (field,)
    return next((parts[name] for name in names if name in parts), msg("shelf.fits"))


def _rows(asked: Wish, budget: Budget) -> list[ShelfRow]:
    named = asked.makers or asked.names
    found = (
        [model for model in known_models() if _is_meant(model, asked, len(asked.names) > 1)]
        if named
        else list(known_models())
    )
    if asked.names and not found:  # "qwen gemma": none is both, so either
        found = [
            m for m in known_models() if any(_is_meant(m, replace(asked, names=(name,)), False) for name in asked.names)
        ]
    rows = [_row(model, budget, asked.method) for model in found if _is_asked_for(model, asked)]
    return [row for row in rows if row.verdict != "no"] if _asks_to_fit(asked) else rows


def _is_meant(model: KnownModel, asked: Wish, several: bool) -> bool:
    family, owner = model.family.lower(), model.hub.split("/")[0].lower()
    if asked.makers and not any(family.startswith(maker.lower()) or owner == maker.lower() for maker in asked.makers):
        return False
    return matches_name(asked.names, about(model), squashed(model.family), several)


def _is_asked_for(model: KnownModel, asked: Wish) -> bool:
    """All that needs no arithmetic, cheapest first."""
    least, most = asked.billions or (0.0, math.inf)
    named = 1.0 if asked.billions in MEANT.values() else AS_NAMED
    return (
        least / named <= model.billions <= most * named
        and (asked.language is None or asked.language in model.languages)
        and set(asked.languages) <= set(model.languages)
        and (not asked.many_languages or len(model.languages) >= MANY_LANGUAGES)
        and (asked.licence is None or model.licence.startswith(asked.licence))
        and (not asked.sell or model.commercial != "forbidden")
        and (asked.thinks is None or model.thinking not in (None, "never" if asked.thinks else "always"))
        and (not asked.tools or model.tools is True)
        and (asked.gated is None or model.gated == asked.gated)
        and (asked.topic is None or _is_liked_for(model, asked.topic))
    )


def _is_liked_for(model: KnownModel, topic: str) -> bool:
    told = f"{model.title} {model.note['en']}".lower()
    return any(word in told for word in topic_words(topic))


def _row(model: KnownModel, budget: Budget, wanted: Method | None) -> ShelfRow:
    """wanted: the one method that the verdict is to speak of, None for the better one."""
    fits: dict[Method, Fit] = {method: catalogue.fit(model.shape, budget, method) for method in _METHODS}
    lora, qlora = fits["lora"], fits["qlora"]
    verdict, method = verdict_of(fits if wanted is None else {wanted: fits[wanted]})
    gate = answers.page(model.hub) if model.gated else None
    return ShelfRow(model, verdict, method, fits[method].needed_gib, lora, qlora, gate)


def verdict_of(fits: Mapping[Method, Fit]) -> tuple[RowVerdict, Method]:
    """The best that one of the methods comes to, LoRA before QLoRA; where none fits, that of the one that needs
    less."""
    for wanted, verdict in (("fits", None), ("tight", "tight"), ("unknown", "unknown")):
        for method, fit in fits.items():
            if fit.verdict == wanted:
                return cast(RowVerdict, verdict or method), method
    return "no", min(fits, key=lambda method: fits[method].needed_gib)


def _order(asked: Wish, starter_leads: bool) -> Callable[[ShelfRow], tuple[Any, ...]]:
    """As the module says. The starter leads where the words ask for nothing, and else stands with its family."""
    place = {model.id: number for number, model in enumerate(known_models())}
    if not starter_leads:
        starter = known_models()[0]
        place[starter.id] = min(place[model.id] for model in known_models()[1:] if model.family == starter.family)

    def key(row: ShelfRow) -> tuple[Any, ...]:
        model = row.model
        by: dict[str, Any] = {
            "newest": -int(model.released.replace("-", "")),
            "smallest": model.billions,
            "largest": -model.billions,
        }
        is_made_for = asked.language in model.languages and len(model.languages) <= FEW_LANGUAGES
        passing = asked.language not in (None, *MADE_FOR_BY_MOST) and not is_made_for
        licence = asked.sell and model.commercial != "allowed"
        return RANK[row.verdict], licence, by.get(asked.order, 0), passing, place[model.id]

    return key


# ---- what the hub found
# ----------------------------------------------------------------------------------------------- Tags of repositories
# whose files are quantised: what they count as parameters are packed numbers.
PACKED = frozenset(
    {"gptq", "awq", "4-bit", "8-bit", "fp8", "compressed-tensors", "bitsandbytes", "exl2", "exl3", "mxfp4", "nvfp4"}
)


@dataclass(frozen=True)
class HubRow:
    """verdict, method: as of core.advice.shelf.ShelfRow; unknown, and no fits or shape, where nothing tells its size.
    is_about: by a typical model of as many parameters as the hub tells, its own numbers are counted when it is
    chosen."""

    found: Found
    verdict: RowVerdict = "unknown"
    method: Method = "qlora"
    fits: dict[Method, Fit] | None = None
    is_about: bool = False
    shape: ModelShape | None = None

    @property
    def is_packed(self) -> bool:
        return not PACKED.isdisjoint(self.found.tags)


def of_hub(found: Sequence[Found], budget: Budget) -> list[HubRow]:
    """What trains here first, then as the hub has them; what can be no base last."""
    there = catalogue.rounded(budget)
    return sorted(
        (_hub_row(each, there) for each in found), key=lambda row: (row.found.why_not is not None, RANK[row.verdict])
    )


def _hub_row(found: Found, budget: Budget) -> HubRow:
    shape = next((model.shape for model in known_models() if model.hub == found.id), None)
    is_about = shape is None
    if found.why_not is not None or (shape := shape or _typical(found)) is None:
        return HubRow(found)
    fits: dict[Method, Fit] = {method: catalogue.fit(shape, budget, method) for method in _METHODS}
    verdict, method = verdict_of(fits)
    return HubRow(found, verdict, method, fits, is_about, shape)


def _typical(found: Found) -> ModelShape | None:
    if found.params is None or not PACKED.isdisjoint(found.tags):
        return None
    millions = found.params / 1e6
    try:
        return shape_of_size(f"{millions:.0f}M" if millions < 10_000 else f"{millions / 1000:.0f}B")
    except ModelError:  # smaller or larger than anything that is tuned
        return None

"""The model search: the known models that match a person's words, each with whether it trains on this GPU. No torch, no
network.

For a page, at each pause of typing:

    found = shelf.find(words, budget)                        # words alone, English, Chinese or German
    found = shelf.find(words, budget, Wish(fits=True))       # the page's own filters; words override them
    for row in found.rows: row.model.title, row.verdict, row.needed_gib, row.gate, row.model.note[language]
    for field, text in found.wish.parts().items(): ...       # what was understood, as chips: render(text)
    for remark in found.remarks: ...                         # sentences: unknown words, ignored conditions

`found.budget` is what the verdicts are for: the given budget, or the GPU that the words name ("for 6 GB", "RTX 3060").

Rows: first those that train here (LoRA and QLoRA alike), then tight, then unknown, then those that do not fit; within
each group in the requested order (newest, smallest, largest), else by popularity (presets/models.yaml). If a language
is requested, models made for it come before those that name it among many. The arithmetic is core/advice/catalogue's
and cached for each GPU: a first question costs about 0.7 ms a matching model (0.1 s for all), the next ones 2 ms in
all; `warm` pays it beforehand.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from core.advice import catalogue
from core.advice.case import Method
from core.advice.catalogue import Fit
from core.advice.wish import AS_NAMED, MEANT, ReadWish, Wish, about, matches_name, read, squashed, topic_words
from core.errors import ModelError
from core.hub import hub_errors
from core.hub.search import FoundModel
from core.memory import budget as budgets
from core.memory.budget import Budget
from core.messages import Message, msg
from core.models.known import KnownModel, known_models, shape_of_size
from core.models.shapes.shape import ModelShape

RowVerdict = Literal["lora", "qlora", "tight", "unknown", "no"]
RANK: dict[RowVerdict, int] = {"lora": 0, "qlora": 0, "tight": 1, "unknown": 2, "no": 3}
_METHODS: tuple[Method, ...] = ("lora", "qlora")
FEW_LANGUAGES = 3  # a model that names at most this many is made for them
# The most popular models (Qwen) are made for these, so that no others come before them.
MADE_FOR_BY_MOST = frozenset({"en", "zh"})
# Conditions dropped one after the other if no model meets all; never that on selling.
_LEFT_OUT = ("billions", "topic", "languages", "tools", "thinks")


@dataclass(frozen=True)
class ShelfRow:
    """One model of the result.

    verdict: lora: LoRA fits; qlora: only QLoRA fits; tight: only just, by method; no; unknown: free memory is unknown.
    method: the verdict's, needed_gib its need with margin. gate: the page where its licence is accepted, None without
    one. Licence, commercial, languages, thinking, tools and the sentence why are the model's
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
        """Size of the model's 16-bit weights to download, in bytes: two for each number in its files."""
        return 2 * (self.model.in_files or self.model.shape.in_files)


@dataclass(frozen=True)
class Shelf:
    """The result of a search.

    rows: ordered as the module describes. wish: what was understood. budget: of the verdicts. remarks: how the result
    differs from the words.
    """

    rows: tuple[ShelfRow, ...]
    wish: Wish
    budget: Budget
    remarks: tuple[Message, ...] = ()
    left_out: tuple[str, ...] = ()
    words: ReadWish = ReadWish(Wish())


def find(words: str, budget: Budget, wish: Wish | None = None) -> Shelf:
    """Return the known models that words and wish ask for, sorted, with verdicts on budget or on the GPU that the words
    name.

    While no model matches, the conditions in _LEFT_OUT are dropped one after the other; if that does not help, only the
    one that the model must fit is dropped. The remarks name these, and unknown words. If all words are unknown, the
    result is empty. Never raises.
    """
    words_read = read(words, wish)
    understood = words_read.wish
    named = understood.card_gb
    there = catalogue.rounded(budget) if named is None else budgets.planned(named, platform.system())
    remarks = list(words_read.remarks())
    if words_read.unknown and understood == (wish or Wish()):
        return Shelf((), understood, there, (*remarks, msg("shelf.nothing_read")), words=words_read)
    rows, left_out = _rows(understood, there), []
    for field in _LEFT_OUT:
        if rows or not getattr(understood, field):
            continue
        left_out.append(field)
        rows = _rows(replace(understood, **{name: getattr(Wish(), name) for name in left_out}), there)
    if not rows and _asks_to_fit(understood):  # rows that do not fit show it themselves
        left_out = ["fits"]
        rows = _rows(replace(understood, fits=False, card_gb=None), there)
    parts = understood.parts()
    if not rows:
        left_out = []
        remarks.append(msg("shelf.none", parts=[part for field, part in parts.items() if field != "order"]))
    elif left_out:
        remarks.append(msg("shelf.relaxed", parts=[_part(parts, field) for field in left_out]))
    return Shelf(
        tuple(sorted(rows, key=_order(understood, understood == (wish or Wish())))),
        understood,
        there,
        tuple(remarks),
        tuple(left_out),
        words_read,
    )


def _asks_to_fit(wish: Wish) -> bool:
    """Return whether only models that fit are wanted, on this PC or on the GPU that the wish names."""
    return wish.fits or wish.card_gb is not None


def _part(parts: dict[str, Message], field: str) -> Message:
    """Return the message of a condition; of "fits" that of the GPU named with it, if there is one."""
    names = ("card_gb", "fits") if field == "fits" else (field,)
    return next((parts[name] for name in names if name in parts), msg("shelf.fits"))


def _rows(wish: Wish, budget: Budget) -> list[ShelfRow]:
    """Return the known models that meet the wish, each with its verdict on budget. If no model has all of the wish's
    names, those that have one; if the wish asks for what fits, without those that do not."""
    named = wish.makers or wish.names
    models = (
        [model for model in known_models() if _is_meant(model, wish, len(wish.names) > 1)]
        if named
        else list(known_models())
    )
    if wish.names and not models:  # "qwen gemma": no model is both, so either
        models = [
            m for m in known_models() if any(_is_meant(m, replace(wish, names=(name,)), False) for name in wish.names)
        ]
    rows = [_row(model, budget) for model in models if _matches(model, wish)]
    return [row for row in rows if row.verdict != "no"] if _asks_to_fit(wish) else rows


def _is_meant(model: KnownModel, wish: Wish, several: bool) -> bool:
    """Return whether model is by one of the wish's makers, if it has any, and has all its names. several: there is more
    than one name."""
    family, owner = model.family.lower(), model.hub.split("/")[0].lower()
    if wish.makers and not any(family.startswith(maker.lower()) or owner == maker.lower() for maker in wish.makers):
        return False
    return matches_name(wish.names, about(model), squashed(model.family), several)


def _matches(model: KnownModel, wish: Wish) -> bool:
    """Return whether model meets the wish's conditions on size, language, selling, thinking, tools and topic."""
    least, most = wish.billions or (0.0, math.inf)
    named = 1.0 if wish.billions in MEANT.values() else AS_NAMED
    return (
        least / named <= model.billions <= most * named
        and (wish.language is None or wish.language in model.languages)
        and set(wish.languages) <= set(model.languages)
        and (not wish.sell or model.commercial != "forbidden")
        and (wish.thinks is None or model.thinking not in (None, "never" if wish.thinks else "always"))
        and (not wish.tools or model.tools is True)
        and (
            wish.topic is None
            or any(word in f"{model.title} {model.note['en']}".lower() for word in topic_words(wish.topic))
        )
    )


def _row(model: KnownModel, budget: Budget) -> ShelfRow:
    """Return the row of a model: both methods' fit on budget, the verdict of the better one, and the page of its gate
    if it has one."""
    fits: dict[Method, Fit] = {method: catalogue.fit(model.shape, budget, method) for method in _METHODS}
    lora, qlora = fits["lora"], fits["qlora"]
    verdict, method = verdict_of(fits)
    gate = hub_errors.page(model.hub) if model.gated else None
    return ShelfRow(model, verdict, method, fits[method].needed_gib, lora, qlora, gate)


def verdict_of(fits: Mapping[Method, Fit]) -> tuple[RowVerdict, Method]:
    """Return a model's verdict and the method that it is for, from the fit of each method.

    The first method that fits gives its name as the verdict ("lora" before "qlora"); else "tight" if one fits tightly,
    else "unknown"; else "no" with the method that needs least memory.
    """
    for fit_verdict, verdict in (("fits", None), ("tight", "tight"), ("unknown", "unknown")):
        for method, fit in fits.items():
            if fit.verdict == fit_verdict:
                return cast(RowVerdict, verdict or method), method
    return "no", min(fits, key=lambda method: fits[method].needed_gib)


def _order(wish: Wish, starter_leads: bool) -> Callable[[ShelfRow], tuple[object, ...]]:
    """Return the key function that sorts the shelf's rows: by verdict; if products are to be sold (wish.sell), licences
    without conditions first; by the order that the wish names; models made for its language first; then by popularity.

    The order "liked" decides nothing, so popularity does. English and Chinese decide nothing either: the most popular
    models are made for them. starter_leads: True: the starter is the most popular of all; False: it is as popular as
    the most popular other model of its family.
    """
    place = {model.id: number for number, model in enumerate(known_models())}
    if not starter_leads:
        starter = known_models()[0]
        place[starter.id] = min(place[model.id] for model in known_models()[1:] if model.family == starter.family)

    def sort_key(row: ShelfRow) -> tuple[object, ...]:
        """Return the key by which a row is sorted: its verdict, then (if products are to be sold) licences with
        conditions after free ones, then the wished order, models made for the wished language first, and the
        catalogue's order."""
        model = row.model
        by: dict[str, object] = {
            "newest": -int(model.released.replace("-", "")),
            "smallest": model.billions,
            "largest": -model.billions,
        }
        is_made_for = wish.language in model.languages and len(model.languages) <= FEW_LANGUAGES
        passing = wish.language not in (None, *MADE_FOR_BY_MOST) and not is_made_for
        licence = wish.sell and model.commercial != "allowed"
        return RANK[row.verdict], licence, by.get(wish.order, 0), passing, place[model.id]

    return sort_key


# ---- results of the hub ----------------------------------------------------------------------------------------------
# Tags of repositories whose files are quantized: what they count as parameters are packed numbers.
PACKED = frozenset(
    {"gptq", "awq", "4-bit", "8-bit", "fp8", "compressed-tensors", "bitsandbytes", "exl2", "exl3", "mxfp4", "nvfp4"}
)


@dataclass(frozen=True)
class HubRow:
    """A model that the hub found, with its verdict.

    verdict, method: as in ShelfRow; unknown, and no fits or shape, if its size is unknown. is_about: judged by a
    typical model of the same size; its own numbers are computed when it is chosen.
    """

    result: FoundModel
    verdict: RowVerdict = "unknown"
    method: Method = "qlora"
    fits: dict[Method, Fit] | None = None
    is_about: bool = False
    shape: ModelShape | None = None

    @property
    def is_packed(self) -> bool:
        """True if the repository's tags tell that its files are quantized."""
        return not PACKED.isdisjoint(self.result.tags)


def of_hub(results: Sequence[FoundModel], budget: Budget) -> list[HubRow]:
    """Return a row with a verdict for budget for each of the hub's results: first those that train (LoRA or QLoRA),
    then tight, unknown and not fitting ones, in each group in the hub's order; last those that cannot be a base at all,
    without a verdict."""
    there = catalogue.rounded(budget)
    return sorted(
        (_hub_row(each, there) for each in results), key=lambda row: (row.result.why_not is not None, RANK[row.verdict])
    )


def _hub_row(result: FoundModel, budget: Budget) -> HubRow:
    """Return the row of a model of the hub, judged by its known shape or else by the usual one of its size; without a
    verdict if it is unusable or of unknown size."""
    shape = next((model.shape for model in known_models() if model.hub == result.id), None)
    is_about = shape is None
    if result.why_not is not None or (shape := shape or _typical(result)) is None:
        return HubRow(result)
    fits: dict[Method, Fit] = {method: catalogue.fit(shape, budget, method) for method in _METHODS}
    verdict, method = verdict_of(fits)
    return HubRow(result, verdict, method, fits, is_about, shape)


def _typical(result: FoundModel) -> ModelShape | None:
    """Return the usual shape of a model of this size; None if the size is unknown or packed."""
    if result.params is None or not PACKED.isdisjoint(result.tags):
        return None
    millions = result.params / 1e6
    try:
        return shape_of_size(f"{millions:.0f}M" if millions < 10_000 else f"{millions / 1000:.0f}B")
    except ModelError:  # outside the range of sizes
        return None

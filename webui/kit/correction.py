"""The correction of an estimate by earlier runs, as a sentence. Pure functions."""

from __future__ import annotations

from core.memory.record import Correction
from webui.kit.html import Html, tag
from webui.kit.wording import Wording


def corrected_line(correction: Correction | None, w: Wording) -> Html | None:
    """Return the sentence that an estimate was corrected by earlier runs: "Corrected by 3 runs on this PC: ×1.04.";
    None without a correction."""
    if correction is None:
        return None
    return tag("p", factor_sentence(correction.factor, correction.runs, w), class_="lg-quiet lg-corrected")


def factor_sentence(factor: float, runs: int, w: Wording) -> str:
    """Return a sentence such as "Corrected by 3 runs on this PC: ×1.04." on an estimate. factor: by which it was
    corrected. runs: earlier ones that the factor was measured in."""
    return w.t("free_memory.corrected_one" if runs == 1 else "free_memory.corrected", runs=runs, factor=factor)

"""Numbers on a page and in a message are written as its language writes them."""

from __future__ import annotations

from core.memory import budget
from core.messages import Figures, figures, msg
from webui.kit import format
from webui.kit.wording import Wording

EN, DE, ZH = Wording("en"), Wording("de"), Wording("zh")


def test_german_has_a_comma_where_english_has_a_point() -> None:
    """Seen: "2.2 GiB" and "1,962" on the German page."""
    there = budget.planned(12, "Linux").model_copy(update={"free_gib": 11.25})
    assert "11,2 GiB" in format.where(there, DE) and "11.2 GiB" in format.where(there, EN) and "11.2 GiB" in format.where(there, ZH)
    learned = {"rows": format.grouped(1962), "held": format.grouped(65), "percent": 42.9}
    assert "1.962 Zeilen" in DE.t("plan_view.learned", **learned) and "42,9 %" in DE.t("plan_view.learned", **learned)
    assert "1,962 rows" in EN.t("plan_view.learned", **learned) and "42.9 %" in EN.t("plan_view.learned", **learned)
    assert DE.figures(format.bytes_used(1.2e9)) == "1,2 GB" and format.bytes_used(1.2e9) == "1.2 GB"
    assert "135M" in format.parameters(DE, 135_000_000) and "7,2B" in format.parameters(DE, 7_200_000_000)


def test_numbers_of_core_follow_the_language_also_inside_another_message() -> None:
    inner = msg("advise.warn_cpu_in_32_bit", needed=20.7, free=17.0)
    assert "20,7" in inner.render("de") and "20.7" in inner.render("en")
    outer = msg("advise.warn_nothing_fits", verdict=inner)
    assert "20,7" in outer.render("de") and "20.7" in outer.render("zh")


def test_what_only_looks_like_a_number_stays() -> None:
    assert "2.13" in msg("doctor.bitsandbytes", version="2.13").render("de"), "a version"
    assert figures("1,962.5", "de") == "1.962,5" and figures("1,962.5", "en") == "1,962.5"
    assert isinstance(msg("x", n=Figures("2.2")).params["n"], Figures)


def test_a_number_can_be_typed_as_german_writes_it() -> None:
    from webui.form import fields

    assert fields.setting_of(("train", "neftune_noise_alpha"), "1,5") == 1.5
    assert fields.setting_of(("train", "neftune_noise_alpha"), "1.5") == 1.5

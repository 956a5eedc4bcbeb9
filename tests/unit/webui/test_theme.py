"""What axe sees only while a pointer is on it."""

from __future__ import annotations

import pytest

from webui.kit.theme import theme


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("look", ["", "_hover", "_dark", "_hover_dark"])
@pytest.mark.parametrize("kind", ["primary", "cancel"])
def test_words_on_a_button_are_readable_in_every_state(kind: str, look: str) -> None:
    """A primary button under the pointer in the dark look was white on teal 600: 3.7 to 1."""
    looks, dark = theme(), "_dark" if look.endswith("_dark") else ""

    def colour(name: str) -> str:
        value = getattr(looks, name) or getattr(looks, name.removesuffix("_dark"))
        return colour(value[1:]) if value.startswith("*") else value.replace("white", "#ffffff")

    fill, words = colour(f"button_{kind}_background_fill{look}"), colour(f"button_{kind}_text_color{dark}")
    ground = colour(f"body_background_fill{dark}") if fill == "transparent" else fill
    dim, bright = sorted(map(luminance, (ground, words)))
    assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ground, words)

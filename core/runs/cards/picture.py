"""A run as an SVG picture, to share in a chat or forum: its numbers and answers, and the loss curve. No library.

It shows no row of the data; all text of persons and models is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape

from core.messages import Message, msg
from core.runs.cards import results
from core.runs.folder import RunFolder
from core.runs.measure import measure
from core.values import width

WIDTH, EDGE, LINE = 720, 36, 24
CURVE_HEIGHT = 150
COLUMNS, MAX_LINES = 74, 3  # of an answer, in Latin letters; a Chinese one counts twice
GROUND, INK, QUIET, LOSS, MEASURED = "#ffffff", "#292524", "#57534e", "#0072b2", "#b34700"
FONT = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', sans-serif"
Points = Sequence[tuple[float, float]]  # (step, loss)


def draw(run: RunFolder, trained: Points, measured: Points, words: Callable[[Message], str]) -> str:
    """Return the SVG file: name, facts, loss curve, up to two sample answers and the date.

    trained, measured: losses of training and validation. words: renders a message in a language.
    """
    parts, y = [_text_element(EDGE, 56, run.name, 26, weight=700)], 84
    for line in filter(None, (words(each) for each in _facts(run))):
        parts.append(_text_element(EDGE, y, line, 15, QUIET))
        y += LINE
    if len(trained) > 1:
        parts.append(_curve(trained, measured, y + 4))
        y += CURVE_HEIGHT + 34
    for answer in results.answers(run, run.facts().adapter_step)[:2]:
        for line in _clipped(answer.question, 2, COLUMNS - 8):
            parts.append(_text_element(EDGE, y, line, 16, weight=700))
            y += LINE
        for key, text in (("before", answer.before), ("after", answer.after)):
            parts.append(_text_element(EDGE, y, words(msg(f"recipe_picture.{key}")), 14, QUIET))
            for line in _clipped(text, MAX_LINES):
                parts.append(_text_element(EDGE + 84, y, line, 14))
                y += LINE - 4
            y += 4
        y += 10
    made = time.strftime("%Y-%m-%d", time.localtime(run.facts().created))
    parts.append(_text_element(EDGE, y + 6, words(msg("recipe_picture.made", date=made)), 12, QUIET))
    height = y + 30
    ground = f'<rect width="{WIDTH}" height="{height}" rx="16" fill="{GROUND}" stroke="#e2dfd9"/>'
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="{escape(FONT)}"'
    title = f"<title>{escape(run.name)}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{title}{ground}{"".join(parts)}</svg>\n'


def of_run(run: RunFolder, words: Callable[[Message], str]) -> str:
    """Return the picture of a run. Raises RecipeError if its recipe cannot be read."""
    metrics = run.all_metrics()

    def curve_points(kind: str) -> Points:
        """Return (step, loss or reward) for each line of the metrics of this kind, "train" or "eval"; lines without a
        finite value are left out."""
        return [
            (line["step"], value)
            for line in metrics
            if line.get("kind") == kind and (value := measure(line)) is not None
        ]

    return draw(run, curve_points("train"), curve_points("eval"), words)


def _facts(run: RunFolder) -> list[Message]:
    """Return the lines of facts in the picture: model, data, steps, time and memory, losses. Unknown ones are left
    out."""
    recipe, then, data = run.recipe(), results.outcome(run), run.facts().data
    adapter, id = recipe.adapter, recipe.model.id
    model = "SmolLM2-135M-Instruct" if id == "starter" else id.removeprefix("library:")
    method = {"lora": "LoRA", "qlora": "QLoRA"}[adapter.method]
    facts = [msg("recipe_picture.model", method=method, rank=adapter.r, model=model)]
    if data and data.rows:
        facts.append(
            msg(
                "recipe_picture.data",
                name=(data.name or recipe.data.source).removeprefix("sample:"),
                rows=data.rows,
            )
        )
    facts.append(
        msg("recipe_picture.steps", steps=then.step, device="CPU" if then.device == "cpu" else then.device or "?")
    )
    if then.seconds and then.memory_gib:
        facts.append(msg("recipe_picture.took", minutes=max(1, round(then.seconds / 60)), gib=then.memory_gib))
    if then.first is not None and then.last is not None:
        key = "recipe_picture.reward" if then.is_reward else "recipe_picture.loss"
        facts.append(msg(key, first=then.first, last=then.last))
    if then.evaluated is not None:
        key = "recipe_picture.held_out_reward" if then.is_reward else "recipe_picture.measured"
        facts.append(msg(key, value=then.evaluated))
    return facts


def _curve(trained: Points, measured: Points, top: int) -> str:
    """Return the SVG of both curves over the steps, the vertical axis from 0, or from the lowest value if that is
    negative, to the highest. Each has about one point a pixel; that of the validation is drawn only with at least two
    points. top: the y of the upper edge, in pixels."""
    steps, losses = [step for step, _ in (*trained, *measured)], [loss for _, loss in (*trained, *measured)]
    last, most, least = max(steps) or 1, max(losses), min(0.0, *losses)

    def line(points: Points, colour: str, dashes: str) -> str:
        """Return the polyline of a curve, at most one point a pixel."""
        thinned = points[:: max(1, len(points) // (WIDTH - 2 * EDGE))]
        across, down = (WIDTH - 2 * EDGE) / last, CURVE_HEIGHT / ((most - least) or 1)
        places = " ".join(f"{EDGE + across * step:.1f},{top + down * (most - loss):.1f}" for step, loss in thinned)
        return (
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
        )

    ground = f'<path d="M{EDGE} {top}V{top + CURVE_HEIGHT}H{WIDTH - EDGE}" fill="none" stroke="#d5d1ca"/>'
    return ground + line(trained, LOSS, "") + (line(measured, MEASURED, "6 5") if len(measured) > 1 else "")


def _text_element(x: int, y: int, text: str, size: int, colour: str = INK, weight: int = 400) -> str:
    """Return a line of text as an SVG element, escaped and without unprintable characters. x, y: the left end of its
    baseline; size in pixels."""
    shown = "".join(letter for letter in text if letter.isprintable())
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(shown)}</text>'


def _clipped(text: str, most: int, columns: int = COLUMNS) -> list[str]:
    """Wrap text to at most `most` lines of `columns` columns; an ellipsis marks what is left out."""
    lines, used = [""], 0
    for word in " ".join(text.split()).replace(" ", " \0").split("\0"):
        # without blanks a line breaks anywhere
        pieces = [word] if width(word) <= columns and word.isascii() else list(word)
        for piece in pieces:
            if used + width(piece) > columns:
                lines.append("")
                used = 0
            lines[-1] += piece
            used += width(piece)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1].rstrip() + " …"]

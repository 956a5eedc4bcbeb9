"""Each shape that docs/data.md tells of, from a file of its real shape: what is learned of it, and what is said to be
left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.kit.wild import SHAPES, written

AS_IT_IS = Choices(pseudonyms=False)


def text_of(example: Example) -> str:
    if example.prompt is not None:
        return f"{example.prompt} > {example.completion}"
    if example.text is not None:
        return example.text.strip()
    turns = []
    for m in example.messages:
        words = (
            [f"({m.reasoning})"] * bool(m.reasoning)
            + [m.content] * bool(m.content)
            + [f"[{call.name}]" for call in m.tool_calls]
        )
        turns.append(" ".join([m.role[0] + ("" if m.weight else "0"), *words]))
    return " | ".join(turns)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_people_have_is_learned_as_it_is_meant(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    file = tmp_path / shape.file
    file.write_bytes(written(shape))
    if isinstance(shape.becomes, str):
        with pytest.raises(DataError, match=re.escape(shape.becomes)):
            inspect_file(file)
        return
    assert [text_of(example) for _, example in examples_of(file, choices=AS_IT_IS)] == shape.becomes
    left = {str(one.what.params["name"]) for one in inspect_file(file).left_out}
    assert left == set(shape.left)

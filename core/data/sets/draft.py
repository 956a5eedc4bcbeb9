"""A row that cannot be trained, prepared as a draft for a person to complete."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress

from core.data.formats import read_example
from core.data.reading.file_rows import Row
from core.data.shapes.known import recognize_format
from core.errors import DataError
from core.files import JsonObject

_EMPTY = "\ue000"  # a private-use character in place of a missing text, while its row is read
# A missing text in JSON, with the blank lines that join it to other texts.
_WRITTEN = re.compile(rf"(?:\\n\\n)?{_EMPTY}(?:\\n\\n)?")


def draft_of(values: Mapping[str, object]) -> JsonObject | None:
    """Return a row that lacks only some text as a draft for a person to complete: the example as `Example.as_dict`
    gives it, with "" for each missing text. None if something else is wrong with it.

    values: the columns of the row. An answer that is marked as bad counts as one to be improved, so the draft has no
    such mark.
    """
    # null only if empty texts are not enough: most columns with it are none that the row needs.
    for missing in (("",), ("", None)):
        row = Row(1, {name: _filled(value, missing) for name, value in values.items()})
        with suppress(DataError):
            example, _ = read_example(row, recognize_format([row]), rated=True)
            if example is not None:
                draft = json.loads(_WRITTEN.sub("", json.dumps(example.as_dict(), ensure_ascii=False)))
                draft.pop("is_bad", None)
                for side in draft.keys() & {"messages", "rejected"}:
                    draft[side] = [turn for turn in draft[side] if turn["role"] != "system" or turn["content"]]
                return draft
    return None


def _filled(value: object, missing: tuple[str | None, ...]) -> object:
    """Return a value, however nested, with _EMPTY in place of what is missing: blank texts, or those and None."""
    if isinstance(value, dict):
        return {name: _filled(part, missing) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, missing) for part in value]
    return _EMPTY if (value.strip() if isinstance(value, str) else value) in missing else value

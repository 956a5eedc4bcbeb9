"""What the catalogue says of thinking and tools, against the chat templates that are at hand: those inside TRL."""

from __future__ import annotations

import re

import pytest

from core.models.known import KnownModel, known_models
from tests.kit import templates

FROM_TRL = re.compile(r"TRL [\d.]+, (\w+)\.jinja")
READ = [(model, found[1]) for model in known_models() if (found := FROM_TRL.fullmatch(model.flags or ""))]


@pytest.mark.parametrize(("model", "name"), READ, ids=[model.id for model, _ in READ])
def test_thinking_and_tools_are_what_its_template_does(model: KnownModel, name: str) -> None:
    template = templates.template(name)
    turns = [templates.user("Weather in Paris?")]
    assert ("get_weather" in template.render(turns, True, templates.TOOLS)) == model.tools
    plain, thinks, not_so = (template.render(turns, True, None, thinks) for thinks in (None, True, False))
    begins = plain.rstrip().endswith("<think>") or "<|channel|>analysis" in template.source  # as gpt-oss thinks
    assert model.thinking == ("optional" if thinks != not_so else "always" if begins else "never")


def test_each_flag_has_its_source_and_an_entry_without_one_has_no_flag() -> None:
    """Sixty-five of them were of a page that nobody named, or of memory: LFM2.5 2.6B did not think, by memory alone."""
    known = known_models()
    assert all((model.flags is None) == (model.thinking is None and model.tools is None) for model in known)
    assert len(READ) >= 41 and sum(model.flags is not None for model in known) >= 130

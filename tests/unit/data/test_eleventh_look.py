"""Causes of wrong readings in an eleventh set of unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import pytest

from core.data.findings.repairs import repaired
from core.data.formats import Example
from tests.unit.data.test_findings import findings_of


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # Seen: tags of templates, links of wikis and empty check boxes learned as prose.
        ("{% load i18n %}The river {# a note #}is wide.", "The river is wide."),
        ("Rafts: [[Rafts of ash|ash]], [[Oars]].![[raft.png]]", "Rafts: ash, Oars."),
        ("- [ ] Mend the raft\n- [x] Buy oars", "- Mend the raft\n- [x] Buy oars"),
        ("{{cite web|url=a}}Oars float.<!-- draft -->", "Oars float."),
        ("The oar is [[1, 2], [3, 4]], or {{a}{b}}.", None),
        ("Lists such as a[[x, y]] and [ ] stay.", None),
    ],
)
def test_rests_of_templates_and_notes_are_found_and_taken_out(text: str, clean: str | None) -> None:
    finding = findings_of(Example(text=text)).get("markup")
    assert (finding and repaired(Example(text=text), finding.repairs[0])) == (clean and Example(text=clean))

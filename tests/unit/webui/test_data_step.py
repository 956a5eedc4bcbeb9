"""Step 3 of the form without a browser: what it says of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.advice.diagnosis import Diagnosis
from core.messages import msg
from core.workspace.folder import Workspace
from webui.form.data import DataStep
from webui.form.planner import FormResult
from webui.kit.wording import Wording
from webui.state.services import Services


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "ws"))


def test_duplicates_are_told_once(services: Services, tmp_path: Path) -> None:
    """Five of them stood row by row under "Problems found", as a possible problem in the rows, and beside the button that leaves them out."""
    rows = [{"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."} for i in range(36)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:5]]), "utf-8")
    id, step = services.datasets.import_file(tmp_path / "mine.jsonl", "mine").id, DataStep(services, Wording("en"))
    alone = step.report_of(id)
    assert "5 of 41 rows (12.2 %) repeat an earlier row" in alone
    assert "identical to row" not in alone and "Problems found" not in alone
    found = Diagnosis(
        id="duplicates", evidence=msg("run_doctor.none"), meaning=msg("run_doctor.none"), remedy=msg("run_doctor.none")
    )
    assert "repeat an earlier row" not in step.report_of(id, result=FormResult(findings=(found,)))

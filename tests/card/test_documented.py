"""The null card behaves as NVIDIA's documentation says, where the product or torch depends on it. The sentences:
docs/null-card.md.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from core.presets import PROJECT
from tests.card.card import NullCard

LATE = {"NULLCARD_DEFER": "copies"}
CASES: dict[str, dict[str, str]] = {
    "last_error_is_kept_until_it_is_read": {},
    "last_error_is_of_its_thread": {},
    "refused_pin_is_an_error_that_stays": {"NULLCARD_REFUSE_PINS": "1"},
    "sticky_error_fails_every_later_call": {"NULLCARD_GONE": "gone"},
    "free_memory_is_that_of_the_card": {},
    "memory_is_freed_once": {},
    "managed_memory_of_no_bytes_is_invalid": {},
    "event_that_was_never_recorded_is_complete": {},
    "time_between_events_needs_both_and_their_times": {},
    "event_after_waiting_work_is_not_ready": LATE,
    "event_waits_for_its_last_record_alone": LATE,
    "copies_of_pinned_memory_wait_and_others_do_not": LATE,
    "blocking_copy_is_done_when_it_returns": LATE,
    "freeing_memory_of_the_card_waits_for_it": LATE,
    "pinned_memory_in_use_cannot_be_freed": LATE,
    "memory_is_registered_once": {},
    "default_stream_waits_for_streams_that_do_not_refuse_it": {"NULLCARD_RACES": "1"},
    "device_that_is_not_there_is_invalid": {},
    "old_driver_is_insufficient": {"NULLCARD_DRIVER": "12040"},
}


@pytest.mark.parametrize("case", CASES)
def test_as_documented(case: str, tmp_path: Path) -> None:
    card = NullCard()
    alone = {"NULLCARD_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [card.python, PROJECT / "tests/card/documented.py", case], cwd=tmp_path,
        env=card.environment(alone | CASES[case]), capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

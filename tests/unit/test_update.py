"""`update` and `shortcut`: releases come from a server here, the program is six files, what is kept lies beside
them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.presets import PROJECT
from launcher import shortcut, update
from launcher.environment import Environment
from launcher.install import try_lock
from tests.kit.waits import PATIENCE
from tools import release

KEPT = {"workspace/runs/a/recipe.yaml": "r: 8", ".venv/x": "torch", "preferences.json": "{}"}


def program(version: str, starts: bool = True) -> dict[str, str]:
    script = f"print('LoRA Garage {version}')" if starts else "raise SystemExit('no such module')"
    return {
        "launch.py": script, "launcher/main.py": version, "core/__init__.py": version, "webui/__init__.py": version,
        "start.sh": version,
        "pyproject.toml": f'[project]\nversion = "{version}"\n',
    }  # fmt: skip


def archive_of(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(update.TOP + name)
            info.external_attr = (0o100755 if name.endswith(".sh") else 0o100644) << 16
            archive.writestr(info, text)
    return made.getvalue()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        content = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


class Release:
    """A server with one release, and the folder of somebody who has version 0.2.0."""

    def __init__(self, folder: Path, server: ThreadingHTTPServer):
        self.root, self.server = folder / "LoRA Garage", server
        for name, text in (program("0.2.0") | KEPT).items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text, "utf-8", newline="\n")
        self.address = f"http://127.0.0.1:{server.server_port}/lora-garage.json"
        self.offer(archive_of(program("0.3.0")))

    def offer(self, archive: bytes, version: str = "0.3.0", **other: object) -> None:
        release = {
            "version": version,
            "file": "new.zip",
            "bytes": len(archive),
            "sha256": hashlib.sha256(archive).hexdigest(),
        } | other
        self.server.files.update({"/new.zip": archive, "/lora-garage.json": json.dumps(release).encode()})  # type: ignore[attr-defined]

    def update(self, *words: str) -> int:
        return update.update(Environment(str(self.root)), list(words))

    def version(self) -> str:
        return Environment(str(self.root)).version()

    def files(self) -> dict[str, str]:
        names = [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]
        return {
            name: (self.root / name).read_text("utf-8")
            for name in names
            if not name.startswith((".update", ".install.lock"))
        }


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    monkeypatch.delenv("LORA_GARAGE_HOME", raising=False)
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.files, server.asked = {}, []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield Release(tmp_path, server)
    server.shutdown()
    server.server_close()


def test_a_newer_version_takes_the_place_of_this_one_and_goes_back_by_undo(
    installed: Release, capsys: pytest.CaptureFixture
) -> None:
    before = installed.files()
    assert installed.update("--from", installed.address) == 0, capsys.readouterr().err
    assert installed.files() == program("0.3.0") | KEPT and "0.3.0 is installed" in capsys.readouterr().out
    assert os.name == "nt" or (installed.root / "start.sh").stat().st_mode & 0o100
    assert installed.update() == 0 and "0.3.0 is the newest" in capsys.readouterr().out, "the address was kept"
    assert installed.update("--undo") == 0 and installed.files() == before
    assert installed.update("--undo") == 1 and installed.files() == before


def test_nothing_is_asked_unless_somebody_asks_or_has_switched_it_on(
    installed: Release, capsys: pytest.CaptureFixture
) -> None:
    environment, asked = Environment(str(installed.root)), installed.server.asked  # type: ignore[attr-defined]
    update.look_at_start(environment)
    assert installed.update() == 1 and "--from URL" in capsys.readouterr().err and asked == []
    assert (
        installed.update("--check", "--from", installed.address) == 0
        and installed.version() == "0.2.0"
        and len(asked) == 1
    )
    update.look_at_start(environment)
    assert len(asked) == 1, "that was once"
    installed.update("--at-start", "on")
    capsys.readouterr()
    update.look_at_start(environment)
    assert (
        "Version 0.3.0" in capsys.readouterr().out
        and installed.version() == "0.2.0"
        and set(asked) == {"/lora-garage.json"}
    )
    installed.server.files.clear()  # type: ignore[attr-defined]
    update.look_at_start(environment)
    assert capsys.readouterr() == ("", ""), "a start does without an answer"
    installed.update("--at-start", "off")
    count = len(asked)
    update.look_at_start(environment)
    assert len(asked) == count


@pytest.mark.parametrize(
    ("archive", "other", "sentence"),
    [
        (archive_of(program("0.3.0")), {"sha256": "0" * 64}, "SHA-256"),
        (archive_of(program("0.3.0") | {"../evil.py": "x"}), {}, "does not describe a release"),
        (archive_of(program("0.3.0") | {"workspace/runs/a": "x"}), {}, "does not describe a release"),
        (b"not a zip", {}, "does not describe a release"),
        (archive_of(program("0.3.0", starts=False)), {}, "no such module"),
        (archive_of(program("0.2.9")), {}, "the previous version is back"),  # says another version than was promised
        (archive_of(program("0.3.0")), {"file": "../new.zip"}, "does not describe a release"),
        (archive_of(program("0.3.0")), {"file": "gone.zip"}, "cannot be reached"),
    ],
)
def test_what_is_no_release_or_does_not_start_changes_nothing(
    installed: Release, archive: bytes, other: dict, sentence: str, capsys
) -> None:
    before = installed.files()
    installed.offer(archive, **other)
    assert installed.update("--from", installed.address) == 1 and sentence in capsys.readouterr().err
    assert installed.files() == before and not (installed.root / update.PART).exists()


def test_an_update_that_is_killed_at_any_step_is_undone_by_the_next_start(
    installed: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, left = installed.files(), os.rename, 0

    def killed(*paths: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        real(*paths)

    installed.update("--check", "--from", installed.address)
    monkeypatch.setattr(os, "rename", killed)
    for step in range(12):  # six names, each two renames
        left = step
        with pytest.raises(KeyboardInterrupt):
            installed.update()
        left = 1000
        if not (installed.root / "launcher").exists():  # what launch.py does
            real(installed.root / update.OLD / "launcher", installed.root / "launcher")
        assert update.mend(str(installed.root)) or step == 0
        assert installed.files() == before, step


def test_an_app_at_work_is_not_pulled_from_under(installed: Release, capsys: pytest.CaptureFixture) -> None:
    with open(installed.root / "workspace" / "app.lock", "a+") as lock:
        assert try_lock(lock)
        assert (
            installed.update("--from", installed.address) == 1
            and "is running" in capsys.readouterr().err
            and installed.version() == "0.2.0"
        )


def test_a_checkout_is_left_to_git(installed: Release, capsys: pytest.CaptureFixture) -> None:
    (installed.root / ".git").mkdir()
    assert installed.update("--from", installed.address) == 1 and "git pull" in capsys.readouterr().err
    assert installed.update("--forward") == 2


def test_a_release_describes_itself_as_update_reads_it(tmp_path: Path) -> None:
    (tmp_path / "lora-garage.zip").write_bytes(b"x")
    description = release.description(tmp_path / "lora-garage.zip")
    assert description == {
        "version": release.version(),
        "file": "lora-garage.zip",
        "bytes": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }
    assert update.order("0.2.0") > update.order("0.2.0.dev0") > update.order("0.1.9")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="a .desktop file is what the others have")
def test_the_icon_on_the_desktop_starts_what_it_is_made_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / 'R&D "车库" $HOME 100%' / "start.sh"
    (tmp_path / "Desktop").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no xdg-user-dir
    monkeypatch.setattr(shortcut, "target", lambda: str(script))
    assert shortcut.shortcut([]) == 0
    file = tmp_path / "Desktop" / "lora-garage.desktop"
    line = next(line for line in file.read_text("utf-8").splitlines() if line.startswith("Exec=")).removeprefix("Exec=")
    shell = ["/bin/sh", "-c", "printf %s " + line.replace("\\\\", "\\").replace("%%", "%")]
    assert subprocess.run(shell, capture_output=True, text=True).stdout == str(script), "undone as a desktop does"
    assert file.stat().st_mode & 0o100
    assert shortcut.shortcut(["--remove"]) == 0 and not file.exists() and shortcut.shortcut(["--all"]) == 2


def test_windows_is_handed_the_path_apart_from_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {}

    def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        environment.update(env, command=" ".join(command))
        return subprocess.CompletedProcess(command, 0, "C:\\Users\\it's me\\Desktop\\LoRA Garage.lnk\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert shortcut.by_powershell("C:\\it's\\Start.bat", False).endswith("LoRA Garage.lnk")
    assert environment["GARAGE_TARGET"] == "C:\\it's\\Start.bat" and "it's" not in environment["command"]


def test_launch_finds_its_other_half_where_an_update_was_killed(tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text((PROJECT / "launch.py").read_text("utf-8"), "utf-8")
    (tmp_path / ".update.old" / "launcher").mkdir(parents=True)
    (tmp_path / ".update.old" / "launcher" / "__init__.py").write_text("", "utf-8")  # else one on PYTHONPATH goes first
    (tmp_path / ".update.old" / "launcher" / "main.py").write_text("def main(words): print('here'); return 0", "utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "launch.py"], capture_output=True, text=True, timeout=60 * PATIENCE
    )
    assert done.stdout == "here\n", done.stderr

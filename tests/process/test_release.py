"""The release archive and the scripts in it, up to what they start: uv is played by a shell script, where it is fetched
from by a server here.

start.sh is run as people run it; its twin for Windows is read alone here.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from core import __version__
from core.messages import CORE_LOCALES, LANGUAGES, Catalogue, unpacked_yaml
from core.presets import PROJECT
from launcher import main as launcher
from launcher import torch_build
from tests.kit.browser import start_app
from tools import release
from webui import __main__ as page
from webui.kit.wording import PAGE_LOCALES, Wording

SCRIPTS = ("start.sh", "Start LoRA Garage.command", "Start LoRA Garage.bat")
TOOLS = (
    "sh",
    "curl",
    "sed",
    "grep",
    "cut",
    "uname",
    "tar",
    "gzip",
    "mkdir",
    "mv",
    "rm",
    "dirname",
    "sha256sum",
    "python3",
)
UV = """#!/bin/sh
# Plays uv: there is a Python where HAS_PYTHON says so, and what is run is run by the one of PATH.
echo "$@" >> asked.txt
case $1-$2 in
    python-find) exit ${HAS_PYTHON:-0} ;;
    python-install) exit 1 ;;
    run-*) shift 3; exec python3 "$@" ;;
esac
"""


def archive_of(program: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        info = tarfile.TarInfo("uv-for-this-pc/uv")
        info.size, info.mode = len(program), 0o755
        tar.addfile(info, io.BytesIO(program.encode()))
    return made.getvalue()


ARCHIVE = archive_of(UV)


class Releases(BaseHTTPRequestHandler):
    """Where uv is fetched from; `sent` of the server: what it answers with, `said`: how long it says that this is."""

    def do_GET(self) -> None:
        self.send_response(200 if self.server.sent else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(self.server.said))  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(self.server.sent)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def releases() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Releases)
    server.sent, server.said = ARCHIVE, len(ARCHIVE)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What start.sh needs of the archive, in a folder with a name of people; its table knows the uv that is played."""
    folder = tmp_path / "R&D, 车库" / "LoRA Garage"
    for name in ("start.sh", "launch.py", "launcher", "pyproject.toml", "constraints.txt", "core/locales"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2)(PROJECT / name, folder / name)
    (folder / "packaging").mkdir()
    platforms = re.findall(r"^(\S+-\S+) ", (PROJECT / "packaging" / "uv.txt").read_text("utf-8"), re.MULTILINE)
    lines = [f"{platform} 21 {hashlib.sha256(ARCHIVE).hexdigest()}" for platform in platforms]
    (folder / "packaging" / "uv.txt").write_text("\n".join(["version 1.2.3", *lines, ""]), "utf-8")
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH of the programs that every system has, and no uv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(
            sys.executable if name == "python3" else shutil.which(name) or pytest.skip(f"no {name} here")
        )
    return folder


def start(place: Path, tools: Path, address: str = "http://127.0.0.1:9", language: str = "en", **more: str):
    """start.sh --version: what it started says the version of the program."""
    environ = {
        "PATH": str(tools),
        "HOME": str(place),
        "LORA_GARAGE_LANG": language,
        "LORA_GARAGE_UV_FROM": address,
    } | more
    return subprocess.run(
        [shutil.which("sh"), place / "start.sh", "--version"],
        cwd="/",
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def pattern_of(key: str, language: str = "en") -> re.Pattern[str]:
    """The sentence, whatever its values are."""
    return re.compile(re.sub(r"\\{\w+\\}", r"[^{}]+", re.escape(Catalogue(CORE_LOCALES).raw(f"start.{key}", language))))


def address_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_without_uv_it_is_fetched_once_and_starts_the_program(
    place: Path, tools: Path, releases: ThreadingHTTPServer
) -> None:
    first = start(place, tools, address_of(releases))
    assert first.returncode == 0 and first.stdout.endswith(f"LoRA Garage {__version__}\n"), first.stderr
    assert pattern_of("fetch").search(first.stdout) and "1.2.3 (about 21 MB)" in first.stdout
    assert (place / "asked.txt").read_text().splitlines()[-1] == "run --no-project --isolated launch.py --version"

    releases.sent = b""  # type: ignore[attr-defined]
    assert start(place, tools, address_of(releases)).stdout == f"LoRA Garage {__version__}\n", "from .uv"
    assert [path.name for path in place.glob(".uv*")] == [".uv"]


def test_a_uv_that_is_there_is_taken(place: Path, tools: Path) -> None:
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)
    assert start(place, tools).stdout == f"LoRA Garage {__version__}\n" and not (place / ".uv").exists()


@pytest.mark.parametrize(
    ("key", "language"),
    [
        ("wrong_hash", "en"),
        ("wrong_hash", "zh"),
        ("wrong_hash", "de"),
        *((key, "en") for key in ("cut", "unreachable", "no_curl", "no_uv", "no_python")),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_no_uv(
    key: str, language: str, place: Path, tools: Path, releases: ThreadingHTTPServer
) -> None:
    address = address_of(releases)
    match key:
        case "wrong_hash":
            releases.sent = archive_of(UV + "# changed\n")  # type: ignore[attr-defined]
            releases.said = len(releases.sent)  # type: ignore[attr-defined]
        case "cut":
            releases.sent = ARCHIVE[:-9]  # type: ignore[attr-defined]
        case "unreachable":
            releases.sent, releases.said = b"", 0  # type: ignore[attr-defined]
        case "no_curl":
            (tools / "curl").unlink()
        case "no_uv":
            (place / "packaging" / "uv.txt").write_text("version 1.2.3\n", "utf-8")
    done = start(place, tools, address, language, HAS_PYTHON=str(int(key == "no_python")))
    assert done.returncode == 1 and pattern_of(key, language).search(done.stderr), done
    assert "{" not in done.stdout + done.stderr, "every value is put in"
    assert (place / ".uv" / "uv").exists() == (key == "no_python") and not (place / ".uv.part").exists()


@pytest.mark.skipif(not shutil.which("uv"), reason="no uv here")
def test_a_real_uv_starts_it_beside_an_environment_that_is_broken(place: Path, tools: Path) -> None:
    """uv itself would take the Python of .venv, which launch.py may have to make again."""
    (tools / "uv").symlink_to(shutil.which("uv"))
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "python").symlink_to("/nowhere")
    python = {"UV_PYTHON": sys._base_executable, "UV_PYTHON_PREFERENCE": "only-system"}
    done = start(place, tools, UV_CACHE_DIR=os.fspath(place / "cache"), **python)
    assert done.stdout == f"LoRA Garage {__version__}\n", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a release is made where git is")
def test_the_archive_is_the_same_twice_and_holds_what_is_needed_alone(tmp_path: Path) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("unpacked from an archive: there is no commit to make one of")
    first, second = (release.build(tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size < release.MAX_BYTES
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path)
        names = [name.removeprefix("LoRA Garage/") for name in archive.namelist()]
        modes = {name: archive.getinfo(f"LoRA Garage/{name}").external_attr >> 16 & 0o777 for name in SCRIPTS}
        lines = archive.read("LoRA Garage/Start LoRA Garage.bat").splitlines(keepends=True)
    assert {name.partition("/")[0] for name in names} == {
        one.partition("/")[0] for one in release.CONTENTS if one[0] != ":"
    }
    ours, theirs = (
        Catalogue(*(place / part / "locales" for part in ("core", "webui")))
        for place in (PROJECT, tmp_path / release.TOP)
    )
    for path in release.PACKED_TOO:
        assert unpacked_yaml(tmp_path / release.TOP / f"{path}{release.PACKED}") == unpacked_yaml(PROJECT / path)
    for language in LANGUAGES:
        assert ours.keys(language) and {key: ours.raw(key, language) for key in ours.keys(language)} == {
            key: theirs.raw(key, language) for key in theirs.keys(language)
        }
    assert modes == dict.fromkeys(SCRIPTS[:2], 0o755) | {SCRIPTS[2]: 0o644}
    assert all(line.endswith(b"\r\n") for line in lines), "cmd loses its labels in a file with other line ends"
    command = [sys.executable, "-I", "-S", str(tmp_path / "LoRA Garage" / "launch.py"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"LoRA Garage {__version__}\n"


def test_comments_and_private_docstrings_are_empty_in_a_release_and_texts_stay_whole() -> None:
    program = (
        b'#!/bin/python\n# why\nx = """\n# text\n"""  # beside\ndef _f():\n    """Return\n    1."""\n    return 1\n'
    )
    rest = b'def f():\n    """Return 1."""\n    return 1\ndef _empty():\n    """Do nothing."""\n'
    without = program.replace(b"# why", b"").replace(b'    """Return\n    1."""', b"\n")
    assert release.without_comments(program + rest) == without + rest


def test_every_uv_has_a_hash_and_both_scripts_know_its_name() -> None:
    table = (PROJECT / "packaging" / "uv.txt").read_text("utf-8")
    rows = re.findall(r"^((?:x86_64|aarch64)-([\w-]+)) \d\d ([0-9a-f]{64})$", table, re.MULTILINE)
    assert (
        len(rows) == 6
        and len({sha256 for *_, sha256 in rows}) == 6
        and re.search(r"^version [\d.]+$", table, re.MULTILINE)
    )
    scripts = {name: (PROJECT / name).read_text("utf-8") for name in SCRIPTS}
    for platform, system, _ in rows:
        assert platform in scripts[SCRIPTS[2]] if "windows" in system else f"-{system}" in scripts[SCRIPTS[0]]


def test_both_scripts_say_every_sentence_and_none_that_cmd_would_garble() -> None:
    catalogue = Catalogue(CORE_LOCALES)
    keys = {key.removeprefix("start.") for key in catalogue.keys("en") if key.startswith("start.")}
    for name, unsaid in ((SCRIPTS[0], set()), (SCRIPTS[2], {"no_curl"})):
        assert keys - unsaid == set(re.findall(r"\b(?:say|fail) ([a-z_]+)", (PROJECT / name).read_text("utf-8"))), name
    assert not [
        key
        for key in keys
        for language in LANGUAGES
        if re.search(r'[!"%&|<>^]', catalogue.raw(f"start.{key}", language))
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of somebody who installed the wheel, beside the libraries that are here."""
    if os.name == "nt":
        pytest.skip("its command is started by env")
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place], cwd=PROJECT, check=True)
    (file,) = place.glob("lora_garage-*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-compile",
        "--no-deps",
        "--no-index",
        "--target",
        place / "site",
        file,
    ]
    subprocess.run(command, check=True)
    return place / "site"


def environment_of(wheel: Path, home: Path) -> dict[str, str]:
    """The environment of somebody who installed the wheel, with an empty home folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("LORA_GARAGE_HOME", "XDG_DATA_HOME")}
    return kept | {"PYTHONPATH": os.fspath(wheel), "HOME": os.fspath(home), "LORA_GARAGE_LANG": "en"}


def command_of(wheel: Path, home: Path, *arguments: str) -> list[str]:
    """`lora-garage ...` in an empty home folder, by env: what is started in its place keeps nothing of ours."""
    ours = {"PYTHONPATH": os.fspath(wheel), "HOME": os.fspath(home), "LORA_GARAGE_LANG": "en"}
    unset = [f"--unset={name}" for name in ("LORA_GARAGE_HOME", "XDG_DATA_HOME")]
    return [
        "env",
        *unset,
        *(f"{name}={value}" for name, value in ours.items()),
        os.fspath(wheel / "bin" / "lora-garage"),
        *arguments,
    ]


def test_the_wheel_is_one_package_and_keeps_what_it_writes_in_the_users_folder(wheel: Path, tmp_path: Path) -> None:
    assert {path.name for path in wheel.iterdir()} == {"bin", "lora_garage", f"lora_garage-{__version__}.dist-info"}
    for folder in ("core", "webui", "presets"):
        inside = {
            path.relative_to(place)
            for place in (PROJECT / folder, wheel / "lora_garage" / folder)
            for path in place.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert inside and all((wheel / "lora_garage" / folder / path).is_file() for path in inside)

    def said(*arguments: str) -> str:
        return subprocess.run(
            command_of(wheel, tmp_path, *arguments), cwd=tmp_path, capture_output=True, text=True
        ).stdout

    assert said("--version") == f"LoRA Garage {__version__}\n"
    assert "lora-garage doctor" not in said("--help") and "    lora-garage COMMAND ..." in said("--help")
    assert json.loads(said("runs", "--json")) == {"runs": []}
    asked = [sys.executable, "-c", "import lora_garage; print(lora_garage.plan('7B', vram=12).fits)"]
    in_python = subprocess.run(asked, cwd=tmp_path, env=environment_of(wheel, tmp_path), capture_output=True, text=True)
    assert in_python.stdout == "True\n", in_python.stderr
    (workspace,) = {path.parent for path in tmp_path.rglob("datasets")}
    assert workspace.name == "lora-garage" and workspace.parent != tmp_path


def test_what_belongs_to_the_source_alone_is_said_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    for arguments, sentence in ((["--repair"], "uv tool install --reinstall"), (["check"], "get it with git")):
        done = subprocess.run(command_of(wheel, tmp_path, *arguments), capture_output=True, text=True)
        assert done.returncode == 2 and sentence in done.stderr


@pytest.mark.full
def test_the_wheel_is_well_and_serves_its_page(wheel: Path, tmp_path: Path) -> None:
    done = subprocess.run(command_of(wheel, tmp_path, "doctor", "--json"), cwd=tmp_path, capture_output=True, text=True)
    well = {finding["name"]: finding["ok"] for finding in json.loads(done.stdout)["findings"]}
    assert well["packages"] and well["torch"] and well["environment"]
    app = start_app(
        tmp_path, module="lora_garage.launch", PYTHONPATH=str(wheel), PYTHONSAFEPATH="1", HOME=str(tmp_path)
    )
    assert app.stop() == 0


def container() -> dict[str, list[list[str]]]:
    """The words of each instruction of the Dockerfile, by its name; the variables that it sets are filled in."""
    text = (PROJECT / "packaging" / "Dockerfile").read_text("utf-8")
    commands: dict[str, list[list[str]]] = {}
    values: dict[str, str] = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            name, rest = line.split(maxsplit=1)
            words = (
                json.loads(rest) if rest.startswith("[") else shlex.split(string.Template(rest).safe_substitute(values))
            )
            commands.setdefault(name, []).append(words)
            if name == "ARG":
                values.update(word.split("=", 1) for word in words)
    return commands


def test_the_container_is_made_of_what_is_here_and_starts_what_is_there() -> None:
    """No docker is here: what its instructions name is held against the project, the launcher and the app."""
    steps, project = container(), tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    assert steps.keys() <= {"FROM", "ARG", "RUN", "COPY", "ENV", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert all((PROJECT / words[0]).exists() for words in steps["COPY"] if not words[0].startswith("--from"))
    for words in steps["FROM"]:
        assert SpecifierSet(project["requires-python"]).contains(words[0].removeprefix("python:").removesuffix("-slim"))
    (entry,), (arguments,) = steps["ENTRYPOINT"], steps["CMD"]
    module, function = project["scripts"][entry[0]].split(":")
    assert len(entry) == 1 and callable(getattr(importlib.import_module(module.removeprefix("lora_garage.")), function))
    assert launcher.parse(arguments) == ("app", arguments)
    assert page.parse(arguments, Wording("en")).secret, "a container is open to others"
    (install,) = (words for words in steps["RUN"] if "--index-url" in words)
    build = install[install.index("--index-url") + 1].removeprefix(torch_build.WHEEL_INDEX)
    assert build == torch_build.matching_cuda_build("Linux", (580,)).build
    assert Requirement(install[-1]) == next(
        need for need in map(Requirement, project["dependencies"]) if need.name == "torch" and not need.marker
    )


MENUS = """
const shown = (installed, runs, url) =>
  require(process.argv[1]).menu({}, { exists: () => installed, running: () => runs, local: () => ({ url }) })
const states = [[false, false], [true, false], [true, true], [true, true, "http://127.0.0.1:7860/"]]
Promise.all(states.map((state) => shown(...state))).then((menus) => console.log(JSON.stringify(menus)))
"""


def test_pinokio_starts_what_is_here() -> None:
    """As far as that can be read: no Pinokio here has ever run it."""
    folder = PROJECT / "pinokio"
    if shutil.which("node"):
        menus = json.loads(subprocess.check_output(["node", "-e", MENUS, folder / "pinokio.js"], text=True))
        first = [next(item["href"] for item in menu if item.get("default")) for menu in menus]
        assert first == ["install.json", "start.json", "start.json", "http://127.0.0.1:7860/"]
        named = {item["href"] for menu in menus for item in menu if not item["href"].startswith("http")}
        assert named == {file.name for file in folder.glob("*.json")}
    assert json.loads((folder / "start.json").read_text("utf-8"))["daemon"] is True, (
        "else Pinokio ends it after its last step"
    )
    for script in folder.glob("*.json"):
        steps = json.loads(script.read_text("utf-8"))["run"]
        assert {step["method"] for step in steps} <= {"shell.run", "local.set"}
        argv = steps[0]["params"]["message"].split()
        assert (folder / steps[0]["params"]["path"] / argv[argv.index("launch.py")]).is_file()
        words = [word for word in argv[argv.index("launch.py") + 1 :] if word != "--repair"]
        assert launcher.parse(words)[0] in ("app", "runs", "uninstall"), words
    event = json.loads((folder / "start.json").read_text("utf-8"))["run"][0]["params"]["on"][0]["event"]
    ready = Catalogue(PAGE_LOCALES).raw("page.ready", "en").format(url="http://127.0.0.1:7860/")
    assert re.search(event[1:-1].replace("\\/", "/"), ready), "the line that the app prints"

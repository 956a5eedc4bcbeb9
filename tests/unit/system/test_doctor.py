"""Each fault gives its finding with one fix; the machine is a value."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from core import __version__, files
from core.commands.__main__ import main
from core.messages import msg
from core.system import awake, checkup, gpu, surroundings
from core.system.surroundings import Surroundings
from core.system.windows import PageFile
from core.workspace import preferences
from core.workspace.folder import Workspace
from launcher import running, torch_build
from tests.kit.ports import free_port

RTX = gpu.Card(index=0, name="RTX 4070", total_bytes=12 * 2**30, free_bytes=11 * 2**30, capability=(8, 9))
TURING = gpu.Card(index=1, name="RTX 2060", total_bytes=6 * 2**30, free_bytes=5 * 2**30, capability=(7, 5))
MAXWELL = gpu.Card(index=0, name="GTX 970", total_bytes=4 * 2**30, free_bytes=4 * 2**30, capability=(5, 2))
GTX = gpu.Card(index=0, name="GTX 1080", total_bytes=8 * 2**30, free_bytes=8 * 2**30, capability=(6, 1))
CUDA_13 = checkup.Torch(
    version="2.13.0", cuda="13.0", sees_card=True, arches=("sm_75", "sm_80", "sm_86", "sm_90", "sm_120")
)
CPU = checkup.Torch(version="2.13.0+cpu")
AROUND = Surroundings(
    program="/home/me/garage",
    workspace="/home/me/garage/workspace",
    log="/home/me/garage/workspace/logs/app.log",
    free_bytes=int(80e9),
    port=7860,
    port_free=True,
)
# As Windows tells it, all well.
ON_WINDOWS = {
    "program": "C:\\lora-garage",
    "workspace": "D:\\garage",
    "temporary": "C:\\Users\\me\\AppData\\Local\\Temp",
    "temporary_free_bytes": int(30e9),
    "models": "C:\\Users\\me\\.cache\\huggingface\\hub",
    "models_free_bytes": int(30e9),
    "synced": ("C:\\Users\\me\\OneDrive",),
    "long_paths": False,
    "runtime": (14, 44, 35211, 0),
    "page_file": PageFile(None),
    "ram_bytes": 16 * 2**30,
    "battery_percent": 90,
    "battery_plugged": True,
}
WELL = checkup.Facts(
    system="Linux",
    machine="x86_64",
    python=(3, 11, 7),
    executable="/home/me/garage/.venv/bin/python",
    in_own_environment=True,
    install_finished=True,
    missing=(),
    bitsandbytes="0.50.2",
    torch=CUDA_13,
    nvidia=gpu.Nvidia(driver="580.65.06", cards=(RTX,)),
    amd=False,
    around=AROUND,
)


def around(**changes: object) -> dict[str, Surroundings]:
    return {"around": AROUND.model_copy(update=changes)}


def windows(**changes: object) -> dict[str, object]:
    return {"system": "Windows", **around(**ON_WINDOWS | changes)}


NO_CARD = {"torch": CPU, "nvidia": gpu.Nvidia(error="NVML Shared Library Not Found")}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        NO_CARD,
        NO_CARD | {"system": "Darwin", "machine": "arm64"},
        NO_CARD | {"amd": True},
        {"nvidia": gpu.Nvidia(driver="580.65.06", cards=(gpu.Card(index=0),))},
        around(free_bytes=None),
        {"in_own_environment": False, "install_finished": False},
        windows(),
        windows(long_paths=True, program="C:\\" + "x" * 200),
        windows(page_file=PageFile(20 << 10), keeps_awake=False, synced=()),
        around(cannot_keep_awake=msg("awake.no_program", program="systemd-inhibit"), keeps_awake=False),
        {"torch": CUDA_13.model_copy(update={"flash": True})},
        {"torch": CUDA_13.model_copy(update={"flash": False})},
        {
            "torch": CUDA_13.model_copy(update={"flash": True}),
            "nvidia": gpu.Nvidia(driver="580.65.06", cards=(TURING,)),
        },
        {"nvidia": gpu.Nvidia(driver="580.65.06", cards=(RTX, TURING))},
        {"nvidia": gpu.Nvidia(driver="580.65.06", cards=(MAXWELL,)), "torch": CPU},
        {"nvidia": gpu.Nvidia(driver="580.65.06", cards=(MAXWELL, RTX))},
    ],
    ids=[
        "gaming PC",
        "no card",
        "mac",
        "AMD",
        "a card that tells nothing",
        "disk unknown",
        "a developer's own environment",
        "Windows",
        "long paths",
        "page file and sleep by hand",
        "a container",
        "flash attention",
        "without it",
        "without it by the card",
        "two cards",
        "a card too old to be used",
        "the same beside another",
    ],
)
def test_a_machine_that_is_well_has_no_fix(changes: dict):
    findings = checkup.examine(WELL.model_copy(update=changes))
    for language in ("en", "zh"):
        sentences = [finding.message.render(language) for finding in findings]
        assert not any(sentence.startswith(("doctor.", "awake.")) or "{" in sentence for sentence in sentences)
    assert all(finding.ok and finding.fix is None for finding in findings)


def test_of_two_cards_it_is_said_how_both_are_used():
    """It said that cards are used one at a time, when a run could train on several."""
    sentences = {
        finding.name: finding.message
        for finding in checkup.examine(
            WELL.model_copy(update={"nvidia": gpu.Nvidia(driver="580.65.06", cards=(RTX, TURING))})
        )
    }
    assert "cards" not in {finding.name for finding in checkup.examine(WELL)}
    assert all("train.ranks" in sentences["cards"].render(language) for language in ("en", "zh", "de"))


# what is different -> which finding, which sentence, which fix
FAULTS = {
    "python too old": ({"python": (3, 10, 4)}, "python", "python", "python_fix"),
    "python too new": ({"python": (3, 15, 0)}, "python", "python", "python_fix"),
    "install unfinished": ({"install_finished": False}, "environment", "unfinished", "start_fix"),
    "package missing": ({"missing": ("peft>=0.18",)}, "packages", "packages_missing", "repair_fix"),
    "torch cannot be loaded": ({"torch": checkup.Torch(error="DLL load failed")}, "torch", "torch_error", "repair_fix"),
    "CPU torch beside a card": ({"torch": CPU}, "torch", "torch_cpu_beside_card", "repair_fix"),
    "CPU torch, and a driver too old for any CUDA build": (
        {"torch": CPU, "nvidia": gpu.Nvidia(driver="470.42.01", cards=(RTX,))},
        "torch",
        "torch_cpu_beside_card",
        "driver_and_repair_fix",
    ),
    "driver too old for CUDA 13": (
        {"nvidia": gpu.Nvidia(driver="550.54.14", cards=(RTX,))},
        "torch",
        "driver_too_old",
        "driver_fix",
    ),
    "no code for a GTX 1080 in a CUDA 13 build": (
        {"nvidia": gpu.Nvidia(driver="580.65.06", cards=(GTX,))},
        "torch",
        "no_kernels",
        "repair_fix",
    ),
    "torch blind": (
        {"torch": CUDA_13.model_copy(update={"sees_card": False})},
        "torch",
        "torch_blind",
        "torch_blind_fix",
    ),
    "driver without a card": ({"nvidia": gpu.Nvidia(driver="580.65.06")}, "gpu", "no_cards", "no_cards_fix"),
    "bitsandbytes missing": ({"bitsandbytes": None}, "bitsandbytes", "no_bitsandbytes", "repair_fix"),
    "bitsandbytes without CUDA": (
        {
            "torch": CUDA_13.model_copy(
                update={"bitsandbytes_on_cpu": "libcudart.so.13: cannot open shared object file"}
            )
        },
        "bitsandbytes",
        "bitsandbytes_on_cpu",
        "repair_fix",
    ),
    "bitsandbytes broken": (
        {"torch": CUDA_13.model_copy(update={"bitsandbytes_error": "no such file"})},
        "bitsandbytes",
        "bitsandbytes_error",
        "repair_fix",
    ),
    "workspace read-only": (
        around(writable_error="Read-only file system"),
        "workspace",
        "not_writable",
        "workspace_fix",
    ),
    "little disk": (around(free_bytes=int(3e9)), "disk", "disk", "disk_fix"),
    "port taken": (around(port_free=False), "port", "port_taken", "port_fix"),
    "a folder too long": (windows(program="C:\\" + "x" * 96), "path", "path_long", "path_fix"),
    "a workspace too long": (windows(workspace="D:\\" + "x" * 106), "path", "path_long", "workspace_path_fix"),
    "no runtime": (windows(runtime=()), "runtime", "runtime_missing", "runtime_fix"),
    "runtime of Windows 11's first": (windows(runtime=(14, 36, 32532, 0)), "runtime", "runtime_old", "runtime_fix"),
    "little disk for temporary files": (
        windows(temporary_free_bytes=int(1e9)),
        "temporary",
        "temporary",
        "temporary_fix",
    ),
    "little disk for the models": (windows(models_free_bytes=int(1e9)), "models", "models_disk", "models_disk_fix"),
    "program in OneDrive": (
        windows(program="c:\\users\\ME\\onedrive\\Desktop\\lora-garage"),
        "onedrive",
        "synced",
        "synced_program_fix",
    ),
    "workspace in OneDrive": (
        windows(workspace="C:\\Users\\me\\OneDrive"),
        "onedrive",
        "synced",
        "synced_workspace_fix",
    ),
    "no page file": (windows(page_file=PageFile(0)), "page_file", "page_file_limited", "page_file_fix"),
    "a small page file": (windows(page_file=PageFile(8 << 10)), "page_file", "page_file_limited", "page_file_fix"),
    "on battery": (windows(battery_plugged=False), "battery", "battery_runs_down", "battery_fix"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_alone_and_with_its_fix(fault: str):
    changes, name, found, fix = FAULTS[fault]
    wrong = [finding for finding in checkup.examine(WELL.model_copy(update=changes)) if not finding.ok]
    assert [(f.name, f.message.key, f.fix.key) for f in wrong] == [(name, f"doctor.{found}", f"doctor.{fix}")]
    for language in ("en", "zh"):
        for sentence in (wrong[0].message.render(language), wrong[0].fix.render(language)):
            assert not sentence.startswith("doctor.")
            assert "{" not in sentence


def test_a_card_without_code_beside_one_that_is_used_is_named_and_nothing_to_repair():
    """It was a fault whose one fix, choosing torch again, chose the same."""
    findings = checkup.examine(WELL.model_copy(update={"nvidia": gpu.Nvidia(driver="580.65.06", cards=(GTX, RTX))}))
    assert all(finding.ok for finding in findings)
    (left_out,) = [finding.message for finding in findings if finding.message.key == "doctor.card_left_out"]
    assert "GTX 1080" in str(left_out) and "6.1" in str(left_out)


def test_the_numbers_of_a_fault_are_in_its_sentence():
    facts = WELL.model_copy(update={"nvidia": gpu.Nvidia(driver="550.54.14", cards=(RTX,))})
    (wrong,) = [finding for finding in checkup.examine(facts) if not finding.ok]
    assert all(number in str(wrong.message) for number in ("550.54.14", "13.0", "580", "2.13.0"))


@pytest.mark.parametrize(
    ("arches", "capability", "expected"),
    [
        (("sm_86",), (8, 9), True),  # within a major version code runs on later minors
        (("sm_90",), (8, 9), False),
        (("sm_75", "sm_80"), (6, 1), False),
        (("sm_120",), (12, 0), True),
        (("sm_90", "compute_90"), (12, 0), True),  # PTX is compiled for later cards
        (("sm_90a",), (9, 0), True),
        ((), (8, 6), False),
    ],
)
def test_which_cards_a_build_has_code_for(arches, capability, expected):
    assert checkup.has_kernels(arches, capability) is expected


def test_launch_and_doctor_agree_on_the_oldest_drivers():
    for row in torch_build.CUDA_BUILDS:
        oldest = checkup.OLDEST_DRIVER[int(row.build[2:4])]
        assert row.linux >= oldest and row.windows >= oldest


def test_launch_and_doctor_wait_as_long_for_torch():
    assert checkup.TORCH_S == running.CHECK_S


# ---- looking -------------------------------------------------------------------------------------


def test_a_torch_that_crashes_hangs_or_babbles_is_a_finding():
    assert checkup.torch_facts("import os; os.abort()").error
    assert "0 s" in checkup.torch_facts("import time; time.sleep(60)", timeout_s=0.3).error
    assert checkup.torch_facts("print('hello')").error
    assert checkup.torch_facts("""print('noise'); print('{"version": "2.13.0"}')""") == checkup.Torch(version="2.13.0")


PRETENDED = """
import torch
torch.cuda.is_available, torch.cuda.get_arch_list, torch.version.cuda = lambda: True, list, "13.0"
torch.cuda.device_count, torch.cuda.get_device_capability = lambda: CARDS, lambda card: (8, 9)
torch._C._cuda_getCurrentRawStream = lambda card: 0
"""


@pytest.mark.parametrize(
    ("cards", "reason"),
    [(1, "libcublas.so"), (0, "for the CPU")],
    ids=["its library cannot be loaded", "it took that of the CPU"],
)
def test_a_bitsandbytes_that_was_loaded_without_its_library_for_the_card_is_a_finding(cards: int, reason: str):
    """Its import succeeds all the same, and the doctor called that fine; the first product raises."""
    torch = checkup.torch_facts(PRETENDED.replace("CARDS", str(cards)) + checkup._CHILD)
    assert torch.error is None and torch.bitsandbytes_error is None and reason in torch.bitsandbytes_on_cpu


def test_torch_has_as_long_to_load_as_at_an_install():
    """Two minutes once, after which the doctor called for --repair of a torch that a scanner or a busy disk only kept
    waiting."""
    assert checkup.TORCH_S == running.CHECK_S


def test_a_taken_port_is_seen():
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not surroundings.port_is_free(port)
    assert surroundings.port_is_free(port)


def test_a_workspace_that_is_still_to_be_made_is_no_problem(tmp_path: Path):
    """Seen: after the install and before the first start the doctor sent people to another folder."""
    assert surroundings.gather(tmp_path / "to be" / "made", tmp_path / "log", 7860, True).writable_error is None
    (tmp_path / "file").touch()
    assert surroundings.gather(tmp_path / "file" / "inside", tmp_path / "log", 7860, True).writable_error


def test_the_port_that_is_advised_is_a_free_one(tmp_path: Path):
    with contextlib.ExitStack() as stack:
        first = socket.create_server(("127.0.0.1", 0))
        port = stack.enter_context(first).getsockname()[1]
        with contextlib.suppress(OSError):  # taken already by somebody
            stack.enter_context(socket.create_server(("127.0.0.1", port + 1)))
        gathered = surroundings.gather(tmp_path, tmp_path / "log", port, keeps_awake=True)
    fix = next(f for f in surroundings.examine(gathered) if f.name == "port").fix
    assert not gathered.port_free and gathered.other_port > port + 1 and f"--port {gathered.other_port}" in str(fix)


def test_a_folder_that_cannot_be_written_is_seen(tmp_path: Path):
    assert files.unwritable_reason(tmp_path) is None
    assert files.unwritable_reason(tmp_path / "not there")
    assert surroundings.free_bytes(tmp_path / "not" / "there") > 0


def test_a_folder_beside_onedrive_is_not_in_it():
    beside = windows(program="C:\\Users\\me\\OneDriveOld\\garage")
    assert all(finding.ok for finding in checkup.examine(WELL.model_copy(update=beside)))
    environment = {"OneDrive": "C:\\a", "OneDriveConsumer": "C:\\a", "OneDriveCommercial": "C:\\b", "PATH": "C:\\c"}
    assert surroundings.synced_folders(environment) == ("C:\\a", "C:\\b")


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_this_pc_is_looked_at_and_nothing_is_left_behind(tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch):
    """Windows' own answers are played in test_windows; here, that they are asked for, and there alone."""
    questions, released = [], []
    for name, answer in (
        ("long_paths", True),
        ("runtime_version", (14, 44)),
        ("page_file", PageFile(0)),
    ):
        monkeypatch.setattr(
            surroundings.windows, name, lambda name=name, answer=answer: questions.append(name) or answer
        )
    monkeypatch.setattr(surroundings.platform, "system", lambda: system)
    monkeypatch.setattr(awake, "hold", lambda: lambda: released.append(True))
    monkeypatch.setattr(awake, "battery", lambda: awake.Battery(42.4, False))
    gathered = surroundings.gather(tmp_path, tmp_path / "log", 7860, keeps_awake=False)
    assert questions == (["long_paths", "runtime_version", "page_file"] if system == "Windows" else [])
    assert (gathered.runtime, gathered.long_paths) == (((14, 44), True) if system == "Windows" else (None, None))
    assert (gathered.battery_percent, gathered.battery_plugged, gathered.keeps_awake) == (42, False, False)
    assert released == [True] and gathered.cannot_keep_awake is None and not list(tmp_path.iterdir())


def test_the_models_of_the_hub_are_looked_for_on_their_own_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A workspace on a large drive was said to have room, while each model came to the small one of the person's
    folder."""
    monkeypatch.setattr(surroundings.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert surroundings.gather(tmp_path, tmp_path / "log", 7860, keeps_awake=False).models is None
    monkeypatch.setattr(surroundings, "_drive", lambda folder: folder == tmp_path / "hub")
    gathered = surroundings.gather(tmp_path, tmp_path / "log", 7860, keeps_awake=False)
    assert gathered.models == str(tmp_path / "hub") and gathered.models_free_bytes > 0


def test_all_requirements_are_met_here():
    assert checkup.missing_requirements() == ()


# ---- cards ---------------------------------------------------------------------------------------


class FakeNvml:
    """pynvml with one card; refusing names raises for these calls, like an old driver or a card that fell off the
    bus."""

    class NVMLError(Exception): ...

    class Memory:
        total, free = 12 * 2**30, 11 * 2**30

    def __init__(self, *refusing: str):
        self.refusing = refusing

    def __getattr__(self, name: str):
        answers = {
            "nvmlSystemGetDriverVersion": b"580.65.06",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetName": "RTX 4070",
            "nvmlDeviceGetMemoryInfo": self.Memory,
            "nvmlDeviceGetCudaComputeCapability": (8, 9),
        }

        def call(*arguments):
            if name in self.refusing:
                raise self.NVMLError("Not Supported")
            return answers.get(name)

        return call


def test_a_card_is_read():
    assert gpu.probe(FakeNvml()) == gpu.Nvidia(driver="580.65.06", cards=(RTX,))


def test_what_a_card_does_not_tell_stays_unknown():
    nvidia = gpu.probe(FakeNvml("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetName"))
    assert nvidia.cards == (gpu.Card(index=0, capability=(8, 9)),)
    assert gpu.probe(FakeNvml("nvmlDeviceGetHandleByIndex")).cards == (gpu.Card(index=0),)


def test_no_driver_is_a_fact_and_no_error():
    assert gpu.probe(FakeNvml("nvmlInit")) == gpu.Nvidia(error="Not Supported")


def test_doctor_says_which_version_it_is_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(checkup, "gather", lambda root, log, port, keeps_awake: WELL)
    assert main(["doctor", "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"LoRA Garage {__version__}\n")
    assert main(["doctor", "--json", "--workspace", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


@pytest.mark.parametrize("chosen", [True, False])
def test_doctor_knows_whether_a_run_keeps_the_pc_awake(chosen: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    preferences.choose(Workspace(tmp_path), automation={"keep_awake": chosen})
    keeps = []
    monkeypatch.setattr(checkup, "gather", lambda root, log, port, keeps_awake: keeps.append(keeps_awake) or WELL)
    assert main(["doctor", "--workspace", str(tmp_path)]) == 0 and keeps == [chosen]

"""Windows settings that decide whether an install or a training succeeds. One query per function.

Standard library only, without imports of our own: launch.py reads this file before there is a .venv. For Windows only.
None if Windows does not report a value.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any, NamedTuple

# Without long paths a name may have 259 characters with its drive
# (learn.microsoft.com/windows/win32/fileio/maximum-file-path-limitation).
MAX_PATH = 259
# The longest name below site-packages that an install writes: transformers 5.24 and torch 2.15 for Windows, 126 each,
# counted in their wheels. torch 2.13 has 167 and is not taken on Windows; 2.9 to 2.12 and 2.14 have at most 121.
LONGEST_PACKAGE = 126
# The longest name below the workspace, with a margin: a file of an unfinished export or of a checkpoint, as counted by
# a test.
LONGEST_IN_WORKSPACE = 150
MAX_WORKSPACE = MAX_PATH - 1 - LONGEST_IN_WORKSPACE
MAX_ROOT = min(MAX_PATH - len("\\.venv\\Lib\\site-packages\\") - LONGEST_PACKAGE, MAX_WORKSPACE - len("\\workspace"))
# torch's wheels for Windows are built with MSVC 14.42 since 2.9: with an older msvcp140.dll than 14.40 the first mutex
# ends the import with WinError 1114 (pytorch issue 169429, microsoft/STL issue 4730).
MIN_RUNTIME = (14, 40)
RUNTIME_URL = {"ARM64": "https://aka.ms/vc14/vc_redist.arm64.exe"}
RUNTIME_URL_X64 = "https://aka.ms/vc14/vc_redist.x64.exe"


class PageFile(NamedTuple):
    """The page files. most_mb: of all together, None if Windows sizes them itself; 0 without any."""

    most_mb: int | None


def runtime_url(machine: str) -> str:
    """Return the download address of the Visual C++ runtime for a machine type such as "ARM64"; that of x64 for an
    unknown one."""
    return RUNTIME_URL.get(machine.upper(), RUNTIME_URL_X64)


def _registry(key: str, name: str) -> Any:
    """Return a value below HKEY_LOCAL_MACHINE, which anybody may read; False if missing, None if it cannot be read."""
    import winreg as registry

    root: Any = registry
    try:
        with root.OpenKey(root.HKEY_LOCAL_MACHINE, key) as opened:
            return root.QueryValueEx(opened, name)[0]
    except FileNotFoundError:
        return False
    except OSError:
        return None


def processor_name() -> str | None:
    """Return the CPU's full name: "AMD Ryzen 5 5600X 6-Core Processor". None if unknown."""
    name = _registry(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString")
    return name.strip() or None if isinstance(name, str) else None


def long_paths() -> bool | None:
    """Return whether programs that support it (Python does) may use paths of more than 259 characters. None if
    unknown."""
    value = _registry(r"SYSTEM\CurrentControlSet\Control\FileSystem", "LongPathsEnabled")
    return None if value is None else value == 1


def runtime_version() -> tuple[int, ...] | None:
    """Return the version of the Visual C++ runtime, msvcp140.dll: like (14, 44, 35211, 0); () if not installed, None if
    unknown."""
    file = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "msvcp140.dll")
    if not os.path.exists(file):
        return ()
    with contextlib.suppress(OSError, AttributeError):
        return _version_of(file)
    return None


def _version_of(file: str) -> tuple[int, ...] | None:
    """Return the four numbers of a file's version; None if it has none.

    Reads VS_FIXEDFILEINFO, whose third and fourth numbers are dwFileVersionMS and dwFileVersionLS.
    """
    version: Any = ctypes.windll.version  # type: ignore[attr-defined]
    size = version.GetFileVersionInfoSizeW(file, None)
    block = ctypes.create_string_buffer(size)
    if not size or not version.GetFileVersionInfoW(file, 0, size, block):
        return None
    place, length = ctypes.POINTER(ctypes.c_uint32)(), ctypes.c_uint32()
    if not version.VerQueryValueW(block, "\\", ctypes.byref(place), ctypes.byref(length)) or length.value < 16:
        return None
    high, low = place[2], place[3]
    return (high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF)


def page_file() -> PageFile | None:
    """Return the sum of the largest sizes of all configured page files in MB; its most_mb is None if Windows chooses
    the size of one (a line that begins with "?:", or ends with sizes of 0). Returns None if unknown."""
    lines = _registry(r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management", "PagingFiles")
    if not isinstance(lines, list):
        return None
    most = 0
    for line in filter(None, (line.strip() for line in lines)):
        numbers = [int(word) for word in line.split()[-2:] if word.isdigit()]
        if line.startswith("?:") or len(numbers) < 2 or numbers[1] == 0:
            return PageFile(None)
        most += numbers[1]
    return PageFile(most)

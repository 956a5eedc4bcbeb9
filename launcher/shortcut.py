"""`python launch.py shortcut`: an icon on the desktop that acts like a double-click on the start script.

`--remove` deletes it.
"""

import os
import sys

from launcher import INSTALLED, ROOT, WINDOWS
from launcher.sentences import say

NAME = "LoRA Garage"
# Values are passed by the environment, so that nothing is quoted in PowerShell.
POWERSHELL = (
    "$d = [Environment]::GetFolderPath('Desktop'); $f = Join-Path $d ($env:GARAGE_NAME + '.lnk'); "
    "if ($env:GARAGE_REMOVE) { Remove-Item -LiteralPath $f -ErrorAction SilentlyContinue } else { "
    "$s = (New-Object -ComObject WScript.Shell).CreateShortcut($f); $s.TargetPath = $env:GARAGE_TARGET; "
    "$s.WorkingDirectory = $env:GARAGE_FOLDER; $s.Save() }; [Console]::OutputEncoding = [Text.Encoding]::UTF8; "
    "Write-Output $f"
)


def shortcut(arguments):
    """Create or remove the icon and return the exit status."""
    wrong = [word for word in arguments if word != "--remove"]
    if wrong:
        say("shortcut_unknown", to=sys.stderr, found=wrong[0])
        return 2
    remove = "--remove" in arguments
    try:
        path = by_powershell(target(), remove) if WINDOWS else by_file(target(), remove)
    except OSError as error:
        say("shortcut_failed", to=sys.stderr, reason=error.strerror or error)
        return 1
    say("shortcut_removed" if remove else "shortcut_made", path=path)
    return 0


def target():
    """Return the program that the icon starts: the script in this folder; for the wheel its command."""
    if INSTALLED:
        return os.path.abspath(sys.argv[0])
    return os.path.join(ROOT, NAME_OF_SCRIPT)


NAME_OF_SCRIPT = (
    "Start LoRA Garage.bat" if WINDOWS else "Start LoRA Garage.command" if sys.platform == "darwin" else "start.sh"
)


def desktop():
    """Return the person's desktop folder, whose name may not be English. Raises OSError without one."""
    import subprocess

    folder = os.path.expanduser("~/Desktop")
    if sys.platform != "darwin":
        try:
            own_folder = subprocess.run(
                ["xdg-user-dir", "DESKTOP"], capture_output=True, text=True, timeout=10
            ).stdout.strip()
            folder = own_folder or folder
        except (OSError, subprocess.SubprocessError):
            pass
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "no folder " + folder)
    return folder


def by_file(program, remove):
    """Create or remove a .command on macOS, elsewhere a .desktop, quoted by freedesktop.org's Desktop Entry
    Specification; return its path."""
    mac = sys.platform == "darwin"
    path = os.path.join(desktop(), NAME + ".command" if mac else "lora-garage.desktop")
    if remove:
        if os.path.exists(path):
            os.remove(path)
        return path
    if mac:
        content = "#!/bin/sh\nexec '%s'\n" % program.replace("'", "'\\''")
    else:
        # First the quoting of the command line, then that of a value, in which a backslash is two.
        quoted = (
            "".join("\\" + letter if letter in '"`$\\' else letter for letter in program)
            .replace("\\", "\\\\")
            .replace("%", "%%")
        )
        content = (
            '[Desktop Entry]\nType=Application\nName=%s\nExec="%s"\nTerminal=true\nCategories=Education;Science;\n'
            % (
                NAME,
                quoted,
            )
        )
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(content)
    os.chmod(path, 0o755)
    return path


def by_powershell(program, remove):
    """Create or remove the shortcut on Windows' desktop; return its path. Raises OSError with PowerShell's reason."""
    import subprocess

    variables = {
        "GARAGE_NAME": NAME,
        "GARAGE_TARGET": program,
        "GARAGE_FOLDER": os.path.dirname(program),
        "GARAGE_REMOVE": "1" if remove else "",
    }
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", POWERSHELL]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=dict(os.environ, **variables),
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        raise OSError(0, "PowerShell: 60 s") from None
    if done.returncode or not done.stdout.strip():
        raise OSError(0, done.stderr.strip()[:300] or "PowerShell: %d" % done.returncode)
    return done.stdout.strip()

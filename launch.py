#!/usr/bin/env python3
"""Start LoRA Garage. `python launch.py --help` lists the commands, which launcher/main.py runs."""

import os
import sys

if sys.version_info < (3, 11):  # before anything that an older Python might not know; this file parses on every Python
    sys.exit(
        "LoRA Garage needs Python 3.11, 3.12 or 3.13, and this is Python %d.%d: install a newer one from "
        "https://www.python.org/downloads/ (on Debian and Ubuntu: apt install python3.11), then start with that one, "
        "for example: python3.11 launch.py" % sys.version_info[:2]
    )

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # python -I leaves it out, and in the wheel it lies one folder up
if not os.path.isdir(os.path.join(HERE, "launcher")):  # an update was killed between its last two steps
    os.rename(os.path.join(HERE, ".update.old", "launcher"), os.path.join(HERE, "launcher"))

from launcher.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

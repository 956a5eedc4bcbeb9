"""All that `launch.py` does before there is an environment: choose a torch; make, repair and remove .venv; start
it.

Standard library only, on Python 3.11 and later. It imports nothing of core or webui; the processes in .venv do.
"""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WINDOWS = os.name == "nt"
INSTALLED = os.path.exists(
    os.path.join(ROOT, "__init__.py")
)  # as the wheel's package lora_garage, in an environment of pip's or uv's
NEWEST_TESTED = (3, 13)

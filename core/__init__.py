"""All of LoRA Garage except its screens. No gradio anywhere below.

Rooms stand on floors, and an import only ever goes to a lower one (checked by tests/unit/test_architecture.py):

    9  commands
    8  api      training
    7  advice   chat   export   queue   trial
    6  engine        runs
    5  data          memory
    4  models
    3  hub
    2  workspace     system
    1  the files of this folder: messages, errors, files, values, progress, recipe, presets

torch, transformers, peft and bitsandbytes are imported inside worker processes: at the top of a module only in
`engine`, in `training`, and in the files of `trial`, `chat` and `export` that the same test names.
"""

from pathlib import Path

# The program's version; pyproject.toml has the same one (tests/unit/test_project.py). A checkout has no metadata to
# read it from.
__version__ = "0.2.0.dev0"

# Whether this is the wheel's package lora_garage, which alone has this file (lora_garage.py), rather than a checkout or
# an archive.
INSTALLED = Path(__file__).parents[1].joinpath("__init__.py").exists()
COMMAND = "lora-garage" if INSTALLED else "python launch.py"

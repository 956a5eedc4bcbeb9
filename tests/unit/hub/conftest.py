"""A hub of our own on 127.0.0.1, and nothing of this machine's hub."""

from __future__ import annotations

import pytest

SECRET = "hf_thisIsASecretTokenOfTheTest"


@pytest.fixture(autouse=True)
def quiet_hub(monkeypatch, tmp_path):
    """No token of the machine, no proxy between us and 127.0.0.1."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

"""Where the hub token comes from: HF_TOKEN, the hub's own login, or one given for as long as this app runs.

What is given is kept in this process's environment, where huggingface_hub looks first and from where the workers
inherit it. Nothing here writes it anywhere, and no sentence, log or recipe holds it (tests/process/test_secrets.py
searches every file).
"""

from __future__ import annotations

import os
import re
from typing import Literal

from huggingface_hub import constants

from core.errors import ModelError

NAME, OLD_NAME = "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"
SHAPE = re.compile(r"[A-Za-z0-9_.-]{8,512}")  # "hf_..." on the hub; a mirror's may look otherwise
TokenSource = Literal["given", "environment", "login"]


class HubToken:
    """One an app. Only the newest token that was given is kept; forgetting it brings back what the environment had."""

    def __init__(self) -> None:
        self._before = os.environ.get(NAME)
        self._given = False

    def source(self) -> TokenSource | None:
        """Where the token that is used comes from; None where there is none."""
        if self._given:
            return "given"
        if os.environ.get(NAME) or os.environ.get(OLD_NAME):
            return "environment"
        try:
            with open(constants.HF_TOKEN_PATH, "rb") as file:
                return "login" if file.read(1) else None
        except OSError:
            return None

    def give(self, token: object) -> None:
        """Raises ModelError, without the token in its words, for what can be none."""
        token = token.strip() if isinstance(token, str) else ""
        if not SHAPE.fullmatch(token):
            raise ModelError("hub_token.bad", characters=len(token))
        os.environ[NAME] = token
        self._given = True

    def forget(self) -> None:
        if self._before is None:
            os.environ.pop(NAME, None)
        else:
            os.environ[NAME] = self._before
        self._given = False

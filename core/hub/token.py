"""The source of the hub token: HF_TOKEN, the hub's own login, or one entered for the lifetime of this app.

An entered token is kept in this process's environment, where huggingface_hub looks first and from which workers inherit
it. It is never written anywhere, and no message, log or recipe holds it (tests/process/test_secrets.py searches every
file).
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
    """The token of an app, one object per app. Only the newest entered token is kept; forgetting it restores the
    environment's."""

    def __init__(self) -> None:
        self._before = os.environ.get(NAME)
        self._given = False

    def source(self) -> TokenSource | None:
        """Return where the token in use is from: given in this app, an environment variable, or a login. None without a
        token."""
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
        """Use this token (stripped) from now on, also in the environment of this process. Raises ModelError, without
        the token in its text, if it cannot be one."""
        token = token.strip() if isinstance(token, str) else ""
        if not SHAPE.fullmatch(token):
            raise ModelError("hub_token.bad", characters=len(token))
        os.environ[NAME] = token
        self._given = True

    def forget(self) -> None:
        """Restore the environment's own token, or none."""
        if self._before is None:
            os.environ.pop(NAME, None)
        else:
            os.environ[NAME] = self._before
        self._given = False

"""What `python -m webui` refuses before it serves anything."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack

import pytest

from core.system.reach import Reach
from webui.__main__ import _Refusal, check_port, refused
from webui.kit.wording import Wording


def next_to_each_other(held: ExitStack) -> tuple[int, int]:
    """Two ports, one after the other, that are taken."""
    while True:
        first, second = held.enter_context(socket.socket()), held.enter_context(socket.socket())
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
        except OSError:  # somebody else's
            continue
        first.listen()
        second.listen()
        return port, port + 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_port_that_is_taken_is_answered_with_one_that_is_free(language: str) -> None:
    """ "Choose another one, for example --port 7861", where 7861 was the one that is taken."""
    reach = Reach.from_host("127.0.0.1")
    with ExitStack() as held:
        taken = next_to_each_other(held)
        with pytest.raises(_Refusal) as caught:
            check_port(reach, taken[0], Wording(language))
        advised = int(re.search(r"--port (\d+)", str(caught.value))[1])
        assert advised not in taken and refused(reach, advised) is None

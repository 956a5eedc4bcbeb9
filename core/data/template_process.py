"""A chat template rendered in another process, `python -m core.data.template_process`.

The process is ended when a rendering takes more than SECONDS or MAX_MEMORY: nothing interrupts what the interpreter
does in one call. Lines (core.system.lines): in {source, special_tokens, all_special, act, arguments}; out {} once, then
{done} or {refused: Message}. One process serves all templates, one request at a time. It starts in half a second and
then takes 0.2 ms a request.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psutil

from core.data.conversation import MessageJson, Tools, Turn
from core.data.template import ChatTemplate, Rendered
from core.errors import TemplateError
from core.files import JsonObject
from core.messages import Message
from core.system.lines import Child, ToParent
from core.values import GIB

SECONDS = 5
MAX_MEMORY = GIB
LOOK_S, LONGEST_START_S = 0.05, 120


class IsolatedTemplate(ChatTemplate):
    """Chat template with the same results as ChatTemplate, rendered in another process."""

    def _render(
        self, messages: list[MessageJson], tools: Tools | None, thinks: bool | None, add_generation_prompt: bool
    ) -> str:
        """Render messages as ChatTemplate._render does, markers included, in the other process."""
        return str(self._request("_render", messages, tools, thinks, add_generation_prompt))

    def conversations(
        self,
        turns: Sequence[Turn],
        tools: Tools | None = None,
        thinks: bool | None = None,
        mask_history: bool = False,
    ) -> list[Rendered]:
        """Do as ChatTemplate.conversations, in the other process."""
        return [_rendered(**one) for one in self._request("conversations", turns, tools, thinks, mask_history)]

    def _request(self, act: str, *arguments: object) -> Any:
        """Return what a method of ChatTemplate gives for these arguments in the other process. act: its name."""
        template = {"source": self.source, "special_tokens": self.special_tokens, "all_special": [*self.all_special]}
        return _renderer(os.getpid()).request(**template, act=act, arguments=arguments)


def _rendered(text: str, spans: list[Any], unlearned: int, thinks: bool, marks: list[Any]) -> Rendered:
    """Return the Rendered of one rendering that the other process sent as JSON; its ranges become tuples."""
    return Rendered(text, tuple(map(tuple, spans)), unlearned, thinks, tuple(map(tuple, marks)))


class _Renderer:
    """The process that renders, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._answers: queue.Queue[JsonObject | None] = queue.Queue()

    def request(self, **values: object) -> Any:
        """Send a request, starting the process if it is not running, and return what was rendered. Raises
        TemplateError, also if it takes longer than SECONDS or more than MAX_MEMORY, which ends the process."""
        with self._lock:
            # Answers have no number: one request at a time.
            if self._child is None or self._child.process.poll() is not None:
                self._child = self._start()
            self._child.send(**values)
            answer = self._answer(self._child)
            if answer is None:
                self._child = None
                raise TemplateError("template.too_slow", seconds=SECONDS, gib=MAX_MEMORY / GIB)
        if "refused" in answer:
            raise TemplateError(Message.model_validate(answer["refused"]))
        return answer["done"]

    def _start(self) -> Child:
        """Start a process, wait at most LONGEST_START_S until it is ready, and return it. Raises TemplateError if that
        fails. Leaves no process behind then: its first answer would be taken for that of a request."""
        self._answers = answers = queue.Queue[JsonObject | None]()
        child = Child("core.data.template_process")
        child.listen(answers.put, lambda code: answers.put(None))
        try:
            is_ready = answers.get(timeout=LONGEST_START_S) is not None
        except queue.Empty:
            is_ready = False
        if not is_ready:
            child.end(0)
            raise TemplateError("template.no_process")
        return child

    def _answer(self, child: Child) -> JsonObject | None:
        """Return the next answer of the process; None if the process has ended. Ends one that takes longer than SECONDS
        or more than MAX_MEMORY."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                return self._answers.get(timeout=LOOK_S)
            except queue.Empty:
                if child.process.poll() is not None:
                    return None
                if time.monotonic() > until or _memory_of(child.process.pid) > MAX_MEMORY:
                    child.end(0)


def _memory_of(pid: int) -> int:
    """Return the resident bytes of a process and its children, 0 if it has ended: on Windows a venv's python.exe starts
    a second one."""
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children()))
    except psutil.Error:
        return 0


@lru_cache(maxsize=1)
def _renderer(pid: int) -> _Renderer:
    """Return the renderer of this process. pid: its own id, because a forked process cannot share the pipes of
    another."""
    return _Renderer()


@lru_cache(maxsize=8)
def _template(values: str) -> ChatTemplate:
    """Return the chat template whose fields are given as a JSON object; the last eight are kept."""
    return ChatTemplate(**json.loads(values))


def main() -> None:
    """Render what the parent requests, one after the other, until it ends; a template's error is sent back."""
    parent, requests = ToParent(), queue.Queue[JsonObject]()
    parent.listen(requests.put, lambda: os._exit(0))  # at once, even while rendering: the result has no reader
    parent.send()  # ready
    while True:
        request = requests.get()
        act, arguments = request.pop("act"), request.pop("arguments")
        try:
            done = getattr(_template(json.dumps(request)), act)(*arguments)
            parent.send(done=[vars(one) for one in done] if isinstance(done, list) else done)
        except TemplateError as error:
            parent.send(refused=error.message.model_dump())


if __name__ == "__main__":
    main()

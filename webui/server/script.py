"""Fixes of gradio's script in the browser: no answer is lost, no late piece of a cancelled answer is shown, and an app
that was closed is said in the page's language (gradio 6.31, assets/index-*.js, Blocks-*.js)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.responses import Response

NAME = re.compile(r"(?:index|Blocks)-[\w-]+\.js")
# The stream of answers ends when no event is pending on the server. If the next event was queued before the page had
# read that end, no stream carried its answer until something else happened. Opening a stream again fixes it; the server
# ends it when nothing is pending.
CLOSED = re.compile(
    r"(unclosed_events:(\w+),(?:(?!unclosed_events).)*?"
    r"if\(\w+\.msg===`close_stream`\)\{\w+\(\w+,(\w+)\.abort_controller\));return\}"
)
# An event that cancels an answer informed the server only after its own result was drawn, while pieces of the old
# answer still arrived and overwrote it. Now the answer is cancelled first and shows nothing more, and a later
# submission of the same event is not cleared in its place.
CANCEL = re.compile(
    r"(async cancel\((\w+)\)\{if\(\2\)for\(let (\w+) of \2\)\{let "
    r"(\w+)=this\.submissions\.get\(\3\);if\(\4\)\{)(.*?this\.clear_submission\(\3)\)"
)
PIECES = re.compile(r"(for await\(let \w+ of (\w+\.data)\))(?=if\()")
FIRST = re.compile(
    r"(for\(let (\w+)=0;\2<\((\w+)\?\.length\|\|0\);\2\+\+\)\{let (\w+)=\3\?\3\[\2\]:void "
    r"0;if\(\4\)\{)this\.cancel\(\4\.cancels\);"
)

# What the page says when the app no longer answers, in English; webui/app has it in each language.
LOST = "`Connection to the server was lost. Attempting reconnection...`"


def with_fixes(script: str) -> str:
    """Return gradio's script with the fixes. It is unchanged if this gradio does it in another way
    (tests/unit/server/test_script.py fails then)."""
    script = CLOSED.sub(r"\1;\2.size&&(\2.clear(),\3.open_stream());return}", script)
    script = PIECES.sub(r"\1if(\2.isOver)break;else ", CANCEL.sub(r"\1\4.isOver=!0;\5,\4)", script))
    script = FIRST.sub(r"\3?.forEach(one=>this.cancel(one.cancels));\1", script)
    return script.replace(LOST, "window.loraGarageLost")


def serve_fixed_script() -> None:
    """Make gradio serve its script with the fixes of `with_fixes`, not to be cached; other files as they are."""
    from gradio import route_utils, routes

    def send_with_fixes(folder: Any, path: Any) -> Response:
        """Return a file of gradio's page as gradio does; its script with the fixes instead, for which the browser has
        to ask the server again each time."""
        response = route_utils.file_response(folder, path)
        if not NAME.fullmatch(str(path)):
            return response
        # no-cache: the file's name does not change with this fix
        text = with_fixes(Path(response.path).read_text("utf-8"))
        return Response(text, media_type="text/javascript", headers={"cache-control": "no-cache"})

    routes.file_response = send_with_fixes

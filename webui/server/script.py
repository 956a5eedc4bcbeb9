"""Patches gradio's script in the browser: two slow searches made fast, no answer lost, and no late piece of a cancelled
answer shown (gradio 6.31, assets/core-*.js, index-*.js, Blocks-*.js).

Each answer of the server sets the state of some hundred components, and for each the script walked through all 900 of
the page, over proxies, to find one by its id; while the page was built it went through all events for each component.
That was half of the page's processor time: an idle page took 0.13 of a core, 0.08 since, beside a run that trains on
the same processor (2 cores, headless Chromium, November 2026).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.responses import Response

NAME = re.compile(r"(?:core|index|Blocks)-[\w-]+\.js")
# function find(node, id): node itself, else the first below it
SEARCH = re.compile(
    r"function (\w+)\((\w+),(\w+)\)\{if\(\2\.id===\3\)return \2;if\(\2\.children\)for\(let (\w+) of \2\.children\)"
    r"\{let \2=\1\(\4,\3\);if\(\2\)return \2\}return null\}"
)
# The last known place of a component is tried first; if it is not there, one walk records all places. Components without
# an id are also searched, two hundred times while a page is built.
PLACES = (
    "var places=new Map,attached=new WeakMap;function {name}(root,id){{let at=()=>{{let one=root;for(let i of "
    "places.get(id)??[-1])"
    "one=one?.children?.[i];return one?.id===id?one:null}};let found=at();if(found||id==null)return "
    "found;places.clear();"
    "let walk=(one,place)=>{{places.has(one.id)||places.set(one.id,place);one.children?.forEach((each,i)=>walk(each,[...place,i]))}};"
    "walk(root,[]);return at()}}"
)
EVENTS = re.compile(r"find_attached_events\((\w+),(\w+)\)\{let (\w+)=\2\.filter\(.*?\)\.filter\(Boolean\);")
# The first name by which a component triggers each event; recorded once for a list of events.
NAMES = (
    "find_attached_events({node},{events}){{let all=attached.get({events});if(!all){{attached.set({events},all=new "
    "Map);"
    "for(let one of {events}){{let seen=new Set;for(let[id,name]of one.targets)if(!seen.has(id)){{seen.add(id);"
    "if(name)all.has(id)?all.get(id).push(name):all.set(id,[name])}}}}}}let {names}=[...all.get({node}.id)??[]];"
)
# The stream of answers ends when no event is pending on the server. If the next event was queued before the page had read
# that end, no stream carried its answer until something else happened. Opening a stream again fixes it; the server ends
# it when nothing is pending.
CLOSED = re.compile(
    r"(unclosed_events:(\w+),(?:(?!unclosed_events).)*?if\(\w+\.msg===`close_stream`\)\{\w+\(\w+,(\w+)\.abort_controller\));return\}"
)
# An event that cancels an answer informed the server only after its own result was drawn, while pieces of the old answer
# still arrived and overwrote it. Now the answer is cancelled first and shows nothing more, and a later submission of the
# same event is not cleared in its place.
CANCEL = re.compile(
    r"(async cancel\((\w+)\)\{if\(\2\)for\(let (\w+) of \2\)\{let "
    r"(\w+)=this\.submissions\.get\(\3\);if\(\4\)\{)(.*?this\.clear_submission\(\3)\)"
)
PIECES = re.compile(r"(for await\(let \w+ of (\w+\.data)\))(?=if\()")
FIRST = re.compile(
    r"(for\(let (\w+)=0;\2<\((\w+)\?\.length\|\|0\);\2\+\+\)\{let (\w+)=\3\?\3\[\2\]:void "
    r"0;if\(\4\)\{)this\.cancel\(\4\.cancels\);"
)


def with_fast_searches(script: str) -> str:
    """Return gradio's script with the patches. It is unchanged if this gradio searches in another way
    (tests/unit/server/test_script.py fails then)."""
    script = CLOSED.sub(r"\1;\2.size&&(\2.clear(),\3.open_stream());return}", script)
    script = PIECES.sub(r"\1if(\2.isOver)break;else ", CANCEL.sub(r"\1\4.isOver=!0;\5,\4)", script))
    script = FIRST.sub(r"\3?.forEach(one=>this.cancel(one.cancels));\1", script)
    script = SEARCH.sub(lambda match: PLACES.format(name=match[1]), script)
    return EVENTS.sub(lambda match: NAMES.format(node=match[1], events=match[2], names=match[3]), script)


def serve_fast_script() -> None:
    """Make gradio serve its script with the patches."""
    from gradio import route_utils, routes

    def send(folder: Any, path: Any) -> Response:
        response = route_utils.file_response(folder, path)
        if not NAME.fullmatch(str(path)):
            return response
        # no-cache: the file's name does not change with this patch
        text = with_fast_searches(Path(response.path).read_text("utf-8"))
        return Response(text, media_type="text/javascript", headers={"cache-control": "no-cache"})

    routes.file_response = send

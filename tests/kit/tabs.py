"""The handlers and components of a page with all its tabs drawn, as a client without a browser reads them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from typing import Any

Part = dict[str, Any]


@dataclass
class Drawn:
    """fns: the handlers; drawing: ids of those that draw a tab, whose own ids change if it is drawn again."""

    fns: list[Part]
    components: list[Part]
    drawing: set[int] = field(default_factory=set)


def draw(url: str, session: str) -> Drawn:
    """Draw each tab once in a session, as its first opening does."""
    config = json.loads(urllib.request.urlopen(f"{url}/config", timeout=60).read())
    page = Drawn(config["dependencies"], config["components"])
    states = {one["id"] for one in page.components if one["type"] == "state"}
    for fn in [fn for fn in page.fns if any(id in states for id, _ in fn["targets"]) and not fn["inputs"]]:
        body = json.dumps({"fn_index": fn["id"], "data": [], "session_hash": session}).encode()
        join = urllib.request.Request(f"{url}/gradio_api/queue/join", body, {"content-type": "application/json"})
        urllib.request.urlopen(join, timeout=60).read()
        answer = urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash={session}", timeout=60)
        for line in answer.read().decode().splitlines():
            if '"render_config":{' in line:
                drawn = json.loads(line.removeprefix("data:"))["output"]["render_config"]
                ids = {one["id"] for one in page.fns}
                page.drawing.add(fn["id"])
                page.fns = page.fns + [one for one in drawn["dependencies"] if one["id"] not in ids]
                page.components = page.components + drawn["components"]
    return page

"""`serve`: an OpenAI-compatible server for runs, on the command line."""

from __future__ import annotations

import os
import secrets
from typing import Annotated

import typer

from core.chat.client import ChatClient
from core.chat.serving import PORT
from core.commands.terminal import WorkspaceOption, app, say
from core.errors import RecipeError
from core.messages import msg
from core.runs.all import Runs
from core.system.reach import Reach
from core.workspace.folder import Workspace

KEY = "LORA_GARAGE_API_KEY"
MIN_KEY = 16  # characters
NEVER = 10.0**6  # minutes: whoever serves a model wants it to stay


@app.command()
def serve(
    runs: Annotated[list[str], typer.Argument(help="Runs: their ids or names.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all networks.")] = "127.0.0.1",
    workspace: WorkspaceOption = None,
) -> None:
    """Serve runs to other programs by OpenAI's API, until Ctrl-C. The key is printed; LORA_GARAGE_API_KEY sets your
    own."""
    from core.chat.serving.batcher import ServedModels
    from core.chat.serving.server import ApiServer

    space = Workspace.open(workspace)
    models = ServedModels([Runs(space).find(run) for run in runs])
    key = os.environ.get(KEY, "") or secrets.token_urlsafe(24)
    if len(key) < MIN_KEY or not key.isascii() or not key.isprintable():
        raise RecipeError("serve.bad_key", variable=KEY, least=MIN_KEY)
    try:
        reach = Reach.from_host(host)
    except OSError:
        raise RecipeError("serve.bad_host", found=host[:100]) from None
    chat = ChatClient(space, NEVER)
    server = ApiServer(chat, models, reach, key)
    try:
        address = server.listen(port)
        chat.load(models.find(models.names()[0]).target)  # before the first request, which waits for it
        say(msg("serve.begun", address=address, secret=key, models=", ".join(models.names())))
        server.serve()
    except OSError as error:
        raise RecipeError("serve.cannot_listen", port=port, reason=error.strerror or str(error)) from None
    finally:
        server.stop()
        chat.unload()

"""Patches of gradio, and the settings it needs before it is imported: safe environment variables, a faster start."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

from starlette.middleware import Middleware

# A variable of the shell must not open access that the page keeps closed: GRADIO_SHARE, GRADIO_SERVER_NAME,
# GRADIO_ALLOWED_PATHS, GRADIO_ROOT_PATH, GRADIO_MCP_SERVER, GRADIO_VIBE_MODE (anyone may edit files),
# GRADIO_LOCAL_DEV_MODE (CORS for "null") and forty more, so all of them are removed; on a Space gradio would listen
# on every address, and uvicorn trusts the proxies that the last one names.
_WIDENING = ("GRADIO_", "SPACE_", "SPACES_")
_WIDENING_NAMES = ("SYSTEM", "FORWARDED_ALLOW_IPS")


def prepare() -> None:
    """Remove environment variables that widen gradio's access, switch off telemetry, and skip its writing of stubs.
    Call it before gradio is imported; a second call changes nothing."""
    for name in [name for name in os.environ if name.upper().startswith(_WIDENING) or name.upper() in _WIDENING_NAMES]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Every queued event would otherwise compute statistics over the last 10,000 of them.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000"
    if "gradio" not in sys.modules and not any(isinstance(finder, _NoStubs) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoStubs())


@contextmanager
def without_intermediate_apps() -> Iterator[None]:
    """Context manager: keep gradio from making a FastAPI app after each step while Blocks are built; launch() makes the
    only one that is served.

    Four needless ones cost 0.25 s of the start (2 cores, November 2026).
    """
    with _making_apps(lambda make, *arguments, **options: None):
        yield


@contextmanager
def with_middleware(layers: Sequence[Middleware]) -> Iterator[None]:
    """Context manager: add middleware around the whole app while it is launched, the first layer outermost.

    launch(app_kwargs={"middleware": ...}) puts them inside gradio's own, whose CORS layer answers preflights by itself.
    """

    def app_with_middleware(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return the app that `make` makes, with the layers of middleware added, the first one outermost."""
        app = make(*arguments, **options)
        for layer in reversed(layers):
            app.add_middleware(layer.cls, *layer.args, **layer.kwargs)
        return app

    with _making_apps(app_with_middleware):
        yield


@contextmanager
def _making_apps(how: Callable[..., Any]) -> Iterator[None]:
    """Context manager: `how` is called in place of gradio's App.create_app, with the original as its first argument."""
    from gradio.routes import App

    real = App.__dict__["create_app"]
    App.create_app = staticmethod(partial(how, real.__func__))
    try:
        yield
    finally:
        App.create_app = real


@contextmanager
def without_proxy() -> Iterator[None]:
    """Context manager: ignore proxies while gradio is imported (it makes a client that is not used here) and launched
    (it requests its own server). A proxy does not reach that server, and one of a kind that httpx does not know
    (socks://) is an error (gradio 6.31)."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before


def forbid_fetching() -> None:
    """Make gradio's functions raise an error instead of a download of an address in the place of a file: this app
    fetches nothing."""
    import gradio as gr
    from gradio import processing_utils

    async def refuse_to_fetch(*_: Any, **__: Any) -> Any:
        """Raise gr.Error, whatever the arguments: an address stands where a file should."""
        raise gr.Error("Refused: an address stands where a file should.", print_exception=False)

    processing_utils.async_ssrf_protected_get = refuse_to_fetch
    processing_utils.async_ssrf_protected_download = refuse_to_fetch


def replace_surrogates() -> None:
    """Let gradio send a lone surrogate (half a character, which JSON rows and a model's pieces may hold) as a
    replacement character.

    Its JSON writer refuses them in the middle of an answer, after which the page receives nothing more (gradio 6.31).
    """
    import orjson
    from gradio import routes
    from gradio.components import json_component

    def dumps_any_text(value: Any, **options: Any) -> bytes:
        """Return the value as JSON as orjson does; if it refuses the value, try again with lone surrogates replaced by
        U+FFFD."""
        try:
            return orjson.dumps(value, **options)
        except TypeError:
            return orjson.dumps(_without_surrogates(value), **options)

    modules: tuple[Any, ...] = (routes, json_component)
    for module in modules:
        module.orjson = SimpleNamespace(**vars(orjson) | {"dumps": dumps_any_text})
    modules[0].JSONResponse = routes.ORJSONResponse  # else an error message with a surrogate raises another exception


def _without_surrogates(value: Any) -> Any:
    """Return any JSON value with each lone surrogate in its texts, which UTF-8 cannot encode, replaced by U+FFFD."""
    if isinstance(value, str):
        # two adjacent halves are a character
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    return [_without_surrogates(inner) for inner in value] if isinstance(value, list | tuple) else value


class _NoStubs(MetaPathFinder):
    """Import gradio.component_meta without its writing of .pyi stubs for 76 classes into site-packages.

    That is half of gradio's import time (1.7-2.6 s with it, 0.9-1.0 s without; 2 cores, November 2026).
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return gradio.component_meta without its writing of stub files, once, as this finder then leaves
        sys.meta_path; None for other modules."""
        if name != "gradio.component_meta":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutStubs(spec.loader)
        return spec


class _WithoutStubs(Loader):
    """Loads gradio.component_meta as `loader` does, then turns its writing of stub files off."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Load the module, and replace its function that writes stub files by one that does nothing."""
        self._loader.exec_module(module)
        if hasattr(module, "create_or_modify_pyi"):
            module.create_or_modify_pyi = lambda *arguments, **options: None

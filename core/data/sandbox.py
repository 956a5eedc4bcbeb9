"""Renders Jinja of downloaded files (chat templates) in jinja's own sandbox.

The sandbox keeps a template from Python's internals, but not from `'a' * 10**10` or nested loops. A process that must
not hang or run out of memory renders in another process (core/data/template_process). A training run, a chat and an
export are such processes themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from html import escape

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import TemplateError, reason_of

# Markers that survive rendering; private-use characters, which are removed from the conversation itself.
OPENS, CLOSES = "\ue0f0", "\ue0f1"
# Exceptions that an arbitrary template may raise.
_TEMPLATE_ERRORS = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NameError, RuntimeError,
    SyntaxError, MemoryError, AssertionError,
)  # fmt: skip


class _Generation(jinja2.ext.Extension):
    """The block `{% generation %} ... {% endgeneration %}`: the assistant's own text, between two marker characters."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Parse the block, and return a node that renders its contents and passes them to `_frame`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_frame"), [], [], body).set_lineno(line)

    def _frame(self, caller: Callable[[], str]) -> str:
        """Return the block's rendered contents between the two marker characters. caller: renders them."""
        return OPENS + caller() + CLOSES


def rendered(source: str, **values: object) -> str:
    """Render a Jinja template with these values in the sandbox; return the text. Raises TemplateError."""
    template = _compiled(source)
    try:
        return template.render(values)
    except _TEMPLATE_ERRORS as error:
        raise TemplateError("template.cannot_render", reason=reason_of(error)) from None


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    """Return the compiled template; the newest 32 are kept. Raises TemplateError."""
    try:
        return _ENVIRONMENT.from_string(source)
    except _TEMPLATE_ERRORS as error:
        raise TemplateError("template.broken", reason=reason_of(error)) from None


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    """Return value as JSON. Jinja's own filter would escape <, >, & and ', which the model would learn."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _escaped(value: object) -> str:
    """Return value escaped as a plain str: jinja's Markup would escape everything that is joined to it."""
    return escape(str(value))


def _raise_template_error(message: object) -> None:
    """Raise jinja's TemplateError with the first 500 characters of a message, by which a template refuses a
    conversation."""
    raise jinja2.TemplateError(str(message)[:500])


def _formatted_now(form: object) -> str:
    """Return the present local time in a format of strftime, for templates that write the date."""
    return datetime.now().strftime(str(form))


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
)
# What transformers gives to chat templates; nothing is escaped, because they write no HTML.
_ENVIRONMENT.filters |= {"tojson": _to_json, "safe": str, "escape": _escaped, "e": _escaped}
_ENVIRONMENT.globals |= {"raise_exception": _raise_template_error, "strftime_now": _formatted_now}

"""A sandbox for rendering other people's Jinja: limits what it may call, how much it may write, how long it may take.

Chat templates come out of downloaded files and are rendered in the web process. Jinja's sandbox keeps them from
Python's insides, but not from `'a' * 10**10`, from loops in loops, or from a value that holds itself twice, thirty
times over; and no thread can interrupt what the interpreter does in one call. So nothing large is ever begun:

* every value that a template makes is measured as if it were written out, before it is made where that can be told;
* every turn of a loop, every call, every filter and all text that comes out is paid for from one budget a rendering;
* filters and methods are those that chat templates use; those whose whole purpose is to make text longer are gone;
* a rendering that takes too much of the processor (not of the clock: a busy PC is no attack) ends at its next step.

Costs: a ChatML conversation of two turns takes 20 µs instead of 8 (one core, November 2026).
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from html import escape
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

LARGEST = 4 << 20  # characters and items of one value, beside what the conversation itself brings
BUDGET = 16 << 20  # units for one rendering
STEP = 32  # units that a turn of a loop or a call costs; a character that comes out costs one
COPIED = 32  # characters copied for a unit, else a template that gathers a long conversation in a variable runs out
SECONDS = 2.0  # of the processor
LOOK = 64 * STEP  # units between two looks at the clock
LARGEST_INT_BITS = 4096
WIDEST = 1000  # of a number in a format
ITEM = 16  # what an item of a list counts, in characters: it is also what measuring one costs

FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr"),
    *(
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "sort",
        "string",
        "sum",
        "title",
        "trim",
        "unique",
        "upper",
    ),
)
AT_ONCE = frozenset(("count", "d", "default", "first", "last", "length"))  # however large their value is
TEXT_METHODS = frozenset(
    (
        *(
            "capitalize",
            "casefold",
            "count",
            "endswith",
            "find",
            "format",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
        ),
        *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition"),
        *(
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
        ),
        *("startswith", "strip", "swapcase", "title", "upper"),
    )
)
_WIDE = re.compile(r"[\d]{4,}|\*")
_IN_BRACES = re.compile(r"\{[^{}]*:[^{}]*\{")


class TooMuch(jinja2.TemplateError):
    """A template asked for more than a chat template needs."""


class _Spent(threading.local):
    """What the rendering of this thread has used. limits are of the one that is under way."""

    left = BUDGET
    largest = LARGEST
    until = float("inf")
    look_at = 0

    def begin(self, brought: int) -> None:
        self.left, self.largest = BUDGET + 64 * brought, LARGEST + 4 * brought
        self.until = time.thread_time() + SECONDS
        self.look_at = self.left - LOOK

    def pay(self, units: int) -> None:
        self.left = left = self.left - units
        if left < 0:
            raise TooMuch("it makes more text or takes more steps than a chat template needs")
        if left < self.look_at:  # asking for the time costs more than all the rest
            self.look_at = left - LOOK
            if time.thread_time() > self.until:
                raise TooMuch(f"it takes longer than {SECONDS:g} s")

    def fits(self, characters: int) -> None:
        if characters > self.largest:
            raise TooMuch(f"it makes a value of more than {self.largest} characters")
        self.pay(characters // COPIED)


_spent = _Spent()


def size(value: Any, most: int) -> int:
    """Characters and items of value as if it were written out, counted until there are more than most."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3
    if isinstance(value, Mapping):
        value = (part for pair in value.items() for part in pair)
    elif not isinstance(value, list | tuple | set | frozenset):
        return 1
    total = ITEM
    for part in value:
        total += ITEM + size(part, most - total)
        if total > most:
            break
    return total


def _made(value: Any) -> Any:
    """value, measured; what comes one by one is measured as it comes."""
    if isinstance(value, int):
        if value.bit_length() > LARGEST_INT_BITS:
            raise TooMuch("it makes a number of more than a thousand digits")
    elif isinstance(value, Iterator):
        return _counted(value)
    else:
        _spent.fits(size(value, _spent.largest))
    return value


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _spent.pay(STEP + size(value, _spent.largest))
        yield value


def _refuse_wide(form: str, given: Iterable[Any]) -> None:
    """For `'%s' % x` and `'{}'.format(x)`: each field may hold the longest of what is given."""
    if _WIDE.search(form) or _IN_BRACES.search(form):
        raise TooMuch("it formats with a width that no chat needs")
    longest = max((_written(value) for value in given), default=0)
    _spent.fits(len(form) + (form.count("%") + form.count("{")) * (longest + WIDEST))


def _written(value: Any) -> int:
    return 8 * size(value, _spent.largest)  # quotes, commas and escapes of a repr


class _Namespace(Namespace):
    """Its own repr would write out what it holds, twice where it holds it twice."""

    def __repr__(self) -> str:
        return "namespace"


class _Wrap(NodeTransformer):
    """Puts the counting into the parts of a template that the environment is not asked about."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.For:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        if not node.recursive:
            node.iter = self._call("counted", [node.iter], node)
        else:  # what it calls itself with goes through call()
            node.iter = self._call("made", [node.iter], node)
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return self._call("joined", node.nodes, node)

    def _visit_made(self, node: Any) -> Any:
        self.generic_visit(node)
        return (
            node if getattr(node, "ctx", "load") != "load" or not _children(node) else self._call("made", [node], node)
        )

    visit_List = visit_Tuple = visit_Dict = _visit_made  # noqa: N815

    def _call(self, name: str, arguments: list[Any], at: Any) -> jinja2.nodes.Call:
        function = jinja2.nodes.EnvironmentAttribute(name, lineno=at.lineno)
        return jinja2.nodes.Call(function, arguments, [], None, None, lineno=at.lineno)


def _children(node: Any) -> bool:
    """Whether a literal holds anything that is not a constant."""
    return any(
        not isinstance(child, jinja2.nodes.Const | jinja2.nodes.Pair) for child in node.iter_child_nodes()
    ) or any(
        not isinstance(part, jinja2.nodes.Const) for pair in node.iter_child_nodes() for part in pair.iter_child_nodes()
    )


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, extensions: list[Any]):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_paid)
        self.counted, self.made, self.joined = _counted_or_none, _made, _joined
        filters: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in FILTERS}
        tojson = lambda value, indent=None, **_: json.dumps(value, ensure_ascii=False, indent=indent)  # noqa: E731
        own: dict[str, Callable[..., Any]] = {"tojson": tojson, "safe": str, "escape": _escaped, "e": _escaped}
        self.filters = {name: _measured_filter(name, function) for name, function in (filters | own).items()}
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": _Namespace}
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self.concat = _concat  # type: ignore[method-assign]  # what blocks and macros gather goes through it

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        template = super()._parse(source, name, filename)
        return _Wrap().visit(template)

    def rendered(self, template: jinja2.Template, brought: int, **values: Any) -> str:
        """template's text. brought: how many characters the conversation has. Raises TooMuch, and what a template
        raises."""
        _spent.begin(brought)
        return _concat(template.root_render_func(template.new_context(values)))

    # ---- what jinja asks ------------------------------------------------------------------------------------------
    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is str and type(right) is str:  # what templates do all day
            characters = len(left) + len(right)
            if characters > _spent.largest:
                raise TooMuch(f"it makes a value of more than {_spent.largest} characters")
            _spent.pay(STEP + characters // COPIED)
            return left + right
        _spent.pay(STEP)
        if operator == "**":
            if not (isinstance(right, int | float) and abs(right) <= 64):
                raise TooMuch("it raises to a power that no chat needs")
        elif operator == "*":
            for times, repeated in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(repeated, str | bytes | list | tuple):
                    _spent.fits(max(0, times) * (ITEM + size(repeated, _spent.largest)))
        elif operator == "%" and isinstance(left, str):
            _refuse_wide(left, [right])
        elif operator == "+" and isinstance(left, str | list | tuple):
            _spent.fits(size(left, _spent.largest) + size(right, _spent.largest))
        return _made(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        _spent.pay(STEP)
        if function is _counted_or_none or function is _made or function is _joined:
            return function(*arguments)
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if name in ("format", "format_map") and hasattr(function, "__wrapped__"):
            owner = getattr(function.__wrapped__, "__self__", owner)
        if isinstance(owner, str):
            arguments = self._text_method(owner, name, arguments, named)
        return _made(super().call(context, function, *arguments, **named))

    def _text_method(self, owner: str, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        if name not in TEXT_METHODS:
            raise SecurityError(f"a text has no method {name} here")
        if name == "format":
            _refuse_wide(owner, (*arguments, *named.values()))
        elif name == "replace" and len(arguments) >= 2:
            _replacing(owner, *arguments[:2])
        elif name == "join" and arguments:
            parts = list(_counted(arguments[0]))
            _joining(owner, parts)
            return (parts,)
        return arguments


def _counted_or_none(values: Any) -> Any:
    """For a loop: jinja says itself what is wrong with what cannot be walked through."""
    return (
        _PaidList(values)
        if isinstance(values, list | tuple)
        else _counted(values)
        if isinstance(values, Iterable)
        else values
    )


class _PaidList(list[Any]):
    """A list that is paid for as it is walked through; a loop still knows its length and what comes next."""

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            _spent.pay(STEP)
            yield value


def _joined(*parts: Any) -> str:
    texts = [part if isinstance(part, str) else str(_made(part)) for part in parts]
    _spent.fits(sum(map(len, texts)))
    return "".join(texts)


def _concat(chunks: Iterable[str]) -> str:
    """All text that comes out passes here, also that of macros and blocks."""
    found = []
    for chunk in chunks:
        _spent.pay(1 + len(chunk))
        found.append(chunk)
    return "".join(found)


def _paid(value: Any) -> Any:
    """What `{{ }}` writes."""
    _spent.pay(1 if isinstance(value, str) else _written(value))
    return value


def _replacing(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _spent.fits(len(text) + (text.count(old)) * len(new))


def _joining(between: Any, parts: list[Any]) -> None:
    _spent.fits(
        sum(_written(part) if not isinstance(part, str) else len(part) for part in parts)
        + len(parts) * len(str(between))
    )


def _measured_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """function, paid for by what it is given and what it gives. functools.wraps keeps what jinja wants passed first."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def measured(*arguments: Any, **named: Any) -> Any:
        given = list(arguments)
        value = given[first] if len(given) > first else None
        if isinstance(value, Iterator):
            value = given[first] = _counted(value)
        elif name in AT_ONCE:
            _spent.pay(STEP)
            return function(*given, **named)
        else:
            _spent.fits(STEP + size(value, _spent.largest))
        rest = [*given[first + 1 :], *named.values()]
        if name in ("indent", "tojson", "round") and any(
            isinstance(wanted, int) and abs(wanted) > 16 or isinstance(wanted, str) and len(wanted) > 16
            for wanted in rest
        ):
            raise TooMuch(f"it gives {name} a number or text that no chat needs")
        if name == "indent":
            _spent.fits(17 * (1 + str(value).count("\n")) + len(str(value)))
        if name == "replace":
            _replacing(str(value), *(rest + ["", ""])[:2])
        if name in ("join", "sum"):
            parts = given[first] = list(value if isinstance(value, Iterable) else ())
            _joining(rest[0] if rest and isinstance(rest[0], str) else "", parts)
            if name == "sum" and not all(isinstance(part, int | float | str | Mapping) for part in parts):
                raise TooMuch("it sums what are no numbers")
        if name in ("sort", "dictsort", "unique", "groupby", "min", "max") and isinstance(value, list | tuple):
            _spent.pay(20 * size(value, _spent.largest))
        return _made(function(*given, **named))

    return measured


def _raise(message: Any) -> None:
    raise jinja2.TemplateError(str(message)[:500])


def _escaped(value: Any) -> str:
    """Plain text again: jinja's Markup would escape whatever it meets."""
    return escape(str(value))


def _now(form: Any) -> str:
    if not isinstance(form, str) or len(form) > 100 or _WIDE.search(form):
        raise TooMuch("it asks for the date in a form that no chat needs")
    return datetime.now().strftime(form)

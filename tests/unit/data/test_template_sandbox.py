"""Somebody else's template can neither hang the page nor fill the memory, whatever it is made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.data import sandbox
from core.data.sandbox import ITEM, SECONDS, size
from core.data.template import ChatTemplate
from core.errors import TemplateError
from core.presets import PROJECT

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]

# Each is fatal to plain jinja, its sandbox included, or to a limit that is forgotten in one place.
HOSTILE = {
    "text times a number": "{{ 'a' * 10**10 }}",
    "number times a text": "{{ 10**10 * 'a' }}",
    "list times a number": "{{ ([1] * 10**10) | length }}",
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(99999) %}" + "x" * 60_000 + "{% endfor %}",
    "a long range": "{% for i in range(10**12) %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by a block": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% "
    "endset %}"
    "{% set n.x = y %}{% endfor %}",
    "doubling by %": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}"
    ),
    "doubling by format": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = '{0}{0}'.format(n.x) %}{% endfor %}"
    ),
    "doubling by join": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}"
    ),
    "doubling by replace": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}"
    ),
    "doubling by a filter": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x|replace('a', 'aa') %}{% endfor %}"
    ),
    "a list that holds itself twice": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] "
    "%}{% endfor %}"
    "{{ n.x }}",
    "a mapping that holds itself twice": "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = {'a': n.x, "
    "'b': n.x} %}"
    "{% endfor %}{{ n.x|tojson }}",
    "dict() that holds itself twice": "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, "
    "b=n.x) %}"
    "{% endfor %}{{ n.x == n.x|list }}",
    "lists that are compared": "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop without end": "{% for i in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "a wide %": "{{ '%9999999999d' % 1 }}",
    "a width that is given": "{{ '%*d' % (10**9, 1) }}",
    "a wide format": "{{ '{:>9999999999}'.format(1) }}",
    "a format in a format": "{{ '{:>{w}}'.format(1, w=10**9) }}",
    "center": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "translate": "{{ ('a' * 4000000).translate({97: 'a' * 4000000}) }}",
    "a center filter": "{{ 'a'|center(1000000000) }}",
    "an indent": "{{ ('\n' * 1000000)|indent(1000000) }}",
    "an indented json": "{{ range(90000)|list|tojson(indent=1000000) }}",
    "lipsum": "{{ lipsum(n=100000000) }}",
    "a long chain of filters": "{% for a in range(99999) %}{{ range(99999)|map('string')|join|length }}{% endfor %}",
    "a joined generator": "{{ range(99999)|map('replace', '', 'x' * 4000000)|join }}",
    "a join with long words between": "{{ range(99999)|join('x' * 4000000) }}",
    "a large power": "{{ 9 ** 64 ** 64 }}",
    "numbers that grow": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "sum of lists": "{{ ([[1]] * 90000)|sum(start=[])|length }}",
    "a date": "{{ strftime_now('%9999999999Y') }}",
    "a group": "{% for a in range(9999) %}{{ (range(9999)|list|sort|unique|list)|length }}{% endfor %}",
    "text in text": (
        "{% set a = 'a' * 4000000 %}{% for i in range(99999) %}{% if a ~ 'b' in a %}{% endif %}{% endfor %}"
    ),
    "twenty loops": "{% for a in messages %}" * 25 + "{% endfor %}" * 25,
    "deep brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "deep blocks": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "a thrown thing": "{{ 1 / 0 }}",
}


def try_all() -> None:
    """In a process of its own: one JSON line of what became of each, and how much memory all of it took at most."""
    answers = {}
    for name, source in HOSTILE.items():
        begun = time.thread_time()
        try:
            said = f"rendered {len(ChatTemplate(source).render(MESSAGES))} characters"
        except TemplateError as error:
            said = error.message.key if "\n" not in str(error) else repr(str(error))
        answers[name] = (said, time.thread_time() - begun)
    print(json.dumps({"answers": answers, "most_kib": most_kib()}))


def most_kib() -> int:
    """Of this process alone: getrusage on Linux also tells what its parent had when it started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def tried() -> dict:
    command = [sys.executable, "-c", "from tests.unit.data.test_template_sandbox import try_all; try_all()"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_soon_and_with_a_sentence(tried: dict, name: str) -> None:
    said, seconds = tried["answers"][name]
    assert said in ("template.cannot_render", "template.broken")
    assert seconds < 3 * SECONDS, "of the processor"


def test_no_hostile_template_fills_the_memory(tried: dict) -> None:
    assert tried["most_kib"] < 900 << 10


def test_the_attack_works_on_jinjas_own_sandbox() -> None:
    """So that the test above is known to bite, at a size that this machine survives."""
    plain = ImmutableSandboxedEnvironment()
    assert len(plain.from_string("{{ 'a' * 10**7 }}").render()) == 10**7
    doubled = (
        "{% set n = namespace(x='aa') %}{% for i in range(22) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x|length }}"
    )
    assert plain.from_string(doubled).render() == str(2**23)
    with pytest.raises(TemplateError):
        ChatTemplate("{{ 'a' * 10**7 }}").render(MESSAGES)


def test_a_rendering_that_takes_too_long_ends_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", -1.0)
    with pytest.raises(TemplateError, match="longer than"):
        ChatTemplate("{% for i in range(100) %}{{ i }}{% endfor %}").render(MESSAGES)


def test_a_rendering_ends_in_time_by_a_clock_that_moves_each_16_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the clock of threads does on Windows."""
    real = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: int(real() * 64) / 64)
    monkeypatch.setattr(sandbox, "SECONDS", 0.02)
    with pytest.raises(TemplateError, match="longer than"):
        ChatTemplate("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}").render(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ strftime_now.__globals__['os'] }}",
        "{{ ('%s' % x).format.__self__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ messages|attr('__class__') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_no_way_leads_out_of_the_sandbox(source: str) -> None:
    try:
        text = ChatTemplate(source).render(MESSAGES)
    except TemplateError:
        return
    assert text.strip() in ("", "None") or "class" not in text and "root" not in text, text[:200]


def test_what_real_templates_use_still_renders() -> None:
    source = (
        "{%- set ns = namespace(system='', seen=false, last=0) -%}"
        "{%- for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}"
        "{% if m.role == 'user' and not ns.seen %}{% set ns.last = index %}{% set ns.seen = true %}{% endif %}{% "
        "endfor -%}"
        "{%- macro said(role, content) -%}<{{ role|upper }}>{{ content|trim }}</{{ role|upper }}>{%- endmacro -%}"
        "{% for m in messages %}{% if loop.first and m['role'] not in ['user', 'assistant'] %}{{ raise_exception('no') "
        "}}{% endif %}"
        "{{ said(m.role, m.content.split('</think>')[-1].lstrip('\\n')) }}"
        "{% if not loop.last and loop.nextitem.role == 'assistant' %}|{% endif %}{% if loop.index is divisibleby 2 "
        "%}.{% endif %}"
        "{% endfor %}{{ {'a': [1, 'é']}|tojson }}{{ '%02d' % 7 }}{{ '{:.2f}'.format(1.5) }}{{ [1, 2] + [3] }}"
        "{% for k, v in {'b': 1}.items() %}{{ k ~ v }}{% endfor %}{{ 'x' * 3 }}{{ messages|selectattr('role', 'eq', "
        "'user')|list|length }}"
        "{{ 'ab'|replace('a', 'c')|safe }}{{ {'z': 1}|dictsort }}{% for c in 'xy' %}{{ c }}{% endfor %}{{ '<'|e }}{{ "
        "ns.last }}"
    )
    messages = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "<think>x</think>\nHello"}]
    assert ChatTemplate(source).render(messages) == (
        '<USER>Hi</USER>|<ASSISTANT>Hello</ASSISTANT>.{"a": [1, "é"]}071.50[1, 2, 3]b1xxx1cb[(\'z\', 1)]xy&lt;0'
    )


def test_a_conversation_as_long_as_a_book_renders_also_where_it_is_gathered_in_a_variable() -> None:
    source = (
        "{% set ns = namespace(all='') %}{% for m in messages %}{% set ns.all = ns.all + m.role + ': ' + m.content + "
        "'\n' %}"
        "{% endfor %}{{ ns.all }}"
    )
    messages = [{"role": ("user", "assistant")[i % 2], "content": "words " * 40} for i in range(2000)]
    assert len(ChatTemplate(source).render(messages)) > 480_000
    long = [{"role": "user", "content": "x" * 20_000_000}, MESSAGES[1]]
    assert len(ChatTemplate(source).render(long)) > 20_000_000


def test_two_threads_pay_for_themselves() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    hostile = ChatTemplate(HOSTILE["loops in loops"])
    problems: list[BaseException] = []

    def hang() -> None:
        try:
            hostile.render(MESSAGES)
        except BaseException as error:  # noqa: BLE001 - looked at below
            problems.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    for _ in range(200):
        assert template.render(MESSAGES) == "HiHello"
    thread.join()
    assert [type(problem) for problem in problems] == [TemplateError]


def test_size_is_as_if_written_out_and_stops_counting() -> None:
    assert size("abc", 10) == 3 and size(["ab", {"c": 1}], 1000) == 6 * ITEM + 2 + 1
    twice = [1]
    for _ in range(100):
        twice = [twice, twice]
    assert 1000 < size(twice, 1000) < 1000 + 200 * ITEM


def test_jinja_itself_still_says_what_is_wrong_with_a_template() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(MESSAGES)
    with pytest.raises(TemplateError, match="unknown tag|Encountered"):
        ChatTemplate("{% nonsense %}").render(MESSAGES)
    assert issubclass(sandbox.TooMuch, jinja2.TemplateError)

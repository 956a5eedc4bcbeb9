"""Somebody else's template can neither leave the sandbox, nor hang the page or fill the memory."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from core.data import template_process
from core.data.template import ChatTemplate
from core.data.template_process import IsolatedTemplate
from core.errors import TemplateError
from core.system.lines import Child
from tests.kit.waits import wait_until

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]

# Each is fatal to plain jinja, its sandbox included.
HOSTILE = {
    "text times a number": "{{ 'a' * 10**10 }}",
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(99999) %}" + "x" * 60_000 + "{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a list that holds itself twice": (
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
    "lists that are compared": (
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
        "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"
    ),
    "a macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a wide %": "{{ '%9999999999d' % 1 }}",
    "a center filter": "{{ 'a'|center(1000000000) }}",
    "a large power": "{% set n = messages|length %}{{ 9 ** (10 ** (5 * n)) }}",
    "deep brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "a thrown thing": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_soon_and_with_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    monkeypatch.setattr(template_process, "MAX_MEMORY", 400 << 20)
    begun, before = time.thread_time(), psutil.Process().memory_info().rss
    with pytest.raises(TemplateError) as raised:
        IsolatedTemplate(HOSTILE[name]).render(MESSAGES)
    assert raised.value.message.key in ("template.cannot_render", "template.broken", "template.too_slow")
    assert time.thread_time() - begun < 1 and psutil.Process().memory_info().rss - before < 100 << 20


def test_a_template_that_was_ended_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads: what one asks does not wait longer than the other's time, and is answered."""
    monkeypatch.setattr(template_process, "SECONDS", 1)
    template, hostile = (
        IsolatedTemplate("{% for m in messages %}{{ m.content }}{% endfor %}"),
        IsolatedTemplate(HOSTILE["loops in loops"]),
    )
    problems: list[str] = []

    def hang() -> None:
        try:
            hostile.render(MESSAGES)
        except TemplateError as error:
            problems.append(error.message.key)

    thread = threading.Thread(target=hang)
    thread.start()
    assert [template.render(MESSAGES) for _ in range(20)] == ["HiHello"] * 20
    thread.join()
    assert problems == ["template.too_slow"] and template.render(MESSAGES) == "HiHello"


def test_a_process_that_renders_without_end_ends_with_whoever_asked() -> None:
    child = Child("core.data.template_process")
    heard: list[object] = []
    child.listen(heard.append, heard.append)
    template = {"source": HOSTILE["loops in loops"], "special_tokens": {}, "all_special": []}
    child.send(**template, act="_render", arguments=[MESSAGES, None, None, False])
    wait_until(lambda: heard == [{}])
    child.close()
    wait_until(lambda: heard == [{}, 0])


def test_what_is_rendered_apart_is_what_is_rendered_here() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{{ bos_token }}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokens = ({"bos_token": "<é>", "eos_token": "</s>"}, frozenset({"</s>"}))
    in_process, apart = ChatTemplate(source, *tokens), IsolatedTemplate(source, *tokens)
    turns = [*MESSAGES, {"role": "user", "content": "天 \ue0f0"}, {"role": "assistant", "content": "So"}]
    assert apart.conversations(turns) == in_process.conversations(turns)
    assert apart.render(turns, True) == in_process.render(turns, True)
    assert (apart.dialect, apart.stop, apart.fingerprint) == (
        in_process.dialect,
        in_process.stop,
        in_process.fingerprint,
    )
    with pytest.raises(TemplateError, match="no") as raised:
        IsolatedTemplate("{{ raise_exception('no') }}").conversations(turns)
    assert raised.value.message.key == "template.cannot_render"


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


def test_jinja_itself_still_says_what_is_wrong_with_a_template() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(MESSAGES)
    with pytest.raises(TemplateError, match="unknown tag|Encountered"):
        ChatTemplate("{% nonsense %}").render(MESSAGES)

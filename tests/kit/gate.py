"""A gate in the browser for the calls of a page: those of a named trigger wait there until they are let through, one by
one.

    context.add_init_script(gate.SCRIPT)
    gate.close(page, "look"); kit.choose(page, ...); gate.wait(page, "look"); ...; gate.open(page, "look")

A call is named by the elem_id of what triggered it, by its kind where it has none ("timer"), or "load" where the page
itself did. What it carries was gathered when it was triggered, so an answer that is let through late is an answer to
what the form was then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = """
(() => {
  const through = window.fetch, held = {}, asked = {}, answered = {}, closed = new Set(CLOSED), drawn = [];
  const nameOf = (id) => {
    const component = [...(window.gradio_config?.components ?? []), ...drawn].find((one) => one.id === id);
    return component?.props.elem_id || component?.type || "load";
  };
  const count = (calls, name) => { calls[name] = (calls[name] ?? 0) + 1; };
  // Components of tabs that are drawn when they are opened come with the answers, one JSON object a line.
  const follow = async (stream) => {
    let text = "";
    for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (text + piece).split("\\n");
      text = lines.pop();
      for (const line of lines.filter((each) => each.includes('"render_config":{')))
        drawn.push(...JSON.parse(line.slice("data:".length)).output.render_config.components);
    }
  };
  window.fetch = async (url, options) => {
    if (/queue.data/.test(String(url))) {
      const answer = await through(url, options);
      follow(answer.clone().body).catch(() => {});  // the stream ends with the page
      return answer;
    }
    if (!/queue.join|run.predict/.test(String(url))) return through(url, options);
    const name = nameOf(JSON.parse(options.body).trigger_id);
    count(asked, name);
    if (closed.has(name)) await new Promise((let_go) => (held[name] ??= []).push(let_go));
    const answer = await through(url, options);
    count(answered, name);
    return answer;
  };
  window.gate = {
    close: (name) => closed.add(name),
    asked: (name) => asked[name] ?? 0,
    isQuiet: (name) => asked[name] === answered[name],
    held: (name) => held[name]?.length ?? 0,
    letOne: (name) => held[name].shift()(),
    open: (name) => { closed.delete(name); (held[name] ?? []).splice(0).forEach((let_go) => let_go()); },
  };
})();
"""


def script(*closed: str) -> str:
    """Return the script for a context's add_init_script. closed: triggers whose calls wait from the first one on."""
    return SCRIPT.replace("CLOSED", str(list(closed)))


def close(page: Page, name: str) -> None:
    page.evaluate("name => gate.close(name)", name)


def wait(page: Page, name: str, count: int = 1) -> None:
    """Wait until exactly count calls of name are held at the gate."""
    page.wait_for_function("([name, count]) => gate.held(name) === count", arg=[name, count])


def answered(page: Page, name: str) -> None:
    """Wait until every call of name has been answered."""
    page.wait_for_function("name => gate.isQuiet(name)", arg=name)


def let_one(page: Page, name: str) -> None:
    page.evaluate("name => gate.letOne(name)", name)


def open(page: Page, name: str) -> None:
    page.evaluate("name => gate.open(name)", name)

// Keys that act on the page, and the sheet that lists them (pages/shortcuts.py). Never while somebody types, nor over an open sheet.
const loraGarageKeys = {
  isOff: () => { try { return "loraGarageKeysOff" in localStorage; } catch { return false; } },
  isOn(event) {
    return !(this.isOff() || event.isComposing || event.repeat || event.ctrlKey || event.altKey || event.metaKey
      || (document.querySelector("dialog[open]") && event.key !== "?"));
  },
};
(() => {
  const OFF = "loraGarageKeysOff";
  const SEARCHES = "input[type=search], #shelf-words :is(input, textarea), #settings-search :is(input, textarea), #data-search :is(input, textarea)";
  const $ = (where) => document.querySelector(where);
  const tab = (name) => $(`#tab-${name}-button`)?.click();
  const firstVisible = (where) => [...document.querySelectorAll(where)].find((element) => element.offsetParent);
  // A tab's parts are drawn a moment after it is chosen.
  const focus = (where, times = 60) => { const element = firstVisible(where); if (element) element.focus(); else if (times) requestAnimationFrame(() => focus(where, times - 1)); };

  function toggle() {
    const sheet = $("#shortcuts-sheet");
    if (sheet.open) return sheet.close();
    $("#shortcuts-on").checked = !loraGarageKeys.isOff();
    sheet.showModal();
  }
  function search() {
    if (!firstVisible(SEARCHES) && $("#start-bar")?.offsetParent) window.loraGarageStart.open("model");
    focus(SEARCHES);
  }
  const acts = {
    "?": toggle,
    "/": search,
    s: () => { tab("train"); focus("#start"); },
    m: () => { tab("chat"); focus("#chat-message textarea"); },
  };
  const page = (number) => { if (!firstVisible("#duel-left")) document.querySelectorAll("a[data-page]")[number - 1]?.click(); }; // in a duel they judge (duel.js)

  document.addEventListener("keydown", (event) => {
    const isTyped = event.target.closest?.("input:not([type=radio], [type=checkbox], [type=range]), textarea, select, [contenteditable]");
    const act = acts[event.key.toLowerCase()] ?? (/^[1-9]$/.test(event.key) ? () => page(event.key) : null);
    if (!act || isTyped || !loraGarageKeys.isOn(event)) return;
    event.preventDefault();
    act();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#shortcuts-open")) toggle();
    else if (event.target.closest?.("#shortcuts-close") || event.target.id === "shortcuts-sheet") $("#shortcuts-sheet").close();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "shortcuts-on") return;
    try { if (event.target.checked) localStorage.removeItem(OFF); else localStorage[OFF] = ""; } catch { /* a browser that keeps nothing */ }
  });
})();

// What a person unfolded stays unfolded when its HTML is drawn anew: else a plan that changes while it is read would fold itself.
// A click counts from the moment it is made: the browser tells of an opened fold only later, when it may have been drawn anew, and
// of a click not at all where that happens between press and release. Gradio puts new HTML into the elements that are there and takes
// every attribute that it does not know: a fold without data-seen was drawn since we looked.
(() => {
  const open = new Map();
  // Its title, without the value that a setting's line has behind it.
  const nameOf = (fold) => (fold.closest("[id]")?.id ?? "") + "|" + fold.querySelector("summary")?.firstChild?.textContent;
  const foldOf = (event) => event.target.closest?.("details.lg-fold > summary")?.parentElement;
  let pressed = null;  // the fold that the pointer is down on, and its name
  document.addEventListener("click", (event) => {
    const fold = foldOf(event);
    if (!fold) return;
    if (fold.name) for (const one of document.getElementsByName(fold.name)) open.set(nameOf(one), false);  // the browser closes them
    open.set(nameOf(fold), !fold.open);
  }, true);
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.lg-fold") && event.target.isConnected) open.set(nameOf(event.target), event.target.open);
  }, true);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#run-unfold button");
    if (button) button.ariaExpanded = String(document.querySelector("#run-box").classList.toggle("lg-unfolded"));
  });
  document.addEventListener("pointerdown", (event) => {
    const fold = foldOf(event);
    pressed = fold ? { fold, name: nameOf(fold) } : null;
  }, true);
  document.addEventListener("pointerup", (event) => {
    if (!pressed || pressed.fold.isConnected) return;
    const fold = foldOf(event);
    if (fold && nameOf(fold) === pressed.name) fold.querySelector("summary").click();
  }, true);
  new MutationObserver(() => {
    if (!open.size) return;
    for (const fold of document.querySelectorAll("details.lg-fold:not([data-seen])")) {
      const isOpen = open.get(nameOf(fold));
      if (isOpen !== undefined) fold.open = isOpen;
      fold.dataset.seen = "";
    }
  }).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["open", "data-seen"] });
})();

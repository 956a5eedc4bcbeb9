// The links of the rail open gradio's tabs, whose own row is hidden. The address names the open page (#chat), so the
// browser's Back works and a page can be linked to.
(() => {
  const tabOf = (page) => document.getElementById(`tab-${page}-button`);
  const isOpen = (page) => tabOf(page)?.ariaSelected === "true";
  const named = () => location.hash.slice(1);

  let target = named();  // until it is open: a link may be pressed, or an address name a page, before the tabs are drawn
  const go = () => {
    if (!tabOf("train")) return;
    if (!tabOf(target) || isOpen(target)) target = "";
    else tabOf(target).click();
  };
  const open = (page) => { target = page; go(); };

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link.dataset.page);
    if (link.dataset.model) { window.loraGarageEvaluate = { ...link.dataset }; dispatchEvent(new Event("lora-garage-evaluate")); }
    if (link.dataset.train) { window.loraGarageModel = link.dataset.train; document.querySelector("#models-train").click(); }
    if (link.dataset.step) return window.loraGarageStart.open(link.dataset.step);
    scrollTo({ top: 0 });
  });
  // With the clock: the live parts of the open tab (kit/tab.py).
  window.loraGarageBeat = () => { for (const beat of document.querySelectorAll(".lg-beat")) if (isOpen(beat.id.slice(5))) beat.click(); };
  addEventListener("popstate", () => open(named() || "train"));

  // Also pages that are opened by something else than a link of the rail ("Chat with it").
  const mark = () => {
    for (const link of document.querySelectorAll("a[data-page]")) {
      if (!isOpen(link.dataset.page)) link.removeAttribute("aria-current");
      else if (link.ariaCurrent !== "page") {
        link.ariaCurrent = "page";
        if ((named() || "train") !== link.dataset.page) history.pushState(null, "", `${location.pathname}#${link.dataset.page}`);  // gradio's base is /
      }
    }
  };
  new MutationObserver(() => {
    if (!tabOf("train")) return;
    if (target) go();
    if (!target) mark();  // the links may be drawn after the page was opened
  }).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ["aria-selected"] });
})();

// The links of the rail open gradio's tabs, whose own row is hidden. The address names the open page (#chat), so the
// browser's Back works and a page can be linked to.
(() => {
  const tabOf = (page) => document.getElementById(`tab-${page}-button`);
  const isOpen = (page) => tabOf(page)?.ariaSelected === "true";
  const named = () => location.hash.slice(1);

  const open = (page) => { if (tabOf(page) && !isOpen(page)) tabOf(page).click(); };

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link.dataset.page);
    if (link.dataset.step) return window.loraGarageStart.open(link.dataset.step);
    scrollTo({ top: 0 });
  });
  addEventListener("popstate", () => open(named() || "train"));

  // Also pages that are opened by something else than a link of the rail ("Chat with it").
  const mark = () => {
    for (const link of document.querySelectorAll("a[data-page]")) {
      if (!isOpen(link.dataset.page)) link.removeAttribute("aria-current");
      else if (link.ariaCurrent !== "page") {
        link.ariaCurrent = "page";
        if ((named() || "train") !== link.dataset.page) history.pushState(null, "", `#${link.dataset.page}`);
      }
    }
  };
  let hasArrived = false;
  new MutationObserver(() => {
    if (!tabOf("train")) return;
    if (hasArrived) return mark();  // the links may be drawn after the page that the address names was opened
    hasArrived = true;
    open(named());
  }).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ["aria-selected"] });
})();

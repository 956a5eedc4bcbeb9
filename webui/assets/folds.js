// What a person unfolded stays unfolded when its HTML is drawn anew: else a plan that changes while it is read would fold itself.
(() => {
  const open = new Map();
  const nameOf = (fold) => (fold.closest("[id]")?.id ?? "") + "|" + fold.querySelector("summary")?.textContent;
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.lg-fold") && event.target.isConnected) open.set(nameOf(event.target), event.target.open);
  }, true);
  new MutationObserver(() => {
    if (!open.size) return;
    for (const fold of document.querySelectorAll("details.lg-fold")) {
      const wanted = open.get(nameOf(fold));
      if (wanted !== undefined && fold.dataset.seen === undefined) fold.open = wanted;
      fold.dataset.seen = "";
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
})();

// The start of the Train page: which dataset's card is marked, and the step that the bar opens. One step is open at a
// time; gradio's own heads of the steps are hidden while they are closed.
(() => {
  const STEPS = ["goal", "model", "data", "plan", "train"];
  const head = (step) => document.querySelector(`#step-${step} > button`);
  const isOpen = (step) => head(step)?.classList.contains("open") ?? false;
  let chosen = null;  // the dataset whose card was pressed

  window.loraGarageStart = {
    choose(data) { chosen = data; this.mark(data); return data; },
    chosen: () => chosen,
    mark(data) {
      for (const card of document.querySelectorAll("#start-cards button")) {
        card.ariaPressed = String(card.dataset.set === data);
      }
    },
    unfold(step) {
      for (const other of STEPS) if (other !== step && isOpen(other)) head(other).click();
      if (!isOpen(step)) head(step)?.click();
    },
    open(step, part) {
      this.unfold(step);
      window.loraGarageShow(part ?? `#step-${step}`);
    },
  };

  document.addEventListener("click", (event) => {
    // A step that a person closes by its head takes that along: the focus goes to the part of the bar that opens it.
    const closed = event.isTrusted && STEPS.find((step) => head(step)?.contains(event.target));
    if (closed) document.querySelector(`.lg-part[data-step=${closed}]`).focus();
    const pressed = event.target.closest?.("button[data-step]:not([data-page])");
    if (!pressed) return;
    const { step, part } = pressed.dataset;
    if (isOpen(step) && !part) head(step).click();
    else window.loraGarageStart.open(step, part);
  });

  const tell = () => {
    for (const each of document.querySelectorAll(".lg-part[data-step]")) {
      const expanded = String(isOpen(each.dataset.step));
      if (each.ariaExpanded !== expanded) each.ariaExpanded = expanded;
    }
  };
  new MutationObserver(tell).observe(document.documentElement, {
    subtree: true, childList: true, attributeFilter: ["class", "aria-expanded"],  // the bar is drawn without the latter
  });
})();

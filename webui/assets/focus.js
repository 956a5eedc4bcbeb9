// Where the keyboard and the eye go when a press takes away what had the focus, or opens something elsewhere.
(() => {
  // The notice that a press had its effect goes at the next press.
  document.addEventListener("click", (event) => {
    if (!event.isTrusted || !event.target.closest("button, a, input, summary")) return;
    for (const one of document.querySelectorAll(".lg-passing")) one.hidden = true;
  }, true);

  const isSeen = (part) => part?.checkVisibility();
  // times: frames in which check is asked again; the page is drawn some moments after the server has answered.
  const soon = (check, times) => { if (!check() && times) requestAnimationFrame(() => soon(check, times - 1)); };

  function focus(part) {
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  }

  // What stands above and below is drawn in the next moments: the page follows until then, or until the person moves it.
  function align(part) {
    const above = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop);  // the bar that stays in view
    const acts = ["wheel", "touchmove", "keydown", "pointerdown"];
    let frames = 60;
    const leave = () => { frames = 0; };
    for (const act of acts) addEventListener(act, leave, { once: true, passive: true });
    const again = () => {
      if (frames-- > 0 && part.isConnected) {
        const top = part.getBoundingClientRect().top + scrollY;
        scrollTo({ top: top < innerHeight / 3 ? 0 : top - above });
        requestAnimationFrame(again);
      } else for (const act of acts) removeEventListener(act, leave);
    };
    again();
  }

  // The part that a press has opened: its top is shown (with all that stands above it, where that fits), and has the focus.
  // isNear: it stands beside what was pressed, and the page is moved no further than to show it.
  window.loraGarageShow = (selector, isNear = false) => soon(() => {
    const part = document.querySelector(selector);
    if (!isSeen(part)) return false;
    if (isNear) {
      focus(part);
      part.scrollIntoView({ block: "nearest" });
      return true;
    }
    focus(part);
    align(part);
    return true;
  }, 600);

  // The head of an opened part has the focus once there is something to go on to, unless the person has gone on by then.
  window.loraGarageFocusHead = (selector) => {
    const pressed = document.activeElement;
    soon(() => {
      if (document.activeElement !== pressed && document.activeElement !== document.body) return true;
      const [head, ...content] = document.querySelectorAll(`${selector} :is(button, input)`);
      if (!content.some(isSeen)) return false;
      head.focus();
      return true;
    }, 600);
  };

  // What is typed into a list searches it, instead of being added to the chosen text.
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches?.('input[role="combobox"]')) setTimeout(() => target.select());
  });

  // These vanish when they are pressed: the focus goes to the run, whose card says what became of it, or to the form that comes in its place.
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("#start, #resume, #queue-resume, #pause, #plan-back, #plan-next");
    if (pressed) soon(() => {
      if (document.activeElement !== pressed && document.activeElement !== document.body) return true;  // it went on by itself
      const isPlan = pressed.id === "plan-next";  // which stays below a run that has ended
      const next = document.querySelector(isPlan ? "#form-column" : "#run-box");
      if ((!isPlan && isSeen(pressed)) || !isSeen(next)) return false;
      if (isPlan) loraGarageShow("#form-column");
      else focus(next);
      return true;
    }, 600);
    if (pressed?.id === "start") soon(() => {  // why nothing was started, where that is out of view
      const why = document.querySelector("#start-notice");
      if (!isSeen(why)) return false;
      const decided = why.querySelector("[data-show]")?.dataset.show;  // where the person decides it
      if (decided) loraGarageShow(decided);
      else why.scrollIntoView({ block: "nearest" });
      return true;
    }, 600);
  });
})();

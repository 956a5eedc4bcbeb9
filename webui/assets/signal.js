// The tab's title and picture tell what a run does, and a notification that it ended, where this browser was asked for one.
// Read from two hidden parts of the header (run/signal.py). Which run was at work is kept for the tab, over a reload.
(() => {
  const NAME = "LoRA Garage", WANTED = "loraGarageNotify", SEEN = "loraGarageRunSeen", TONES = { ok: "#15803d", warn: "#b45309", bad: "#b91c1c", plain: "#57534e" };
  const kept = (of) => { try { return window[of]; } catch { return {}; } };  // a browser that keeps nothing throws
  const local = kept("localStorage"), tab = kept("sessionStorage");
  const canNotify = () => "Notification" in window && isSecureContext;
  let drawn = "";

  function paint(title, colour, percent) {
    const text = title ? `${title} · ${NAME}` : NAME, key = `${colour} ${percent}`;
    if (document.title !== text) document.title = text;
    if (key === drawn) return;
    drawn = key;
    const ring = 81.7, turned = `<circle cx="16" cy="16" r="13" fill="none" stroke="#b8b2aa" stroke-width="6"/><circle cx="16" cy="16" r="13" fill="none" stroke="#0f766e" stroke-width="6" stroke-dasharray="${ring * percent / 100} ${ring}" transform="rotate(-90 16 16)"/>`;
    const mark = percent === null ? `<rect x="8" y="8" width="16" height="16" rx="4" fill="${colour}" transform="rotate(45 16 16)"/>` : turned;
    const icon = document.querySelector("link[rel~=icon]") ?? document.head.appendChild(Object.assign(document.createElement("link"), { rel: "icon" }));
    icon.href = "data:image/svg+xml," + encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${mark}</svg>`);
  }
  function notify({ title, body, run }) {
    if (!(WANTED in local) || !canNotify() || Notification.permission !== "granted" || (!document.hidden && document.hasFocus())) return;
    try {
      const note = new Notification(title, { body, tag: run });
      note.onclick = () => { window.focus(); note.close(); };
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;  // browsers of phones have the name and not the thing
    }
  }
  function look() {
    const work = document.querySelector(".lg-at-work")?.dataset, ended = document.querySelector(".lg-ended")?.dataset;
    if (!work || !ended) return;
    if (ended.run && tab[SEEN] === ended.run && work.run !== ended.run) { tab[SEEN] = `${ended.run} over`; notify(ended); }
    if (work.run) { tab[SEEN] = work.run; paint(work.title, "", Number(work.percent)); }
    else if (ended.run && tab[SEEN] === `${ended.run} over`) paint(ended.title, TONES[ended.tone], null);
    else paint("", "#0f766e", null);
  }
  function tell(part) {
    const box = part.querySelector("input"), reason = canNotify() ? (Notification.permission === "denied" ? part.dataset.blocked : "") : part.dataset.notHere;
    box.disabled = reason !== "";
    box.checked = !reason && WANTED in local && Notification.permission === "granted";
    const small = part.querySelector("small");
    if (small.textContent !== reason) small.textContent = reason;
  }
  const tellAll = () => document.querySelectorAll(".lg-notify").forEach(tell);
  document.addEventListener("change", async (event) => {
    if (!event.target.closest?.(".lg-notify")) return;
    if (event.target.checked) { local[WANTED] = ""; await Notification.requestPermission(); }
    else delete local[WANTED];
    tellAll();
  });
  // Allowed or denied in the browser's own settings meanwhile; one that tells of no such thing is asked at the next drawing.
  navigator.permissions?.query({ name: "notifications" }).then((allowed) => { allowed.onchange = tellAll; }, () => {});
  new MutationObserver((changes) => {
    look();
    if (changes.some((change) => [...change.addedNodes].some((node) => node.querySelector?.(".lg-notify")))) tellAll();
  }).observe(document.documentElement, { childList: true, subtree: true });
})();

// Gradio 6.31 gives each button of a choice a name of its own, again whenever it is drawn, so that arrow keys go to no other: they get
// one just before the browser looks for the next.
document.addEventListener("keydown", ({ target, key }) => {
  if (!key?.startsWith("Arrow") || !target.matches?.("input[type=radio]")) return;
  for (const each of target.closest("fieldset, .wrap")?.querySelectorAll("input[type=radio]") ?? []) each.name = target.name;
}, true);

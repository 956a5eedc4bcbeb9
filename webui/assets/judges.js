// The judges of a training by rewards (form/judges_view.py). Each change puts the whole section `rewards` into the form, which is looked at again.
const form = window.loraGarageForm;
let focused = null;  // the id of the field in use, which is drawn anew after each look
function send(change) {
  const kept = element.querySelector("[data-rewards]"), rewards = JSON.parse(kept.dataset.rewards);
  change(rewards);
  kept.dataset.rewards = JSON.stringify(rewards);  // for a second change before the next drawing
  form.act("rewards", rewards, true, false);
}
element.addEventListener("change", ({ target }) => {
  const judge = target.closest("[data-judge]"), value = target.type === "number" ? Number(target.value) : target.value;
  if (target.name === "add") {
    target.value = "";
    if (value) send((rewards) => rewards.judges.push(JSON.parse(value)));
    return;
  }
  send((rewards) => {
    const owner = judge ? rewards.judges[Number(judge.dataset.judge)] : rewards;
    if (target.value === "") delete owner[target.name];
    else owner[target.name] = value;
  });
});
element.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-remove]");
  if (button) send((rewards) => rewards.judges.splice(Number(button.dataset.remove), 1));
});
document.addEventListener("focusin", ({ target }) => { focused = element.contains(target) ? target.id : null; });
new MutationObserver(() => {
  if (focused && document.activeElement === document.body) document.getElementById(focused)?.focus({ preventScroll: true });
}).observe(element, { childList: true, subtree: true });

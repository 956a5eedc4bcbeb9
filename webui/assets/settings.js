// The settings of a recipe as fields (form/settings_view.py). form.js keeps their values, also while they are folded up, and
// all that a person edits; nothing of it calls the server before the form is looked at.
const form = window.loraGarageForm, search = element.querySelector("#settings-search-field");
const fields = [...element.querySelectorAll("[data-setting]")];
const isTyped = (field) => field.matches("textarea, input:not([type=checkbox])");
let typed = null;  // the field that was typed in since the form was looked at

function draw() {
  for (const field of fields) {
    const name = field.dataset.setting;
    if (form.hidden) field.closest(".lg-setting").hidden = form.hidden.includes(name);
    if (!(name in form.settings) || (isTyped(field) && field === document.activeElement)) continue;
    const value = form.settings[name];
    if (field.type === "checkbox") field.checked = value;
    else if (field.value !== String(value ?? "")) field.value = value ?? "";
  }
}
function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  if (field.type === "number") return field.value === "" ? null : Number(field.value);
  return field.value;
}
function look() {
  if (typed) form.look();
  typed = null;
}
// Only the settings with the typed words in their name or help, or a sentence where there are none.
function sift() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const field of fields) {
    const setting = field.closest(".lg-setting"), text = `${setting.textContent} ${setting.id}`.toLowerCase();
    const fits = words.every((word) => text.includes(word));
    setting.style.display = fits ? "" : "none";
    count += fits;
  }
  for (const head of element.querySelectorAll("h2")) head.hidden = words.length > 0;
  element.querySelector("#settings-none").hidden = count > 0;
}
element.addEventListener("input", ({ target }) => {
  if (target === search) return sift();
  form.act(target.dataset.setting, valueOf(target), true, isTyped(target));
  form.settings[target.dataset.setting] = valueOf(target);
  if (isTyped(target)) typed = target;
});
element.addEventListener("change", look);
element.addEventListener("focusout", () => { look(); draw(); });  // its value may have arrived while it was typed in
element.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing && event.target.matches("input")) look(); });
form.draws.set(fields[0].dataset.setting, draw);
draw();

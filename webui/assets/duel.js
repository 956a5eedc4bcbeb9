// The blind duel: who votes is this browser, and a verdict may be a key. Which conversation is open is this browser's too,
// and that its person chose a model: told to the server by a request of its own, it could come after the question that needs it.
const loraGarageDuel = {
  voter() {
    try {
      return (localStorage.lgVoter ??= crypto.getRandomValues(new Uint32Array(3)).join("-"));
    } catch {
      return (this.here ??= String(Math.random()));  // a browser that keeps nothing: until the next reload
    }
  },
  opened() {
    try {
      return localStorage.lgConversation ?? "";
    } catch {
      return "";
    }
  },
  open(id) {
    try {
      localStorage.lgConversation = id;
    } catch {}  // a browser that keeps nothing: a reload begins empty
  },
  choose() {
    this.chosen = true;
  },
  taken() {
    return this.chosen ? "chosen" : this.opened();
  },
  // What is offered is taken where nobody has chosen. In place of a model that has gone, named in the second line, it is taken all the
  // same, but not if another has been chosen since.
  offered(now, offered) {
    const [chosen, gone] = offered.split("\n");
    return chosen && (gone === undefined ? !this.taken() : gone === now) ? chosen : undefined;
  },
};
document.addEventListener("keydown", (event) => {
  const button = ["left", "right", "equal", "both-bad"][Number(event.key) - 1];
  if (!button || !loraGarageKeys.isOn(event) || event.target.closest?.("input, textarea, [contenteditable]")) return;
  const element = document.getElementById("duel-" + button);
  if (element?.offsetParent) element.click();
});

// What a person has set in the form, as their own acts have said it; the server keeps nothing of a visitor.
//
// This object is the form's state. It travels with every call in place of the component that stands for it, and what the server
// answers is put into the fields here. Each act is numbered (the revision). An answer about the whole form (a look) is dropped
// where anything was set since it was asked for: another look has been asked for by then. An answer to a press that fills the form
// (a recipe, another run) is dropped where another was pressed since; else it fills all but what was set since.
(() => {
  const form = { explicit: {}, parent: null, reading: null, revision: 0 };
  const touched = {};  // field -> the act by which a person last set it
  let pressed = 0;     // the last act that asked for the form to be filled
  let ordered = 0;     // the act that asked for a download, whose set is chosen when it is there unless another was since
  let answered = 0;    // the newest act whose answer filled it
  let pressedModel;    // the model whose row was pressed
  let isAsked = false, hasLooked = false;
  let clicked = { field: null, revision: -1 };  // the button of choice that was last clicked, of which gradio tells a moment later

  document.addEventListener("change", (event) => {
    if (event.target.matches?.("input[type=radio], input[type=checkbox]")) clicked = { field: event.target, revision: form.revision };
  }, true);

  // A text box of gradio 6.31 tells of a key press alone: of no Backspace, of nothing pasted, of no Chinese input method.
  let isNameTyped = false;
  document.addEventListener("input", (event) => {
    isNameTyped ||= event.target.closest?.("#run-name") != null;
    typed = event.target;
  }, true);

  // A list of gradio 6.31 tells of no choice made by Enter: that becomes one made by mouse. The model may be typed, and its row be an old one.
  // What was typed or pasted counts as it stands there, though the list may be drawn a moment later.
  let typed = null;
  document.addEventListener("focusin", () => { typed = null; }, true);
  document.addEventListener("keydown", (event) => {
    const box = event.target;
    if (["ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) typed = null;  // they go to another row
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229 || box.getAttribute?.("role") !== "combobox" || box.closest("#model")) return;
    const active = document.getElementById(box.getAttribute("aria-activedescendant") ?? ""), words = box.value.toLowerCase();
    const all = [...(document.getElementById(box.getAttribute("aria-controls"))?.querySelectorAll("[role=option]") ?? [])];
    const label = (one) => one?.getAttribute("aria-label").toLowerCase() ?? "";
    const names = (one) => label(one).split(/[:：,、]\s*/).some((name) => name.endsWith(` ${words}`));  // "rtx 3060 ti" is no 3060
    const written = () => all.find((one) => label(one) === words) ?? all.find(names) ?? [active, ...all].find((one) => one && label(one).includes(words));
    const option = typed === box ? written() : active;
    if (!option) return;
    event.stopPropagation();
    option.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
  }, true);

  const isState = (value) => value !== null && typeof value === "object" && "explicit" in value && "revision" in value;
  const isEmpty = (value) => value === null || value === undefined || value.length === 0;
  const isTyped = "input:not([type=radio]):not([type=checkbox]), textarea";
  const isTyping = (id) => document.activeElement?.matches(isTyped) && document.activeElement.closest("#" + id) !== null;

  const isClicked = (id) => clicked.revision === form.revision && clicked.field.closest("#" + id) !== null;

  const touch = (name) => { touched[name] = ++form.revision; };
  const sent = (...values) => values.map((value) => (isState(value) ? JSON.parse(JSON.stringify(form)) : value));
  const press = (...values) => { pressed = ++form.revision; return sent(...values); };
  const drop = (...values) => { form.revision++; return sent(...values); };  // of several files that are read the newest that can be counts

  const order = (...values) => { ordered = form.revision; return values; };
  const delivered = (...values) => sent(...values).map((value) => (isState(value) ? { ...value, revision: ordered } : value));

  window.loraGarageForm = {
    settings: {},      // the plan's and the person's values of the fields that settings.js draws
    hidden: null,      // the names of those that are not shown now
    draws: new Map(),  // what draws those that are in the page
    touch,
    sent,
    press,
    drop,
    order,
    delivered,

    // A person edited a field. A setting that is emptied goes back to the plan. What is typed is looked at when the field is left.
    act(name, value, isSetting, isTyped) {
      touch(name);
      if (isSetting && isEmpty(value)) delete form.explicit[name];
      else if (isSetting) form.explicit[name] = value;
      if (!isTyped) this.look();
    },

    // The run's name was left, or Enter pressed: what was typed there counts, however it came.
    left(name) {
      if (isNameTyped) this.act("name", name, false, true);
      isNameTyped = false;
      this.look();
    },

    forget() { press(); form.explicit = {}; },
    undo() { press(); form.parent = null; },

    choose(model) { pressedModel = model; this.mark(model); },
    chosen() { touch("model"); return pressedModel; },

    // The rows of the shelf are drawn when something is searched for; which of them is chosen may change at any time.
    mark(model) {
      for (const row of document.querySelectorAll("button.lg-pick")) row.ariaPressed = String(row.dataset.model === model);
    },

    // One look for all that asked for one in the same moment. A click is how a script starts an event of gradio.
    look() {
      if (isAsked) return;
      isAsked = true;
      setTimeout(() => {
        isAsked = false;
        const asking = document.querySelector("#look");
        hasLooked ||= asking !== null;
        asking?.click();
      }, 0);
    },

    // The choices are here, and none was taken from the form: a look that a quick hand asked for meanwhile is the same one.
    arrived() { if (!hasLooked) this.look(); },

    // fields: [name, elem_id] of each component that may be filled, in the order of now, which has their values.
    // Gives what each of them is to become; undefined leaves it as it is.
    take(fields, answer, now) {
      const isOld = !answer || (answer.is_look ? answer.revision !== form.revision : answer.revision < Math.max(pressed, answered));
      if (isOld) return fields.map(() => undefined);
      if (!answer.is_look) answered = answer.revision;
      const isKept = (name) => (touched[name] ?? 0) > answer.revision;
      const { explicit, parent, reading } = answer.answers;
      if (explicit !== undefined) {
        const mine = form.explicit;
        form.explicit = JSON.parse(JSON.stringify(explicit));
        for (const name of Object.keys(touched).filter(isKept)) {
          if (name in mine) form.explicit[name] = mine[name];
          else delete form.explicit[name];
        }
      }
      if (parent !== undefined) form.parent = parent;
      if (reading !== undefined) form.reading = reading;
      const filled = fields.map(([name, id], at) => {
        const update = answer.values[name];
        if (update === undefined || isKept(name) || isClicked(id) || (answer.is_look && isTyping(id))) return undefined;
        const value = update !== null && typeof update === "object" ? update.value : update;
        if (JSON.stringify(value) === JSON.stringify(now[at])) return undefined;
        return value === update ? update : { __type__: "update", ...update };
      });
      if (answer.is_look) {
        const drawn = new Set(fields.map(([name]) => name));
        for (const [name, value] of Object.entries(answer.values)) if (!drawn.has(name) && !isKept(name)) this.settings[name] = value;
        this.hidden = answer.hidden;
        for (const draw of this.draws.values()) draw();
      }
      if (!answer.is_look) form.revision++;  // looks that are on their way know nothing of it
      return filled;
    },
  };
})();

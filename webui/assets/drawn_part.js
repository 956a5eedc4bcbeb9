// A part of the page that the server draws: fetched when it has changed, and patched in place, so that the focus, what is
// typed and what is unfolded stay. Controls with a name are sent with each request; buttons with data-set change one of
// the further choices in `chosen`, those with data-act are pressed on the server. props.value as in film.js.
let mark = null, shownRun, timer = 0, typing = 0, isBusy = false, isDue = false, isDown = false, chosen = {};
const pressed = new Map();  // the buttons whose answer has not come yet
let sentDecisions = 0;  // on rows that are hidden until their answer comes
const body = element.querySelector('.ev-body'), message = element.querySelector('.ev-message');

function fields() {
  const values = { ...chosen };
  for (const one of body.querySelectorAll('[name]')) {
    if (one.type === 'checkbox') { values[one.name] ??= []; if (one.checked) values[one.name].push(one.value); }
    else values[one.name] = one.value;
  }
  return values;
}

async function poll() {
  clearTimeout(timer);
  isDue = isBusy;
  if (isBusy) return;
  let wait = 2000;
  if (!document.hidden && element.isConnected && element.offsetParent !== null) {
    isBusy = true;
    const run = props.value, led = props.value === 'place' ? window.loraGarageEvaluate : null;
    if (run !== shownRun) { shownRun = run; mark = null; chosen = {}; body.innerHTML = message.innerHTML = ''; }
    try {
      const sent = led ? { model: led.model, questions: led.questions } : fields();
      const reply = await server.redraw({ run, mark, fields: sent });
      if (led) { window.loraGarageEvaluate = null; chosen = {}; }
      if (reply) { // gradio gives undefined when the server is gone
        wait = props.value === run ? reply.wait_ms : 0;
        // Later while a press is going on: with its button its click would be lost. And while a row's decision is on its
        // way: the row would be shown again, and the next key decide on it.
        if (wait && 'html' in reply && !isDown && !sentDecisions) { draw(reply.html, led); mark = reply.mark; }
        if (led?.start) press({ act: 'start' });
      }
    } catch (error) { console.warn(error); }
    isBusy = false;
    if (isDue) wait = 0;
  }
  timer = setTimeout(poll, wait);
}

function draw(html, led) {
  const next = document.createElement('section');
  next.innerHTML = html;
  const hadFocus = body.contains(document.activeElement);
  const values = [...body.querySelectorAll('select')].map((one) => [one.id, one.value]);
  patch(body, next);
  // Patched options have other values in their places: the one that was chosen stays chosen.
  for (const [id, value] of values) {
    const one = led ? null : document.getElementById(id);
    if (one && [...one.options].some((option) => option.value === value)) one.value = value;
  }
  if (led) for (const one of body.querySelectorAll('select')) one.value = one.querySelector('[selected]')?.value ?? one.value;
  body.hidden = !html;
  if (hadFocus && !body.contains(document.activeElement)) body.querySelector('[data-act], [data-page], summary')?.focus({ preventScroll: true });
}

// A child with an id stays the same element wherever it comes to stand; the others do in their order.
function patch(now, next) {
  const old = [...now.childNodes], named = new Map(old.filter((one) => one.id).map((one) => [one.id, one]));
  const others = old.filter((one) => !one.id);
  const pairs = [...next.childNodes].map((to) => {
    const from = to.id ? named.get(to.id) : others.shift();
    return [from?.nodeName === to.nodeName ? from : null, to];
  });
  const kept = new Set(pairs.map(([from]) => from));
  for (const one of old) if (!kept.has(one)) one.remove();
  pairs.forEach(([from, to], place) => {
    const there = now.childNodes[place] ?? null;
    if (there !== (from ?? to)) now.insertBefore(from ?? to, there);
    if (from?.nodeType === Node.TEXT_NODE) { if (from.data !== to.data) from.data = to.data; }
    else if (from) {
      for (const name of from.getAttributeNames()) if (!to.hasAttribute(name) && name !== 'open') from.removeAttribute(name);
      for (const name of to.getAttributeNames()) if (name !== 'open' && from.getAttribute(name) !== to.getAttribute(name)) from.setAttribute(name, to.getAttribute(name));
      patch(from, to);
    }
  });
}

// A button that is pressed twice is answered once, and several one after the other.
async function press(act) {
  const key = JSON.stringify(act);
  if (pressed.has(key)) return;
  const before = [...pressed.values()].at(-1);
  pressed.set(key, answer(act, before).finally(() => { pressed.delete(key); poll(); }));
  await pressed.get(key);
}

async function answer(act, before) {
  await before;
  try {
    const reply = await server.press({ ...act, run: act.run ?? props.value, fields: fields() });
    message.innerHTML = reply?.notice ?? '';
    chosen = { ...chosen, ...reply?.chosen };
    if (reply?.click) document.querySelector(reply.click)?.click();
    for (const name of reply?.empty ?? []) for (const one of body.querySelectorAll(`[name=${name}]`)) one.value = '';
  } catch (error) { console.warn(error); }
  mark = null;  // drawn again, also where it was refused: a hidden row comes back
}

async function text(file, most) {
  if (file.size > Number(most)) return null;
  try { return new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer()); } catch { return null; }
}

element.addEventListener('click', ({ target }) => {
  const button = target.closest('button');
  if (button?.dataset.set) {
    const { set, value } = button.dataset;
    chosen[set] = chosen[set] === value && button.ariaExpanded ? '' : value;
    poll();
  }
  if (button?.dataset.act && !(button.dataset.sure && !confirm(button.dataset.sure))) {
    button.ariaBusy = 'true';
    const row = button.dataset.decision && button.closest('.mk-pair');
    if (row) {  // at once, so that the next key means the next row
      row.hidden = true;
      sentDecisions++;
      row.nextElementSibling?.querySelector('[data-key]')?.focus({ preventScroll: true });
    }
    press({ ...button.dataset }).finally(() => {
      button.ariaBusy = null;
      if (row) sentDecisions--;
    });
  }
});
element.addEventListener('keydown', (event) => {
  if (!/^[a-z]$/.test(event.key) || !loraGarageKeys.isOn(event) || event.target.matches('input, textarea, select')) return;
  body.querySelector('.mk-pair:not([hidden])')?.querySelector(`[data-key="${event.key}"]`)?.click();
});
element.addEventListener('change', async ({ target }) => {
  if (target.type === 'file') {
    const [file] = target.files;
    if (file) await press({ act: 'import', name: file.name, size: file.size, text: await text(file, target.dataset.most) });
    target.value = '';
  } else if (target.dataset.act) press({ ...target.dataset, typed: `${target.name}=${target.value}` }); // each change is answered
  else if (target.name) poll();
});
element.addEventListener('input', ({ target }) => {  // a search follows what is typed, and Enter presses its button
  if (target.type === 'search') { clearTimeout(typing); typing = setTimeout(poll, 200); }
});
element.addEventListener('keydown', ({ key, isComposing, target }) => {
  if (key === 'Enter' && !isComposing && target.type === 'search') target.parentElement.querySelector('[data-act]')?.click();
});
body.addEventListener('pointerdown', () => { isDown = true; });
for (const end of ['pointerup', 'pointercancel', 'blur']) addEventListener(end, () => { isDown = false; });
addEventListener('lora-garage-evaluate', poll);
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
watch('value', poll);
poll();

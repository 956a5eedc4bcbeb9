// The evaluation of a run: HTML of the server, fetched when it has changed. props.value as in film.js.
let mark = null, asked, timer = 0, busy = false, isPressing = false;
const find = (name) => element.querySelector(`.ev-${name}`);

async function poll() {
  if (busy) return;
  clearTimeout(timer);
  let wait = 2000;
  if (!document.hidden && element.isConnected && element.offsetParent !== null) {
    busy = true;
    const run = props.value;
    if (run !== asked || !find('body').firstChild) { asked = run; mark = null; find('said').innerHTML = ''; }
    try {
      const reply = await server.evaluation({ run, mark });
      if (reply) { // gradio gives undefined when the server is gone
        wait = props.value === run ? reply.wait_ms : 0;
        // Later while a press is going on: with its button its click would be lost.
        if (wait && 'html' in reply && !find('body').matches(':active')) { draw(reply.html); mark = reply.mark; }
      }
    } catch (error) { console.warn(error); }
    busy = false;
  }
  timer = setTimeout(poll, wait);
}

function draw(html) {
  const body = find('body'), hadFocus = body.contains(document.activeElement);
  body.innerHTML = html;
  body.hidden = !html;
  body.ariaBusy = String(body.querySelector('[data-act=stop]') !== null);  // counts that change are not read out
  if (hadFocus) body.querySelector('[data-act], summary')?.focus({ preventScroll: true });
}

element.addEventListener('click', async ({ target }) => {
  const act = target.closest('[data-act]'), filter = target.closest('button[data-show]');
  if (filter) {
    find('rows').dataset.show = filter.dataset.show;
    for (const one of find('filters').children) one.setAttribute('aria-pressed', String(one === filter));
  }
  if (!act || isPressing) return;
  isPressing = true;  // not disabled, which takes the focus away
  try {
    const reply = await server.press({ run: act.dataset.run, act: act.dataset.act });
    find('said').innerHTML = reply?.said ?? '';
  } catch (error) { console.warn(error); }
  isPressing = false;
  poll();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
watch('value', poll);
poll();

// A run's film, polled whole when it has changed. Everything a model or a person wrote reaches the page through textContent.
// props.value as in live_chart.js: the run to show; "" lets the server choose; null shows nothing.
const words = __WORDS__;
const MAX_WATCHED = 4;  // answers after the first that one question is shown with
let at = {}, shown = null, place = 0, timer = 0, busy = false, shownRun, run = '';

const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
function add(parent, tag, name, text = '') {
  const made = parent.appendChild(document.createElement(tag));
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function find() {
  for (const name of ['body', 'title', 'about', 'watch', 'question', 'answers', 'all', 'strip', 'scrub', 'range', 'earlier', 'later', 'at', 'meter', 'scenes', 'unanswered']) at[name] = element.querySelector(`.fs-${name}`);
  at.title.textContent = words.title;
  at.about.textContent = words.about;
  at.all.firstElementChild.textContent = words.all_questions;
  at.range.setAttribute('aria-label', words.scrubber);
  at.strip.setAttribute('aria-label', words.strip);
  at.earlier.setAttribute('aria-label', words.earlier);
  at.later.setAttribute('aria-label', words.later);
  at.range.oninput = () => go(Number(at.range.value));
  at.earlier.onclick = () => go(place - 1);
  at.later.onclick = () => go(place + 1);
  at.all.ontoggle = () => mark(at.all.open ? shown?.frames[place]?.step ?? null : null);
}
// The loss chart beside it marks this step while the whole film is unfolded; null removes the mark.
const mark = (step) => dispatchEvent(new CustomEvent('lg-film-step', { detail: { run, step } }));

// ---- drawing --------------------------------------------------------------------------------------------------------
function go(number) {
  if (!shown?.frames.length) return;
  const { scenes, frames } = shown;
  place = Math.max(0, Math.min(number, frames.length - 1));
  const frame = frames[place], first = frames[0];
  at.range.value = place;
  at.range.setAttribute('aria-valuetext', fill(words.of_frames, { frame: place + 1, frames: frames.length, step: frame.step }));
  at.at.textContent = fill(words.at_step, { step: frame.step });
  at.earlier.disabled = place === 0;
  at.later.disabled = place === frames.length - 1;
  at.meter.textContent = frame.meter;
  at.meter.className = `fs-meter fs-${frame.tone}`;
  at.strip.querySelectorAll('button').forEach((button, i) => { button.setAttribute('aria-pressed', String(i === place)); });
  const chosen = at.strip.children[place]; // not scrollIntoView: that would move the page
  if (chosen) at.strip.scrollLeft = chosen.offsetLeft - at.strip.offsetLeft - (at.strip.clientWidth - chosen.offsetWidth) / 2;
  at.scenes.textContent = '';
  const isAnswered = (i) => frames.some((one) => one.answers[i][1] !== 'none');
  scenes.forEach((scene, i) => {
    if (!isAnswered(i)) return;
    const item = add(at.scenes, 'li', 'fs-scene'), head = add(item, 'p', 'fs-head');
    add(head, 'span', 'fs-words', scene.question).dir = 'auto';
    add(head, 'span', 'fs-source', scene.source);
    if (place > 0) addAnswer(item, 'fs-first', fill(words.at_step, { step: first.step }), first.answers[i]);
    addAnswer(item, 'fs-now', fill(words.at_step, { step: frame.step }), frame.answers[i]);
    if (scene.expected) addAnswer(item, 'fs-expected', words.expected, [scene.expected, '']);
  });
  const count = scenes.filter((_, i) => !isAnswered(i)).length;
  const unanswered = count < scenes.length ? words.unanswered : shown.at_work ? words.unanswered_yet : words.unanswered_all;
  at.unanswered.textContent = count ? fill(unanswered, { count, all: scenes.length }) : '';
  at.strip.hidden = at.scrub.hidden = count === scenes.length;
  if (at.all.open) mark(frame.step);
}
const textOf = ([text, end]) => (text ? text + (end === 'more' ? ' …' : '') : end === 'none' ? words.no_time : words.nothing);
function addAnswer(item, name, label, answer) {
  const line = add(item, 'p', name);
  add(line, 'b', '', label);
  add(line, 'span', answer[0] ? 'fs-words' : 'fs-words fs-none', textOf(answer)).dir = 'auto';
}
function strip() {
  const { frames } = shown;
  at.range.max = frames.length - 1;
  at.strip.textContent = '';
  frames.forEach((frame, i) => {
    const button = add(add(at.strip, 'li', ''), 'button', 'fs-frame');
    button.type = 'button';
    add(button, 'b', '', fill(words.at_step, { step: frame.step }));
    add(button, 'span', '', textOf(frame.answers.find(([, end]) => end !== 'none') ?? ['', 'none']).slice(0, 80));
    button.onclick = () => go(i);
  });
}

// One question that was answered, with what became of its answer: before training, some steps between, and the newest.
function watch_(scenes, frames) {
  const place = scenes.findIndex((_, i) => frames.some((frame) => frame.answers[i][1] !== 'none'));
  at.watch.hidden = place < 0;
  if (place < 0) return;
  at.question.textContent = scenes[place].question;
  at.question.dir = 'auto';
  const answered = frames.filter((frame) => frame.answers[place][1] !== 'none');
  const every = Math.max(1, Math.ceil((answered.length - 1) / MAX_WATCHED));
  const chosen = answered.filter((_, i) => i === 0 || (answered.length - 1 - i) % every === 0);
  at.answers.textContent = '';
  chosen.forEach((frame, i) => {
    const line = add(at.answers, 'li', i === chosen.length - 1 && i > 0 ? 'fs-newest' : '');
    add(line, 'b', '', frame.step ? fill(words.at_step, { step: frame.step }) : words.base);
    add(line, 'span', 'fs-words', textOf(frame.answers[place])).dir = 'auto';
  });
}

// ---- what arrives ---------------------------------------------------------------------------------------------------
function take(reply) {
  const follows = !shown?.frames.length || reply.run !== run || place === shown.frames.length - 1;
  run = reply.run;
  shown = reply;
  at.body.hidden = !reply.frames.length;
  if (at.body.hidden) return;
  watch_(reply.scenes, reply.frames);
  strip();
  go(follows ? reply.frames.length - 1 : place);
}
async function poll() {
  if (busy) return;
  clearTimeout(timer);
  let wait = 2000;
  if (!document.hidden && element.isConnected) {
    if (!at.body?.isConnected) { find(); shown = null; }
    busy = true;
    const requestedRun = props.value;
    try {
      if (requestedRun !== shownRun) { shownRun = requestedRun; shown = null; }
      const reply = await server.film({ run: requestedRun, mark: shown?.mark ?? null });
      if (reply) { // gradio gives undefined when the server is gone; the chart says so
        wait = reply.wait_ms;
        if (props.value !== requestedRun) wait = 0;
        else if (!reply.same) take(reply);
      }
    } catch (error) { console.warn(error); }
    busy = false;
  }
  timer = setTimeout(poll, wait);
}

find();
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
watch('value', poll);
poll();

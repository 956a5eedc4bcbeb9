// All runs, and those that are chosen laid over each other by uPlot. Names and settings reach the page through textContent only.
// props.value: the run that is open; a run is opened by its radio button. Words: those that compare.py lists in WORDS.
const words = __WORDS__;
const DASHES = [[], [7, 4], [2, 3], [12, 4], [9, 3, 2, 3], [1, 4]]; // a line is told by more than its colour
const at = {}, chosen = new Set();
let rows = [], stamp = null, offered = null, requests = 0, busy = false, timer = 0, plot = null, over = null, dark;

const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
const isDark = () => document.body.classList.contains('dark');
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim() || '#888';
// Okabe and Ito's colours, as in live_chart.js; the dark ones on white.
const colours = () => isDark() ? ['#56B4E9', '#E69F00', '#2BC49A', '#F0E442', '#E48BC0', '#edebe8'] : ['#0072B2', '#D55E00', '#009E73', '#8A6D00', '#A0477F', '#292524'];
// Numbers as the page's language writes them, as in live_chart.js.
const language = document.documentElement.lang || 'en', point = (0.5).toLocaleString(language)[1];
const four = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 }), whole = new Intl.NumberFormat(language);
const exponential = value => Number(value.toPrecision(4)).toExponential().replace('.', point);
const short = value => value == null ? '–' : value && Math.abs(value) < 1e-3 ? exponential(value) : four.format(value).replace(/^-/, '−');
function add(parent, tag, name = '', text = '') {
  const made = parent.appendChild(document.createElement(tag));
  if (name) made.className = name;
  made.textContent = text;
  return made;
}
function line(parent, box, points, style = {}) {
  const svg = parent.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'svg'));
  svg.setAttribute('viewBox', box);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const drawn = svg.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'));
  drawn.setAttribute('points', points);
  Object.assign(drawn.style, style);
}

// ---- the table ------------------------------------------------------------------------------------------------------
function find() {
  for (const name of ['search', 'state', 'message', 'disk', 'compare', 'y', 'x', 'legend', 'plot', 'differ']) at[name] = element.querySelector(`.rt-${name}`);
  at.head = element.querySelector('thead tr');
  at.body = element.querySelector('tbody');
  for (const name of words.columns) add(at.head, 'th', `rt-${name}`, words[name]).scope = 'col';
  add(at.head, 'th', 'rt-choose', words.compare).scope = 'col';
  const [table, differ] = element.querySelectorAll('.rt-scroll');
  table.setAttribute('aria-label', words.list);
  differ.setAttribute('aria-label', words.differ);
  at.search.setAttribute('aria-label', words.search);
  at.search.placeholder = words.search;
  at.state.setAttribute('aria-label', words.state);
  at.y.setAttribute('aria-label', words.shown);
  at.x.setAttribute('aria-label', words.over);
  options(at.y, ['loss', 'eval_loss', 'rate'].map(name => [name, words[name]]));
  options(at.x, ['step', 'tokens', 'time'].map(name => [name, words[name]]));
  at.compare.querySelector('h3').textContent = words.compared;
  at.search.oninput = at.state.onchange = sift;
  at.y.onchange = at.x.onchange = draw;
}
function options(select, all) {
  const was = select.value;
  select.textContent = '';
  for (const [value, label] of all) add(select, 'option', '', label).value = value;
  if (all.some(([value]) => value === was)) select.value = was;
}

// Rows that are there stay, so that a press on one is not lost to a number that changes.
function list() {
  const known = new Map([...at.body.children].map(tr => [tr.dataset.run, tr]));
  rows.forEach((row, i) => {
    const tr = known.get(row.id) ?? made(row);
    known.delete(row.id);
    if (at.body.children[i] !== tr) at.body.insertBefore(tr, at.body.children[i] ?? null);
    tell(tr, row);
  });
  for (const [id, tr] of known) { tr.remove(); chosen.delete(id); }
  options(at.state, [['', words.any_state], ...new Map(rows.map(row => [row.state, row.state])), ...(rows.some(row => row.archived) ? [['*archived', words.archived]] : [])]);
  sift();
  mark();
}
function made(row) {
  const tr = document.createElement('tr'), name = add(tr, 'td', 'rt-run'), label = add(name, 'label');
  tr.dataset.run = row.id;
  Object.assign(add(label, 'input'), { type: 'radio', name: 'rt-open', value: row.id, onchange: () => open(row.id) });
  add(label, 'span', 'rt-name');
  add(name, 'small');
  add(name, 'div', 'rt-tags');
  add(name, 'p', 'rt-note');
  add(add(tr, 'td', 'rt-state'), 'span');
  add(tr, 'td', 'rt-course');
  for (const column of ['eval', 'minutes', 'size']) add(tr, 'td', `rt-number rt-${column}`);
  const box = add(add(tr, 'td', 'rt-choose'), 'input');
  box.type = 'checkbox';
  box.onchange = () => { chosen[box.checked ? 'add' : 'delete'](row.id); mark(); compare(); };
  return tr;
}
function tell(tr, row) {
  const put = (where, text) => { const part = tr.querySelector(where); if (part.textContent !== text) part.textContent = text; };
  put('.rt-name', row.name);
  put('small', row.about);
  put('.rt-note', row.note);
  const tags = tr.querySelector('.rt-tags');
  if (tags.dataset.tags !== row.tags.join()) {
    tags.textContent = '';
    tags.dataset.tags = row.tags.join();
    for (const tag of row.tags) {
      const button = add(tags, 'button', 'rt-tag', tag);
      Object.assign(button, { type: 'button', title: fill(words.only_tag, { tag }), onclick: () => { at.search.value = tag; sift(); } });
    }
  }
  put('.rt-state span', row.state);
  tr.querySelector('.rt-state span').className = `lg-badge lg-${row.tone}`;
  for (const column of ['eval', 'minutes', 'size']) put(`.rt-${column}`, row[column]);
  tr.querySelector('[type=checkbox]').setAttribute('aria-label', fill(words.compare_this, { name: row.name }));
  const course = row.course.join(' '), cell = tr.querySelector('.rt-course');
  if (cell.dataset.course !== course) { cell.textContent = ''; sparkline(cell, row.course); cell.dataset.course = course; }
}
function sparkline(cell, course) {
  if (course.length < 2) return;
  const low = Math.min(...course), high = Math.max(...course), span = high - low || 1;
  line(cell, '0 0 96 26', course.map((value, i) => `${96 * i / (course.length - 1)},${24 - 22 * (value - low) / span}`).join(' '));
}
// Shows only the runs that have what is typed, and the chosen state.
function sift() {
  const terms = at.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  rows.forEach((row, i) => {
    const has = `${row.name} ${row.about} ${row.tags.join(' ')} ${row.note}`.toLowerCase(), onlyArchived = at.state.value === '*archived';
    const fits = row.archived === onlyArchived && (onlyArchived || !at.state.value || row.state === at.state.value) && terms.every(word => has.includes(word));
    at.body.children[i].hidden = !fits;
    count += fits;
  });
  at.message.textContent = count || !rows.length ? '' : words.none_found;
}
function mark() {
  for (const tr of at.body.children) {
    const is = tr.dataset.run === props.value, [radio, box] = tr.querySelectorAll('input');
    radio.checked = is;
    tr.classList.toggle('rt-open', is);
    box.checked = chosen.has(tr.dataset.run);
    box.disabled = !box.checked && chosen.size >= words.most;
  }
}
function open(id) {
  props.value = window.loraGarageRun = id;
  mark();
  trigger('select', { value: id });
}

// ---- laid over each other -------------------------------------------------------------------------------------------
async function compare() {
  const number = ++requests;
  at.compare.hidden = chosen.size < words.fewest;
  if (chosen.size === 1) at.message.textContent = words.choose; else sift();
  if (at.compare.hidden) return;
  const compared = await server.compared([...chosen]);
  if (!compared || number !== requests) return; // the server is gone, or another choice was made since
  over = compared;
  const head = at.differ;
  head.textContent = '';
  if (!compared.differ.length) add(add(add(head, 'tbody'), 'tr'), 'td', '', words.same);
  else {
    const names = add(add(head, 'thead'), 'tr'), body = add(head, 'tbody');
    for (const name of [words.differ, ...compared.runs.map(run => run.name)]) add(names, 'th', '', name).scope = 'col';
    for (const [name, ...values] of compared.differ) {
      const tr = add(body, 'tr');
      add(tr, 'th', '', name).scope = 'row';
      for (const value of values) add(tr, 'td', 'rt-number', value);
    }
  }
  draw();
}

// The points of a run by what is chosen: [x, y], x rising.
function points(run) {
  const y = at.y.value, x = at.x.value, steps = y === 'eval_loss' ? run.eval_step : run.step;
  let place = 0;
  const where = steps.map(step => {
    while (place + 1 < run.step.length && run.step[place + 1] <= step) place++;
    return x === 'step' ? step : run[x][place];
  });
  const all = where.map((value, i) => [value, run[y][i]]).filter(([value, shown], i, them) => value != null && shown != null && (!i || value > them[i - 1][0]));
  return [all.map(point => point[0]), all.map(point => point[1])];
}
function draw() {
  plot?.destroy();
  plot = null;
  if (!over || at.compare.hidden || !at.plot.clientWidth) return;
  const lines = over.runs.map(points), of = colours();
  at.legend.textContent = '';
  over.runs.forEach((run, i) => {
    const item = add(at.legend, 'li');
    line(item, '0 0 30 8', '0,4 30,4', { fill: 'none', stroke: of[i], strokeWidth: 2.5, strokeDasharray: DASHES[i].join(' ') });
    add(item, 'span', '', run.name);
    // "Rank 16 · Learning rate 0.0005": the label without the setting's name in brackets
    const differs = over.differ.slice(0, 2).map(([label, ...values]) => `${label.replace(/ ?[(（].*/, '')} ${values[i]}`);
    if (differs.length) add(item, 'span', 'lg-quiet', differs.join(' · '));
    add(item, 'b', '', short(lines[i][1].at(-1)));
  });
  const values = over.runs.map((run, i) => `${run.name}: ${short(lines[i][1].at(-1))}`).join('; ');
  at.plot.setAttribute('aria-label', fill(words.spoken, { shown: words[at.y.value], over: words[at.x.value], values }));
  const axis = { stroke: css('--body-text-color-subdued'), grid: { stroke: css('--border-color-primary'), width: 1 }, ticks: { show: false } };
  plot = new uPlot({
    width: at.plot.clientWidth, height: 300, padding: [8, 20, 0, 0], legend: { show: false }, scales: { x: { time: false } },
    axes: [{ ...axis, values: (all, ticks) => ticks.map(whole.format), label: words[at.x.value], labelSize: 18, size: 34 }, { ...axis, values: (all, ticks) => ticks.map(short), size: 60 }],
    series: [{}, ...lines.map(([x], i) => ({ stroke: of[i], width: 2, dash: DASHES[i], spanGaps: true, points: { show: x.length === 1 } }))],
    cursor: { y: false, drag: { x: false } },
  }, uPlot.join(lines), at.plot);
}

// ---- what arrives ---------------------------------------------------------------------------------------------------
async function poll() {
  if (busy) return;
  clearTimeout(timer);
  let wait = 1000;
  if (!document.hidden && element.offsetParent) {
    busy = true;
    try {
      const reply = await server.rows(stamp);
      if (!reply) throw new Error('offline'); // gradio gives undefined when the server is gone
      wait = reply.wait_ms;
      if (reply.rows) { rows = reply.rows; at.disk.textContent = reply.disk; list(); compare(); }
      stamp = reply.stamp;
      if (rows.length && offered !== stamp && !rows.some(row => row.id === props.value)) {
        offered = stamp;
        window.loraGarageRun = ''; // the server says which
        trigger('select', { value: '' });
      }
    } catch (error) {
      at.message.textContent = words.offline;
      if (String(error.message) !== 'offline') console.warn(error);
    }
    busy = false;
  }
  timer = setTimeout(poll, wait);
}
function recolour() {
  if (dark === isDark()) return;
  dark = isDark();
  element.style.setProperty('--rt-line', colours()[0]);
  draw();
}

find();
recolour();
new ResizeObserver(() => { if (at.plot.clientWidth !== plot?.width) draw(); }).observe(element);
new MutationObserver(recolour).observe(document.body, { attributes: true, attributeFilter: ['class'] });
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
watch('value', mark);
poll();

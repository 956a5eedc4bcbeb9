// A run's curves, drawn by uPlot and fed by cursor. Data reaches the page as numbers and through textContent only.
// props.value: the run to show; "" lets the server choose (the run that trains, else the newest); null shows nothing.
// Its sentences, in the page's language, are those that live_chart.py lists in WORDS.
const words = __WORDS__;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6]; // steps are whole
const MAX_HELD = 6000; // then the curves are asked for again, thinned
const GIB = 2 ** 30, NARROW = 720; // px
const SMALL = { rate: 'x', norm: 'x', speed: 'x', memory: 'mx' }; // each with the column of its steps
const PAIRS = { accuracy: ['accuracy'], margin: ['margin'], logps: ['chosen', 'rejected'] }; // each with its lines: p_ training, q_ kept apart
const OF_PAIRS = ['x', '_accuracy', '_margin', '_chosen', '_rejected'].flatMap(name => [`p${name}`, `q${name}`]);
const LINES = { step: '', loss: 'lc-raw', smoothed: 'lc-smooth', eval: 'lc-dashed' }; // the legend, in the order of table()
const POINTER = type => type === 'mousemove' || type === 'mouseleave'; // what the charts tell each other; zoom is `zoom`
const group = `lc${Math.random()}`;

let note, body, reset, more, spoken, charts = [];
let isReward = false; // training by rewards: y, s and ey are rewards, not losses
let held = nothing(), total = null, planned = 0, zoom = null; // zoom: [first step, last step] of every chart, null for all there is
let film = null; // {run, step} that the film beside it shows
let run = '', cursor = null, busy = false, dark, spokenAt = 0, timer = 0, shownRun;

function nothing() {
  return { x: [], y: [], s: [], rate: [], norm: [], speed: [], ex: [], ey: [], mx: [], memory: [], bx: [], ...Object.fromEntries(OF_PAIRS.map(name => [name, []])) };
}
function add(parent, tag, name, text = '') {
  const made = parent.appendChild(document.createElement(tag));
  made.className = name;
  made.textContent = text;
  return made;
}
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim() || '#888';
const isDark = () => document.body.classList.contains('dark');
// Okabe and Ito's colours, which colour-blind people tell apart; on white the darker orange, which stands out enough.
const colours = () => isDark()
  ? { loss: '#56B4E9', eval: '#E69F00', small: '#2BC49A', bad: '#ff8a8a' }
  : { loss: '#0072B2', eval: '#D55E00', small: '#009E73', bad: '#b91c1c' };
const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
// Numbers as the page's language writes them: uPlot's own are of the browser's language, and a learning rate of 0.0001 would be 0.
const language = document.documentElement.lang || 'en', point = (0.5).toLocaleString(language)[1];
const four = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 }), whole = new Intl.NumberFormat(language);
const exponential = value => Number(value.toPrecision(4)).toExponential().replace('.', point);
const short = value => value == null ? '–' : value && Math.abs(value) < 1e-6 ? exponential(value) : four.format(value).replace(/^-/, '−');
const tick = value => value && Math.abs(value) < 1e-3 ? exponential(value) : short(value);
const values = (plot, ticks) => ticks.map(tick), steps = (plot, ticks) => ticks.map(whole.format);
const dots = column => ({ show: () => held[column].length === 1 }); // one point makes no line
const known = column => column.some(value => value != null);

// The place, and the value there or at the nearest step before that has one; without a place the newest.
function latest(column, place) {
  let i = place ?? column.length - 1;
  while (i > 0 && column[i] == null) i--;
  return column[i];
}

function find() {
  for (const chart of charts) drop(chart);
  const at = name => element.querySelector(`.lc-${name}`);
  [note, body, reset, more, spoken] = ['note', 'body', 'reset', 'more', 'spoken'].map(at);
  reset.textContent = words.reset;
  reset.onclick = () => show(null);
  more.querySelector('summary').textContent = words.more;
  const helps = isReward ? [words.help_reward, words.help_held_out] : [words.help_loss, words.help_eval];
  [words.help, ...helps].forEach((text, i) => { at('help').children[i].textContent = text; });
  more.open = remembered();
  more.ontoggle = () => { remember(more.open); draw(); };
  charts = [loss(at('plot'), at('legend')), ...Object.keys(SMALL).map(name => small(name, at('grid'))),
    ...Object.keys(PAIRS).map(name => paired(name, at('grid')))];
}
function remembered() {
  try { return (localStorage.getItem('lc-more') ?? 'no') === 'yes'; } catch { return false; } // storage may be forbidden
}
function remember(open) {
  try { localStorage.setItem('lc-more', open ? 'yes' : 'no'); } catch { /* then it is folded again next time */ }
}

// ---- a chart: {name, host, plot, stale, some(), table(), options(), say(place), sentence()} --------------------------
function loss(host, legend) {
  legend.textContent = '';
  const shown = Object.entries(LINES).map(([name, line]) => {
    const item = add(legend, 'span', 'lc-item');
    if (line) add(item, 'i', line);
    add(item, 'span', '', words[(isReward && { loss: 'reward', eval: 'held_out' }[name]) || name]);
    return add(item, 'b', '');
  });
  return {
    name: 'loss', host, plot: null,
    some: () => true,
    table: () => merged(held.x, [held.y, held.s], held.ex, [held.ey]),
    options() {
      const of = colours(), line = { spanGaps: true, points: dots('x') };
      return {
        height: Math.min(320, Math.max(220, innerHeight * 0.38)),
        axes: [{ incrs: WHOLE, values: steps, label: words.step, labelSize: 18, size: 34 }, { values, label: isReward ? words.reward : words.loss, labelSize: 18, size: 50 }],
        series: [
          {},
          { ...line, stroke: of.loss + '99', width: 1 },
          { ...line, stroke: of.loss, width: 2.5 },
          { ...line, stroke: of.eval, width: 2, dash: [6, 4], points: { show: true, size: 7, fill: of.eval } },
        ],
        hooks: { draw: [marks] },
      };
    },
    say(place) {
      this.plot?.data.forEach((column, i) => { shown[i].textContent = i ? short(latest(column, place)) : latest(column, place) ?? '–'; });
    },
    sentence() {
      const { x, y, s, ey } = held;
      if (!x.length) return words.empty;
      return fill(isReward ? words.summary_reward : words.summary, { step: x.at(-1), loss: short(y.at(-1)), smoothed: short(s.at(-1)), eval: short(ey.at(-1)), first: short(y[0]) });
    },
  };
}

function small(name, grid) {
  const section = add(grid, 'div', 'lc-small'), title = add(section, 'p', 'lc-title');
  add(title, 'span', '', words[name]);
  const value = add(title, 'b', ''), host = add(section, 'div', 'lc-box');
  const valueAt = place => short(latest(held[name], place)) + (name === 'memory' && total ? ` / ${short(total / GIB)}` : '');
  host.setAttribute('role', 'img');
  return {
    name, host, plot: null,
    some() {
      section.hidden = !known(held[name]);
      return more.open && !section.hidden;
    },
    table: () => [held[SMALL[name]], held[name]],
    options: () => ({
      height: 150,
      axes: [{ incrs: WHOLE, values: steps, size: 28 }, { values, size: 52 }],
      scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      series: [{}, { stroke: colours().small, width: 2, spanGaps: name === 'memory', points: dots(SMALL[name]) }],
    }),
    say(place) { value.textContent = valueAt(place); },
    sentence: () => fill(words.newest, { what: words[name], value: valueAt(null), step: held[SMALL[name]].at(-1) ?? '–' }),
  };
}

// What pairs say: a line of the training and a dashed one of those kept apart for each side.
function paired(name, grid) {
  const section = add(grid, 'div', 'lc-small'), title = add(section, 'p', 'lc-title'), sides = PAIRS[name];
  add(title, 'span', '', words[name]);
  const shown = sides.map((side, i) => {
    const item = add(title, 'span', 'lc-item');
    if (sides.length > 1) { add(item, 'i', `lc-side-${i}`); add(item, 'span', '', words[side]); }
    return add(item, 'b', '');
  });
  const host = add(section, 'div', 'lc-box');
  const textOf = side => `${sides.length > 1 ? `${words[side]} ` : ''}${short(held[`p_${side}`].at(-1))} (${words.eval}: ${short(held[`q_${side}`].at(-1))})`;
  host.setAttribute('role', 'img');
  return {
    name, host, plot: null,
    some() {
      section.hidden = !held.px.length && !held.qx.length;
      return more.open && !section.hidden;
    },
    table: () => merged(held.px, sides.map(side => held[`p_${side}`]), held.qx, sides.map(side => held[`q_${side}`])),
    options() {
      const of = colours(), hues = [of.small, of.eval], line = { width: 2, spanGaps: true };
      return {
        height: 150,
        axes: [{ incrs: WHOLE, values: steps, size: 28 }, { values, size: 52 }],
        scales: name === 'accuracy' ? { y: { range: [0, 1.05] } } : {},
        series: [
          {}, ...sides.map((side, i) => ({ ...line, stroke: hues[i], points: dots('px') })),
          ...sides.map((side, i) => ({ ...line, stroke: hues[i], dash: [6, 4], points: { show: true, size: 6, fill: hues[i] } })),
        ],
      };
    },
    say(place) { sides.forEach((side, i) => { shown[i].textContent = short(latest(this.plot?.data[i + 1] ?? held[`p_${side}`], place)); }); },
    sentence: () => fill(words.newest, { what: words[name], value: sides.map(textOf).join(', '), step: held.px.at(-1) ?? '–' }),
  };
}

// Points of the training (columns at x) and of evaluations (at ex) on one axis: a step that has only one kind has null for the other.
function merged(x, columns, ex, evals) {
  const X = [], joined = [...columns, ...evals].map(() => []);
  let i = 0, j = 0;
  while (i < x.length || j < ex.length) {
    const a = i < x.length ? x[i] : Infinity, b = j < ex.length ? ex[j] : Infinity;
    X.push(Math.min(a, b));
    columns.forEach((column, k) => joined[k].push(a <= b ? column[i] : null));
    evals.forEach((column, k) => joined[columns.length + k].push(b <= a ? column[j] : null));
    i += a <= b;
    j += b <= a;
  }
  return [X, ...joined];
}

// Where the loss was no number: a dashed line with a cross, so that it does not depend on its colour. A thin one at the film's step.
function marks(plot) {
  const { ctx, bbox } = plot, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colours().bad;
  ctx.lineWidth = 2 * ratio;
  ctx.setLineDash([4 * ratio, 3 * ratio]);
  for (const step of held.bx) {
    const x = plot.valToPos(step, 'x', true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    ctx.font = `bold ${13 * ratio}px system-ui, sans-serif`; ctx.textAlign = 'center';
    ctx.fillText('✕', x, bbox.top + 13 * ratio);
  }
  const shown = film?.run === run && film.step !== null ? plot.valToPos(film.step, 'x', true) : -1;
  if (shown >= bbox.left && shown <= bbox.left + bbox.width) {
    ctx.strokeStyle = css('--body-text-color');
    ctx.lineWidth = ratio;
    ctx.setLineDash([]);
    ctx.beginPath(); ctx.moveTo(shown, bbox.top); ctx.lineTo(shown, bbox.top + bbox.height); ctx.stroke();
  }
  ctx.restore();
}

// ---- drawing --------------------------------------------------------------------------------------------------------
function build(chart) {
  const own = chart.options(), font = `12px ${css('--font')}`;
  const bare = { font, labelFont: `600 ${font}`, stroke: css('--body-text-color-subdued'), grid: { stroke: css('--border-color-primary'), width: 1 }, ticks: { show: false } };
  chart.plot = new uPlot({
    ...own,
    width: chart.host.clientWidth,
    padding: [8, 20, 0, 0], // half a number stands beyond the last step
    legend: { show: false },
    scales: { x: { time: false }, ...own.scales },
    axes: own.axes.map(axis => ({ ...bare, ...axis })),
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => { show(null); } },
      sync: { key: group, scales: ['x', null], filters: { pub: POINTER, sub: POINTER } },
    },
    hooks: { ...own.hooks, setSelect: [chosen], setCursor: [plot => chart.say(plot.cursor.idx)] },
  }, chart.table(), chart.host);
  chart.plot.setScale('x', span());
}
function drop(chart) {
  chart.plot?.destroy();
  chart.plot = null;
}

// The steps that are shown: of every column there is, so that all charts have the same.
function span() {
  const columns = [held.x, held.ex, held.mx, held.bx].filter(column => column.length);
  const first = Math.min(...columns.map(column => column[0])), last = Math.max(...columns.map(column => column.at(-1)));
  if (zoom && zoom[0] >= last) show(null); // a resumed run may have taken those steps back
  if (zoom) return { min: zoom[0], max: zoom[1] };
  const end = Math.max(last, planned); // the run's last step, while it trains
  return first < end ? { min: first, max: end } : { min: Math.max(0, first - 1), max: first + 1 };
}
function chosen(plot) {
  const { left, width } = plot.select;
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  if (width >= 4) show([plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x')]); // less is a click
}
function show(range) {
  zoom = range;
  reset.hidden = !zoom;
  for (const chart of charts) chart.plot?.setScale('x', span());
}

// Those that can be seen; the others, in a hidden tab (no width) or folded away, once they can be.
const isVisible = chart => chart.some() && chart.host.clientWidth > 0;
function draw() {
  more.hidden = !Object.keys(SMALL).some(name => known(held[name]));
  for (const chart of charts) {
    chart.stale = !isVisible(chart);
    if (chart.stale) continue;
    const start = performance.now();
    if (!chart.plot) build(chart);
    else chart.plot.batch(plot => { plot.setData(chart.table(), false); plot.setScale('x', span()); });
    chart.say(chart.plot.cursor.idx);
    performance.measure(`lc-draw-${chart.name}`, { start }); // what tests/browser/test_chart.py counts
    performance.clearMeasures(`lc-draw-${chart.name}`);
  }
}
function fit() {
  if (charts.some(chart => chart.stale && isVisible(chart))) draw();
  for (const { plot, host } of charts) {
    if (plot && host.clientWidth && host.clientWidth !== plot.width) plot.setSize({ width: host.clientWidth, height: plot.height });
  }
}
function recolour() {
  if (dark === isDark()) return;
  dark = isDark();
  for (const [name, value] of Object.entries(colours())) element.style.setProperty(`--lc-${name}`, value);
  for (const chart of charts) drop(chart);
  if (!body.hidden) draw();
}

// ---- what arrives ---------------------------------------------------------------------------------------------------
function tell() {
  for (const chart of charts) chart.host.setAttribute('aria-label', chart.sentence());
  if (held.x.length && Date.now() - spokenAt > 30000) { spokenAt = Date.now(); spoken.textContent = charts[0].sentence(); }
}

function take(reply) {
  if (reply.run !== run) { show(null); spokenAt = 0; spoken.textContent = ''; }
  if (reply.reset) held = nothing();
  if (isReward !== reply.is_reward) { isReward = reply.is_reward; find(); }
  const { mx, my, x, ex, bx } = reply;
  for (const name of ['x', 'y', 's', 'rate', 'norm', 'speed', 'ex', 'ey', 'mx', 'bx', ...OF_PAIRS]) held[name].push(...reply[name]);
  held.memory.push(...my.map(bytes => bytes == null ? null : bytes / GIB));
  total = reply.total;
  if (planned !== reply.steps) {
    planned = reply.steps;
    for (const chart of charts) if (held.x.length + held.ex.length) chart.plot?.setScale('x', span());
  }
  run = reply.run;
  cursor = Math.max(held.x.length, held.ex.length, held.mx.length) > MAX_HELD ? null : reply.cursor;
  const some = held.x.length + held.ex.length + held.bx.length > 0;
  note.textContent = held.bx.length ? fill(words.nonfinite, { step: held.bx.at(-1) }) : some ? '' : reply.elsewhere ? words.elsewhere : reply.run && !reply.at_work ? words.none : words.empty;
  note.classList.toggle('lc-bad', held.bx.length > 0);
  body.hidden = !some;
  if (!some) charts.forEach(drop);
  else if (reply.reset || x.length || ex.length || mx.length || bx.length) draw();
  tell();
}

async function poll() {
  if (busy) return;
  clearTimeout(timer);
  let wait = 1500;
  if (!document.hidden && element.isConnected) {
    if (!body.isConnected) { find(); cursor = null; }
    busy = true;
    const requestedRun = props.value;
    try {
      if (requestedRun !== shownRun) { shownRun = requestedRun; cursor = null; }
      const reply = await server.curve({ run: requestedRun, cursor });
      if (!reply) throw new Error('offline'); // gradio gives undefined when the server is gone
      wait = reply.wait_ms;
      if (props.value === requestedRun) take(reply); else wait = 0;
    } catch (error) {
      note.textContent = words.offline; note.classList.add('lc-bad');
      if (String(error.message) !== 'offline') console.warn(error);
    }
    busy = false;
  }
  timer = setTimeout(poll, wait);
}

find();
recolour();
new ResizeObserver(fit).observe(element);
new MutationObserver(recolour).observe(document.body, { attributes: true, attributeFilter: ['class'] });
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
addEventListener('lg-film-step', event => { film = event.detail; charts[0].plot?.redraw(false); });
watch('value', poll);
poll();

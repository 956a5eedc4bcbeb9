// A run's loss, drawn by uPlot and fed by cursor. Data reaches the page as numbers and through textContent only.
// props.value: the run to show; "" lets the server choose (the run that trains, else the newest); null shows nothing.
// Its sentences, in the page's language: {empty, offline, step, loss, smoothed, eval, nonfinite, summary}.
const words = __WORDS__;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6]; // steps are whole
const MOST_HELD = 6000; // then the curve is asked for again, thinned
let host, note, spoken;
let points = { x: [], y: [], s: [] }, evals = { x: [], y: [] }, bad = [];
let run = '', cursor = null, plot = null, busy = false, zoomed = false, saidAt = 0, timer = 0, asked;

function find() {
  host = element.querySelector('.lc-plot');
  note = element.querySelector('.lc-note');
  spoken = element.querySelector('.lc-spoken');
}
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim() || '#888';
const isDark = () => document.body.classList.contains('dark');
const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
const short = value => value == null ? '–' : value.toPrecision(4).replace(/\.?0+$/, '');

// Train and eval points on one axis: a step that has only one of them has null for the other.
function table() {
  const X = [], Y = [], S = [], E = [];
  let i = 0, j = 0;
  while (i < points.x.length || j < evals.x.length) {
    const a = i < points.x.length ? points.x[i] : Infinity, b = j < evals.x.length ? evals.x[j] : Infinity;
    X.push(Math.min(a, b));
    if (a <= b) { Y.push(points.y[i]); S.push(points.s[i]); i++; } else { Y.push(null); S.push(null); }
    if (b <= a) { E.push(evals.y[j]); j++; } else { E.push(null); }
  }
  return [X, Y, S, E];
}

function marks(chart) {
  const { ctx, bbox } = chart, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = isDark() ? '#ff8a8a' : '#b91c1c';
  ctx.lineWidth = 2 * ratio;
  ctx.setLineDash([4 * ratio, 3 * ratio]);
  for (const step of bad) {
    const x = chart.valToPos(step, 'x', true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    ctx.font = `bold ${13 * ratio}px system-ui, sans-serif`; ctx.textAlign = 'center';
    ctx.fillText('✕', x, bbox.top + 13 * ratio);
  }
  ctx.restore();
}

function build() {
  if (plot) { plot.destroy(); plot = null; }
  zoomed = false;
  const blue = isDark() ? '#56B4E9' : '#0072B2', orange = isDark() ? '#E69F00' : '#B35900';
  const axis = { stroke: css('--body-text-color-subdued'), grid: { stroke: css('--border-color-primary'), width: 1 }, ticks: { show: false } };
  plot = new uPlot({
    width: Math.max(host.clientWidth, 200), height: Math.min(320, Math.max(220, innerHeight * 0.38)),
    scales: { x: { time: false } }, cursor: { drag: { x: true, y: false } },
    axes: [{ ...axis, incrs: WHOLE, label: words.step, labelSize: 18, size: 34 }, { ...axis, label: words.loss, labelSize: 18, size: 50 }],
    series: [
      { label: words.step },
      { label: words.loss, stroke: blue + 'aa', width: 1, spanGaps: true, points: { show: false } },
      { label: words.smoothed, stroke: blue, width: 2.5, spanGaps: true, points: { show: false } },
      { label: words.eval, stroke: orange, width: 2, dash: [6, 4], spanGaps: true, points: { show: true, size: 7, fill: orange } },
    ],
    hooks: {
      draw: [marks],
      setScale: [(chart, key) => {
        const X = chart.data && chart.data[0];
        if (key === 'x' && X && X.length) zoomed = chart.scales.x.min > X[0] + 1e-9 || chart.scales.x.max < X[X.length - 1] - 1e-9;
      }],
    },
  }, table(), host);
}

function draw() {
  if (!plot) return build();
  const keep = zoomed;
  plot.setData(table(), !keep);
  if (keep) { zoomed = true; plot.redraw(false); }
}

function tell() {
  const n = points.x.length, m = evals.x.length;
  if (!n) return host.setAttribute('aria-label', words.empty);
  const values = { step: points.x[n - 1], loss: short(points.y[n - 1]), smoothed: short(points.s[n - 1]), eval: short(m ? evals.y[m - 1] : null), first: short(points.y[0]) };
  const sentence = fill(words.summary, values);
  host.setAttribute('aria-label', sentence);
  if (Date.now() - saidAt > 30000) { saidAt = Date.now(); spoken.textContent = sentence; }
}

function take(reply) {
  if (reply.reset) { points = { x: [], y: [], s: [] }; evals = { x: [], y: [] }; bad = []; zoomed = false; saidAt = 0; }
  points.x.push(...reply.x); points.y.push(...reply.y); points.s.push(...reply.s);
  evals.x.push(...reply.ex); evals.y.push(...reply.ey); bad.push(...reply.bx);
  run = reply.run; cursor = points.x.length > MOST_HELD ? null : reply.cursor;
  const some = points.x.length + evals.x.length + bad.length > 0;
  note.textContent = bad.length ? fill(words.nonfinite, { step: bad[bad.length - 1] }) : some ? '' : words.empty;
  note.classList.toggle('lc-bad', bad.length > 0);
  if (!some) { if (plot) { plot.destroy(); plot = null; } host.hidden = true; }
  else if (reply.reset || reply.x.length || reply.ex.length || reply.bx.length || !plot) { host.hidden = false; draw(); }
  tell();
}

async function poll() {
  if (busy) return;
  clearTimeout(timer);
  let wait = 1500;
  if (!document.hidden && element.isConnected) {
    if (!host || !host.isConnected) { find(); plot = null; cursor = null; }
    busy = true;
    const wanted = props.value;
    try {
      if (wanted !== asked) { asked = wanted; cursor = null; }
      const reply = await server.curve({ run: wanted, cursor });
      if (!reply) throw new Error('offline'); // gradio gives undefined when the server is gone
      wait = reply.wait_ms;
      if (props.value === wanted) take(reply); else wait = 0;
    } catch (error) {
      note.textContent = words.offline; note.classList.add('lc-bad');
      if (String(error.message) !== 'offline') console.warn(error);
    }
    busy = false;
  }
  timer = setTimeout(poll, wait);
}

find();
new ResizeObserver(() => { if (plot && host.clientWidth) plot.setSize({ width: host.clientWidth, height: plot.height }); }).observe(element);
new MutationObserver(() => { if (plot) build(); }).observe(document.body, { attributes: true, attributeFilter: ['class'] });
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
watch('value', poll);
poll();

// The rows of a dataset as a grid. The rows in view are in the page, those around them in memory, the others are asked
// for by their place (data_table.py). What a row says reaches the page through textContent and value only.
// props.value: {set, stamp, may_edit}, null where no set is open. Words: those that data_table.py lists in WORDS.
const words = __WORDS__;
const CHUNK = 100, KEPT = 30;         // rows that are fetched together; of such parts, how many are remembered
const MAX_PX = 8e6;                  // browsers lay out no taller boxes; more rows than fit are scrolled in proportion
const AROUND = 6;                     // rows drawn above and below what can be seen
const COLUMNS = 4;                    // the box with the number, question, answer, the button that opens the row
const at = {}, parts = new Map(), requested = new Set(), drawn = new Map();
const language = document.documentElement.lang || 'en', whole = new Intl.NumberFormat(language);
let set = null, stamp = null, mayEdit = false, show = 'all', sought = '';
let total = 0, isSearching = false, view = 0, history = {}, height = 0, retry = 0, typing = 0, fading = 0;
let active = { index: 0, column: 1 }, editing = null, opened = null;
const tab = (() => { try { return sessionStorage; } catch { return {}; } })();  // some browsers allow no storage
let isAll = false, last = null;       // all rows that are shown are chosen but those in `chosen`; the row chosen last
const chosen = new Set();

const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
function add(parent, tag, name = '', text = '', role = '') {
  const made = parent.appendChild(document.createElement(tag));
  if (name) made.className = name;
  if (role) made.setAttribute('role', role);
  made.textContent = text;
  return made;
}
const label = (button, text) => { button.querySelector('span').textContent = text; };
const isChosen = number => isAll !== chosen.has(number);
const chosenCount = () => isAll ? total - chosen.size : chosen.size;
const isNarrow = () => at.scroll.clientWidth < 480;
const lowest = () => mayEdit ? 0 : 1;  // rows are chosen to be deleted, where they may be
// Over the lower edge of the table, which it does not move. What went well is seen for a while, anything else stays.
function tell(text, tone = '') {
  clearTimeout(fading);
  at.message.className = tone ? `dt-message lg-notice lg-${tone}` : 'dt-message';
  if (tone === 'ok') fading = setTimeout(() => at.message.classList.add('dt-gone'), 8000);
  at.message.setAttribute('role', tone === 'bad' ? 'alert' : 'status');
  at.message.textContent = text;
}

// ---- the parts that are always there -------------------------------------------------------------------------------
function find() {
  const names = ['tools', 'search', 'acts', 'filters', 'chosen', 'message', 'scroll', 'head', 'body', 'empty', 'hint'];
  for (const name of names) {
    at[name] = element.querySelector(`.dt-${name}`);
  }
  for (const name of ['undo', 'redo', 'add', 'delete-rows', 'deselect', 'place']) {
    at[name] = element.querySelector(`#data-${name}`);
  }
  at.table = element.querySelector('.dt');
  at.grid = element.querySelector('[role=grid]');
  at.grid.setAttribute('aria-label', words.list);
  at.grid.setAttribute('aria-colcount', COLUMNS);
  at.search.placeholder = words.search;
  at.search.setAttribute('aria-label', words.search);
  at.filters.setAttribute('aria-label', words.filter);
  for (const name of ['undo', 'redo', 'add', 'deselect']) label(at[name], words[name]);
  label(at['delete-rows'], words.delete);
  at.none = at.empty.querySelector('p');
  label(at.empty.querySelector('button'), words.show_all);
  at.empty.querySelector('button').onclick = () => { at.search.value = ''; look({ show: 'all', sought: '' }); };
  const head = at.head.firstElementChild;
  const pick = add(head, 'div', 'dt-pick', '', 'columnheader');
  add(pick, 'span', 'dt-unseen', words.list);
  at.all = add(add(pick, 'label'), 'input');
  Object.assign(at.all, { type: 'checkbox', onchange: () => { isAll = at.all.checked; chosen.clear(); count(); } });
  at.all.setAttribute('aria-label', words.choose_all);
  for (const name of ['question', 'answer']) add(head, 'div', `dt-${name}`, words[name], 'columnheader');
  add(add(head, 'div', 'dt-open', '', 'columnheader'), 'span', 'dt-unseen', words.open);
  at.search.oninput = event => {
    clearTimeout(typing);
    if (!event.isComposing) typing = setTimeout(() => look({ sought: at.search.value.trim() }), 250);
  };
  at.search.addEventListener('compositionend', event => at.search.oninput({ isComposing: false }));
  at.undo.onclick = () => travel(true);
  at.redo.onclick = () => travel(false);
  at.add.onclick = () => open(0);
  at.deselect.onclick = () => { clear(); focus(active.index, active.column); };
  at['delete-rows'].onclick = () => remove();
  at.scroll.addEventListener('scroll', () => requestAnimationFrame(render), { passive: true });
}

// ---- what is shown -------------------------------------------------------------------------------------------------
// Other rows than before: of another set or version, with another problem, or with other words.
function look(change) {
  if (editing) close(editing);
  if ('show' in change) show = change.show;
  if ('sought' in change) sought = change.sought;
  clear();
  active = { index: 0, column: 1 };
  at.scroll.scrollTop = 0;
  forget(true);
  filters();
}
// is_other: the rows that are remembered are others; else they are shown until the new ones are here.
function forget(isOther) {
  view++;
  requested.clear();
  if (isOther) { parts.clear(); at.grid.ariaBusy = 'true'; }
  else for (const part of parts.values()) part.isOld = true;
  fetchPart(0);
  render();
}
async function fetchPart(number) {
  const known = parts.get(number);
  if (!set || requested.has(number) || (known && !known.isOld)) return;
  requested.add(number);
  const mine = view;
  let reply;
  try {
    reply = await server.rows({ set, show, words: sought, begin: number * CHUNK, count: CHUNK });
  } catch (error) { console.warn(error); }
  if (mine !== view) return;
  requested.delete(number);
  clearTimeout(retry);
  if (!reply) {  // gradio gives undefined when the server is gone
    tell(words.offline, 'warn');
    retry = setTimeout(() => { tell(''); fetchPart(number); }, 2000);
    return;
  }
  if (reply.error) {
    total = 0;
    parts.clear();
    at.grid.ariaBusy = 'false';
    tell(reply.error, 'bad');
    return render();
  }
  if (stamp !== reply.stamp && stamp !== null) {  // changed, here or elsewhere, since the others were fetched
    for (const [other, part] of parts) if (other !== number) part.isOld = true;
  }
  const hadFocus = at.body.contains(document.activeElement);
  ({ stamp, total, searching: isSearching } = reply);
  if (show !== reply.show) { show = reply.show; filters(); }
  parts.delete(number);
  parts.set(number, { rows: reply.rows });
  while (parts.size > KEPT) parts.delete(parts.keys().next().value);
  at.grid.ariaBusy = 'false';
  at.place.textContent = reply.place;
  const isText = reply.rows.length > 0 && reply.rows.every((row) => row.b === null);  // no answers: a document
  at.head.firstElementChild.classList.toggle('dt-one', isText);
  at.head.querySelector('.dt-question').textContent = words[isText ? 'text' : 'question'];
  showHistory(reply);
  if (reply.searching) { parts.get(number).isOld = true; setTimeout(() => fetchPart(number), 0); }
  render();
  resume();
  if (active.index >= total) {  // what had the focus was deleted, or fits the words no more
    if (hadFocus) focus(total - 1, active.column);
    else active.index = Math.max(0, total - 1);
  }
}
function showHistory(reply) {
  history = { undo: reply.undo, redo: reply.redo };
  Object.assign(at.undo, { disabled: !reply.undo, title: reply.undo });
  at.redo.disabled = !reply.redo;
}
const rowAt = index => parts.get(Math.floor(index / CHUNK))?.rows[index % CHUNK];
const visible = () => Math.max(1, (at.scroll.clientHeight - at.head.offsetHeight) / height);
const isScaled = () => total * height > MAX_PX;
function first() {  // the row at the upper edge, not a whole number
  const { scrollTop, scrollHeight, clientHeight } = at.scroll;
  if (!isScaled()) return scrollTop / height;
  return scrollTop / Math.max(1, scrollHeight - clientHeight) * Math.max(0, total - visible());
}
function render() {
  if (!at.scroll.isConnected) return;
  const top = first(), end = top + visible();
  at.body.style.height = `${Math.min(total * height, MAX_PX)}px`;
  at.grid.setAttribute('aria-rowcount', total + 1);
  at.grid.hidden = !total && at.grid.ariaBusy !== 'true';
  at.empty.hidden = !at.grid.hidden || !set || isSearching;
  at.table.style.setProperty('--dt-pick', total >= 1e6 ? '112px' : '92px');
  at.none.textContent = words.none_found;
  const inView = new Set();
  for (let i = Math.max(0, Math.floor(top) - AROUND); i < Math.min(total, Math.ceil(end) + AROUND); i++) inView.add(i);
  // what has the focus, or is being edited, stays in the page wherever it is scrolled to
  if (active.index < total && (editing || at.body.contains(document.activeElement))) inView.add(active.index);
  for (const [index, row] of drawn) if (!inView.has(index)) { row.remove(); drawn.delete(index); }
  for (const index of inView) {
    const row = drawn.get(index) ?? makeRow(index);
    row.style.top = `${isScaled() ? at.scroll.scrollTop + (index - top) * height : index * height}px`;
    paint(row, index);
  }
  for (const number of new Set([...inView].map(index => Math.floor(index / CHUNK)))) fetchPart(number);
  if (isAll || chosen.size) count();
}
function makeRow(index) {
  const row = document.createElement('div');
  row.className = 'dt-row';
  row.setAttribute('role', 'row');
  row.dataset.index = index;
  const pick = add(add(row, 'div', 'dt-pick', '', 'gridcell'), 'label');
  add(pick, 'input').type = 'checkbox';
  add(pick, 'span');
  for (const name of ['question', 'answer']) {
    const cell = add(row, 'div', `dt-cell dt-${name}`, '', 'gridcell');
    add(cell, 'span', 'dt-text');
    if (name === 'answer') add(cell, 'small', 'dt-why');
  }
  const button = add(add(row, 'div', 'dt-open', '', 'gridcell'), 'button');
  button.type = 'button';
  button.innerHTML = words.open_icon;  // drawn by this app
  [...row.children].forEach((cell, column) => cell.setAttribute('aria-colindex', column + 1));
  const after = [...drawn.keys()].filter(other => other > index).sort((a, b) => a - b)[0];
  at.body.insertBefore(row, drawn.get(after) ?? null);  // read aloud in their order
  drawn.set(index, row);
  return row;
}
function paint(row, index) {
  const data = rowAt(index), [pick, question, answer, open] = row.children;
  const [box, number] = pick.firstElementChild.children;
  row.setAttribute('aria-rowindex', index + 2);
  const put = (part, text) => { if (part.textContent !== text) part.textContent = text; };
  row.classList.toggle('dt-waits', !data);
  if (data) {
    put(number, whole.format(data.n));
    put(question.firstElementChild, data.a);
    put(answer.firstElementChild, data.b ?? '');
    put(answer.lastElementChild, data.why);
    row.classList.toggle('dt-one', data.b === null && !data.why);
    row.classList.toggle('dt-bad', Boolean(data.why));
    row.classList.toggle('dt-edits', mayEdit && data.may);
    row.classList.toggle('dt-opened', data.n === opened);
    box.checked = isChosen(data.n);
    row.setAttribute('aria-selected', box.checked);
    const name = fill(words.row, { row: number.textContent });
    box.setAttribute('aria-label', fill(words.choose, { row: number.textContent }));
    open.firstElementChild.setAttribute('aria-label', `${words.open}: ${name}`);
    open.firstElementChild.title = words.open;
  }
  pick.firstElementChild.hidden = !data;
  [box, question, answer, open.firstElementChild].forEach((part, column) => {
    part.tabIndex = active.index === index && active.column === column ? 0 : -1;
  });
}
function filters() {
  const report = window.loraGarageFound, all = report?.set === set ? report.filters : [];
  at.filters.hidden = all.length < 2;
  at.filters.textContent = '';
  for (const [kind, label, howMany] of all) {
    const chip = add(at.filters, 'button', 'dt-chip', label);
    chip.type = 'button';
    chip.dataset.show = kind;
    chip.ariaPressed = String(kind === show);
    add(chip, 'b', '', howMany);
  }
}

// ---- choosing ------------------------------------------------------------------------------------------------------
function choose(index, isOn, withThose) {
  const other = withThose && last !== null ? last : index;
  for (let i = Math.min(other, index); i <= Math.max(other, index); i++) {
    const data = rowAt(i);
    if (data) chosen[isOn !== isAll ? 'add' : 'delete'](data.n);
  }
  last = index;
  count();
}
function clear() { isAll = false; last = null; chosen.clear(); count(); }
function count() {
  const howMany = chosenCount();
  at.chosen.hidden = !howMany;
  at.acts.hidden = howMany > 0 || !mayEdit;
  const label = fill(words.chosen, { count: whole.format(howMany) });
  const strong = at.chosen.firstElementChild;
  if (strong.textContent !== label) strong.textContent = label;
  at.all.checked = Boolean(total) && howMany === total;
  at.all.indeterminate = howMany > 0 && howMany < total;
  for (const [index, row] of drawn) paint(row, index);
}

// ---- the keyboard --------------------------------------------------------------------------------------------------
const isOne = index => rowAt(index)?.b === null && !rowAt(index)?.why;
function focus(index, column) {
  if (!total) return at.search.focus();
  index = Math.max(0, Math.min(total - 1, index));
  if (isOne(index) && column === 2) column = active.column > 2 ? 1 : 3;
  active = { index, column };
  reveal(index);
  render();
  const row = drawn.get(index);
  const places = row && [row.querySelector('input'), row.children[1], row.children[2], row.querySelector('button')];
  places?.[column].focus({ preventScroll: true });
  for (const [other, each] of drawn) paint(each, other);
}
function reveal(index) {
  const top = first(), room = visible();
  let target = null;
  if (index < top) target = index;
  else if (index + 1 > top + room) target = index + 1 - room;
  if (target === null) return;
  const { scrollHeight, clientHeight } = at.scroll;
  const scaled = target / Math.max(1, total - room) * (scrollHeight - clientHeight);
  at.scroll.scrollTop = isScaled() ? scaled : target * height;
}
function key(event) {
  if (editing || event.isComposing) return;
  const command = event.ctrlKey || event.metaKey, page = Math.max(1, Math.floor(visible()) - 1);
  const { index, column } = active;
  const steps = {
    ArrowDown: [index + 1, column], ArrowUp: [index - 1, column],
    PageDown: [index + page, column], PageUp: [index - page, column],
    ArrowRight: [index, Math.min(COLUMNS - 1, column + 1)],
    ArrowLeft: [index, Math.max(lowest(), column - 1)],
    Home: command ? [0, column] : [index, lowest()], End: command ? [total - 1, column] : [index, COLUMNS - 1],
  };
  const inBox = column === 0 || column === 3;
  if (steps[event.key] && !event.altKey) focus(...steps[event.key]);
  else if (command && event.key.toLowerCase() === 'z') travel(!event.shiftKey);
  else if (command && event.key.toLowerCase() === 'y') travel(false);
  else if (command && event.key.toLowerCase() === 'a' && mayEdit) { isAll = true; chosen.clear(); count(); }
  else if (command || event.altKey) return;
  else if (event.key === 'Delete' && mayEdit && chosenCount()) remove();
  else if (event.key === 'Escape' && chosenCount()) clear();
  else if (event.key === ' ' && !inBox && mayEdit) choose(index, !isChosen(rowAt(index)?.n), event.shiftKey);
  else if ((event.key === 'Enter' || event.key === 'F2') && column !== 3) act(index, column);
  else return;
  event.preventDefault();
}
// Enter, or a click, on a cell: it is edited where it stands, or the whole row is opened beside the table.
// What is written in another cell is saved first; what cannot be saved is gone back to.
async function act(index, column) {
  if (editing) {
    await editing.leaving;
    if (editing) return editing.box?.focus();
  }
  const data = rowAt(index);
  if (!data) return;
  const cell = column === 2 ? data.b : data.a;
  if (mayEdit && data.may && cell !== null && (column === 1 || column === 2) && !isNarrow()) edit(index, column);
  else open(data.n);
}
function pressed(event) {
  const row = event.target.closest('.dt-row');
  if (!row || event.target.closest('textarea')) return;
  const index = Number(row.dataset.index), data = rowAt(index);
  if (!data) return;
  const box = event.target.closest('input');
  if (box) { active = { index, column: 0 }; choose(index, box.checked, event.shiftKey); return; }
  if (event.target.closest('.dt-pick')) return;  // its label presses the box
  if (event.target.closest('button')) { active = { index, column: 3 }; open(data.n); return; }
  const cell = event.target.closest('.dt-cell');
  if (!cell || String(getSelection())) return;  // some words were marked, to be copied
  active = { index, column: cell.classList.contains('dt-answer') ? 2 : 1 };
  act(index, active.column);
}
function open(number) {
  opened = number;
  window.loraGarageRow = { set, number };
  for (const [index, row] of drawn) paint(row, index);
  trigger('select', { value: number });
}

// ---- editing a cell ------------------------------------------------------------------------------------------------
// What is written is kept until it is saved or given up: gradio loads the page again when the app was gone for a while.
const UNSAVED = 'loraGarageUnsaved';
function resume() {
  const kept = JSON.parse(tab[UNSAVED] ?? 'null');
  if (editing || !mayEdit || kept?.set !== set || show !== 'all' || sought) return;
  let index = Math.min(kept.n, total) - 1;  // where rows were deleted, its row has moved
  while (rowAt(index)?.n > kept.n) index--;
  if (index < 0 || rowAt(index)?.n < kept.n) { delete tab[UNSAVED]; return; }
  focus(index, kept.column);
  if (rowAt(index)) edit(index, kept.column, kept.text);
}
async function edit(index, column, text) {
  const data = rowAt(index), mine = editing = { index, column };
  const reply = await server.cell({ set, n: data.n });
  if (editing !== mine) return;
  if (reply?.error) delete tab[UNSAVED];  // its row is gone: nothing to resume
  if (!reply || reply.error || !reply.cells) { editing = null; return tell(reply?.error ?? words.offline, 'bad'); }
  const row = drawn.get(index);
  if (!row) { editing = null; return; }
  const cell = row.children[column], box = add(cell, 'textarea', 'dt-editor');
  Object.assign(mine, { n: data.n, mark: reply.mark, was: reply.cells[column - 1], box, row });
  box.value = text ?? mine.was;
  box.rows = 1;
  const names = { cell: words[column === 1 ? 'question' : 'answer'], row: whole.format(data.n) };
  box.setAttribute('aria-label', fill(words.edit, names));
  row.classList.add('dt-editing');
  const grow = () => {
    box.style.height = '0';
    box.style.height = `${Math.min(280, Math.max(cell.clientHeight, box.scrollHeight + 2))}px`;
  };
  box.oninput = () => {
    grow();
    try { tab[UNSAVED] = JSON.stringify({ set, n: data.n, column, text: box.value }); } catch { /* longer than its room */ }
  };
  box.onblur = () => { if (editing === mine && !mine.isSaved) mine.leaving = leave(true, false); };
  box.onkeydown = event => {
    event.stopPropagation();
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Escape') leave(false, true);
    else if (event.key === 'Enter' && !event.shiftKey) leave(true, true);
    else if (event.key === 'Tab') leave(true, true, event.shiftKey ? -1 : 1);
    else return;
    event.preventDefault();
  };
  grow();
  box.focus();
  box.setSelectionRange(box.value.length, box.value.length);
}
// keeps: what was written is saved. What cannot be saved stays in its box, and the reason is shown. step: to the cell beside it.
async function leave(keeps, hasFocus, step = 0) {
  const mine = editing, text = mine.box.value;
  if (keeps && text !== mine.was) {
    mine.isSaved = true;
    mine.box.readOnly = true;
    tell(words.saving);
    const reply = await server.write({ set, n: mine.n, at: mine.column - 1, text, mark: mine.mark });
    if (!reply || reply.error) {
      Object.assign(mine, { isSaved: false });
      mine.box.readOnly = false;
      tell(reply?.error ?? words.offline, 'bad');
      if (hasFocus) mine.box.focus();
      return;
    }
    tell(reply.notice, 'ok');
    const data = rowAt(mine.index);
    const shown = { [mine.column === 1 ? 'a' : 'b']: text.replace(/\s+/g, ' ').trim(), why: '' };
    if (data?.n === mine.n) Object.assign(data, shown);
    close(mine);
    changed();
  } else {
    tell('');
    close(mine);
  }
  if (!hasFocus) return;
  const next = mine.column + step;
  focus(mine.index, mine.column);
  if (step && (next === 1 || next === 2) && rowAt(mine.index)) act(mine.index, active.column = next);
}
function close(mine) {
  editing = null;
  if (!mine.box) return;
  delete tab[UNSAVED];
  mine.box.onblur = null;
  mine.box.remove();
  mine.row.classList.remove('dt-editing');
}

// ---- what changes the set ------------------------------------------------------------------------------------------
function changed() {
  forget(false);
  trigger('submit', {});  // the rest of the page shows its new version
}
async function finish(promise) {
  const reply = await promise;
  if (!reply || reply.error) return tell(reply?.error ?? words.offline, 'bad');
  clear();
  opened = null;
  tell(reply.notice, 'ok');
  changed();
  focus(active.index, active.column);
}
function remove() {
  return finish(server.remove({ set, show, words: sought, stamp, all: isAll, numbers: [...chosen] }));
}
function travel(isBack) {
  if (mayEdit && (isBack ? history.undo : history.redo)) return finish(server.travel({ set, back: isBack }));
}

// ---- what arrives --------------------------------------------------------------------------------------------------
function arrived() {
  const value = props.value;
  mayEdit = Boolean(value?.may_edit);
  at.table.classList.toggle('dt-reads', !mayEdit);
  count();
  at.hint.textContent = mayEdit ? words.hint : words.read_hint;
  if ((value?.set ?? null) !== set) {
    set = value?.set ?? null;
    stamp = value?.stamp ?? null;
    [show, sought, total, opened] = ['all', '', 0, null];
    at.search.value = '';
    tell('');
    look({});
  } else if (value && value.stamp !== stamp) {
    opened = null;
    forget(false);
  }
}
function measure() {
  const before = height ? first() : 0, now = isNarrow() ? 84 : 58;
  at.table.classList.toggle('dt-narrow', isNarrow());
  if (now !== height) {
    const had = height;
    height = now;
    at.table.style.setProperty('--dt-row', `${height}px`);
    render();
    if (had && !isScaled()) at.scroll.scrollTop = before * height;
  }
  render();
}

find();
at.grid.addEventListener('keydown', key);
at.body.addEventListener('click', pressed);
at.body.addEventListener('focusin', event => {
  const row = event.target.closest('.dt-row');
  if (row && !editing) active.index = Number(row.dataset.index);
});
document.addEventListener('click', event => {
  const chip = event.target.closest?.('button[data-show]');
  if (chip && element.isConnected) {
    look({ show: chip.dataset.show });
    if (!at.filters.contains(chip)) at.tools.scrollIntoView({ block: 'nearest' });
    else at.filters.querySelector(`[data-show="${CSS.escape(show)}"]`)?.focus();
  }
  if (event.target.closest?.('#data-row-close')) {
    const number = opened;
    opened = null;
    if (number !== null) focus(active.index, active.column);
  }
});
addEventListener('lg-found', filters);
new ResizeObserver(measure).observe(at.scroll);
watch('value', arrived);
measure();
arrived();

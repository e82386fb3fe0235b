'use strict';
// The inspector's page. What was captured is only ever set as text, never as markup.

const MOST = 500;
const key = location.hash.slice(1);
const byId = (id) => document.getElementById(id);
const [list, detail, state] = ['list', 'detail', 'state'].map(byId);
const exchanges = new Map();
const rows = new Map();
let shown = null;
let paused = false;
let due = new Set();

/** An element with attributes, or handlers, and children. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith('on')) made.addEventListener(attribute.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(attribute, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function api(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { 'inspect-key': key } });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response;
}

const secrets = () => (byId('secrets').checked ? '?secrets=1' : '');
const tell = (text) => { state.textContent = text; };
const guarded = (work) => async (...given) => {
  try { await work(...given); } catch (err) { tell(err.message); }
};

// ---- the list

const time = (ms) => (ms === null ? '' : ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`);
function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const [unit, name] = bytes < 1 << 20 ? [1024, 'KiB'] : [1 << 20, 'MiB'];
  return `${(bytes / unit).toFixed(1)} ${name}`;
}
const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
const method = (it) => (it.protocol === 'websocket' ? 'WS' : it.protocol || it.method);
const color = (it) => (it.status ? `s${String(it.status)[0]}` : it.why ? 'failed' : '');

/** The time to the response's head and the rest, of the longest exchange's. */
function bar(it) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'bar');
  svg.setAttribute('viewBox', '0 0 100 1');
  svg.setAttribute('preserveAspectRatio', 'none');
  const scale = (ms) => Math.min(100, 20 * Math.log10(1 + (ms || 0)));
  const [head, whole] = [scale(it.head_ms), Math.max(scale(it.head_ms), scale(it.ms))];
  for (const [name, x, width] of [['head', 0, head], ['body', head, whole - head]]) {
    const part = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    part.setAttribute('class', name);
    part.setAttribute('x', x);
    part.setAttribute('width', width);
    part.setAttribute('height', 1);
    svg.append(part);
  }
  return svg;
}

function fits(it) {
  const [text, wanted, status, service] = ['search', 'method', 'status', 'service'].map((id) => byId(id).value);
  const all = [it.method, it.host, it.path, it.status, it.visitor, it.service, it.why].join(' ').toLowerCase();
  return text.toLowerCase().split(' ').every((word) => all.includes(word))
    && (!wanted || method(it) === wanted)
    && (!status || (it.status ? String(it.status)[0] : '-') === status)
    && (!service || it.service === service);
}

function fill(row, it) {
  row.replaceChildren(
    el('span', { class: 'time' }, clock(it.began)),
    el('span', {}, method(it)),
    el('span', { class: 'path', title: `${it.host || ''}${it.path || ''}` }, `${it.replay_of ? '↻ ' : ''}${it.path || it.host}`),
    el('span', { class: color(it) }, it.status ? String(it.status) : it.why ? '✗' : '…'),
    el('span', { class: 'number' }, size(it.bytes_out)),
    it.ms === null ? el('span', {}, '') : bar(it),
  );
  row.parentElement.hidden = !fits(it);
}

function option(id, value) {
  const select = byId(id);
  if (!value || [...select.options].some((it) => it.value === value)) return;
  select.append(el('option', { value }, value));
  if (id === 'service' && select.options.length > 2) select.hidden = false;
}

function note(it) {
  exchanges.set(it.id, it);
  due.add(it.id);
  if (due.size === 1) requestAnimationFrame(draw);
}

/** Once a frame, however many exchanges changed. */
function draw() {
  if (paused) return;
  const changed = [...due].sort((a, b) => a - b).slice(-MOST);
  due = new Set();
  for (const id of changed) {
    const it = exchanges.get(id);
    if (!it) continue;
    option('method', method(it));
    option('service', it.service);
    let row = rows.get(id);
    if (!row) {
      row = el('button', { onclick: guarded(() => show(id)) });
      rows.set(id, row);
      list.prepend(el('li', {}, row));
    }
    fill(row, it);
    if (shown === id) guarded(() => show(id, false))();
  }
  for (const id of [...exchanges.keys()].sort((a, b) => a - b).slice(0, Math.max(0, exchanges.size - MOST))) drop(id);
  byId('empty').hidden = exchanges.size > 0;
}

function drop(id) {
  exchanges.delete(id);
  rows.get(id)?.parentElement.remove();
  rows.delete(id);
}

const refilter = () => rows.forEach((row, id) => { row.parentElement.hidden = !fits(exchanges.get(id)); });

/** Follows what happens, and begins again where the client went away or this page was too slow. */
async function follow() {
  for (;;) {
    try {
      const response = await api('api/events');
      (await (await api('api/exchanges')).json()).forEach(note);
      tell('');
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split('\n\n');
        text = events.pop();
        events.filter((it) => it.startsWith('data: ')).forEach((it) => note(JSON.parse(it.slice(6))));
      }
    } catch (err) {
      tell(err.message);
    }
    await new Promise((next) => setTimeout(next, 1000));
  }
}

// ---- bodies

const text = (bytes) => {
  try { return new TextDecoder('utf-8', { fatal: true }).decode(bytes); } catch { return null; }
};

function hex(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, 1 << 16); at += 16) {
    const part = bytes.subarray(at, at + 16);
    const digits = [...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' ').padEnd(47);
    const signs = [...part].map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${digits}  ${signs}`);
  }
  return el('pre', {}, lines.join('\n'));
}

/** A value of JSON that can be folded. */
function tree(value, name = '') {
  const label = name === '' ? '' : `${name}: `;
  if (value === null || typeof value !== 'object') return el('div', {}, label + JSON.stringify(value));
  const entries = Object.entries(value);
  const brackets = Array.isArray(value) ? '[…]' : '{…}';
  return el('details', { class: 'tree', open: entries.length < 50 }, el('summary', {}, `${label}${brackets} ${entries.length}`),
    ...entries.map(([key, it]) => tree(it, key)));
}

function xml(node, depth = 0) {
  const pad = '  '.repeat(depth);
  if (node.nodeType === Node.TEXT_NODE) return node.textContent.trim() ? `${pad}${node.textContent.trim()}\n` : '';
  if (node.nodeType !== Node.ELEMENT_NODE) return '';
  const attributes = [...node.attributes].map((it) => ` ${it.name}="${it.value}"`).join('');
  const inner = [...node.childNodes].map((it) => xml(it, depth + 1)).join('');
  return inner ? `${pad}<${node.nodeName}${attributes}>\n${inner}${pad}</${node.nodeName}>\n` : `${pad}<${node.nodeName}${attributes}/>\n`;
}

const table = (pairs) => el('table', {}, ...pairs.map(([name, value]) => el('tr', {}, el('th', {}, name), el('td', {}, value))));

function multipart(bytes, boundary) {
  const raw = Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
  const parts = raw.split(`--${boundary}`).slice(1, -1);
  return el('div', {}, ...parts.map((part) => {
    const [head, ...rest] = part.replace(/^\r\n/, '').split('\r\n\r\n');
    const body = Uint8Array.from(rest.join('\r\n\r\n').replace(/\r\n$/, ''), (sign) => sign.charCodeAt(0));
    const kind = /content-type: *([^\r\n]*)/i.exec(head)?.[1] || 'text/plain';
    return el('section', {}, el('pre', {}, head), view(body, kind));
  }));
}

/** A body as its type asks for. */
function view(bytes, type = '') {
  if (!bytes.length) return el('p', {}, 'empty');
  const kind = type.split(';')[0].trim().toLowerCase();
  if (kind.startsWith('image/')) {
    const url = URL.createObjectURL(new Blob([bytes], { type: kind }));
    return el('img', { src: url, alt: kind, onload: () => URL.revokeObjectURL(url) });
  }
  const boundary = /boundary="?([^";]+)/i.exec(type)?.[1];
  if (kind.startsWith('multipart/') && boundary) return multipart(bytes, boundary);
  const said = text(bytes);
  if (said === null) return hex(bytes);
  try {
    if (kind.endsWith('json')) return tree(JSON.parse(said));
    if (kind.endsWith('xml') && !kind.includes('html')) {
      const parsed = new DOMParser().parseFromString(said, 'application/xml');
      if (!parsed.querySelector('parsererror')) return el('pre', {}, xml(parsed.documentElement));
    }
  } catch { /* It isn't what it says: as text. */ }
  if (kind === 'application/x-www-form-urlencoded') return table([...new URLSearchParams(said)]);
  return el('pre', {}, said);
}

/** The messages of a WebSocket (RFC 6455 §5) among the bytes of one direction. */
function messages(bytes, pieces, from) {
  const found = [];
  let at = 0;
  const came = (end) => (pieces.find((piece) => piece[1] >= end) || [0])[0];
  while (at + 2 <= bytes.length) {
    const [first, second] = [bytes[at], bytes[at + 1]];
    let length = second & 127;
    let start = at + 2;
    const long = { 126: 2, 127: 8 }[length];
    if (long) {
      length = [...bytes.subarray(start, start + long)].reduce((sum, byte) => sum * 256 + byte, 0);
      start += long;
    }
    const mask = second & 128 ? bytes.subarray(start, start + 4) : null;
    start += mask ? 4 : 0;
    if (start + length > bytes.length) break;
    const data = bytes.slice(start, start + length);
    if (mask) data.forEach((byte, index) => { data[index] = byte ^ mask[index % 4]; });
    const kinds = { 0: 'more', 1: 'text', 2: 'binary', 8: 'close', 9: 'ping', 10: 'pong' };
    const packed = first & 0x40 ? ', compressed' : '';
    found.push({ ms: came(start + length), from, kind: `${kinds[first & 15] || first & 15}${packed}`, data });
    at = start + length;
  }
  return found;
}

function conversation(all) {
  return el('table', {}, ...all.sort((a, b) => a.ms - b.ms).map((it) => el('tr', {},
    el('th', {}, time(it.ms)), el('th', {}, it.from), el('th', {}, it.kind),
    el('td', {}, text(it.data) ?? [...it.data.subarray(0, 64)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')))));
}

// ---- one exchange

const value = (fields, name) => (fields.find(([it]) => it === name) || [])[1] || '';
/** The bytes as they came; or, where the client said how they are coded and the browser knows that, decoded. */
async function body(it, side) {
  if (!it[side].kept) return new Uint8Array();
  return new Uint8Array(await (await api(`api/exchanges/${it.id}/${side}`)).arrayBuffer());
}

async function part(it, side) {
  const { fields, trailers, bytes, kept, pieces } = it[side];
  let content;
  try {
    const here = await body(it, side);
    const type = value(fields, 'content-type');
    content = type.startsWith('text/event-stream') ? events(here, pieces) : view(here, type);
  } catch (err) {
    content = el('p', { class: 'failed' }, `The body can't be shown: ${err.message}`);
  }
  return [
    table(fields),
    trailers && el('h2', {}, 'Trailers'), trailers && table(trailers),
    el('h2', {}, `Body, ${size(bytes)}${kept < bytes ? `, of which the first ${size(kept)} are kept` : ''}`),
    content,
  ].filter(Boolean);
}

function events(bytes, pieces) {
  const said = new TextDecoder().decode(bytes);
  let at = 0;
  return el('table', {}, ...said.split(/\r?\n\r?\n/).filter(Boolean).map((event) => {
    at += new TextEncoder().encode(event).length + 2;
    const came = (pieces.find((piece) => piece[1] >= Math.min(at, bytes.length)) || [0])[0];
    return el('tr', {}, el('th', {}, time(came)), el('td', {}, event));
  }));
}

async function show(id, focus = true) {
  const it = await (await api(`api/exchanges/${id}${secrets()}`)).json();
  shown = id;
  rows.forEach((row, other) => row.setAttribute('aria-current', other === id));
  const query = [...new URLSearchParams((it.path || '').split('?')[1] || '')];
  const upgraded = it.protocol === 'websocket' && it.status === 200;
  const shut = () => { shown = null; detail.hidden = true; rows.get(id)?.focus(); };
  const action = (label, work) => el('button', { onclick: guarded(work) }, label);
  const middle = upgraded
    ? [el('h2', {}, 'Messages'), conversation([
      ...messages(await body(it, 'request'), it.request.pieces, 'visitor'),
      ...messages(await body(it, 'response'), it.response.pieces, 'origin')])]
    : [];
  const [request, response] = upgraded
    ? [[table(it.request.fields)], [table(it.response.fields)]]
    : [await part(it, 'request'), await part(it, 'response')];
  const before = it.replay_of ? await compare(it) : [];
  detail.replaceChildren(
    el('div', { class: 'actions' },
      action('Close', shut),
      it.protocol ? null : action('Replay', () => replay(it)),
      it.protocol ? null : action('Edit and replay', () => edit(it)),
      action('Copy as curl', () => copy(curl(it))),
      action('Copy as HTTP', () => copy(http(it)))),
    el('h2', {}, `${method(it)} ${it.host || ''}${it.path || ''}`),
    table([
      ['status', it.status === null ? '' : String(it.status)],
      ...(it.why ? [['why', it.why]] : []),
      ['began', new Date(it.began).toISOString()],
      ['head', time(it.head_ms)], ['whole', time(it.ms)],
      ['visitor', it.visitor || ''],
      ...(it.service ? [['service', it.service]] : []),
      ...it.informational.map((early) => [`${early.status} at ${time(early.ms)}`, early.fields.map((pair) => pair.join(': ')).join('; ')]),
    ]),
    ...before, ...middle,
    ...(query.length ? [el('h2', {}, 'Query'), table(query)] : []),
    el('h2', {}, 'Request'), ...request,
    el('h2', {}, 'Response'), ...response,
  );
  detail.hidden = false;
  if (focus) detail.focus();
}

/** Lines of both, and which of them only one has: the longest common subsequence. */
function diff(a, b) {
  const [left, right] = [a.split('\n').slice(0, 500), b.split('\n').slice(0, 500)];
  const common = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      common[i][j] = left[i] === right[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const lines = [];
  for (let [i, j] = [0, 0]; i < left.length || j < right.length;) {
    if (i < left.length && j < right.length && left[i] === right[j]) { lines.push(['', left[i]]); i += 1; j += 1; }
    else if (j >= right.length || (i < left.length && common[i + 1][j] >= common[i][j + 1])) { lines.push(['removed', left[i]]); i += 1; }
    else { lines.push(['added', right[j]]); j += 1; }
  }
  return el('pre', {}, ...lines.map(([kind, line]) => el('div', { class: kind }, `${{ added: '+', removed: '-' }[kind] || ' '} ${line}`)));
}

async function compare(it) {
  try {
    const first = await (await api(`api/exchanges/${it.replay_of}${secrets()}`)).json();
    const whole = async (one) => {
      const fields = one.response.fields.map((pair) => pair.join(': '));
      return [`${one.status ?? one.why}`, ...fields, '', text(await body(one, 'response')) ?? '(binary)'].join('\n');
    };
    return [el('h2', {}, `Response, against that of the first request`), diff(await whole(first), await whole(it))];
  } catch (err) {
    return [el('p', {}, `The first request is gone: ${err.message}`)];
  }
}

async function replay(it, edits = {}) {
  const answer = await api(`api/exchanges/${it.id}/replay`, { method: 'POST', body: JSON.stringify(edits) });
  await show((await answer.json()).id);
}

const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));

async function edit(it) {
  const here = await body(it, 'request');
  const said = text(here);
  const line = (name, given) => el('label', {}, `${name} `, el('input', { name, value: given }));
  const form = el('form', { onsubmit: guarded(async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const fields = given.get('fields').split('\n').filter(Boolean).map((pair) => {
      const [name, ...rest] = pair.split(':');
      return [name.trim(), rest.join(':').trim()];
    });
    const edits = { method: given.get('method'), path: given.get('path'), to: given.get('to'), fields };
    if (said !== null && given.get('body') !== said) edits.body = base64(new TextEncoder().encode(given.get('body').replaceAll('\r\n', '\n')));
    await replay(it, edits);
  }) },
  el('p', {}, line('method', it.method), ' ', line('path', it.path), ' ', line('to', '')),
  el('p', {}, 'An empty “to” is the same origin; a masked value stands for what the first request had.'),
  el('textarea', { name: 'fields', 'aria-label': 'Fields' }, it.request.fields.map((pair) => pair.join(': ')).join('\n')),
  said === null ? el('p', {}, 'The body is binary, and is sent as it was.') : el('textarea', { name: 'body', 'aria-label': 'Body' }, said),
  el('p', { class: 'actions' }, el('button', {}, 'Send'), el('button', { type: 'button', onclick: guarded(() => show(it.id)) }, 'Cancel')));
  detail.replaceChildren(el('h2', {}, 'Edit and replay'), form);
  form.elements.method.focus();
}

const quote = (it) => `'${it.replaceAll("'", "'\\''")}'`;
const url = (it) => `https://${it.host}${it.path}`;
async function curl(it) {
  const fields = it.request.fields.filter(([name]) => name !== 'content-length').map((pair) => `-H ${quote(pair.join(': '))}`);
  const here = text(await body(it, 'request'));
  const data = it.request.bytes ? [here === null ? '--data-binary @body' : `--data-binary ${quote(here)}`] : [];
  return ['curl', '-X', it.method, ...fields, ...data, quote(url(it))].join(' ');
}
async function http(it) {
  const fields = it.request.fields.map((pair) => pair.join(': '));
  return [`${it.method} ${it.path} HTTP/1.1`, `host: ${it.host}`, ...fields, '', text(await body(it, 'request')) ?? '(binary)'].join('\r\n');
}
async function copy(made) {
  await navigator.clipboard.writeText(await made);
  tell('copied');
}

// ---- controls

byId('pause').addEventListener('click', (event) => {
  paused = !paused;
  event.target.setAttribute('aria-pressed', paused);
  event.target.textContent = paused ? 'Go on' : 'Pause';
  if (!paused) draw();
});
byId('clear').addEventListener('click', guarded(async () => {
  await api('api/exchanges', { method: 'DELETE' });
  [...exchanges.keys()].forEach(drop);
  detail.hidden = true;
  byId('empty').hidden = false;
}));
byId('har').addEventListener('click', guarded(async () => {
  const saved = URL.createObjectURL(await (await api(`har${secrets()}`)).blob());
  el('a', { href: saved, download: '2ptth.har' }).click();
  URL.revokeObjectURL(saved);
}));
byId('secrets').addEventListener('change', guarded(() => shown && show(shown)));
['search', 'method', 'status', 'service'].forEach((id) => byId(id).addEventListener('input', refilter));
document.addEventListener('keydown', (event) => {
  if (event.target.matches('input, textarea, select') || event.ctrlKey || event.metaKey) return;
  const order = [...list.querySelectorAll('li:not([hidden]) button')];
  const at = order.indexOf(document.activeElement);
  const go = { j: at + 1, ArrowDown: at + 1, k: at - 1, ArrowUp: at - 1 }[event.key];
  if (go !== undefined) order[Math.max(0, Math.min(order.length - 1, go))]?.focus();
  else if (event.key === '/') byId('search').focus();
  else if (event.key === 'Escape') detail.querySelector('button')?.click();
  else if (event.key === 'r' && shown) guarded(() => replay(exchanges.get(shown)))();
  else return;
  event.preventDefault();
});

follow();

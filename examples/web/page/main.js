// The page: what the buttons do, and what is shown.
import { mirrored, paint, pixelsOf, readDigits } from './digits.js';
import { element, part } from './dom.js';
import { own, showDrawing } from './hand.js';
import { readingsOf } from './logits.js';
import { lossCurveSvg } from './onnx-lora/browser/index.js';
import { call, listen, stop } from './remote.js';

const heldOut = 500;
const shown = 48;
/** Steps between two looks at what it reads. */
const lookEvery = 50;

const number = new Intl.NumberFormat('en');
const percent = (share) => `${(100 * share).toFixed(0)} %`;

const records = [];
let digits = [];
let unseen = [];
let tiles = [];
let isTraining = false;

part('controls').addEventListener('submit', (event) => {
  event.preventDefault();
  if (isTraining) stop();
  else attempt(train);
});
part('controls').addEventListener('change', ({ target }) => {
  if (target.name === 'provider') attempt(open);
});
part('download').addEventListener('click', () => attempt(download));
addEventListener('resize', drawCurve);
listen(showStep);
attempt(async () => {
  const all = readDigits(await load('model/digits.bin'));
  digits = all.slice(0, -heldOut);
  unseen = all.slice(-heldOut);
  tiles = unseen.slice(0, shown).map(addTile);
  await offerGpu();
  await open();
});

/** Does something, and says so where it goes wrong. */
async function attempt(work) {
  try {
    await work();
  } catch ({ message, hint }) {
    say([message, hint].filter(Boolean).join('. '), true);
  }
}

function say(text, isError = false) {
  part('status').textContent = text;
  part('status').classList.toggle('error', isError);
}

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function offerGpu() {
  const gpu = document.querySelector('[value=webgpu]');
  gpu.disabled = !(await navigator.gpu?.requestAdapter());
  if (gpu.disabled) gpu.parentElement.title = 'This browser offers no GPU to pages (WebGPU)';
}

/** Loads the model anew, without anything learnt, where the visitor wants it to run. */
async function open() {
  for (const id of ['start', 'download', 'providers']) part(id).disabled = true;
  part('hand').inert = true;
  say('Loading the model …');
  const { value } = document.querySelector('[name=provider]:checked');
  const { parameters } = await call('open', value).finally(() => {
    part('providers').disabled = false;
  });
  records.length = 0;
  part('parameters').textContent = number.format(parameters);
  part('progress').value = 0;
  part('speed').textContent = '–';
  drawCurve();
  await look();
  part('start').disabled = false;
  part('hand').inert = false;
  say('Ready. 300 steps take about ten seconds on the CPU.');
}

async function train() {
  const steps = Number(part('steps').value);
  setTraining(true);
  try {
    await call('train', { digits, own, steps });
    await look();
    const { step, loss } = records.at(-1);
    say(`${step} steps: the loss went from ${records[0].loss.toFixed(2)} to ${loss.toFixed(2)}.`);
    part('download').disabled = false;
  } finally {
    setTraining(false);
  }
}

function setTraining(value) {
  isTraining = value;
  part('start').textContent = value ? 'Stop' : 'Train';
  for (const control of document.querySelectorAll('#controls :is(select, fieldset)')) {
    control.disabled = value;
  }
}

function showStep({ step, steps, loss, ms }) {
  records.push({ step: records.length + 1, loss, ms });
  part('progress').value = step / steps;
  part('speed').textContent = `${mean(records.map((record) => record.ms)).toFixed(0)} ms`;
  say(`Step ${step} of ${steps}, loss ${loss.toFixed(3)}`);
  if (step % 5 === 0) drawCurve();
  if (step % lookEvery === 0 && step < steps) attempt(() => look(true));
}

function drawCurve() {
  const figure = part('curve');
  const size = { width: figure.clientWidth, height: figure.clientHeight };
  figure.innerHTML = records.length > 1 ? lossCurveSvg({ steps: records }, size) : '';
}

/** Reads all unseen digits with both models, and shows how many were right. */
async function look(isRenewed = false) {
  const inMirror = unseen.map(mirrored);
  const mirror = await call('predict', { pixels: pixelsOf(inMirror), isRenewed });
  const usual = await call('predict', { pixels: pixelsOf(unseen) });
  showShare('mirrored', mirror);
  showShare('usual', usual);
  const [before, now] = [readingsOf(mirror.before), readingsOf(mirror.after)];
  for (const [i, tile] of tiles.entries()) tile(before[i], now[i]);
  await showDrawing();
}

function showShare(id, { before, after }) {
  const share = (logits) => {
    const right = readingsOf(logits).filter((reading, i) => reading === unseen[i].label);
    return right.length / unseen.length;
  };
  part(id).textContent = percent(share(after));
  part(`${id}-before`).textContent = `${percent(share(before))} before`;
}

/** Adds a digit to the gallery; what comes back shows how it is read. */
function addTile(digit) {
  const tile = element('li');
  const canvas = element('canvas', { title: `a ${digit.label} in a mirror` });
  paint(canvas, mirrored(digit));
  const [now, before] = [element('b'), element('small', { className: 'was' })];
  tile.append(canvas, now, before);
  part('gallery').append(tile);
  return (readBefore, readNow) => {
    now.textContent = readNow;
    now.className = readNow === digit.label ? 'now right' : 'now wrong';
    before.textContent = readBefore === readNow ? '' : readBefore;
  };
}

function mean(values) {
  return values.reduce((a, b) => a + b) / values.length;
}

async function download() {
  const file = new Blob([await call('adapter')], { type: 'application/octet-stream' });
  const link = element('a', { href: URL.createObjectURL(file), download: 'mirror.safetensors' });
  link.click();
  URL.revokeObjectURL(link.href);
}

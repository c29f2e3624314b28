// The visitor's own hand: a pad to draw on, what the model reads there, and the digits kept for training.
import { paint } from './digits.js';
import { element, part } from './dom.js';
import { classes, softmax } from './logits.js';
import { Pad } from './pad.js';
import { call } from './remote.js';

const pad = new Pad(part('pad'), showDrawing);
const bars = Array.from({ length: classes }, (_, label) => addBar(label));

/** What was drawn and told, for training. */
export const own = [];

part('clear').addEventListener('click', () => pad.clear());
for (let label = 0; label < classes; label++) part('labels').append(labelButton(label));

/** Lets the model, as it is now, read what is drawn. */
export async function showDrawing() {
  const pixels = pad.pixels();
  if (!pixels) {
    for (const show of bars) show(0, 0);
    return;
  }
  const { before, after } = await call('predict', { pixels });
  const [old, now] = [softmax(before), softmax(after)];
  for (const [label, show] of bars.entries()) show(old[label], now[label]);
}

function addBar(label) {
  const row = element('li', {
    innerHTML: `<b class="label">${label}</b><i class="before"></i><i class="after"></i>`,
  });
  part('bars').append(row);
  return (before, after) => {
    row.style.setProperty('--before', before);
    row.style.setProperty('--after', after);
    row.classList.toggle('best', after > 0.5);
  };
}

function labelButton(label) {
  const button = element('button', { type: 'button', textContent: label });
  button.addEventListener('click', () => {
    const pixels = pad.pixels();
    if (!pixels) return;
    addOwn({ label, pixels });
    pad.clear();
  });
  return button;
}

/** Keeps a drawing for training, until it is clicked away. */
function addOwn(digit) {
  own.push(digit);
  const remove = element('button', { type: 'button', title: `Remove this ${digit.label}` });
  const canvas = element('canvas');
  paint(canvas, digit);
  remove.append(canvas, element('b', { className: 'tag', textContent: digit.label }));
  const item = element('li');
  item.append(remove);
  part('own').append(item);
  remove.addEventListener('click', () => {
    own.splice(own.indexOf(digit), 1);
    item.remove();
  });
}

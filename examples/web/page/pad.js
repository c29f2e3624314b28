// A canvas to draw a digit on, and what is drawn as the model takes it.
import { side } from './digits.js';

/** Digits of the training data fill a box of this size, their centre of mass in the middle. */
const box = 20;
const penWidth = 20;

/** Calls `onChange` when a stroke ends. */
export class Pad {
  #context;
  #onChange;

  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.#context = canvas.getContext('2d', { willReadFrequently: true });
    this.#onChange = onChange;
    Object.assign(this.#context, { lineWidth: penWidth, lineCap: 'round', lineJoin: 'round' });
    canvas.addEventListener('pointerdown', (event) => this.#begin(event));
    canvas.addEventListener('pointermove', (event) => this.#draw(event));
    canvas.addEventListener('pointerup', () => this.#onChange());
  }

  clear() {
    this.#context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.#onChange();
  }

  /** The drawing as 28 x 28 pixels; undefined where there is none. */
  pixels() {
    const bounds = this.#bounds();
    if (!bounds) return undefined;
    const { left, top, width, height } = bounds;
    const scale = box / Math.max(width, height);
    const small = this.#copy((context) => {
      const [w, h] = [width * scale, height * scale];
      const at = [(side - w) / 2, (side - h) / 2];
      context.drawImage(this.canvas, left, top, width, height, ...at, w, h);
    });
    const [x, y] = centreOf(alphaOf(small));
    const middle = (side - 1) / 2;
    return alphaOf(
      this.#copy((context) => context.drawImage(small.canvas, middle - x, middle - y)),
    );
  }

  #begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.#place(event);
    this.#context.beginPath();
    this.#context.moveTo(x, y);
    this.#draw(event);
  }

  #draw(event) {
    if (event.buttons === 0) return;
    this.#context.lineTo(...this.#place(event));
    this.#context.stroke();
  }

  #place({ offsetX, offsetY }) {
    const { width, clientWidth } = this.canvas;
    return [offsetX, offsetY].map((offset) => (offset * width) / clientWidth);
  }

  #copy(draw) {
    const context = new OffscreenCanvas(side, side).getContext('2d');
    context.imageSmoothingQuality = 'high';
    draw(context);
    return context;
  }

  #bounds() {
    const { width } = this.canvas;
    const ink = alphaOf(this.#context);
    const inked = [...ink.keys()].filter((i) => ink[i] > 0.5);
    if (inked.length === 0) return undefined;
    const columns = inked.map((i) => i % width).sort((a, b) => a - b);
    const [left, right] = [columns[0], columns.at(-1)];
    const [top, bottom] = [inked[0], inked.at(-1)].map((i) => Math.floor(i / width));
    return { left, top, width: right - left + 1, height: bottom - top + 1 };
  }
}

/** How much ink each pixel has, 0 to 1. */
function alphaOf(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  return Float32Array.from({ length: width * height }, (_, i) => data[4 * i + 3] / 255);
}

function centreOf(ink) {
  const total = ink.reduce((sum, value) => sum + value, 0);
  const mean = (place) => ink.reduce((sum, value, i) => sum + value * place(i), 0) / total;
  return [mean((i) => i % side), mean((i) => Math.floor(i / side))];
}

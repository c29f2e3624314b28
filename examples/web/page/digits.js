// Images of digits as the model takes them: 28 x 28 numbers, 0 paper to 1 ink.

export const side = 28;
const size = side * side;

/** Reads records of a label and its pixels, a byte each. */
export function readDigits(bytes) {
  return Array.from({ length: bytes.length / (1 + size) }, (_, i) => {
    const record = bytes.subarray(i * (1 + size), (i + 1) * (1 + size));
    return { label: record[0], pixels: Float32Array.from(record.subarray(1), (ink) => ink / 255) };
  });
}

/** As a mirror shows it. */
export function mirrored({ label, pixels }) {
  const turned = pixels.map((_, i) => pixels[i - (i % side) + (side - 1 - (i % side))]);
  return { label, pixels: turned };
}

/** Moved by a few pixels, so that no picture comes twice. */
export function moved({ label, pixels }, random) {
  const [right, down] = [random(5) - 2, random(5) - 2];
  const shifted = pixels.map((_, i) => {
    const [x, y] = [(i % side) - right, Math.floor(i / side) - down];
    return x >= 0 && x < side && y >= 0 && y < side ? pixels[y * side + x] : 0;
  });
  return { label, pixels: shifted };
}

/** One behind the other. */
export function pixelsOf(digits) {
  const all = new Float32Array(digits.length * size);
  for (const [i, { pixels }] of digits.entries()) all.set(pixels, i * size);
  return all;
}

/** Draws a digit in black on nothing. */
export function paint(canvas, { pixels }) {
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (const [i, ink] of pixels.entries()) image.data[4 * i + 3] = 255 * ink;
  canvas.getContext('2d').putImageData(image, 0, 0);
}

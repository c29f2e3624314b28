/** Quantized activations: a rounded number does not move with the number it came from. */
import { Refusal } from '../refusal.js';
import { ofOutputs } from '../rule.js';

export const quantized = ofOutputs('all', () => {
  throw new Refusal(
    'it rounds activations to integers, through which no gradient passes',
    'Quantize weights only, or train the model before it is quantized.',
  );
});

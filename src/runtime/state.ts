/** The tensors that a session carries from run to run, and whether they fit its model. */
import { OnnxLoraError } from '../errors.js';
import type { ValueMeta } from './native.js';
import type { TensorValue } from './tensor-value.js';

/** An output that is fed as an input of the next run. */
export interface StateSlot {
  /** Name of the input that takes it. */
  readonly input: string;
  /** Name of the output that gives it. */
  readonly output: string;
}

/** Tensors of the state, by the names of their inputs. */
export type State = ReadonlyMap<string, TensorValue>;

/** @throws OnnxLoraError `invalid-argument` where the model has no such input or output */
export function checkSlots(
  slots: readonly StateSlot[],
  inputs: readonly ValueMeta[],
  outputs: readonly ValueMeta[],
): void {
  for (const slot of slots) {
    const input = find(inputs, 'input', slot.input);
    const output = find(outputs, 'output', slot.output);
    if (input.dtype === output.dtype) continue;
    throw misfit(
      `output ${slot.output} is ${output.dtype}, but input ${slot.input}, which it becomes, takes ${input.dtype}`,
    );
  }
}

function find(values: readonly ValueMeta[], kind: string, name: string): ValueMeta {
  const found = values.find((value) => value.name === name);
  if (found) return found;
  throw misfit(`the model has no ${kind} ${name}, it has ${values.map((v) => v.name).join(', ')}`);
}

/**
 * Checks tensors that are to become state.
 * @throws OnnxLoraError `invalid-argument` for a name that is not in the state, or another type or shape
 */
export function checkState(
  values: State,
  slots: readonly StateSlot[],
  inputs: readonly ValueMeta[],
): void {
  for (const [name, { dtype, dims }] of values) {
    if (!slots.some(({ input }) => input === name)) {
      throw misfit(
        `${name} is not one of the state: ${slots.map(({ input }) => input).join(', ')}`,
      );
    }
    const expected = find(inputs, 'input', name);
    if (dtype === expected.dtype && fits(dims, expected)) continue;
    throw misfit(
      `state ${name} is ${dtype} [${dims.join(', ')}], the model takes ${expected.dtype} [${expected.shape.join(', ')}]`,
    );
  }
}

function fits(dims: readonly number[], { shape }: ValueMeta): boolean {
  // ONNX Runtime has no word for any rank.
  if (shape.length === 0) return true;
  return (
    dims.length === shape.length &&
    shape.every((size, i) => typeof size !== 'number' || size === dims[i])
  );
}

function misfit(message: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, {
    hint: 'Give the state that the model itself was made for.',
  });
}

/** What is recorded of a case's training as a file of samples. */
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import type { Kind } from './golden.js';
import { zooTensors } from './zoo.js';

/**
 * The recorded batches of the first steps, one behind the other: [steps, batch, ..] becomes
 * [steps · batch, ..], keys are the names of the graph's inputs.
 */
export function zooSamples(name: string, kind: Kind, steps: number): Uint8Array {
  return zooTensors([name, kind, 'train.safetensors'], (file) => {
    const [first] = file.tensors.values();
    // The ranking case has labels too, one for each pair of rows; the loss knows them.
    const used = [...file.tensors].filter(([, { shape }]) => shape[1] === first!.shape[1]);
    return encodeSafetensors(
      used.map(([key, { dtype, shape }]) => {
        const [all = 0, batch = 0, ...rest] = shape;
        const data = file.read(key).slice();
        return {
          name: key.replace(/^input\./, ''),
          dtype,
          shape: [steps * batch, ...rest],
          data: data.subarray(0, (data.length / all) * steps),
        };
      }),
    );
  });
}

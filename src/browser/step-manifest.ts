/** The manifest of a step graph, read and checked; pages have no packages for that. */
import { OnnxLoraError } from '../errors.js';
import { stepNumbers } from '../training/optimizers/scalars.js';
import { STEP_MANIFEST_KEY, type StepManifest } from '../training/step-format.js';
import { metadataOf } from './onnx-file.js';

/** The fault of a value, after the path to it; undefined for a valid one. */
type Check = (value: unknown, path: string) => string | undefined;

const is =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value, path) =>
    holds(value) ? undefined : `${path} is not ${what}`;

const text = is('a text', (value) => typeof value === 'string');
const count = is('a count', (value) => Number.isSafeInteger(value) && (value as number) >= 0);
const number = is('a number', Number.isFinite);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const optional =
  (check: Check): Check =>
  (value, path) =>
    value === undefined ? undefined : check(value, path);

const listOf =
  (check: Check): Check =>
  (value, path) =>
    Array.isArray(value)
      ? firstOf(value.map((element, i) => () => check(element, `${path}[${i}]`)))
      : `${path} is not a list`;

const recordOf =
  (check: Check): Check =>
  (value, path) =>
    isObject(value)
      ? firstOf(
          Object.entries(value).map(
            ([key, one]) =>
              () =>
                check(one, `${path}.${key}`),
          ),
        )
      : `${path} is not an object`;

const object =
  (checks: Readonly<Record<string, Check>>): Check =>
  (value, path) =>
    isObject(value)
      ? firstOf(
          Object.entries(checks).map(
            ([key, check]) =>
              () =>
                check(Object.hasOwn(value, key) ? value[key] : undefined, `${path}.${key}`),
          ),
        )
      : `${path} is not an object`;

function firstOf(problems: readonly (() => string | undefined)[]): string | undefined {
  for (const problem of problems) {
    const found = problem();
    if (found !== undefined) return found;
  }
  return undefined;
}

const initial: Check = (value, path) =>
  value === 0 ? undefined : object({ initializer: text })(value, path);

const manifestCheck = object({
  data: listOf(object({ name: text })),
  state: object({ size: count, vectors: listOf(object({ input: text, output: text, initial })) }),
  scalars: recordOf(text),
  renamed: optional(recordOf(text)),
  optimizer: object({
    name: text,
    betas: listOf(number),
    accumulate: is('1 or more', (value) => Number.isSafeInteger(value) && (value as number) > 0),
  }),
  noise: optional(object({ input: text, size: count })),
  outputs: object({ loss: text, gradientNorm: text, weight: optional(text) }),
  parameters: listOf(object({ name: text, shape: listOf(count), offset: count, length: count })),
  adapterFile: object({ metadata: recordOf(text), tensors: recordOf(text) }),
});

/**
 * The manifest of a step graph.
 * @throws OnnxLoraError `invalid-model` for a model that is not a step graph, or whose manifest is damaged
 */
export function stepManifestOf(model: Uint8Array): StepManifest {
  const written = metadataOf(model, STEP_MANIFEST_KEY);
  const manifest = written === undefined ? undefined : parsed(written);
  const version = isObject(manifest) ? manifest.version : undefined;
  if (version !== 1 && version !== 2 && version !== 3)
    throw notAStepGraph(manifest === undefined, version);
  const problem =
    manifestCheck(manifest, 'manifest') ??
    misplaced(manifest as StepManifest) ??
    notComputed(manifest as StepManifest);
  if (problem !== undefined) throw damaged(problem);
  return manifest as StepManifest;
}

/** The meaning of an input, whatever the graph calls it. */
export function roleOf({ renamed = {} }: StepManifest, input: string): string {
  return Object.hasOwn(renamed, input) ? renamed[input]! : input;
}

/** The state vector with the adapters. */
export function thetaOf(manifest: StepManifest): string | undefined {
  const { vectors } = manifest.state;
  return vectors.find(({ input }) => roleOf(manifest, input) === 'theta')?.input;
}

function parsed(written: string): unknown {
  try {
    return JSON.parse(written);
  } catch (error) {
    throw damaged((error as Error).message);
  }
}

/** Stretches that are outside theta, do not fit their shape, or are claimed twice. */
function misplaced(manifest: StepManifest): string | undefined {
  const { state, parameters, adapterFile } = manifest;
  if (thetaOf(manifest) === undefined) return 'the state has no theta';
  const bad = parameters.find(
    ({ shape, offset, length }) =>
      offset + length > state.size || shape.reduce((a, b) => a * b, 1) !== length,
  );
  if (bad) return `parameter ${bad.name} has no place in the ${state.size} numbers of theta`;
  const wanted = Object.values(adapterFile.tensors);
  if (new Set(wanted).size < wanted.length) return 'two tensors are the same parameter';
  return undefined;
}

/** A scalar that the graph is fed and a page does not know: of an optimizer that came later. */
function notComputed(manifest: StepManifest): string | undefined {
  const own = Object.keys(stepNumbers(manifest.optimizer));
  const known = new Set(['lr', 'accumulated_weight', 'apply', ...own]);
  const other = Object.keys(manifest.scalars).find((name) => !known.has(roleOf(manifest, name)));
  return other === undefined ? undefined : `the scalar ${other} is not one that is known here`;
}

function notAStepGraph(isMissing: boolean, version: unknown): OnnxLoraError {
  const found = isMissing ? 'none' : `version ${JSON.stringify(version) ?? 'none'}`;
  return new OnnxLoraError(
    'invalid-model',
    `the model is not a step graph: expected a manifest of version 1, 2 or 3 in its metadata (${STEP_MANIFEST_KEY}), found ${found}`,
    { hint: "Step graphs are written by: `train(model, { emitStepGraph: 'step.onnx' })`" },
  );
}

function damaged(problem: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-model',
    `the manifest of the step graph is damaged: ${problem}`,
    {
      hint: 'Go back to the file that onnx-lora wrote, or write it anew with `emitStepGraph`.',
    },
  );
}

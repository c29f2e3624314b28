// Everything that computes, off the page's own thread: ONNX Runtime, the trainer, the model with and
// without what was trained.

import { mirrored, moved, pixelsOf, side } from './digits.js';
import { learningRate, StepTrainer, withTensors } from './onnx-lora/browser/index.js';

const batchSize = 32;
const lr = 5e-3;
const warmup = 10;
/** Digits written the usual way stay in training, or it would forget them. */
const usualShare = 0.3;
/** What the visitor draws is rare, so it comes often. */
const ownShare = 0.25;

let ort;
let session;
let model;
let trainer;
let before;
let after;
let stopped = false;

const actions = { open, train, predict, adapter };

addEventListener('message', async ({ data: { id, action, argument } }) => {
  if (action === 'stop') {
    stopped = true;
    return;
  }
  try {
    postMessage({ id, result: await actions[action](argument) });
  } catch ({ message, hint }) {
    postMessage({ id, error: { message, hint } });
  }
});

/** Loads the model and its training step, for `wasm` or for `webgpu`. */
async function open(provider) {
  await Promise.all([trainer, ...new Set([before, after])].map((opened) => opened?.release()));
  // The runtime for the CPU is half as large.
  ort = await import(`./onnxruntime-web/ort.${provider === 'wasm' ? 'wasm' : 'webgpu'}.min.mjs`);
  // One thread does for a model this small, and needs no headers from the server.
  ort.env.wasm.numThreads = 1;
  session = { executionProviders: [provider], logSeverityLevel: 3 };
  model = await bytesOf('model/digits.lora.onnx');
  trainer = await StepTrainer.open(ort, await bytesOf('model/step.onnx'), session);
  before = await ort.InferenceSession.create(model, session);
  after = before;
  return { parameters: trainer.manifest.state.size };
}

/**
 * Some steps, from where training stands.
 * @param digits to learn in a mirror, `own` ones as they were drawn
 */
async function train({ digits, own, steps }) {
  stopped = false;
  for (let step = 0; step < steps && !stopped; step++) {
    const start = performance.now();
    const rate = learningRate({ kind: 'cosine', lr, warmup, steps }, step);
    const { loss } = await inTurn(() => trainer.step(batchOf(digits, own), rate));
    postMessage({ progress: { step: step + 1, steps, loss, ms: performance.now() - start } });
    // Questions and the wish to stop get their turn.
    await new Promise((resolve) => setTimeout(resolve));
  }
  await renew();
}

function batchOf(digits, own) {
  const batch = Array.from({ length: batchSize }, () => {
    if (own.length > 0 && Math.random() < ownShare) return moved(anyOf(own), below);
    const digit = anyOf(digits);
    return moved(Math.random() < usualShare ? digit : mirrored(digit), below);
  });
  const labels = BigInt64Array.from(batch, ({ label }) => BigInt(label));
  return {
    pixels: new ort.Tensor('float32', pixelsOf(batch), [batchSize, side, side]),
    labels: new ort.Tensor('int64', labels, [batchSize]),
  };
}

const below = (count) => Math.floor(Math.random() * count);
const anyOf = (list) => list[below(list.length)];

/** The model with the adapters as they are now. */
async function renew() {
  const old = after;
  after = await inTurn(() =>
    ort.InferenceSession.create(withTensors(model, trainer.tensors()), session),
  );
  if (old !== before) await old.release();
}

/** Logits of both models, ten for each digit. */
async function predict({ pixels, isRenewed = false }) {
  if (isRenewed) await renew();
  const dims = [pixels.length / side ** 2, side, side];
  const logits = async (model) => {
    const outputs = await model.run({ pixels: new ort.Tensor('float32', pixels, dims) });
    return outputs.logits.data;
  };
  return inTurn(async () => ({ before: await logits(before), after: await logits(after) }));
}

function adapter() {
  return trainer.adapterFile();
}

let last = Promise.resolve();

/** ONNX Runtime Web does one thing at a time. */
function inTurn(work) {
  last = last.then(work, work);
  return last;
}

async function bytesOf(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

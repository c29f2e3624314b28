/** Losses as descriptors: whatever is known of one stands in its file. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, test } from 'vitest';
import {
  losses,
  lossNames,
  lossTrainOptions,
  measuresOfLosses,
  metricsFor,
} from '../../../src/training/losses/index.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => `${folder}/${name}`)
    .filter((path) => path.endsWith('.ts') && !path.startsWith('src/training/losses/'));
}

/** Without comments, which may speak of losses. */
function codeOf(path: string): string {
  const text = readFileSync(join(root, path), 'utf8');
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
}

describe('the name of a loss', () => {
  // A measure is called so, too.
  const measures = new Set(['src/training/metrics/metric.ts']);
  const quoted = new RegExp(`['"\`](?:${lossNames.join('|')})['"\`]`);

  it('is compared and listed nowhere outside the losses', () => {
    const files = [...sources('src'), ...sources('cli')];
    expect(files.length).toBeGreaterThan(100);
    const found = files.filter((path) => !measures.has(path) && quoted.test(codeOf(path)));
    expect(found).toEqual([]);
  });

  it('is in the table of the guide', () => {
    const text = readFileSync(join(root, 'docs/training.md'), 'utf8');
    const rows = [...text.matchAll(/^\| `([a-z-]+)`/gm)].map(([, name]) => name);
    expect(rows).toEqual(expect.arrayContaining([...lossNames]));
  });
});

test.each(lossNames)('%s has a file of its own and measures', (name) => {
  const text = readFileSync(join(root, `src/training/losses/${name}.ts`), 'utf8');
  expect(text).toContain(`name: '${name}'`);
  expect(losses[name].summary).toMatch(/^[a-z].*[^.]$/);
  expect(metricsFor(name)).toBeTypeOf('object');
});

test('help names the losses that an option and a measure belong to', () => {
  expect(lossTrainOptions.temperature).toHaveProperty('only', { loss: ['kl'] });
  expect(measuresOfLosses()).toContain('perplexity for causal-lm, R² for mse');
});

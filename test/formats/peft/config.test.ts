import { describe, expect, it } from 'vitest';
import { parsePeftConfig } from '../../../src/formats/peft/config.js';
import { patternValue } from '../../../src/formats/peft/pattern.js';
import { failure } from '../../support/files.js';

const parse = (fields: Record<string, unknown> | string) =>
  parsePeftConfig(typeof fields === 'string' ? fields : JSON.stringify(fields), 'config.json');

describe('a config of PEFT', () => {
  it('needs its type and nothing else: the rest is PEFT’s default', () => {
    expect(parse({ peft_type: 'LORA' })).toMatchObject({ rank: 8, alpha: 8, scaling: 'standard' });
    expect(parse({ peft_type: 'GRALORA' })).toMatchObject({ rank: 32, alpha: 64, blocks: 2 });
    expect(parse({ peft_type: 'HIRA' })).toMatchObject({ type: 'HIRA', rank: 32, blocks: 1 });
  });

  it('may have fields that nobody knows, and null where nothing is set', () => {
    const config = parse({
      peft_type: 'LORA',
      r: 4,
      rank_pattern: null,
      use_dora: null,
      new: [{}],
    });
    expect(config).toMatchObject({ rank: 4, rankPatterns: [], isDora: false });
  });

  it('counts the rank of the general part beside r', () => {
    const fields = { peft_type: 'GRALORA', r: 16, hybrid_r: 4, gralora_k: 4, alpha: 32 };
    expect(parse(fields)).toMatchObject({ rank: 16, hybridRank: 4, blocks: 4, alpha: 32 });
  });

  it('counts it as a part of r where GraLoRA’s authors wrote it', () => {
    const fields = { peft_type: 'GRALORA', r: 16, hybrid_r: 4, gralora_k: 4, gralora_alpha: 32 };
    expect(parse(fields)).toMatchObject({ rank: 12, hybridRank: 4, blocks: 4, alpha: 32 });
  });
});

describe('a config is refused', () => {
  it.each<[string, string, string]>([
    ['no JSON', '{"peft_type": "LORA"', 'it is not valid JSON'],
    ['a list', '[]', 'it is array, expected an object'],
    ['a number', '8', 'it is number, expected an object'],
    ['a key twice', '{"peft_type": "LORA", "r": 8, "r": 4}', 'has the key "r" twice'],
    ['deep nesting', `{"a":${'['.repeat(99)}${']'.repeat(99)}}`, 'nested more than 32 levels'],
    ['no type', '{"r": 8}', 'peft_type'],
    ['a rank of 0', '{"peft_type": "LORA", "r": 0}', 'r: '],
    ['a rank that is no number', '{"peft_type": "LORA", "r": "8"}', 'r: '],
    ['a huge rank', '{"peft_type": "LORA", "r": 1e9}', 'r: '],
    ['a huge alpha', '{"peft_type": "LORA", "lora_alpha": 1e999}', 'lora_alpha: '],
    ['a broken pattern', '{"peft_type": "LORA", "rank_pattern": {"q": -1}}', 'rank_pattern.q: '],
    [
      'blocks that do not divide',
      '{"peft_type":"GRALORA","r":6,"gralora_k":4}',
      'not a multiple of',
    ],
    [
      'nothing but a general part',
      '{"peft_type":"GRALORA","r":4,"hybrid_r":4,"gralora_alpha":8}',
      'rank 0',
    ],
  ])('for %s', async (_, text, problem) => {
    const { message } = await failure(() => parse(text), 'invalid-adapter');
    expect(message.toLowerCase()).toContain(problem.toLowerCase());
    expect(message).toContain('config.json');
  });

  it.each<[Record<string, unknown>, string]>([
    [{ peft_type: 'LOHA' }, 'its peft_type is "LOHA", expected LORA, GRALORA or HIRA'],
    [{ use_qalora: true }, 'use_qalora is set: QA-LoRA'],
    [{ alora_invocation_tokens: [1, 2] }, 'alora_invocation_tokens is set'],
    [{ layer_replication: [[0, 4]] }, 'layer_replication is set'],
    [{ target_parameters: ['experts.w'] }, 'target_parameters is set'],
    [{ trainable_token_indices: [7] }, 'trainable_token_indices is set'],
    [{ use_bdlora: { nblocks: 2 } }, 'use_bdlora is set'],
    [{ arrow_config: { top_k: 2 } }, 'arrow_config is set'],
    [{ kasa_config: { beta: 1 } }, 'kasa_config is set'],
    [{ monteclora_config: { num_samples: 2 } }, 'monteclora_config is set'],
    [
      { init_lora_weights: 'pissa' },
      'init_lora_weights is "pissa", which changed the base weights',
    ],
    [{ init_lora_weights: 'pissa_niter_16' }, 'changed the base weights'],
    [{ init_lora_weights: 'olora' }, 'changed the base weights'],
    [{ init_lora_weights: 'corda' }, 'changed the base weights'],
    [{ init_lora_weights: 'loftq' }, 'changed the base weights'],
  ])('with the reason, for %o', async (fields, reason) => {
    const run = () => parse({ peft_type: 'LORA', ...fields });
    const { message, hint } = await failure(run, 'unsupported');
    expect(message).toContain(reason);
    expect(hint).toMatch(/merge_and_unload|save_pretrained/);
  });

  it.each([{ init_lora_weights: 'gaussian' }, { init_lora_weights: 'eva' }, { use_qalora: false }])(
    'not for %o',
    (fields) => {
      expect(parse({ peft_type: 'LORA', ...fields }).type).toBe('LORA');
    },
  );
});

describe('a pattern of modules', () => {
  const value = (pattern: string, module: string) =>
    patternValue([[pattern, 1]], module, 'config.json');

  it.each([
    ['query', 'layer.0.query', 1],
    ['query', 'query', 1],
    ['query', 'subquery', undefined],
    ['attention.query', 'layer.0.attention.query', 1],
    ['layer\\.(0|2)\\..*', 'bert.layer.2.key', 1],
    ['layer\\.(0|2)\\..*', 'bert.layer.1.key', undefined],
    ['q|v', 'layer.0.v', 1],
    ['(?P<name>q)', 'a.q', 1],
  ])('%s for %s gives %s', (pattern, module, expected) => {
    expect(value(pattern, module)).toBe(expected);
  });

  it('is the first of several that match', () => {
    const patterns = [
      ['key', 1],
      ['self.query', 2],
      ['query', 3],
    ] as const;
    expect(patternValue(patterns, 'a.self.query', '')).toBe(2);
  });

  it('is refused where it is none, or takes forever', async () => {
    await failure(() => value('(', 'a.q'), 'invalid-adapter');
    const { message } = await failure(() => value('(a+)+b', 'a'.repeat(40)), 'invalid-adapter');
    expect(message).toContain('"(a+)+b" cannot be matched');
  });
});

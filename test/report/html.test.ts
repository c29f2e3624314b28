import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import type { AdapterSummary } from '../../src/adapters/kinds/summary.js';
import { inspectPage } from '../../src/report/html.js';
import type { InspectedTarget, InspectResult } from '../../src/report/inspection.js';
import { escapeText, markup } from '../../src/report/markup.js';
import { script } from '../../src/report/page-style.js';

const EVIL = `"><script>alert('1')</script><img src=x onerror=alert(1)>&amp;\u0000\u202e\n</style>`;

function adapter(fields: Partial<AdapterSummary> = {}): AdapterSummary {
  return {
    name: 'encoder.layer.0.query',
    set: 'default',
    shape: [64, 48],
    kind: 'lora',
    structure: 'localized',
    grid: [2, 3],
    rank: 6,
    blockRank: 2,
    hybridRank: 0,
    alpha: 12,
    scale: 2,
    parameters: 1234,
    a: 'A',
    b: 'B',
    nodes: ['n'],
    norm: 1.5,
    ...fields,
  };
}

function target(
  adapters: readonly AdapterSummary[],
  fields: Partial<InspectedTarget> = {},
): InspectedTarget {
  return {
    node: 'n',
    op: 'MatMul',
    module: 'encoder.layer.0.query',
    weight: { name: 'W', shape: [8, 12], dtype: 'float32', bytes: 384, source: 'initializer' },
    eligible: true,
    reason: 'MatMul with a constant weight',
    adapter: adapters[0] ?? null,
    adapters,
    slot: null,
    ...fields,
  };
}

function result(targets: readonly InspectedTarget[], text = 'x'): InspectResult {
  const sets = [...new Set(targets.flatMap(({ adapters }) => adapters.map(({ set }) => set)))];
  return {
    model: {
      path: `/models/${text}`,
      irVersion: 8,
      opsets: [{ domain: text, version: 17 }],
      producer: text,
      bytes: 1000,
      externalData: [{ location: text, bytes: null }],
      parameters: 5000,
    },
    slots: null,
    inputs: [{ name: text, type: 'float32', shape: [text, 3, null] }],
    outputs: [{ name: text, type: 'unknown', shape: null }],
    targets,
    summary: {
      targets: targets.length,
      eligible: 1,
      adapted: 1,
      adapterParameters: 12,
      percent: 0.001,
    },
    sets: sets.map((name) => ({
      ...{ name, adapters: 1, parameters: 12, createdBy: text },
      ...{ head: null, replaced: [] },
    })),
  };
}

const grid = (...rows: number[][]) => rows.map((row) => Float64Array.from(row));

const VOID = new Set(['meta', 'input', 'wbr', 'br']);

/** A strict reader: quoted attributes, matched tags, no stray `<` or `&`. */
function checkWellFormed(page: string): Map<string, number> {
  const counts = new Map<string, number>();
  const open: string[] = [];
  const body = page
    .replace(/^<!doctype html>\n/, '')
    .replace(/<(style|script)>[\s\S]*?<\/\1>/g, '<$1></$1>');
  const tag = /<(\/?)([a-z][a-z0-9]*)((?: [a-z-]+(?:="[^"<>]*")?)*)>/y;
  for (let at = 0; at < body.length; ) {
    if (body[at] !== '<') {
      const next = body.indexOf('<', at);
      const text = body.slice(at, next < 0 ? undefined : next);
      expect(text.replace(/&(amp|lt|gt|quot|#39);/g, '')).not.toMatch(/[&>]/);
      at += text.length;
      continue;
    }
    tag.lastIndex = at;
    const match = tag.exec(body);
    if (!match) throw new Error(`not a tag: ${body.slice(at, at + 120)}`);
    at = tag.lastIndex;
    const [, closing, name = '', attributes = ''] = match;
    expect(attributes.replace(/&(amp|lt|gt|quot|#39);/g, '')).not.toContain('&');
    if (closing) expect(open.pop()).toBe(name);
    else if (!VOID.has(name)) open.push(name);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  expect(open).toEqual([]);
  return counts;
}

function trained(text = 'encoder.layer.0.query'): string {
  const first = adapter({ name: text, set: text, nodes: [text, text] });
  const diagonal = adapter({ name: 'head', structure: 'diagonal', grid: [2, 2], norm: 0.5 });
  const targets = [
    target([first], { node: text, op: text, module: text, reason: text }),
    target([diagonal], { module: 'head' }),
    target([], { weight: null, eligible: false, node: text, module: text, reason: text }),
  ];
  const norms = new Map([
    [first, grid([0, 0.5, 1], [0.25, 0, 0])],
    [diagonal, grid([0.3, 0], [0, 0.4])],
  ]);
  return inspectPage(result(targets, text), norms);
}

describe('the inspect page', () => {
  it('is well-formed and draws a cell for every block', () => {
    const page = trained();
    const counts = checkWellFormed(page);
    expect(counts.get('figure')).toBe(2 * 2);
    expect(page.match(/class="none"/g)).toHaveLength(2);
    expect(page).toContain(
      '--all:1.000;--own:1.000" title="1.00 · block n 0, j 2 · in 0–3 → out 8–11"',
    );
    expect(page).toContain('--all:0.400;--own:1.000"');
  });

  it('keeps text from the model text', () => {
    const page = trained(EVIL);
    expect(checkWellFormed(page).get('script')).toBe(2);
    expect(page).not.toContain('<img');
    expect(page).not.toMatch(/alert\('1'\)/);
    for (const hidden of ['\u0000', '\u202e']) expect(page).not.toContain(hidden);
    expect(page).toContain('&quot;&gt;&lt;script&gt;');
  });

  it('asks for nothing outside itself', () => {
    const page = trained();
    expect(page).not.toMatch(/https?:|\/\/[a-z]|url\(|@import|<link|\bsrc=|\bhref=/i);
    expect(page).toMatch(/Content-Security-Policy" content="default-src &#39;none&#39;/);
  });

  it('has a script that parses', () => {
    expect(() => runInNewContext(`(document, innerWidth) => {${script}}`)).not.toThrow();
  });

  it('says what it does not draw, and why', () => {
    const fresh = adapter({ norm: 0 });
    expect(inspectPage(result([target([fresh])]), new Map())).toContain('ΔW is 0 everywhere');
    const broken = adapter({ name: 'b', norm: Number.NaN });
    const fine = adapter({ name: 'f', grid: [64, 64] });
    const page = inspectPage(
      result([target([fresh]), target([broken]), target([fine])]),
      new Map(),
    );
    checkWellFormed(page);
    expect(page).toContain('1 adapter is still at 0');
    expect(page).toContain('too many blocks');
    expect(page).toContain('not all numbers are finite');
  });

  it('has no map for a model without adapters', () => {
    const page = inspectPage(result([target([])]), new Map());
    expect(page).not.toContain('Where the adapters learned');
    expect(page).toContain('can take one');
    expect(inspectPage(result([]), new Map())).toContain('no operator that multiplies');
  });
});

describe('markup', () => {
  it('escapes what it is given, once, and leaves markup alone', () => {
    const inner = markup`<b title="${'"'}">${'<&>'}</b>`;
    expect(markup`${inner}${[inner, null, false, undefined, 0]}`.text).toBe(
      `${'<b title="&quot;">&lt;&amp;&gt;</b>'.repeat(2)}0`,
    );
    expect(escapeText("a'b\u2066")).toBe('a&#39;b\ufffd');
  });
});

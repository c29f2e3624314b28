import * as v from 'valibot';
import { expect, test } from 'vitest';
import type { Schema } from '../../src/options/option.js';
import {
  choice,
  list,
  number,
  path,
  positive,
  shapeOf,
  share,
  text,
  toggle,
  whole,
} from '../../src/options/schemas.js';

test.each<[string, Schema, object]>([
  ['a toggle', toggle, { kind: 'boolean' }],
  ['a text', text, { kind: 'text' }],
  ['a path', path, { kind: 'path' }],
  ['a whole number', whole(1), { kind: 'whole' }],
  ['a number', number, { kind: 'number' }],
  ['a share', share, { kind: 'number' }],
  ['a choice', choice(['sgd', 'adamw']), { kind: 'text', choices: ['sgd', 'adamw'] }],
  ['a list', list(positive), { kind: 'number', many: true }],
  ['a pair', v.tuple([share, share]), { kind: 'number', many: 2 }],
  ['the first of several', v.union([text, list(text)]), { kind: 'text' }],
  ['a refined value', v.pipe(whole(1), v.transform(String)), { kind: 'whole' }],
])('%s has a shape', (_, schema, shape) => {
  expect(shapeOf(schema)).toEqual(shape);
});

test.each<[Schema, unknown, string]>([
  [whole(1, 1024), 2000, 'a whole number from 1 to 1024'],
  [whole(), 0.5, 'a whole number'],
  [whole(0), 2 ** 53, 'a whole number from 0 on'],
  [number, 1e39, 'a number up to 3.4e38'],
  [number, Number.POSITIVE_INFINITY, 'a number up to 3.4e38'],
  [positive, 1e-50, 'a number above 0'],
  [share, 1, 'a share from 0 to below 1'],
  [share, -0.1, 'a share from 0 to below 1'],
])('what was expected is told (%#)', (schema, value, expected) => {
  expect(v.safeParse(schema, value).issues?.[0].message).toBe(expected);
});

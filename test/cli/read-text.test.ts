import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';
import { readText } from '../../src/cli/read-text.ts';
import { maxDocumentBytes } from '../../src/yaml.ts';
import { policy } from '../http/documents.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { main, runCli } from './run-cli.ts';

const scope = createScope();
const dir = makeTempDir(scope);
afterAll(() => scope.close());

const write = (name: string, content: string | Uint8Array) => {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
};
mkdirSync(join(dir, 'tree'));

test.each([
  ['empty', '', ''],
  ['short', 'a: b\n', 'a: b\n'],
  ['of several chunks', 'é'.repeat(100_000), 'é'.repeat(100_000)],
  ['as large as may be', 'x'.repeat(300_000), 'x'.repeat(300_000)],
])('reads what is %s', (name, content, expected) => {
  expect(readText(write(name, content), name, 300_000)).toBe(expected);
});

test.each([
  ['is not there', join(dir, 'absent'), 'file_missing', /does not exist$/],
  ['is a directory', join(dir, 'tree'), 'file_missing', /is a directory$/],
  ['is not UTF-8', write('latin', Uint8Array.of(0xe9)), 'input_unreadable', /is not UTF-8 text$/],
  ['is a byte too large', write('large', 'x'.repeat(101)), 'document_too_large', /is larger than 100 bytes$/],
  ['never ends', '/dev/zero', 'document_too_large', /is larger than 100 bytes$/],
])('refuses what %s', (_, path, code, message) => {
  expect(() => readText(path, path, 100)).toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});

test('what comes in many pieces takes up no more than what it is', () => {
  const path = join(dir, 'dripping');
  execFileSync('mkfifo', [path]);
  const drip = `const { openSync, writeSync } = require('node:fs');
    const [into, nothing] = [openSync(process.argv[1], 'w'), new Int32Array(new SharedArrayBuffer(4))];
    for (let i = 0; i < 600; i++) { writeSync(into, 'a piece\\n'); Atomics.wait(nothing, 0, 0, 1); }`;
  spawn(process.execPath, ['-e', drip, path], { stdio: 'ignore' });
  const before = process.memoryUsage().arrayBuffers;
  expect(readText(path, path)).toBe('a piece\n'.repeat(600));
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2_000_000);
});

test('standard input may come late, and in pieces', async () => {
  const child = spawn(process.execPath, [main, 'policy', 'lint', '-f', '-'], { stdio: 'pipe' });
  const [out, err] = [text(child.stdout), text(child.stderr)];
  for (const piece of [policy('late', 'shop'), '# and ', 'more']) {
    await setTimeout(700);
    child.stdin.write(piece);
  }
  child.stdin.end();
  expect([await out, await err]).toEqual([
    expect.stringMatching(/^1 policy: 0 errors/m),
    expect.not.stringContaining('error['),
  ]);
});

test('a command names the file, or standard input, that is too large', async () => {
  const large = `# ${'x'.repeat(maxDocumentBytes)}`;
  const asked = ['apply', '--socket', join(dir, 'none.sock'), '-f'];
  const [file, stdin] = [
    await runCli([...asked, write('large.yaml', large)]),
    await runCli([...asked, '-'], { stdin: large }),
  ];
  expect([file.code, file.err]).toEqual([
    2,
    expect.stringMatching(/document_too_large\]: ".*large.yaml" is larger than 1048576 bytes/),
  ]);
  expect([stdin.code, stdin.err]).toEqual([2, expect.stringContaining('"<stdin>" is larger')]);
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-log-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const logModule = join(import.meta.dirname, '../src/log.ts');

/** Runs a script that has a `log` and a `limit` on the size of files; answers with its exit code. */
async function run(
  script: string,
  stderr: number | 'pipe',
  afterStart: (child: ReturnType<typeof spawn>) => void,
) {
  const whole = `
    import { execFileSync } from 'node:child_process';
    import { openLog } from ${JSON.stringify(logModule)};
    const log = openLog('info');
    const limit = (bytes) => execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=' + bytes + ':']);
    ${script}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', whole], {
    stdio: ['ignore', 'ignore', stderr],
  });
  afterStart(child);
  return (await once(child, 'exit'))[0] as number;
}

test('a full disk costs lines, and their number is told when there is room again', async () => {
  const file = join(directory, 'log');
  const descriptor = openSync(file, 'a');
  const script = `log.info('before'); limit(0); log.info('one'); log.error('two'); limit('unlimited'); log.info('after');`;
  expect(await run(script, descriptor, () => closeSync(descriptor))).toBe(0);
  const lines = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { msg: string });
  expect(lines).toMatchObject([{ msg: 'before' }, { msg: 'log lines were lost', lost: 2 }, { msg: 'after' }]);
});

test('a reader that goes away ends nothing', async () => {
  const script = `
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (let i = 0; i < 100; i++) log.info('nobody reads this');
    process.exit(7);`;
  expect(await run(script, 'pipe', (child) => child.stderr?.destroy())).toBe(7);
});

test('secrets do not reach it', async () => {
  const file = join(directory, 'log');
  const descriptor = openSync(file, 'a');
  const script = `log.info({ privateKey: 'sesame', a: { token: 'sesame', passphrase: 'sesame' } }, 'said');`;
  expect(await run(script, descriptor, () => closeSync(descriptor))).toBe(0);
  const text = readFileSync(file, 'utf8');
  expect(text).toContain('said');
  expect(text).not.toContain('sesame');
});

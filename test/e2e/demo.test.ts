import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cd-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Runs the demo as a reader would, with a directory for its temporary files that we can look into. */
function runDemo(...args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, TMPDIR: directory, NO_COLOR: '1' };
    execFile('bash', ['tool/demo', ...args], { env, timeout: 110_000 }, (error, stdout, stderr) => {
      resolve({
        code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1,
        output: stdout + stderr,
      });
    });
  });
}

test(
  'the demo checks every step, ends well in under two minutes, and cleans up',
  { timeout: 120_000 },
  async () => {
    const { code, output } = await runDemo();
    expect(output).not.toContain('×');
    for (const shown of [
      /shop\/web \/certs +serial [0-9a-f]{40}/,
      /GET \/orders\/1 +HTTP 200 from shop\/orders/,
      /countersign agent files +wrote serial [0-9a-f]{40}/,
      /GET \/ of assets +HTTP 200 from shop\/assets to [0-9A-F]{40}/,
      /without a certificate +refused: 400 No required SSL certificate was sent/,
      /GET \/accounts\/1 +HTTP 403 denied by policy/,
      /SDS +refused/,
      /TLS with none +refused: TLS alert/,
      /TLS with its own CA +refused: TLS alert/,
      /GET \/accounts\/1 +HTTP 200 from pay\/ledger, \d+ ms later/,
      /requests meanwhile +\d+ sent, 0 failed/,
      /countersign policy replay +exit 1: \d+ calls newly denied/,
      /who would be +\S+\/shop\/sa\/web -> \S+\/pay\/sa\/ledger, GET/,
      /countersign policy replay +exit 0: 0 calls newly denied/,
      /countersign policy shadow +\d+ calls judged by both, 0 newly denied/,
      /countersign policy canary +100 %: \d+ calls judged, 0 newly denied/,
      /countersign policy enforce +revision 3 is in force/,
      /POST \/accounts\/1 +HTTP 403/,
      /shop\/assets, NGINX +[0-9a-f]{12}… -> [0-9a-f]{12}…/,
      /issued to shop\/assets +\d+ certificates/,
      /issued to pay\/ledger +\d+ certificates/,
      /all of it checked, in \d+ s/,
    ]) {
      expect(output).toMatch(shown);
    }
    expect(code).toBe(0);
    expect(readdirSync(directory)).toEqual([]);
  },
);

test.each([
  ['entry:orders', 'step 3, '],
  ['policy:orders', 'step 4, '],
  ['entry:assets', 'step 5, '],
])('without %s it fails at %s', { timeout: 120_000 }, async (missing, step) => {
  const { code, output } = await runDemo('--without', missing);
  expect(output).toContain(`× ${step}`);
  expect(code).toBe(1);
  expect(readdirSync(directory)).toEqual([]);
});

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Clock, systemClock } from '../src/clock.ts';
import { loadConfig } from '../src/config.ts';
import type { CaReport } from '../src/http/ca-report.ts';
import { type Running, startUp } from '../src/up.ts';
import { eventually } from './harness/eventually.ts';
import { ask } from './harness/http.ts';
import { createScope, type Scope } from './harness/scope.ts';
import { followSecret } from './harness/sds-stream.ts';

let directory: string;
let scope: Scope;
let running: Running;
let offsetMs: number;
let lines: { level: number; cause?: string }[];

// Whoever sleeps is woken ten times a second, so that a minute's watch takes a moment and a storm would show.
const clock: Clock = {
  now: () => new Date(Date.now() + offsetMs),
  sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 100), signal),
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-step-'));
  scope = createScope();
  offsetMs = 0;
  lines = [];
  const flags = {
    dataDir: join(directory, 'data'),
    workloadSocket: join(directory, 'w.sock'),
    adminSocket: join(directory, 'a.sock'),
    adminAddress: 'off',
    shutdownGraceSeconds: '0',
  };
  const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
  const log = pino({ level: 'error' }, { write: (line) => void lines.push(JSON.parse(line)) });
  running = await startUp(config, log, clock);
  const selectors = [`unix:uid:${process.getuid?.() ?? 0}`];
  const entry = { id: 'web', spiffeId: 'spiffe://mesh.internal/web', selectors, ttlSeconds: 3_600 };
  await ask({
    to: join(directory, 'a.sock'),
    method: 'POST',
    path: '/v1/entries',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(entry),
  });
});

afterEach(async () => {
  await scope.close();
  await running.close();
  rmSync(directory, { recursive: true, force: true });
});

test.each<{ what: string; stepMs: number; doubt: RegExp; renewals: number }>([
  // Before its beginning and after its end the CA signs nothing: what has been issued stays where it is.
  { what: 'an hour back', stepMs: -3_600_000, doubt: /back by 3[56]\d\d seconds/, renewals: 0 },
  { what: 'an hour forward', stepMs: 3_600_000, doubt: /forward by 3[56]\d\d seconds/, renewals: 1 },
  {
    what: 'ten years forward',
    stepMs: 315_360_000_000,
    doubt: /forward by 3153[56]\d{4} seconds/,
    renewals: 0,
  },
])(
  'the clock is put $what and right again: an alarm, no key is rotated, nobody loses a certificate',
  async ({ stepMs, doubt, renewals }) => {
    const stream = followSecret(scope, join(directory, 'w.sock'));
    await eventually('a certificate', () => stream.certificates.length === 1);
    const before = (await report()).authorities;

    offsetMs = stepMs;
    await eventually('the alarm', () => lines.some(({ cause = '' }) => doubt.test(cause)));
    if (renewals > 0) await eventually('the renewal', () => stream.certificates.length > renewals);
    // Time for a storm: twenty looks at every certificate and key.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(stream.certificates.length).toBe(1 + renewals);
    const { warnings } = JSON.parse((await ask({ to: join(directory, 'a.sock'), path: '/readyz' })).body);
    expect(warnings).toContainEqual(expect.stringMatching(doubt));
    const during = await report();
    expect(during.doubt).toMatch(doubt);
    expect(during.authorities).toEqual(before);
    expect(await metric('countersign_clock_in_doubt')).toBe(1);

    offsetMs = 0;
    await eventually('the end of the doubt', async () => (await report()).doubt === null);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(stream.certificates.length).toBeLessThanOrEqual(3);
    expect((await report()).authorities).toEqual(before);
    expect([stream.withdrawals(), stream.ended()]).toEqual([0, undefined]);
    expect(await metric('countersign_clock_in_doubt')).toBe(0);
  },
  120_000,
);

async function report(): Promise<CaReport> {
  return JSON.parse((await ask({ to: join(directory, 'a.sock'), path: '/v1/ca' })).body) as CaReport;
}

async function metric(name: string): Promise<number> {
  const { body } = await ask({ to: join(directory, 'a.sock'), path: '/metrics' });
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(body)?.[1]);
}

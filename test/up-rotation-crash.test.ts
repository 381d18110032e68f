import { spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../src/config.ts';
import type { CaReport } from '../src/http/ca-report.ts';
import { openLog } from '../src/log.ts';
import { type Running, startUp } from '../src/up.ts';
import type { Failpoint } from '../src/up-authority.ts';
import { ask } from './harness/http.ts';

let directory: string;
let running: Running | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-crash-'));
});

afterEach(async () => {
  await running?.close();
  running = undefined;
  rmSync(directory, { recursive: true, force: true });
});

type Step = readonly [string, object];
const prepare: Step = ['rotate', { scope: 'root' }];
const request: Step = ['rotate', { scope: 'root', offline: true }];
const renew: Step = ['rotate', { scope: 'intermediate' }];
const activate: Step = ['activate', {}];
const retire: Step = ['retire', {}];

test.each<{ what: string; steps: readonly Step[]; failpoint: Failpoint; roots: number; sequence: number }>([
  { what: 'the first start, keys sealed', steps: [], failpoint: 'keys_sealed', roots: 1, sequence: 1 },
  { what: 'the first start, stored', steps: [], failpoint: 'stored', roots: 1, sequence: 1 },
  {
    what: 'a new intermediate, keys sealed',
    steps: [renew],
    failpoint: 'keys_sealed',
    roots: 1,
    sequence: 1,
  },
  { what: 'a new intermediate, stored', steps: [renew], failpoint: 'stored', roots: 1, sequence: 1 },
  {
    what: 'a new intermediate, in force',
    steps: [renew],
    failpoint: 'signer_switched',
    roots: 1,
    sequence: 1,
  },
  { what: 'a new root, keys sealed', steps: [prepare], failpoint: 'keys_sealed', roots: 1, sequence: 1 },
  {
    what: 'a key for a root elsewhere, sealed',
    steps: [request],
    failpoint: 'keys_sealed',
    roots: 1,
    sequence: 1,
  },
  {
    what: 'a key for a root elsewhere, stored',
    steps: [request],
    failpoint: 'stored',
    roots: 1,
    sequence: 1,
  },
  { what: 'a new root, stored', steps: [prepare], failpoint: 'stored', roots: 2, sequence: 2 },
  { what: 'a new root, published', steps: [prepare], failpoint: 'published', roots: 2, sequence: 2 },
  { what: 'activate, stored', steps: [prepare, activate], failpoint: 'stored', roots: 2, sequence: 2 },
  {
    what: 'activate, in force',
    steps: [prepare, activate],
    failpoint: 'signer_switched',
    roots: 2,
    sequence: 2,
  },
  { what: 'retire, stored', steps: [prepare, activate, retire], failpoint: 'stored', roots: 1, sequence: 3 },
  {
    what: 'retire, published',
    steps: [prepare, activate, retire],
    failpoint: 'published',
    roots: 1,
    sequence: 3,
  },
  {
    what: 'retire, keys forgotten',
    steps: [prepare, activate, retire],
    failpoint: 'keys_forgotten',
    roots: 1,
    sequence: 3,
  },
])(
  'SIGKILL at $what: the next start goes on from there',
  async ({ steps, failpoint, roots, sequence }) => {
    expect(await die(steps, failpoint)).toBe('SIGKILL');
    running = await startUp(loadConfig(configSource()), openLog('silent'));
    const found = await report();
    expect(found.bundleSequence).toBe(sequence);
    await check(found, roots);
    // Whatever was under way can be brought to its end.
    if (!found.authorities.some(({ kind, state }) => kind === 'root' && state !== 'active'))
      await post(prepare);
    if ((await report()).next?.step === 'activate') await post(activate);
    await post(retire);
    await check(await report(), 1);
  },
  60_000,
);

/** One signer, under a root that is published; and no key on disk that is not of use. */
async function check({ authorities }: CaReport, roots: number): Promise<void> {
  const [signer, ...others] = authorities.filter(
    ({ kind, state }) => kind === 'intermediate' && state === 'active',
  );
  expect(others).toEqual([]);
  const pem = (await ask({ to: adminSocket(), path: '/v1/trust-bundle' })).body;
  const bundle = pem.split(/(?<=-----END CERTIFICATE-----\n)/).map((one) => new X509Certificate(one));
  expect(bundle).toHaveLength(roots);
  const published = authorities.filter(({ kind }) => kind === 'root').map(({ keyId }) => keyId);
  expect(published).toHaveLength(roots);
  expect(published).toContain(signer?.rootKeyId);
  const files = readdirSync(join(directory, 'data', 'keys'));
  for (const { keyId } of authorities) expect(files).toContain(`${keyId}.json`);
  expect(files.filter((file) => file.endsWith('.tmp'))).toEqual([]);
}

async function report(): Promise<CaReport> {
  return JSON.parse((await ask({ to: adminSocket(), path: '/v1/ca' })).body) as CaReport;
}

async function post([step, body]: Step): Promise<void> {
  const answer = await ask({
    to: adminSocket(),
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  expect([step, answer.status, answer.status === 200 ? '' : answer.body]).toEqual([step, 200, '']);
}

function die(steps: readonly Step[], failpoint: Failpoint): Promise<number | string | null> {
  const task = JSON.stringify({ flags: configSource().flags, steps, failpoint });
  const child = spawn(process.execPath, [join(import.meta.dirname, 'harness/dying-authority.ts'), task], {
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: 40_000,
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(signal ?? code));
  });
}

function configSource() {
  return {
    flags: {
      dataDir: join(directory, 'data'),
      workloadSocket: join(directory, 'w.sock'),
      adminSocket: adminSocket(),
      adminAddress: 'off',
      shutdownGraceSeconds: '0',
    },
    environment: {},
    file: null,
    isRoot: false,
  };
}

function adminSocket(): string {
  return join(directory, 'a.sock');
}

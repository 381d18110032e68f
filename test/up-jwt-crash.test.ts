import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../src/config.ts';
import type { KeyReport } from '../src/http/ca-routes.ts';
import { openLog } from '../src/log.ts';
import { type Running, startUp } from '../src/up.ts';
import type { JwtFailpoint } from '../src/up-jwt-keys.ts';
import { ask } from './harness/http.ts';

let directory: string;
let running: Running | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-jwt-crash-'));
});

afterEach(async () => {
  await running?.close();
  running = undefined;
  rmSync(directory, { recursive: true, force: true });
});

type Step = readonly [string, object];
const jwt = { scope: 'jwt' };
const prepare: Step = ['rotate', jwt];
const activate: Step = ['activate', { ...jwt, force: true }];
const retire: Step = ['retire', { ...jwt, force: true }];

type Crash = {
  what: string;
  steps: readonly Step[];
  failpoint: JwtFailpoint;
  /** As the next start finds them. */
  states: readonly string[];
  sequence: number;
};
test.each<Crash>([
  {
    what: 'the first start, sealed',
    steps: [],
    failpoint: 'jwt_key_sealed',
    states: ['active'],
    sequence: 1,
  },
  { what: 'the first start, stored', steps: [], failpoint: 'jwt_stored', states: ['active'], sequence: 1 },
  {
    what: 'a new key, sealed',
    steps: [prepare],
    failpoint: 'jwt_key_sealed',
    states: ['active'],
    sequence: 1,
  },
  {
    what: 'a new key, stored',
    steps: [prepare],
    failpoint: 'jwt_stored',
    states: ['active', 'prepared'],
    sequence: 2,
  },
  {
    what: 'a new key, published',
    steps: [prepare],
    failpoint: 'jwt_published',
    states: ['active', 'prepared'],
    sequence: 2,
  },
  {
    what: 'activate, stored',
    steps: [prepare, activate],
    failpoint: 'jwt_stored',
    states: ['retiring', 'active'],
    sequence: 2,
  },
  {
    what: 'activate, in force',
    steps: [prepare, activate],
    failpoint: 'jwt_signer_switched',
    states: ['retiring', 'active'],
    sequence: 2,
  },
  {
    what: 'retire, stored',
    steps: [prepare, activate, retire],
    failpoint: 'jwt_stored',
    states: ['active'],
    sequence: 3,
  },
  {
    what: 'retire, published',
    steps: [prepare, activate, retire],
    failpoint: 'jwt_published',
    states: ['active'],
    sequence: 3,
  },
  {
    what: 'retire, forgotten',
    steps: [prepare, activate, retire],
    failpoint: 'jwt_key_forgotten',
    states: ['active'],
    sequence: 3,
  },
])(
  'SIGKILL at $what: the next start goes on from there',
  async ({ steps, failpoint, states, sequence }) => {
    expect(await die(steps, failpoint)).toBe('SIGKILL');
    const found = await start();
    expect(found.jwtKeys.map(({ state }) => state)).toEqual(states);
    expect(found.jwtBundleSequence).toBe(sequence);
    await check(found);
    // Whatever was under way can be brought to its end.
    if (states.length === 1) await post(prepare);
    if ((await report()).jwtKeys.some(({ state }) => state === 'prepared')) await post(activate);
    await post(retire);
    const after = await report();
    expect(after.jwtKeys.map(({ state }) => state)).toEqual(['active']);
    await check(after);
  },
  60_000,
);

test.each<[JwtFailpoint, number]>([
  // Withdrawn, and nothing in its place yet: the next start makes it.
  ['jwt_stored', 3],
  ['jwt_published', 3],
  ['jwt_key_forgotten', 3],
  ['jwt_key_sealed', 3],
])(
  'SIGKILL at %s of a taint: the stolen key is in no bundle, and another signs',
  async (failpoint, sequence) => {
    const [stolen] = (await start()).jwtKeys;
    await running?.close();
    running = undefined;
    expect(await die([['taint', { keyId: stolen?.keyId }]], failpoint)).toBe('SIGKILL');
    const found = await start();
    expect(found.jwtKeys.map(({ state }) => state)).toEqual(['active']);
    expect(found.jwtKeys[0]?.keyId).not.toBe(stolen?.keyId);
    expect(found.jwtBundleSequence).toBe(sequence);
    await check(found);
    expect(readdirSync(join(directory, 'data', 'keys'))).not.toContain(`${stolen?.keyId}.json`);
  },
  60_000,
);

/** One key signs, the bundle holds those that are reported and no others, and each has its file. */
async function check({ jwtKeys }: KeyReport): Promise<void> {
  expect(jwtKeys.filter(({ state }) => state === 'active')).toHaveLength(1);
  const { keys } = JSON.parse((await ask({ to: adminSocket(), path: '/v1/jwt/bundle' })).body) as {
    keys: { kid: string }[];
  };
  expect(keys.map(({ kid }) => kid)).toEqual(jwtKeys.map(({ keyId }) => keyId).sort());
  const files = readdirSync(join(directory, 'data', 'keys'));
  for (const { keyId } of jwtKeys) expect(files).toContain(`${keyId}.json`);
  expect(files.filter((file) => file.endsWith('.tmp'))).toEqual([]);
}

async function start(): Promise<KeyReport> {
  running = await startUp(loadConfig(configSource()), openLog('silent'));
  return report();
}

async function report(): Promise<KeyReport> {
  return JSON.parse((await ask({ to: adminSocket(), path: '/v1/ca' })).body) as KeyReport;
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

function die(steps: readonly Step[], failpoint: JwtFailpoint): Promise<number | string | null> {
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

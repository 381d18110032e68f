import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { judgeRoom } from '../../src/cli/check-files.ts';
import { type CheckCode, checkSections, type CheckResult } from '../../src/cli/check-report.ts';
import { splitDer } from '../../src/cli/check-workload.ts';
import { ask } from '../harness/http.ts';
import { check, type Installation, startInstallation, wrong } from './check-installation.ts';
import { startRelay } from './lying-relay.ts';
import { runCli } from './run-cli.ts';

let installation: Installation;
let mended: (() => void)[];

beforeAll(async () => {
  installation = await startInstallation();
});
afterAll(() => installation.close());
beforeEach(() => {
  mended = [];
});
afterEach(() => {
  for (const mend of mended.reverse()) mend();
});

describe('an installation in order', () => {
  test('is found so: nothing failed, nothing to be warned of', async () => {
    const results = await check(installation.adminSocket);
    expect(results.filter(({ status }) => status === 'failed' || status === 'warning')).toEqual([]);
    const passed = results.filter(({ status }) => status === 'ok').map(({ code }) => code);
    expect(passed).toEqual(
      expect.arrayContaining([
        'admin_tls',
        'node_api_tls',
        'trust_endpoint_tls',
        'workload_api_answers',
        'issuer_valid',
      ]),
    );
  });

  test('is shown in sections, with exit code 0', async () => {
    const { code, out, err } = await runCli(['check', '--socket', installation.adminSocket]);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^configuration\n-{13}\n√ the configuration can be read\n\n/);
    expect(out).toMatch(/\n\d+ passed, 0 warnings, 0 failed, \d+ skipped\n$/);
    expect(out).not.toMatch(/×|‼|fix/);
  });
});

const chmod = (path: () => string, mode: number, back: number) => () => {
  chmodSync(path(), mode);
  mended.push(() => chmodSync(path(), back));
};

describe('what is broken on this machine is named', () => {
  test.each<[string, CheckCode, () => unknown]>([
    [
      'a data directory that others may enter',
      'data_directory_private',
      chmod(() => installation.dataDir, 0o750, 0o700),
    ],
    [
      'a key that others may read',
      'key_files_private',
      chmod(() => join(installation.dataDir, 'keys', 'key-encryption-key'), 0o640, 0o600),
    ],
    ['an admin socket for all', 'admin_socket_private', chmod(() => installation.adminSocket, 0o666, 0o600)],
    [
      'a directory in which sockets can be replaced',
      'admin_socket_private',
      chmod(() => installation.run, 0o777, 0o755),
    ],
    [
      'a workload socket for one',
      'workload_socket_open',
      chmod(() => installation.workloadSocket, 0o600, 0o666),
    ],
    ['no workload socket', 'workload_api_answers', () => takeAway(installation.workloadSocket)],
    [
      'a workload socket of somebody else',
      'workload_api_answers',
      () => replaceByEcho(installation.workloadSocket),
    ],
  ])('%s: %s', async (_, code, damage) => {
    await damage();
    expect(await wrong(installation.adminSocket)).toContainEqual([code, 'failed']);
  });

  test.each<[string, number, CheckCode, CheckResult['status']]>([
    ['ten seconds', 10_000, 'clock_agrees', 'warning'],
    ['an hour', 3_600_000, 'clock_agrees', 'failed'],
    ['an hour back', -3_600_000, 'issuer_valid', 'failed'],
    ['a hundred years', 100 * 31_536_000_000, 'issuer_valid', 'failed'],
    ['a hundred years', 100 * 31_536_000_000, 'root_valid', 'failed'],
  ])('a clock that is %s off: %s', async (_, offMs, code, status) => {
    const results = await check(installation.adminSocket, () => new Date(Date.now() + offMs));
    expect(results).toContainEqual(expect.objectContaining({ code, status }));
  });

  test.each<[number, CheckResult['status']]>([
    [63 * 1_048_576, 'failed'],
    [64 * 1_048_576, 'warning'],
    [256 * 1_048_576, 'ok'],
  ])('%i bytes of room: %s', (bytes, status) => {
    expect(judgeRoom(bytes).status).toBe(status);
  });
});

describe('where nothing runs', () => {
  test('that is what is said, with what to start; exit code 69', async () => {
    const nowhere = join(installation.directory, 'nowhere');
    const { code, out } = await runCli(['check', '--data-dir', nowhere]);
    expect(code).toBe(69);
    expect(out).toMatch(/× a server answers {2}\[server_answers\]/);
    expect(out).toContain('countersign up');
    expect(existsSync(nowhere)).toBe(false);
  });

  test.each([
    ['server', 'countersign.db', 'server_answers'],
    ['agent', 'cache', 'agent_answers'],
  ])('what ran here is told by its data: %s', async (what, name, code) => {
    const dataDir = join(installation.directory, what);
    mkdirSync(join(dataDir, name), { recursive: true, mode: 0o700 });
    const outcome = await runCli(['check', '--data-dir', dataDir]);
    expect(outcome.code).toBe(69);
    expect(outcome.out).toContain(`[${code}]`);
    expect(outcome.out).toMatch(new RegExp(`${what === 'agent' ? 'agent' : 'up'} --data-dir ${dataDir}`));
  });

  test('a configuration that cannot be read is named', async () => {
    const file = join(installation.directory, 'bad.yaml');
    writeFileSync(file, 'apiVersion: countersign.dev/v1\nkind: Configuration\nspec:\n  leafTTL: 5\n');
    const { code, out } = await runCli(['check', '--config', file, '-o', 'json']);
    const report = JSON.parse(out) as {
      ok: boolean;
      sections: { checks: { code: string; status: string; docs: string }[] }[];
    };
    expect([code, report.ok]).toEqual([1, false]);
    expect(report.sections.flatMap(({ checks }) => checks)).toMatchObject([
      {
        code: 'config_readable',
        status: 'failed',
        cause: expect.stringContaining('bad.yaml:4:3'),
        docs: 'docs/check.md#config_readable',
      },
    ]);
  });

  test('--wait waits until a server answers', async () => {
    const socket = join(installation.directory, 'late.sock');
    const waiting = runCli(['check', '--socket', socket, '--wait', '15s']);
    const late = await startRelay(socket, installation.adminSocket);
    try {
      expect((await waiting).code).toBe(0);
    } finally {
      await late.close();
    }
  });

  test('a warning is a failure with --strict alone', async () => {
    const made = await ask({
      to: installation.adminSocket,
      method: 'POST',
      path: '/v1/tokens',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ role: 'viewer', lifeSeconds: 3_600 }),
    });
    expect(made.status).toBe(201);
    expect((await runCli(['check', '--socket', installation.adminSocket])).code).toBe(0);
    expect((await runCli(['check', '--socket', installation.adminSocket, '--strict'])).code).toBe(1);
  });
});

describe('docs/check.md', () => {
  const codes = Object.values(checkSections).flat();
  const text = readFileSync('docs/check.md', 'utf8');

  test('explains every check once, and no others, under the anchor that a failure names', () => {
    expect([...text.matchAll(/^### ([a-z_]+)$/gm)].map(([, code]) => code)).toEqual(codes);
  });
});

test.each([
  [[0x30, 0x01], 'too short'],
  [[0x30, 0x84, 0, 0, 0, 1, 0], 'a length of four bytes'],
  [[0x30, 0x81], 'no length'],
])('%j is no DER: %s', (bytes) => {
  expect(() => splitDer(Uint8Array.from(bytes))).toThrow(
    expect.objectContaining({ code: 'message_invalid' }) as Error,
  );
});

test('DER objects come apart', () => {
  expect(splitDer(Uint8Array.of(0x30, 1, 7, 0x30, 0x81, 1, 8)).map((one) => one.length)).toEqual([3, 4]);
});

function takeAway(path: string): void {
  renameSync(path, `${path}.away`);
  mended.push(() => renameSync(`${path}.away`, path));
}

async function replaceByEcho(path: string): Promise<void> {
  takeAway(path);
  const echo: Server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  await new Promise<void>((resolve) => echo.listen(path, resolve));
  chmodSync(path, 0o666);
  mended.push(() => {
    echo.close();
    rmSync(path, { force: true });
  });
}

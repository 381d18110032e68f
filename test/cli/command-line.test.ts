import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Child, startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { main, openCli, type Outcome, runCli } from './run-cli.ts';
import { startUp } from './up-child.ts';

const scope = createScope();
const dir = makeTempDir(scope);
const data = join(dir, 'data');
let server: Child;

const mesh = `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata:
  name: orders
spec:
  spiffeId: spiffe://mesh.test/ns/shop/sa/orders
  selectors: ["unix:uid:2000"]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: shop
spec:
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["mesh.test/ns/shop/sa/web"]
      to:
        - operation:
            methods: ["GET"]
`;

beforeAll(async () => {
  await mkdir(`${data}.run`, { recursive: true });
  await writeFile(join(dir, 'mesh.yaml'), mesh);
  server = await startUp(scope, dir, ['--trust-domain', 'mesh.test', '--admin-address', '127.0.0.1:0']);
});
afterAll(() => scope.close());

const run = openCli(scope, { cwd: dir });
const cli = (...args: string[]): Promise<Outcome> => run(['--data-dir', data, ...args]);
/** As a process of its own. */
const alone = (...args: string[]): Promise<Outcome> => runCli(['--data-dir', data, ...args], { cwd: dir });
const json = async (...args: string[]) => {
  const outcome = await cli(...args, '-o', 'json');
  expect(outcome.err).toBe('');
  return JSON.parse(outcome.out);
};
const web = 'spiffe://mesh.test/ns/shop/sa/web';
const orders = 'spiffe://mesh.test/ns/shop/sa/orders';

test('up prints a short status once everything is open', () => {
  const text = server.output();
  for (const part of [
    'mesh.test',
    `${data}.run/workload.sock`,
    `${data}.run/admin.sock`,
    'https://localhost:',
    data,
  ]) {
    expect(text).toContain(part);
  }
  expect(text).toMatch(/state +ready/);
  expect(text).toContain(`bin/countersign --socket ${data}.run/admin.sock status`);
});

describe('against a running server', () => {
  test('entries are created, listed, shown, updated and deleted', async () => {
    const created = await json(
      'entry',
      'create',
      'web',
      '--spiffe-id',
      web,
      '--selector',
      'unix:uid:1000',
      '--ttl',
      '30m',
    );
    expect(created).toMatchObject({ id: 'web', ttlSeconds: 1_800, labels: {} });
    const listed = await cli('entry', 'list');
    expect(listed.out).toMatch(/^ID +SPIFFE ID +TTL/);
    expect(listed.out).toContain(web);
    const args = ['--label', 'app=web', '--label', 'tier=front', '--expires-at', '2099-01-01T00:00:00Z'];
    expect(await json('entry', 'update', 'web', ...args)).toMatchObject({
      labels: { app: 'web', tier: 'front' },
      expiresAt: '2099-01-01T00:00:00.000Z',
    });
  });

  test.each([
    [['entry', 'create', 'web', '--spiffe-id', web, '--selector', 'unix:uid:1'], 2, 'entry_exists'],
    [
      ['entry', 'create', 'x', '--spiffe-id', 'spiffe://mesh.test', '--selector', 'unix:uid:1'],
      2,
      'spiffe_id_path_missing',
    ],
    [['entry', 'create', 'x', '--spiffe-id', web, '--selector', 'magic:1'], 2, 'selector_invalid'],
    [['entry', 'create', 'x'], 64, 'usage'],
    [['entry', 'create', 'x', '--ttl', 'soon'], 64, 'usage'],
    [['entry', 'update', 'web'], 64, 'usage'],
    [['entry', 'update', 'web', '--clear', 'spiffeId'], 64, 'usage'],
    [['entry', 'show', 'nobody'], 2, 'entry_not_found'],
    [['entry', 'show', '../../v1/status'], 2, 'entry_not_found'],
    [['entry', 'show', ''], 2, 'entry_not_found'],
    [['entry', 'lst'], 64, 'usage'],
    [['entry', 'list', '--limit', '0'], 64, 'usage'],
    [['entry', 'list', 'extra'], 64, 'usage'],
    [['policy', 'show', 'orders'], 64, 'usage'],
    [['policy', 'delete', 'shop/nothing'], 2, 'policy_not_found'],
    [['apply'], 64, 'usage'],
    [['apply', '-f', 'nowhere.yaml'], 2, 'file_missing'],
    [['apply', '-f', '.'], 2, 'file_missing'],
    [['apply', '-f', 'mesh.yaml', '-f', 'mesh.yaml'], 64, 'usage'],
    [['token', 'create', '--role', 'root'], 64, 'usage'],
    [['token', 'create', '--role', 'viewer', '--out', 'mesh.yaml'], 77, 'file_permissions'],
    [['token', 'revoke', '0123456789abcdef'], 2, 'token_not_found'],
    [['audit', 'list', '--type', 'everything'], 2, 'audit_query_invalid'],
    [['audit', 'list', '--since', 'yesterday'], 2, 'audit_query_invalid'],
    [['audit', 'list', '--cursor', 'x'], 2, 'audit_cursor_invalid'],
    [['audit', 'list', '--verdict', 'maybe'], 64, 'usage'],
    [['authz', 'check', '--from', 'web', '--to', orders], 2, 'spiffe_id_scheme'],
    [['authz', 'check', '--from', web], 64, 'usage'],
    [['status', '--socket', '/nowhere/admin.sock'], 69, 'server_unreachable'],
    [['status', '--server', 'http://localhost:1'], 64, 'usage'],
    [['status', '--server', 'https://localhost:1'], 64, 'usage'],
    [['envoy', 'bootstrap', '--workload', web], 64, 'usage'],
  ])('%j exits %i with %s', async (args, code, error) => {
    const outcome = await cli(...args, '-o', 'json');
    expect([outcome.code, outcome.out]).toEqual([code, '']);
    expect(outcome.err.trimEnd()).not.toContain('\n');
    expect(JSON.parse(outcome.err).error).toMatchObject({ code: error, exitCode: code });
  });

  test.each([
    [['entry', 'show', 'nobody'], 2, 'entry_not_found'],
    [['entry', 'lst'], 64, 'usage'],
    [['entry', 'create', 'x', '--ttl', 'soon'], 64, 'usage'],
    [['status', '-o', 'yaml'], 64, 'usage'],
    [['status', '--socket', '/nowhere/admin.sock'], 69, 'server_unreachable'],
  ])('%j exits %i with %s in words', async (args, code, error) => {
    const { code: exit, out, err } = await alone(...args);
    expect([exit, out]).toEqual([code, '']);
    expect(err).toMatch(new RegExp(`^error\\[${error}\\]: \\S.*\nfix: \\S.*\n$`));
  });

  test('a file is tried, applied and applied again', async () => {
    expect((await cli('apply', '-f', 'mesh.yaml', '--dry-run')).out).toContain(
      'dry run: nothing was changed',
    );
    expect((await cli('policy', 'list')).out).not.toContain('shop/orders');
    const applied = await json('apply', '-f', 'mesh.yaml');
    expect(applied.changes.map(({ action }: { action: string }) => action)).toEqual(['created', 'created']);
    const piped = await runCli(['--data-dir', data, 'apply', '-f', '-'], { stdin: mesh });
    expect(piped.code).toBe(0);
    expect((await cli('policy', 'show', 'shop/orders')).out).toContain('methods: ["GET"]');
  });

  test('an error in a file shows its line', async () => {
    await writeFile(join(dir, 'bad.yaml'), mesh.replace('methods:', 'metods:'));
    const { code, err } = await cli('apply', '-f', 'bad.yaml');
    expect(code).toBe(2);
    expect(err).toContain(
      ' --> bad.yaml:22:13\n 22 |             metods: ["GET"]\n    |             ^\nfix: ',
    );
    const stdin = await runCli(['--data-dir', data, 'apply', '-f', '-'], { stdin: 'a: [' });
    expect(stdin.err).toMatch(/ --> <stdin>:1:\d+\n 1 \| a: \[\n/);
  });

  const call = ['authz', 'check', '--from', web, '--to', orders, '--path', '/list'];
  test.each([
    ['the server', []],
    ['files alone', ['-f', 'mesh.yaml', '--socket', '/nowhere/admin.sock']],
  ])('authz check by %s says why', async (_, more) => {
    const allowed = await cli(...call, '--method', 'GET', ...more);
    expect([allowed.code, allowed.err]).toEqual([0, '']);
    expect(allowed.out).toMatch(/^ALLOW /);
    expect(allowed.out).toContain('shop/orders rule[0]');
    const denied = await cli(...call, '--method', 'POST', ...more, '-o', 'json');
    expect(denied.code).toBe(1);
    expect(JSON.parse(denied.out)).toMatchObject({ verdict: 'deny', reason: 'no_allow_rule' });
    const nobody = await cli('authz', 'check', '--from', 'none', '--to', orders, ...more);
    expect([nobody.code, nobody.out.slice(0, 4)]).toEqual([1, 'DENY']);
  });

  const named = mesh.replace('name: orders\nspec', 'name: orders\n  labels: {app: orders}\nspec');
  test('offline, entries give the labels that policies select', async () => {
    const selector = 'spec:\n  selector:\n    matchLabels: {app: orders}\n  action';
    const labelled = named.replace('spec:\n  action', selector);
    await writeFile(join(dir, 'labels.yaml'), labelled);
    await writeFile(
      join(dir, 'others.yaml'),
      labelled.replace('{app: orders}\n  action', '{app: other}\n  action'),
    );
    expect((await cli(...call, '-f', 'labels.yaml')).code).toBe(0);
    expect((await cli(...call, '-f', 'others.yaml')).code).toBe(1);
  });

  test('a policy is suggested where it is enough, and reaches nobody else', async () => {
    await writeFile(join(dir, 'app.yaml'), named);
    const post = [...call, '--method', 'POST', '-f'];
    const suggested = await cli(...post, 'app.yaml', '--suggest-policy');
    expect([suggested.code, suggested.err]).toEqual([1, '']);
    await writeFile(join(dir, 'post.yaml'), suggested.out);
    expect((await cli(...post, 'app.yaml', 'post.yaml')).code).toBe(0);
    const deny = `${named}---\n${suggested.out.replace('ALLOW', 'DENY')}`;
    await writeFile(join(dir, 'deny.yaml'), deny);
    const [entry = ''] = mesh.split('---\n');
    await writeFile(join(dir, 'two.yaml'), `${entry.replaceAll('orders', 'bills')}---\n${mesh}`);
    for (const [file, why] of [
      ['two.yaml', 'no policy can be written for this very call and no other'],
      ['deny.yaml', 'a DENY rule stands in the way, which no ALLOW rule outweighs'],
    ] as const) {
      const { out, err } = await cli(...post, file, '--suggest-policy');
      expect([out, err]).toEqual(['', expect.stringContaining(`error[suggestion_impossible]: ${why}`)]);
    }
  });

  test('the audit log is listed, filtered and paged', async () => {
    const { out } = await cli('audit', 'list', '--type', 'entry_change', '--since', '10m');
    expect(out).toMatch(/^INDEX +TIME +TYPE +WHAT\n/);
    expect(out).toMatch(new RegExp(`entry_change +created web ${web} by uid`));
    const first = await json('audit', 'list', '--order', 'oldest', '--limit', '2');
    const second = await json('audit', 'list', '--order', 'oldest', '--limit', '2', '--cursor', first.next);
    const indexes = [...first.items, ...second.items].map(({ index }: { index: number }) => index);
    expect(indexes).toEqual([0, 1, 2, 3]);
    expect(first.items[0].leafHash).toMatch(/^[0-9a-f]{64}$/);
  });

  test('a token made by the CLI opens the TLS door with its role, until it is revoked', async () => {
    const file = join(dir, 'viewer.token');
    const made = await json('token', 'create', '--role', 'viewer', '--label', 'test', '--out', file);
    expect(made).not.toHaveProperty('token');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const caFile = join(dir, 'ca.pem');
    await writeFile(caFile, (await cli('trust-bundle')).out);
    const { adminUrl } = await json('status');
    const remote = (...args: string[]) =>
      run(['--server', adminUrl, '--token-file', file, '--ca-file', caFile, ...args]);
    expect((await remote('status')).out).toContain('mesh.test');
    expect((await remote('token', 'list')).code).toBe(77);
    expect((await remote('entry', 'delete', 'web')).err).toContain('error[forbidden]');

    const noCa = await run(['--server', adminUrl, '--token-file', file, 'status']);
    expect([noCa.code, noCa.err.includes('--ca-file')]).toEqual([69, true]);
    const byAddress = adminUrl.replace('localhost', '127.0.0.1');
    const wrongName = await run(['--server', byAddress, '--token-file', file, '--ca-file', caFile, 'status']);
    expect([wrongName.code, wrongName.err.includes('a name the certificate has')]).toEqual([69, true]);

    await chmod(file, 0o644);
    const open = await remote('status');
    expect([open.code, open.err.includes('chmod 600')]).toEqual([77, true]);
    await chmod(file, 0o600);
    const secret = (await readFile(file, 'utf8')).trim();
    await cli('token', 'revoke', made.id);
    const revoked = await remote('status');
    expect([revoked.code, revoked.err.includes('error[unauthenticated]')]).toEqual([77, true]);
    await writeFile(file, `${secret}x`);
    const spoiled = await remote('status');
    expect([spoiled.code, spoiled.err.includes(secret)]).toEqual([64, false]);
  });

  test('a bootstrap names the socket of the server', async () => {
    const args = ['--workload', web, '--inbound', '127.0.0.1:15443', '--app', '127.0.0.1:8080'];
    expect((await cli('envoy', 'bootstrap', ...args)).out).toContain(`${data}.run/workload.sock`);
    expect(await json('envoy', 'bootstrap', ...args)).toHaveProperty('static_resources');
  });

  test('deleting an entry says how long its certificates live', async () => {
    expect((await cli('entry', 'delete', 'web')).out).toContain(
      'no certificate issued under it is valid any more',
    );
  });

  test.skipIf(process.getuid?.() !== 0)('another user may not use the socket', async () => {
    await chmod(dir, 0o711);
    const outcome = await runCli(['--socket', `${data}.run/admin.sock`, 'status'], { uid: 65_534 });
    await chmod(dir, 0o700);
    // The checkout itself may be closed to that user.
    if (outcome.err.includes('error['))
      expect([outcome.code, outcome.err.includes('as root')]).toEqual([77, true]);
  });

  test.each([
    ['an empty file', '', 'usage', 64],
    ['bytes that are not UTF-8', Buffer.from([0x61, 0xff, 0xfe]), 'input_unreadable', 2],
  ])('apply refuses %s', async (_what, bytes, code, exitCode) => {
    await writeFile(join(dir, 'odd.yaml'), bytes);
    const outcome = await cli('apply', '-f', 'odd.yaml');
    expect([outcome.code, outcome.err]).toEqual([exitCode, expect.stringContaining(`error[${code}]`)]);
  });

  test('a label given twice is refused', async () => {
    const labels = ['--label', 'app=a', '--label', 'app=b'];
    const outcome = await cli(
      'entry',
      'create',
      'x',
      '--spiffe-id',
      web,
      '--selector',
      'unix:uid:1',
      ...labels,
    );
    expect([outcome.code, outcome.err]).toEqual([64, expect.stringContaining('given twice')]);
  });

  test('no record is said to match, where a result would not show it', async () => {
    const { code, out, err } = await cli('audit', 'list', '--serial', '00');
    expect([code, out]).toEqual([0, 'INDEX  TIME  TYPE  WHAT\n']);
    expect(err).toMatch(/^proven by .*\ncovers .*\nno record matches\n$/);
  });

  test('--version prints what the command does', async () => {
    const { code, out } = await runCli(['--version']);
    expect([code, out]).toEqual([0, expect.stringMatching(/^countersign \d+\.\d+\.\d+\n$/)]);
  });

  test('version needs no server', async () => {
    expect((await runCli(['version', '-o', 'json'])).out).toMatch(/"version": "\d+\.\d+\.\d+"/);
  });
});

describe('stopping', () => {
  test('a second server on the same data is refused', async () => {
    const second = await alone('up', '--admin-address', 'off');
    expect([second.code, second.err.includes('error[store_locked]')]).toEqual([2, true]);
  });

  test.each([
    [['--trust-domain', 'Mesh.Test'], 'config_invalid'],
    [['--leaf-ttl-seconds', '5'], 'config_invalid'],
    [['--admin-address', '0.0.0.0'], 'config_invalid'],
    [['--colour'], 'usage'],
  ])('up %j is refused with %s', async (args, code) => {
    expect((await alone('up', ...args)).err).toContain(`error[${code}]`);
  });

  test('a start that finds its port taken ends by itself', async () => {
    const port = /https:\/\/localhost:(\d+)/.exec(server.output())?.[1] ?? '';
    const second = ['up', '--data-dir', join(dir, 'second'), '--admin-address', `127.0.0.1:${port}`];
    const outcome = await runCli(second);
    expect([outcome.code, outcome.err]).toEqual([2, expect.stringContaining('error[address_in_use]')]);
  });

  test('a file is no data directory', async () => {
    const outcome = await runCli(['up', '--data-dir', join(dir, 'mesh.yaml')]);
    expect([outcome.code, outcome.err]).toEqual([77, expect.stringContaining('is not a directory')]);
  });

  test('a signal drains and exits 0, also when npm passes it on a second time; the socket is gone and commands say so', async () => {
    server.kill('SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 5));
    server.kill('SIGINT');
    expect(await server.exited).toBe(0);
    const { code, err } = await alone('status');
    expect(code).toBe(69);
    expect(err).toContain('is countersign up running');
    expect(err).toContain(`${data}.run/admin.sock`);
  });

  test('a second start goes on from the stored state', async () => {
    const again = startChild(scope, {
      command: process.execPath,
      args: [
        main,
        'up',
        '--data-dir',
        data,
        '--trust-domain',
        'mesh.test',
        '--admin-address',
        'off',
        '-o',
        'json',
      ],
      logFile: join(dir, 'again.log'),
    });
    await eventually('the status', () => Promise.resolve(again.output().includes('"streams"')), {
      withinMs: 30_000,
    });
    expect((await cli('policy', 'list')).out).toContain('shop/orders');
    expect(await again.stop()).toBe(0);
  });
});

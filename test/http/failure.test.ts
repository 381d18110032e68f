import { chmod, stat } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { type Attempt, openAttemptLog } from '../../src/http/attempt-log.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { createAdminApp } from '../../src/http/app.ts';
import { listenTls, listenUnix } from '../../src/http/listener.ts';
import { openUnixDoor } from '../../src/http/unix-door.ts';
import { type Harness, handClock, rawUnix, startHarness } from './harness.ts';

let harness: Harness | undefined;
afterEach(async () => {
  await harness?.close();
  harness = undefined;
});

test('an unknown error leaves only its id', async () => {
  harness = await startHarness({
    status: () => Promise.reject(new Error('SELECT secret FROM keys')),
  });
  const answer = await harness.overTls({ path: '/v1/status' });
  expect(answer.status).toBe(500);
  expect(answer.json).toEqual({
    type: 'about:blank',
    title: 'Internal Server Error',
    status: 500,
    code: 'internal',
    detail: 'internal error',
    errorId: expect.stringMatching(/^[0-9a-f]{16}$/),
  });
  expect(harness.failures).toHaveLength(1);
});

test('an app whose address is taken is closed: nothing of it keeps the process', async () => {
  harness = await startHarness();
  const door = { ...(await harness.issueServerCertificate()), allowedHosts: new Set(['localhost']) };
  const overTls = await createAdminApp(harness.ports, { kind: 'tls', ...door });
  const overUnix = await createAdminApp(harness.ports, await openUnixDoor([]));
  const port = Number(harness.tls.address.split(':').at(-1));
  await expect(listenTls(overTls, { host: '127.0.0.1', port })).rejects.toMatchObject({
    code: 'address_in_use',
  });
  await expect(listenUnix(overUnix, harness.unix.address)).rejects.toMatchObject({ code: 'socket_in_use' });
  for (const app of [overTls, overUnix]) {
    await expect(app.inject('/healthz')).rejects.toMatchObject({ code: expect.stringContaining('CLOSE') });
  }
});

test.each([
  ['no HTTP', 'hello\r\n\r\n', 400],
  [
    'two lengths',
    'POST /v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde',
    400,
  ],
  ['a header over 16 KiB', `GET / HTTP/1.1\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`, 431],
])('%s is answered with a problem', async (_what, text, status) => {
  harness = await startHarness();
  const [head = '', body = ''] = (await rawUnix(harness.unix.address, text)).split('\r\n\r\n');
  expect(head).toContain(`HTTP/1.1 ${status} `);
  expect(head).toContain('content-type: application/problem+json');
  expect(JSON.parse(body)).toMatchObject({ status, code: 'body_invalid' });
});

test('not ready answers 503 with causes', async () => {
  harness = await startHarness({
    readiness: () => ({ ready: false, causes: ['the store is gone'], warnings: [], conditions: [] }),
  });
  const answer = await harness.overTls({ path: '/readyz' }, 'viewer');
  expect([answer.status, answer.json]).toEqual([
    503,
    { ready: false, causes: ['the store is gone'], warnings: [], conditions: [] },
  ]);
});

test('a read of the log that cannot be recorded is not answered', async () => {
  harness = await startHarness({
    recordEvents: () => Promise.reject(new MeshError('store_unavailable', 'the store is gone')),
  });
  const answer = await harness.overTls({ path: '/v1/audit' });
  expect([answer.status, answer.json.code]).toEqual([503, 'store_unavailable']);
});

test('a refusal that cannot be recorded is still a refusal', async () => {
  harness = await startHarness({
    recordEvents: () => Promise.reject(new MeshError('store_unavailable', 'the store is gone')),
  });
  expect((await harness.overTls({ path: '/v1/status' }, null)).status).toBe(401);
  expect(harness.failures).toHaveLength(1);
});

describe('attempts', () => {
  const knock = (source: string): Attempt => ({
    action: 'refused',
    actor: { kind: 'anonymous' },
    method: 'GET',
    route: '/v1/status',
    code: 'unauthenticated',
    detail: 'no token',
    sourceAddress: { personal: source },
  });

  test('repeats within a minute are one event that counts them', async () => {
    const clock = handClock(new Date(0));
    const events: AuditEvent[] = [];
    const record = async (batch: readonly AuditEvent[]) => batch.map((event) => events.push(event));
    const log = openAttemptLog({ record, clock, report: () => undefined, repeats: 'within a minute' });
    for (let i = 0; i < 1_000; i++) await log.note(knock('a'));
    expect(events).toHaveLength(1);
    clock.move(60_000);
    await log.note(knock('a'));
    expect(events.map((event) => (event as Attempt).detail)).toEqual([
      'no token',
      '999 more within a minute; no token',
      'no token',
    ]);
    await log.note(knock('a'));
    await log.close();
    expect((events.at(-1) as Attempt).detail).toBe('1 more within a minute; no token');
  });

  test('ten thousand sources at once write a bounded number of events', async () => {
    const clock = handClock(new Date(0));
    const events: AuditEvent[] = [];
    const record = async (batch: readonly AuditEvent[]) => batch.map((event) => events.push(event));
    const log = openAttemptLog({ record, clock, report: () => undefined, repeats: 'within a minute' });
    for (let i = 0; i < 10_000; i++) await log.note(knock(`${i}`));
    await log.close();
    expect(events.length).toBeLessThan(1_010);
    expect((events.at(-1) as Attempt).detail).toContain('8999 more within a minute');
  });

  test('however many knock, whoever is somebody is recorded by name', async () => {
    const clock = handClock(new Date(0));
    const events: AuditEvent[] = [];
    const record = async (batch: readonly AuditEvent[]) => batch.map((event) => events.push(event));
    const log = openAttemptLog({ record, clock, report: () => undefined, repeats: 'within a minute' });
    const actor = { kind: 'token', tokenId: 'aa', role: 'auditor' } as const;
    const question = (i: number): Attempt => ({
      ...knock('b'),
      action: 'audit_read',
      actor,
      code: '',
      detail: `serial=${i}`,
    });
    for (let i = 0; i < 2_000; i++) await log.note(knock(`${i}`));
    for (let i = 0; i < 250; i++) await log.note(question(i), true);
    expect(events.slice(-250).map((event) => (event as Attempt).detail)).toContain('serial=249');
    // What would only be counted is not answered.
    await expect(log.note(question(250), true)).rejects.toMatchObject({ code: 'rate_limited' });
    await log.note(question(3), true);
    await log.note({ ...question(250), action: 'called' });
    expect(events.at(-1)).toMatchObject({ action: 'called', actor, route: '(many)' });
    const other = { ...actor, tokenId: 'bb' };
    await log.note({ ...question(250), actor: other }, true);
    expect(events.at(-1)).toMatchObject({ actor: other, detail: 'serial=250' });
    clock.move(60_000);
    await log.close();
    expect(events.length).toBeLessThan(1_260);
  });

  test('a repeat beside an event that could not be recorded is not recorded either', async () => {
    const record = () => Promise.reject(new MeshError('store_unavailable', 'the store is gone'));
    const clock = handClock(new Date(0));
    const log = openAttemptLog({ record, clock, report: () => undefined, repeats: 'within a minute' });
    const all = await Promise.allSettled([log.note(knock('a')), log.note(knock('a')), log.note(knock('a'))]);
    expect(all.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    await log.close();
  });

  test('a flood over the wire is one event', async () => {
    harness = await startHarness();
    for (let i = 0; i < 20; i++) await harness.overTls({ path: '/v1/status' }, null);
    expect(await harness.events('admin')).toHaveLength(1);
  });
});

describe('the doors', () => {
  test('the socket is 0600', async () => {
    harness = await startHarness();
    expect((await stat(harness.unix.address)).mode & 0o777).toBe(0o600);
  });

  test.skipIf(process.getuid?.() !== 0)('a uid that is not on the list is refused and recorded', async () => {
    harness = await startHarness();
    await chmod(harness.unix.address, 0o666);
    await openPath(harness.unix.address);
    const script =
      'import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n' +
      's.sendall(b"GET /v1/status HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n")\n' +
      'b=b""\nwhile True:\n d=s.recv(65536)\n if not d: break\n b+=d\nsys.stdout.write(b.decode())';
    const { stdout } = await promisify(execFile)('python3', ['-c', script, harness.unix.address], {
      uid: 65_534,
      gid: 65_534,
    });
    expect(stdout).toMatch(/^HTTP\/1\.1 403 /);
    expect((await harness.events('admin')).at(-1)).toMatchObject({
      action: 'refused',
      code: 'forbidden',
      actor: { kind: 'uid', uid: 65_534, role: 'none' },
    });
  });

  test('a second listener does not take the path of a live one', async () => {
    harness = await startHarness();
    const { address } = harness.unix;
    const { listenUnix } = await import('../../src/http/listener.ts');
    await expect(listenUnix(harness.tlsApp, address)).rejects.toMatchObject({ code: 'socket_in_use' });
  });

  test('TLS 1.2 is refused', async () => {
    harness = await startHarness();
    const { caPem, tls } = harness;
    const port = Number(tls.address.split(':').at(-1));
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => {
      connectTls({ port, ca: caPem, servername: 'localhost', maxVersion: 'TLSv1.2' }).on('error', resolve);
    });
    expect(error.code).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  });

  test('no session is resumed, before and after a renewal', async () => {
    harness = await startHarness();
    const { caPem, tls } = harness;
    const port = Number(tls.address.split(':').at(-1));
    const dial = (session?: Buffer) =>
      new Promise<{ reused: boolean; session: Buffer | undefined }>((resolve, reject) => {
        let seen: Buffer | undefined;
        let reused = false;
        const socket = connectTls({ port, ca: caPem, servername: 'localhost', ...(session && { session }) });
        socket.on('session', (ticket: Buffer) => {
          seen = ticket;
        });
        socket.on('error', reject);
        socket.on('secureConnect', () => {
          reused = socket.isSessionReused();
          socket.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
          socket.resume();
        });
        socket.on('close', () => resolve({ reused, session: seen }));
      });
    const first = await dial();
    expect((await dial(first.session)).reused).toBe(false);
    const next = await harness.issueServerCertificate();
    tls.renew(next.certificate, next.privateKey);
    const second = await dial();
    expect((await dial(second.session)).reused).toBe(false);
  });

  test('TLS 1.2 is refused after a renewal too', async () => {
    harness = await startHarness();
    const { caPem, tls } = harness;
    const next = await harness.issueServerCertificate();
    tls.renew(next.certificate, next.privateKey);
    const port = Number(tls.address.split(':').at(-1));
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => {
      connectTls({ port, ca: caPem, servername: 'localhost', maxVersion: 'TLSv1.2' }).on('error', resolve);
    });
    expect(error.code).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  });

  test('a renewed certificate is served to new connections', async () => {
    harness = await startHarness();
    const { caPem, tls } = harness;
    const port = Number(tls.address.split(':').at(-1));
    const serial = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connectTls({ port, ca: caPem, servername: 'localhost' }, () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
        socket.on('error', reject);
      });
    const before = await serial();
    const next = await harness.issueServerCertificate();
    tls.renew(next.certificate, next.privateKey);
    expect(await serial()).not.toBe(before);
  });

  test.each([
    ['garbage', '\u0016\u0003\u0001\r\n\r\n', /^HTTP\/1\.1 400 /],
    [
      'no end of headers beyond 16 KiB',
      `GET / HTTP/1.1\r\na: ${'a'.repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1\.1 431 /,
    ],
    [
      'two lengths',
      'POST /v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}',
      /^HTTP\/1\.1 400 /,
    ],
    [
      'a length and chunks',
      'POST /v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      /^HTTP\/1\.1 400 /,
    ],
  ])('%s on the socket is refused', async (_, text, expected) => {
    harness = await startHarness();
    expect(await rawUnix(harness.unix.address, text)).toMatch(expected);
    expect((await harness.overUnix({ path: '/healthz' })).status).toBe(200);
  });

  test('a request under way is answered before the door closes', async () => {
    let [release, arrive] = [(): void => undefined, (): void => undefined];
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    harness = await startHarness({
      trustBundlePem: () => 'pem',
      findToken: async () => {
        arrive();
        await held;
        return null;
      },
    });
    const answer = harness.overTls({ path: '/v1/trust-bundle' });
    await arrived;
    const closed = harness.tls.close(30_000);
    release();
    expect((await answer).status).toBe(401);
    await closed;
  });
});

// The directory is private to its maker, as it should be; the test lets the other uid pass through it.
async function openPath(path: string): Promise<void> {
  await chmod(path.slice(0, path.lastIndexOf('/')), 0o711);
}

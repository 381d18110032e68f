import { connect as connectNet } from 'node:net';
import { connect, type ConnectionOptions } from 'node:tls';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { codeMetadataKey } from '../../src/grpc/status.ts';
import type { EntryInput } from '../../src/identity/entry.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeNodeCertificate, makeShown, type Shown } from '../node/node-certificates.ts';
import { makeOddLeaf, type OddShown } from './odd-certificate.ts';
import { renewable, type RunningDoor, shownOf, startDoor } from './sds-door.ts';
import { encodePem } from '../../src/spiffe/pem.ts';

let ours: TestAuthority;
let foreign: TestAuthority;
let web: Shown;
const start = new Date(Math.floor(Date.now() / 1_000) * 1_000);
let scope = createScope();

beforeAll(async () => {
  const earlier = new Date(start.getTime() - 86_400_000);
  ours = await makeTestAuthority(earlier, {}, 'mesh.test');
  foreign = await makeTestAuthority(earlier, {}, 'mesh.test');
  web = await makeShown(ours, '/web', start);
});
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

describe('who is served', () => {
  test.each([['default'], ['spiffe://mesh.test/web']])(
    '%s gives the identity that was shown',
    async (name) => {
      const door = await startDoor(scope, ours, [renewable('web'), renewable('orders')]);
      const next = shownOf(await door.fetch(web, [name]));
      expect(next.id).toBe('URI:spiffe://mesh.test/web');
      expect(next.serial).not.toBe(web.serial);
      const issued = door.events.find(({ type }) => type === 'issuance');
      expect(issued).toMatchObject({
        serial: next.serial,
        entryId: 'web',
        selectors: [],
        caller: { pid: 0, uid: 0, gid: 0, certificate: web.serial },
      });
    },
  );

  test('what was given is enough for the next, and the bundle comes with it', async () => {
    const door = await startDoor(scope, ours, [renewable('web')]);
    const stream = door.open(web);
    stream.send({ resourceNames: ['default', 'ROOTCA'] });
    const response = await stream.response();
    expect(response.resources).toHaveLength(2);
    const second = shownOf(response);
    const third = shownOf(await door.fetch(second, ['default']));
    expect([third.id, new Set([web.serial, second.serial, third.serial]).size]).toEqual([second.id, 3]);
  });

  test('who shows the same certificate shares, and nobody else does', async () => {
    const other = await makeShown(ours, '/web', start);
    const door = await startDoor(scope, ours, [renewable('web')]);
    const [a, b, c] = await Promise.all([web, web, other].map((shown) => door.fetch(shown, ['default'])));
    expect(shownOf(a!).serial).toBe(shownOf(b!).serial);
    expect(shownOf(c!).serial).not.toBe(shownOf(a!).serial);
    expect(door.keeper.kept().map(({ renewedFrom }) => renewedFrom)).toEqual(
      expect.arrayContaining([web.serial, other.serial]),
    );
  });
});

type Refused = [
  what: string,
  shown: () => Promise<OddShown | null> | OddShown | null,
  code: string,
  resource: string,
];
const own = 'spiffe://mesh.test/web';

test.each<Refused>([
  ['no certificate', () => null, 'certificate_missing', ''],
  ['an expired one', () => makeShown(ours, '/web', before(7_200)), 'certificate_expired', ''],
  ['one of another CA with our names', () => makeShown(foreign, '/web', start), 'certificate_untrusted', ''],
  ['a self-signed one with our ID', () => makeOddLeaf('itself', [own], start), 'certificate_untrusted', ''],
  ['our CA itself', () => caItself(), 'certificate_unusable', ''],
  ['one with two IDs', () => makeOddLeaf(ours, [own, `${own}2`], start), 'certificate_unusable', ''],
  ['one with no path', () => makeOddLeaf(ours, ['spiffe://mesh.test'], start), 'certificate_unusable', ''],
  [
    'one of another trust domain',
    () => makeOddLeaf(ours, ['spiffe://other.test/web'], start),
    'certificate_untrusted',
    '',
  ],
  [
    'that of a node',
    () => makeNodeCertificate(ours, 'web-1', start),
    'certificate_unusable',
    'spiffe://mesh.test/countersign/node/web-1',
  ],
  [
    'that of the authority',
    () => makeShown(ours, '/countersign/server', start),
    'certificate_unusable',
    'spiffe://mesh.test/countersign/server',
  ],
  ['one without an entry', () => makeShown(ours, '/none', start), 'identity_none', 'spiffe://mesh.test/none'],
  [
    'one whose entry does not say so',
    () => makeShown(ours, '/local', start),
    'identity_none',
    'spiffe://mesh.test/local',
  ],
  [
    'one of an entry of other nodes',
    () => makeShown(ours, '/elsewhere', start),
    'identity_none',
    'spiffe://mesh.test/elsewhere',
  ],
  [
    'one of an entry that is over',
    () => makeShown(ours, '/over', start),
    'identity_none',
    'spiffe://mesh.test/over',
  ],
  ['one of two entries', () => makeShown(ours, '/twice', start), 'identity_none', 'spiffe://mesh.test/twice'],
])('refused: %s', async (_, shown, code, resource) => {
  const door = await startDoor(scope, ours, [
    renewable('web'),
    renewable('local', { labels: {} }),
    renewable('elsewhere', { nodes: ['node:web-1'] }),
    renewable('over', { expiresAt: '2020-01-01T00:00:00Z' }),
    renewable('twice'),
    renewable('twice', { id: 'twice-again', selectors: ['unix:uid:1'] }),
  ]);
  const expected = { code: code === 'identity_none' ? 7 : 16 };
  const odd = await shown();
  const failure = await door.fetch(odd, ['default']).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toMatchObject(expected);
  expect((failure as { metadata: { get: (key: string) => unknown } }).metadata.get(codeMetadataKey)).toEqual([
    code,
  ]);
  const stream = door.open(odd);
  stream.send({ resourceNames: ['default'] });
  expect(await stream.status()).toMatchObject(expected);
  // The second was counted with the first.
  expect(door.refusals()).toEqual([[code, resource]]);
  expect(door.events.some(({ type }) => type === 'issuance')).toBe(false);
});

test('a client that shows nothing, speaks no TLS 1.3, or never ends its handshake gets nowhere', async () => {
  const door = await startDoor(scope, ours, [renewable('web')], { limits: { handshakeMs: 200 } });
  const shake = (options: ConnectionOptions): Promise<string> =>
    new Promise((resolve) => {
      const { privateKey: key, certificate: cert } = web;
      const at = { host: '127.0.0.1', port: door.port, rejectUnauthorized: false };
      const socket = connect({ ...at, key, cert, ...options });
      socket.on('error', (error) => resolve(error.message));
      socket.on('close', () => resolve('closed'));
    });
  expect(await shake({ ALPNProtocols: ['h2'], maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' })).toMatch(
    /alert/,
  );
  expect(await shake({ ALPNProtocols: ['http/1.1'] })).toMatch(/alert|closed|reset/i);
  const plain = (bytes: Buffer): Promise<string> =>
    new Promise((resolve) => {
      const socket = connectNet({ host: '127.0.0.1', port: door.port }, () => socket.write(bytes));
      socket.on('error', () => resolve('cut'));
      socket.on('close', () => resolve('cut'));
      socket.resume();
    });
  expect(await plain(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))).toBe('cut');
  expect(await plain(Buffer.from('160301', 'hex'))).toBe('cut');
});

test('names of other identities are never given, whatever is asked for', async () => {
  const door = await startDoor(scope, ours, [renewable('web'), renewable('orders')]);
  await expect(door.fetch(web, ['spiffe://mesh.test/orders'])).rejects.toMatchObject({ code: 7 });
  const stream = door.open(web);
  stream.send({ resourceNames: ['spiffe://mesh.test/orders', 'default'] });
  const response = await stream.response();
  expect(response.resources).toHaveLength(1);
  expect(shownOf(response).id).toBe(`URI:${own}`);
  expect(door.refusals()).toContainEqual(['identity_none', 'spiffe://mesh.test/orders']);
});

const ban = (kind: string, value: string) => ({ kind, value, reason: 'stolen' });
type Loss = [what: string, act: (door: RunningDoor) => void, code: string];
const webOnly: readonly EntryInput[] = [renewable('web')];

describe('what was open ends', () => {
  test.each<Loss>([
    ['the serial is banned', (door) => door.change({ bans: [ban('serial', web.serial)] }), 'identity_banned'],
    ['the key is banned', (door) => door.change({ bans: [ban('key', web.spkiSha256)] }), 'identity_banned'],
    ['the entry is gone', (door) => door.change({ entries: [] }), 'identity_none'],
    [
      'the entry does not say so any more',
      (door) => door.change({ entries: [renewable('web', { labels: {} })] }),
      'identity_none',
    ],
    ['the certificate expires', (door) => door.moveTime(3_700_000), 'certificate_expired'],
    ['the bundle is another', (door) => door.setBundle(foreign.authority.bundle), 'certificate_untrusted'],
  ])('when %s', async (_, act, code) => {
    const door = await startDoor(scope, ours, webOnly);
    const stream = door.open(web);
    stream.send({ resourceNames: ['default'] });
    await stream.response();
    act(door);
    expect(await stream.status()).toMatchObject({ code: expect.any(Number) as number });
    await expect(door.fetch(web, ['default'])).rejects.toMatchObject({
      code: code.startsWith('identity') ? 7 : 16,
    });
    expect(door.refusals()).toContainEqual([
      code,
      code === 'certificate_expired' || code === 'certificate_untrusted' ? '' : own,
    ]);
  });

  test('when the identity is banned, and with it for every line of it', async () => {
    const door = await startDoor(scope, ours, webOnly);
    const stream = door.open(web);
    stream.send({ resourceNames: ['default'] });
    const next = shownOf(await stream.response());
    door.change({ bans: [ban('spiffe-id', own)] });
    expect(await stream.status()).toMatchObject({ code: expect.any(Number) as number });
    for (const shown of [web, next])
      await expect(door.fetch(shown, ['default'])).rejects.toMatchObject({ code: 7 });
    door.change({ bans: [] });
    expect(shownOf(await door.fetch(next, ['default'])).id).toBe(`URI:${own}`);
  });
});

test('a ban of one certificate reaches all that came of it, and no other line', async () => {
  const door = await startDoor(scope, ours, webOnly);
  const other = await makeShown(ours, '/web', start);
  const second = shownOf(await door.fetch(web, ['default']));
  const third = shownOf(await door.fetch(second, ['default']));
  const stream = door.open(third);
  stream.send({ resourceNames: ['default'] });
  await stream.response();
  door.change({ bans: [ban('serial', web.serial)] });
  expect(await stream.status()).toMatchObject({ code: expect.any(Number) as number });
  for (const shown of [web, second, third]) {
    await expect(door.fetch(shown, ['default'])).rejects.toMatchObject({ code: 7 });
  }
  expect(shownOf(await door.fetch(other, ['default'])).id).toBe(`URI:${own}`);
});

test('a line cannot be made so long that it is forgotten where it began: it may connect only so often', async () => {
  const door = await startDoor(scope, ours, webOnly, { connectionsOfLine: { burst: 4, perSecond: 1e-6 } });
  const other = await makeShown(ours, '/web', start);
  let shown: OddShown = web;
  for (let i = 0; i < 4; i++) shown = shownOf(await door.fetch(shown, ['default']));
  for (const late of [shown, web])
    await expect(door.fetch(late, ['default'])).rejects.toMatchObject({ code: 8 });
  // Another line of the same identity is another matter.
  expect(shownOf(await door.fetch(other, ['default'])).id).toBe(`URI:${own}`);
});

test('a ban of a later one leaves what it came from', async () => {
  const door = await startDoor(scope, ours, webOnly);
  const second = shownOf(await door.fetch(web, ['default']));
  door.change({ bans: [ban('serial', second.serial)] });
  await expect(door.fetch(second, ['default'])).rejects.toMatchObject({ code: 7 });
  expect(shownOf(await door.fetch(web, ['default'])).serial).not.toBe(second.serial);
});

test('a stranger that stays without a call is cut off, and so is who stays without a stream', async () => {
  const door = await startDoor(scope, ours, webOnly, { limits: { idleMs: 300 } });
  const stay = (shown: OddShown | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket = connect({
        host: '127.0.0.1',
        port: door.port,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
        ...(shown === undefined ? {} : { key: shown.privateKey, cert: shown.certificate }),
      });
      socket.setTimeout(20_000, () => reject(new Error('nobody cut it')));
      socket.on('error', () => resolve());
      socket.on('close', () => resolve());
      socket.resume();
    });
  await Promise.all([stay(undefined), stay(web)]);
});

test('no address holds more than its share of connections', async () => {
  const door = await startDoor(scope, ours, webOnly, { limits: { connectionsPerAddress: 2 } });
  const [one, two] = [door.open(web), door.open(web)];
  for (const stream of [one, two]) {
    stream.send({ resourceNames: ['default'] });
    await stream.response();
  }
  await expect(door.fetch(web, ['default'])).rejects.toMatchObject({ code: 14 });
  one.call.cancel();
  two.call.cancel();
  expect(door.refusals()).toEqual([]);
});

function before(seconds: number): Date {
  return new Date(start.getTime() - seconds * 1_000);
}

function caItself(): OddShown {
  const { certificate, privateKey } = ours.intermediate;
  return {
    certificate: encodePem('CERTIFICATE', certificate),
    privateKey: encodePem('PRIVATE KEY', privateKey),
  };
}

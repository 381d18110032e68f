import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type SpiffeWorkloadAPIClient, X509SVIDResponse } from '../../src/wire/workload.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { createAuthority } from '../xds/certificates.ts';
import { entry } from './entries.ts';
import {
  follow,
  header,
  type RunningWorkloadApi,
  type StartOptions,
  startWorkloadApi,
  unary,
  until,
} from './harness.ts';

let scope: Scope;
let door: RunningWorkloadApi;
let client: SpiffeWorkloadAPIClient;

beforeEach(() => {
  scope = createScope();
});
afterEach(() => scope.close());

async function start(options: StartOptions = {}) {
  door = await startWorkloadApi(scope, options);
  client = door.client();
}

const x509 = (from = client) => follow(from.fetchX509Svid({}, header()));
const none = ['identity_none', status.PERMISSION_DENIED];

/** FetchX509SVID without a library, by a client that at first lets so many bytes come. */
function openRaw(initialWindowSize: number) {
  const session = connectHttp2('http://localhost', {
    createConnection: () => connect(door.path),
    settings: { initialWindowSize },
  });
  scope.defer(() => session.destroy());
  const closed = new Promise((resolve) => session.on('error', () => undefined).on('close', resolve));
  const stream = session.request({
    ':method': 'POST',
    ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
    'content-type': 'application/grpc',
    te: 'trailers',
    'workload.spiffe.io': 'true',
  });
  const chunks: Buffer[] = [];
  stream.on('error', () => undefined).on('data', (chunk: Buffer) => void chunks.push(chunk));
  stream.end(Buffer.alloc(5));
  const messages = (): X509SVIDResponse[] => {
    let rest = Buffer.concat(chunks);
    const found: X509SVIDResponse[] = [];
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      found.push(X509SVIDResponse.decode(rest.subarray(5, end)));
      rest = rest.subarray(end);
    }
    return found;
  };
  return { session, closed, messages };
}

describe('slow readers', () => {
  test('get the newest state, not each', async () => {
    await start();
    door.register([entry('/web')]);
    const { session, messages } = openRaw(0);
    await until(() => door.deliveries.length === 1);
    for (let i = 0; i < 50; i++) {
      door.publish(i + 2);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const foreign = await createAuthority('other.example');
    door.publish(99, foreign.bundle);
    expect([door.answered, messages()]).toEqual([[], []]);
    session.settings({ initialWindowSize: 65_535 });
    await until(() => messages().length === 2);
    expect(messages().map(({ federatedBundles }) => Object.keys(federatedBundles).length)).toEqual([0, 1]);
    expect(door.deliveries.map(({ content }) => content.kind === 'svid' && content.bundleSequence)).toEqual([
      1, 99,
    ]);
    session.destroy();
    await until(() => door.streams() === 0);
  });

  test('that read nothing at all are cut off, and others are not', async () => {
    await start({ limits: { writeMs: 200 } });
    door.register([entry('/web')]);
    const other = x509();
    await other.response();
    const { closed } = openRaw(0);
    await closed;
    await until(() => door.streams() === 1 && door.connections() === 1);
    expect(door.refusals).toMatchObject([{ code: 'stream_stalled' }]);
    door.publish(2);
    await other.response();
  });
});

describe('many callers', () => {
  test('a uid has so many streams and no more, and each that ends makes room', async () => {
    await start({ limits: { streamsPerUid: 3 } });
    door.register([entry('/web')]);
    const bundles = [client.fetchX509Bundles({}, header()), client.fetchJwtBundles({}, header())] as const;
    const open = [x509(), follow(bundles[0]), follow(bundles[1])] as const;
    for (const stream of open) await stream.response();
    const refused = ['stream_limit', status.RESOURCE_EXHAUSTED];
    expect(await x509(door.client()).end()).toEqual(refused);
    // Calls that end by themselves go on.
    await unary((done) => client.fetchJwtsvid({ audience: ['a'], spiffeId: '' }, header(), done));
    open[0].call.cancel();
    await until(() => door.streams() === 2);
    await x509().response();
  });

  test('opening streams over and over is limited', async () => {
    await start({ limits: { opens: { burst: 5, perSecond: 0 } } });
    for (let i = 0; i < 5; i++) expect(await x509().end()).toEqual(none);
    expect(await x509().end()).toEqual(['rate_limited', status.RESOURCE_EXHAUSTED]);
    // The log holds the first of each kind, and a count later.
    expect(door.refusals.map(({ code }) => code)).toEqual(['identity_none', 'rate_limited']);
  });

  test('two hundred streams of one process get each change', async () => {
    await start();
    door.register([entry('/web')]);
    const streams = Array.from({ length: 200 }, () => x509());
    for (const stream of streams) await stream.response();
    door.publish(2);
    for (const stream of streams) expect((await stream.response()).svids).toHaveLength(1);
    expect(door.recorded).toHaveLength(1);
    for (const { call } of streams) call.cancel();
    await until(() => door.streams() === 0);
  });

  test('noise on the socket hurts nobody', async () => {
    await start();
    door.register([entry('/web')]);
    const stream = x509();
    await stream.response();
    for (const bytes of ['', 'GET / HTTP/1.1\r\n\r\n', '\0'.repeat(10_000)]) {
      const socket = connect(door.path);
      socket.on('error', () => undefined);
      await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
      socket.end(bytes);
    }
    door.publish(2);
    await stream.response();
    expect(door.failures).toEqual([]);
  });
});

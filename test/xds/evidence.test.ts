import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Holder } from '../../src/ca/slot.ts';
import { type Coverage, createCoverage, type IssuedCertificate } from '../../src/identity/coverage.ts';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import type { Acknowledgement, Delivery, SdsObserver } from '../../src/xds/observer.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import { createSource, type RunningSds, startSds, until } from './harness.ts';

const names = ['default', 'ROOTCA'];
let authority: TestAuthority;
let [web, renewed]: X509Svid[] = [];
let credentials: WorkloadCredentials;
let sds: RunningSds;

beforeAll(async () => {
  authority = await createAuthority('example.org');
  [web, renewed] = [
    await authority.issue('spiffe://example.org/web'),
    await authority.issue('spiffe://example.org/web'),
  ];
  credentials = credentialsOf(authority, [web]);
});

afterEach(() => sds.close());

/** A client of one form that asks for the certificate and the bundle, and says what it is told to. */
type Speaker = {
  readonly ask: (versions?: Record<string, string>) => void;
  readonly hear: () => Promise<{ nonce: string; versions: Record<string, string> }>;
  readonly answer: (nonce: string, rejection?: string) => void;
};

const forms: readonly [string, (running: RunningSds) => Speaker][] = [
  ['StreamSecrets', (running) => speakWorld(running.open())],
  ['DeltaSecrets', (running) => speakDelta(running.openDelta())],
  ['StreamAggregatedResources', (running) => speakWorld(running.openAds())],
  ['DeltaAggregatedResources', (running) => speakDelta(running.openDeltaAds())],
];

describe.each(forms)('what a rotation goes by, over %s', (_, speak) => {
  test('a response is no evidence, its ACK is, for the certificate and the bundle', async () => {
    const { coverage, source } = await start();
    const speaker = speak(sds);
    speaker.ask();
    const { nonce } = await speaker.hear();
    expect(holderOf(coverage)).toMatchObject({ node: 'proxy', sequence: null });
    speaker.answer(nonce);
    await until(() => sds.acknowledged.length === 2);
    expect(holderOf(coverage)).toMatchObject({ node: 'proxy', sequence: 1 });
    // With the next bundle on its way it is in doubt again, until that is acknowledged as well.
    const next = { ...authority.bundle, x509Authorities: [...authority.bundle.x509Authorities], sequence: 2 };
    source.publish(() => credentialsOf({ ...authority, bundle: next }, [renewed as X509Svid]));
    const second = await speaker.hear();
    expect(leavesOf(coverage)).toEqual([web?.serial, renewed?.serial].sort());
    speaker.answer(second.nonce);
    await until(() =>
      sds.acknowledged.some(({ content }) => content?.kind === 'svid' && content.serial === renewed?.serial),
    );
    expect(leavesOf(coverage)).toEqual([renewed?.serial]);
  });

  test('a NACK and a stale nonce are none', async () => {
    const { coverage } = await start();
    const speaker = speak(sds);
    speaker.ask();
    const { nonce } = await speaker.hear();
    speaker.answer('stale');
    speaker.answer(nonce, 'Failed to load');
    await until(() => sds.rejected.length === 1);
    expect([holderOf(coverage)?.sequence, sds.acknowledged]).toEqual([null, []]);
  });
});

describe.each(forms.filter(([name]) => name.startsWith('Delta')))('over %s', (_, speak) => {
  test('what a client comes back with is evidence, though nothing is sent', async () => {
    await start();
    const before = speak(sds);
    before.ask();
    const { versions } = await before.hear();
    await sds.close();
    // Of the first process nothing was kept.
    const { coverage } = await start();
    speak(sds).ask(versions);
    await until(() => sds.acknowledged.length === 2);
    expect([holderOf(coverage)?.sequence, sds.pushed]).toEqual([1, []]);
  });

  test('another version than that of now is none', async () => {
    const { coverage } = await start();
    const speaker = speak(sds);
    speaker.ask({ default: 'f'.repeat(32), ROOTCA: 'f'.repeat(32) });
    await speaker.hear();
    expect([holderOf(coverage)?.sequence, sds.acknowledged]).toEqual([null, []]);
  });

  test('that a secret is gone is acknowledged, and is no evidence that it is not in use', async () => {
    const { coverage, source } = await start();
    const speaker = speak(sds);
    speaker.ask();
    speaker.answer((await speaker.hear()).nonce);
    await until(() => sds.acknowledged.length === 2);
    source.publish(() => nothingOf(authority));
    speaker.answer((await speaker.hear()).nonce);
    // Envoy acknowledges a removal and keeps what it has.
    source.publish(() => credentials);
    await speaker.hear();
    expect(leavesOf(coverage)).toEqual([web?.serial]);
  });
});

async function start() {
  const coverage = createCoverage([]);
  const client = ({ peer, nodeId }: Delivery | Acknowledgement) => ({
    uid: peer.uid,
    pid: peer.pid,
    node: nodeId,
  });
  const observer: SdsObserver = {
    delivering: (one) => {
      if (one.content !== undefined) coverage.sent(client(one), one.name, one.content, one.at);
    },
    acknowledged: (one) => {
      if (one.content !== undefined) coverage.confirmed(client(one), one.name, one.content, one.at);
    },
  };
  const source = createSource(() => credentials);
  sds = await startSds(source.watch, { observer });
  return { coverage, source };
}

function holdersOf(coverage: Coverage): readonly Holder[] {
  const issued = [web, renewed].map((svid): IssuedCertificate => {
    const { serial, entryId, issuerKeyId, notAfter, id } = svid as X509Svid;
    return { serial, entryId, issuerKeyId, notAfter, spiffeId: id.text };
  });
  return coverage.evidence(issued, new Date(), null).holders;
}

function holderOf(coverage: Coverage): Holder | undefined {
  return holdersOf(coverage).find(({ lastSeen }) => lastSeen !== null);
}

/** The certificates that this process may present, by what is kept of it. */
function leavesOf(coverage: Coverage): readonly string[] {
  const { put } = coverage.takeChange(new Date());
  const rows = put.map(
    ({ record }) => JSON.parse(record) as { name: string; confirmed: unknown; sent: unknown[] },
  );
  const contents = rows
    .filter(({ name }) => name === 'default')
    .flatMap((row) => [row.confirmed, ...row.sent]);
  const serials = contents.flatMap((content) => (content as { serial?: string } | null)?.serial ?? []);
  return [...new Set(serials)].sort();
}

function speakWorld(stream: ReturnType<RunningSds['open']>): Speaker {
  return {
    ask: () => stream.send({ resourceNames: names, node }),
    hear: async () => ({ nonce: (await stream.response()).nonce, versions: {} }),
    answer: (nonce, message) =>
      stream.send({ resourceNames: names, responseNonce: nonce, errorDetail: errorOf(message) }),
  };
}

function speakDelta(stream: ReturnType<RunningSds['openDelta']>): Speaker {
  return {
    ask: (initialResourceVersions = {}) =>
      stream.send({ resourceNamesSubscribe: names, initialResourceVersions, node }),
    hear: async () => {
      const { nonce, resources } = await stream.response();
      return { nonce, versions: Object.fromEntries(resources.map(({ name, version }) => [name, version])) };
    },
    answer: (nonce, message) => stream.send({ responseNonce: nonce, errorDetail: errorOf(message) }),
  };
}

function errorOf(message: string | undefined) {
  return message === undefined ? undefined : { code: 13, message, details: [] };
}

const node = {
  id: 'proxy',
  cluster: '',
  metadata: undefined,
  locality: undefined,
  userAgentName: '',
  userAgentVersionType: undefined,
  clientFeatures: [],
};

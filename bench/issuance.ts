// How fast certificates are issued: prepare, sign, read back. Compared, in the same run, with bare signature arithmetic
// (what no issuer can beat on one thread) and with issuing through @peculiar/x509. Takes about 12 seconds.
import { generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { createAuthority } from '../src/ca/authority.ts';
import type { LeafRequest } from '../src/ca/leaf.ts';
import { parseProfile } from '../src/ca/profile.ts';
import { readPublicKey } from '../src/ca/public-key.ts';
import { createIntermediate, createRoot } from '../src/ca/x509.ts';
import { readCertificate } from '../src/spiffe/certificate.ts';
import { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { checkX509SvidLeaf, peerCertificateIds } from '../src/spiffe/svid.ts';
import { makeReferenceIssuer } from '../test/ca/reference-leaf.ts';
import { printReport } from './report.ts';

const rounds = 3;
const roundMs = 600;
const inFlight = 32;

const now = new Date();
const trustDomain = TrustDomain.parse('example.org');
const profile = parseProfile();
const root = await createRoot({ trustDomain, profile, now, randomBytes });
const intermediate = await createIntermediate({ trustDomain, profile, now, randomBytes, root });
const authority = createAuthority({ trustDomain, root, intermediate, profile, randomBytes });
const reference = await makeReferenceIssuer(intermediate);

const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const request: LeafRequest = {
  id: SpiffeId.parse('spiffe://example.org/ns/shop/sa/web'),
  publicKey: publicKey.export({ format: 'der', type: 'spki' }),
  dnsNames: ['web.shop.svc'],
  ttlSeconds: 3_600,
};
const first = await authority.sign(authority.prepare(request, now));
const leaf = first.certificates[0] ?? new Uint8Array(0);
const { tbs } = readCertificate(leaf);
const { keyId, spki } = readPublicKey(request.publicKey);
const proof = sign('sha256', tbs, privateKey);

const issue = async () => {
  await authority.sign(authority.prepare(request, now));
};
const bare = () => {
  verify('sha256', tbs, publicKey, proof);
  sign('sha256', tbs, privateKey);
};
const peculiar = async () => {
  await reference({
    uri: request.id.text,
    dnsNames: request.dnsNames,
    spki,
    subjectKeyId: Buffer.from(keyId).toString('hex'),
    ...first,
  });
};

type Samples = Record<'issue' | 'busy' | 'bare' | 'peculiar' | 'loopDelayP99Ms', number[]>;
const samples: Samples = { issue: [], busy: [], bare: [], peculiar: [], loopDelayP99Ms: [] };
const heapBefore = heapMiB();
// Turn about, so that a neighbour's burst on this machine slows all of them alike.
for (let round = 0; round < rounds; round++) {
  samples.bare.push(await perSecond(bare));
  samples.issue.push(await perSecond(issue));
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  samples.busy.push(await perSecond(issue, inFlight));
  delay.disable();
  samples.loopDelayP99Ms.push(delay.percentile(99) / 1e6);
  samples.peculiar.push(await perSecond(peculiar));
}
const heapGrowth = heapMiB() - heapBefore;

const issuePerSecond = median(samples.issue);
const busyPerSecond = median(samples.busy);
const barePerSecond = median(samples.bare);
const peculiarPerSecond = median(samples.peculiar);
const loopDelayP99Ms = median(samples.loopDelayP99Ms);
const prepareUs = 1e6 / (await perSecond(() => void authority.prepare(request, now)));
const leafCheckUs = 1e6 / (await perSecond(() => void checkX509SvidLeaf(leaf)));
const peerIdsUs = 1e6 / (await perSecond(() => void peerCertificateIds(leaf)));

printReport(
  'issuance',
  [
    { name: 'issue one after the other (prepare, sign, read back)', value: issuePerSecond, unit: '/s' },
    { name: `issue with ${inFlight} in flight`, value: busyPerSecond, unit: '/s' },
    { name: 'reference: bare verify + sign, one thread', value: barePerSecond, unit: '/s' },
    { name: 'reference: @peculiar/x509, no reading back', value: peculiarPerSecond, unit: '/s' },
    { name: 'share of bare arithmetic', value: busyPerSecond / barePerSecond, unit: 'x' },
    { name: 'times @peculiar/x509', value: busyPerSecond / peculiarPerSecond, unit: 'x' },
    { name: `event-loop delay p99, ${inFlight} in flight`, value: loopDelayP99Ms, unit: 'ms' },
    { name: 'heap growth over the run', value: heapGrowth, unit: 'MiB' },
    { name: 'prepare alone', value: prepareUs, unit: 'us' },
    { name: 'strict leaf check', value: leafCheckUs, unit: 'us' },
    { name: 'peer certificate ids', value: peerIdsUs, unit: 'us' },
  ],
  {
    issue_per_second: round(issuePerSecond),
    issue_in_flight_per_second: round(busyPerSecond),
    bare_verify_sign_per_second: round(barePerSecond),
    peculiar_per_second: round(peculiarPerSecond),
    ratio_to_bare: round(busyPerSecond / barePerSecond),
    ratio_to_peculiar: round(busyPerSecond / peculiarPerSecond),
    event_loop_delay_p99_ms: round(loopDelayP99Ms),
    heap_growth_mib: round(heapGrowth),
    prepare_us: round(prepareUs),
    leaf_check_us: round(leafCheckUs),
    peer_ids_us: round(peerIdsUs),
  },
);

/** Runs `work` for one round, `lanes` at a time, after a short warm-up, and gives how often it ended per second. */
async function perSecond(work: () => void | Promise<void>, lanes = 1): Promise<number> {
  await run(work, lanes, roundMs / 6);
  const start = performance.now();
  const count = await run(work, lanes, roundMs);
  return (count * 1_000) / (performance.now() - start);
}

async function run(work: () => void | Promise<void>, lanes: number, ms: number): Promise<number> {
  const until = performance.now() + ms;
  let count = 0;
  const lane = async () => {
    while (performance.now() < until) {
      const pending = work();
      if (pending !== undefined) await pending;
      count++;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return count;
}

function heapMiB(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 1_048_576;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function round(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}

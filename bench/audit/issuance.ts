import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { rollupOf } from '../../src/audit/rollup.ts';
import { encodeEvent } from '../../src/audit/canonical.ts';
import type { RecordProven } from '../../src/audit/event.ts';
import { asPublicKey, type PublicKey } from '../../src/ca/public-key.ts';
import { poolRandom } from '../../src/ca/serial.ts';
import { systemClock } from '../../src/clock.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import { createIssuer, type IssueX509 } from '../../src/identity/issuer.ts';
import { startProofThread } from '../../src/signing/thread.ts';
import { openStore } from '../../src/store/store.ts';
import { createWriteQueue } from '../../src/store/write-queue.ts';
import { makeTestAuthority } from '../../test/ca/test-authority.ts';
import { benchEntry } from '../issuance/rpc.ts';
import { type Figure, percentile, printFigures } from '../report.ts';

const perSecond = 1_000;
const roundSeconds = Number(process.env['BENCH_SECONDS'] ?? 3);
const rounds = 4;
const noBans = indexBans([]);
const random = poolRandom((count) => new Uint8Array(randomBytes(count)));

/**
 * What the log adds to an issuance at 1,000 a second: the same path with nothing written, with a bare durable commit of the
 * record in the place of the log, with the log, and with the log and a proof for each. By turns, so that a machine that is
 * busy is so for all; each issuance is timed from the moment it was due, so that one that waits for another counts as it
 * should.
 */
export async function measureIssuance(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'countersign-bench-issuance-'));
  const proofs = startProofThread();
  const { authority } = await makeTestAuthority(new Date(), {}, 'example.org', proofs.lintLeaf);
  const store = await openStore({ dataDir: join(dir, 'data'), clock: systemClock, randomBytes: random });
  const bare = openBare(join(dir, 'bare.db'));
  try {
    await store.signLog('example.org/audit', generateKeyPairSync('ed25519').privateKey);
    const issuerOf = (record: RecordProven): IssueX509 =>
      createIssuer({
        authority: () => authority,
        mayStillSign: () => true,
        record,
        clock: systemClock,
        isCurrent: () => true,
        bans: () => noBans,
      });
    const ways = [
      { name: 'nothing written', record: async () => null },
      { name: 'bare durable commit', record: bare.record },
      { name: 'the log', record: async (event) => (await store.recordEvents([event]), null) },
      { name: 'the log, each proven', record: store.recordProven },
    ] satisfies readonly { name: string; record: RecordProven }[];
    const samples = ways.map((): number[] => []);
    const cpuUs = ways.map(() => 0);
    const keys = Array.from({ length: 64 }, makePublicKey);
    const entry = benchEntry('bench', 'spiffe://example.org/ns/shop/sa/web');
    for (let round = -1; round < rounds; round++) {
      for (const [at, { record }] of ways.entries()) {
        const issue = issuerOf(record);
        const before = process.cpuUsage();
        const took = await offer(issue, entry, keys, round < 0 ? 0.5 : roundSeconds);
        if (round < 0) continue;
        const { user, system } = process.cpuUsage(before);
        samples[at]?.push(...took);
        cpuUs[at] = (cpuUs[at] ?? 0) + user + system;
      }
    }
    const of = (at: number, share: number): number => percentile(samples[at] ?? [], share);
    const added = (from: number, share: number): number => of(3, share) - of(from, share);
    const figures: Figure[] = ways.flatMap(({ name }, at) =>
      [0.5, 0.9, 0.99, 0.999].map((share) => ({
        name: `${name}, p${share * 100}`,
        value: of(at, share),
        unit: 'ms',
        atMost: null,
      })),
    );
    const cpuOf = (at: number): number => (cpuUs[at] ?? 0) / (samples[at]?.length ?? 1);
    printFigures('audit issuance', [
      ...figures,
      ...ways.map(({ name }, at) => ({
        name: `${name}, processor time of all threads`,
        value: cpuOf(at),
        unit: 'us',
        atMost: null,
      })),
      { name: 'added by the log and the proof, p50', value: added(0, 0.5), unit: 'ms', atMost: null },
      { name: 'added by the log and the proof, p99', value: added(0, 0.99), unit: 'ms', atMost: 10 },
      { name: 'the same beside a bare commit, p50', value: added(1, 0.5), unit: 'ms', atMost: null },
      { name: 'the same beside a bare commit, p99', value: added(1, 0.99), unit: 'ms', atMost: null },
      { name: 'of which the proof, p50', value: added(2, 0.5), unit: 'ms', atMost: null },
      { name: 'load of the machine', value: loadavg()[0] ?? Number.NaN, unit: '', atMost: null },
    ]);
  } finally {
    await bare.close();
    await store.close();
    await proofs.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Issues at the rate, whether or not those before have ended. @returns how long each took, in ms */
async function offer(
  issue: IssueX509,
  entry: ReturnType<typeof benchEntry>,
  keys: readonly PublicKey[],
  seconds: number,
): Promise<readonly number[]> {
  const count = Math.round(seconds * perSecond);
  const took: number[] = [];
  const attestation = { selectors: entry.selectors, caller: { pid: 4_711, uid: 1_000, gid: 1_000 } };
  const running: Promise<void>[] = [];
  const begin = performance.now();
  for (let at = 0; at < count;) {
    const due = begin + (at * 1_000) / perSecond;
    if (performance.now() < due) {
      await systemClock.sleep(1);
      continue;
    }
    const publicKey = keys[at % keys.length] as PublicKey;
    running.push(
      issue({ entry, publicKey, attestation }).then(() => void took.push(performance.now() - due)),
    );
    at++;
  }
  await Promise.all(running);
  return took;
}

/** The same queue of batches before a thread that only commits their bytes. */
function openBare(file: string) {
  const worker = new Worker(new URL('./bare-writer.ts', import.meta.url), { workerData: file });
  const queue = createWriteQueue(async (requests) => {
    const answer = new Promise<readonly number[]>((resolve) => {
      worker.once('message', resolve);
    });
    worker.postMessage(
      requests.map(({ leaves }) => leaves[0]?.leaf),
      [],
    );
    return (await answer).map((firstIndex) => ({ firstIndex }));
  });
  const record: RecordProven = async (event) => {
    const { leaf } = encodeEvent(event, random);
    const columns = { type: event.type, timeMs: 0, ...none };
    const record = { leaf, personal: [], columns, certificate: null, token: null, rollup: rollupOf(event) };
    await queue.push({ change: { kind: 'none' }, leaves: [record] });
    return null;
  };
  return {
    record,
    close: () =>
      new Promise<void>((resolve) => {
        worker.once('exit', () => resolve());
        worker.postMessage(null, []);
      }),
  };
}

function makePublicKey(): PublicKey {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return asPublicKey(new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })));
}

const none = { source: null, destination: null, verdict: null, serial: null, decisionId: null } as const;

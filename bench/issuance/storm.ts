import { generateKeyPair } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { systemClock } from '../../src/clock.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import { createKeeper } from '../../src/identity/keeper.ts';
import { benchEntry, type Stage } from './rpc.ts';

export type Storm = {
  readonly leaves: number;
  readonly seconds: number;
  readonly loopDelayP50Ms: number;
  readonly loopDelayP99Ms: number;
  readonly loopDelayMaxMs: number;
  readonly failures: number;
};

/** Changes `leaves` entries that are held, at once, so that each needs a new certificate; waits until all have one. */
export async function measureStorm({ issue }: Stage, leaves: number): Promise<Storm> {
  let failures = 0;
  const keeper = createKeeper({
    issue,
    generateKeyPair: async () => {
      const pair = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
      return {
        publicKey: new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' })),
        privateKey: new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' })),
      };
    },
    clock: systemClock,
    bans: () => indexBans([]),
    onChange: () => () => undefined,
    random: Math.random,
    onFailure: () => {
      failures += 1;
    },
  });
  const entries = (ttlSeconds: number) =>
    Array.from({ length: leaves }, (_, i) =>
      benchEntry(`e${i}`, `spiffe://example.org/ns/s/sa/${i}`, ttlSeconds),
    );
  const caller = { pid: process.pid, uid: 0, gid: 0 };
  const holdAll = async (ttlSeconds: number): Promise<void> => {
    let left = leaves;
    const done = Promise.withResolvers<void>();
    const leases = entries(ttlSeconds).map((entry) => {
      const told = new Set<unknown>();
      const lease = keeper.hold(entry, { selectors: entry.selectors, caller }, () => {
        const svid = lease.svid();
        if (svid === undefined || told.size > 0) return;
        told.add(svid);
        left -= 1;
        if (left === 0) done.resolve();
      });
      return lease;
    });
    await done.promise;
    if (ttlSeconds !== first) for (const lease of leases) lease.release();
  };
  await holdAll(first);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const started = performance.now();
  await holdAll(second);
  const seconds = (performance.now() - started) / 1_000;
  delay.disable();
  keeper.close();
  return {
    leaves,
    seconds,
    loopDelayP50Ms: delay.percentile(50) / 1e6,
    loopDelayP99Ms: delay.percentile(99) / 1e6,
    loopDelayMaxMs: delay.max / 1e6,
    failures,
  };
}

const first = 3_600;
const second = 3_601;

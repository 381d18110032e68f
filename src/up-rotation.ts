import { createHash } from 'node:crypto';
import type { Actor } from './audit/event.ts';
import { rotate } from './ca/rotation.ts';
import { type Evidence, unconfirmed } from './ca/slot.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import type { CaPort, CaReport } from './http/ca-report.ts';
import { createCoverage } from './identity/coverage.ts';
import { createLatch } from './identity/notice.ts';
import type { Log } from './log.ts';
import type { Acknowledgement, Delivery, SdsObserver, StreamIdentity } from './sds/observer.ts';
import type { Store } from './store/store.ts';
import { type AuthorityParts, type KeptAuthority, openAuthority, type RotationWish } from './up-authority.ts';
import { watchClock } from './up-clock.ts';
import { namedLaggards } from './up-refusal.ts';

/** The CA of this process, with all that its rotation goes by. */
export type Rotation = {
  readonly authority: KeptAuthority;
  /** Must hear of every secret that is sent or acknowledged. */
  readonly observer: Required<Pick<SdsObserver, 'delivering' | 'acknowledged'>>;
  readonly ca: CaPort;
  /** Why the clock is not to be trusted; null when it is. */
  readonly doubt: () => string | null;
  /** Stops what runs by itself and keeps what proxies have confirmed. */
  readonly close: () => Promise<void>;
};

export type RotationParts = Omit<AuthorityParts, 'evidence' | 'doubt' | 'store'> & {
  readonly store: Store;
  readonly log: Log;
  /** Entries whose certificates this process alone uses: it follows every change of the bundle itself. */
  readonly ownEntries: ReadonlySet<string>;
};

/** Opens the CA and keeps it going. @throws MeshError as {@link openAuthority} */
export async function openRotation(parts: RotationParts): Promise<Rotation> {
  const { store, clock, log, ownEntries } = parts;
  const coverage = createCoverage(await store.loadCoverage());
  const clockWatch = watchClock(clock, () => performance.now());
  const evidence = async (): Promise<Evidence> => {
    const issued = await store.unexpiredCertificates(clock.now());
    const foreign = issued.filter(({ entryId }) => !ownEntries.has(entryId));
    return coverage.evidence(foreign, clock.now(), clockWatch());
  };
  const authority = await openAuthority({
    ...parts,
    evidence,
    doubt: clockWatch,
    report: ({ action, kind, keyId, evidence: why = '' }) =>
      // The first keys are no news: the status tells of them.
      log[action === 'created' ? 'info' : 'warn']({ kind, keyId, evidence: why }, `CA key ${action}`),
  });
  const flush = async (): Promise<void> => {
    const change = coverage.takeChange(clock.now());
    if (change.put.length + change.remove.length === 0) return;
    await store
      .commitCoverage(change)
      .catch((error: unknown) => log.error(publicError(error), 'coverage could not be stored'));
  };
  const changed = createLatch();
  const follow = (told: Delivery | Acknowledgement, note: Note): void => {
    if (told.content === undefined) return;
    note(clientOf(told), told.name, told.content, told.at);
    changed.raise();
  };
  const stop = new AbortController();
  const running = [
    repeat(stop.signal, async () => {
      await changed.next(stop.signal);
      // All that comes within this time is one commit.
      await clock.sleep(gatherMs, stop.signal);
      await flush();
    }),
    repeat(stop.signal, async () => {
      await tick(authority, log, clockWatch);
      await clock.sleep(tickMs, stop.signal);
    }),
  ];
  return {
    authority,
    observer: {
      delivering: (delivery) => follow(delivery, coverage.sent),
      acknowledged: (acknowledgement) => follow(acknowledgement, coverage.confirmed),
    },
    ca: caPort(authority, evidence, clock),
    doubt: clockWatch,
    close: async () => {
      stop.abort();
      await Promise.all(running);
      await flush();
    },
  };
}

type Note = ReturnType<typeof createCoverage>['sent'];

function clientOf({ peer, nodeId }: StreamIdentity): Parameters<Note>[0] {
  return { uid: peer.uid, pid: peer.pid, node: nodeId };
}

async function tick(authority: KeptAuthority, log: Log, doubt: () => string | null): Promise<void> {
  const why = doubt();
  if (why !== null) log.error({ cause: why }, 'no CA key is rotated by itself for now');
  try {
    // One thing at a time; a few are due at once when the process was away for long.
    for (let steps = 0; steps < 4 && (await authority.tick()); steps++);
  } catch (error) {
    log.error(publicError(error), 'the CA keys could not be rotated');
  }
}

/** What `work` throws ends it: it takes care itself. */
async function repeat(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  while (!signal.aborted) await work();
}

function caPort(authority: KeptAuthority, evidence: () => Promise<Evidence>, clock: Clock): CaPort {
  const report = async (): Promise<CaReport> => reportOf(authority, await evidence(), clock.now());
  const step = async (wish: RotationWish, actor: Actor): Promise<CaReport> => {
    await authority.step(wish, actor);
    return report();
  };
  return {
    report,
    rotate: (scope, actor) => step({ kind: 'rotate', scope }, actor),
    activate: (force, actor) => step({ kind: 'activate', force }, actor),
    retire: (force, actor) => step({ kind: 'retire', force }, actor),
    taint: (keyId, actor) => step({ kind: 'taint', keyId }, actor),
  };
}

/** What the reducer would say now, asked without taking the step. */
function reportOf(authority: KeptAuthority, evidence: Evidence, now: Date): CaReport {
  const state = authority.state();
  const root =
    state.slots.find(({ kind, state: at }) => kind === 'root' && at === 'prepared') ??
    state.slots.find(({ kind, state: at }) => kind === 'root' && at === 'active');
  const sequence = root?.publishedIn ?? state.sequence;
  const holders = evidence.holders.filter(({ leaves }) => leaves.some(({ notAfter }) => notAfter > now));
  const late = unconfirmed(evidence, sequence, now);
  const next = (['activate', 'retire'] as const)
    .map((kind) => {
      const [, effects] = rotate(state, { kind, evidence, force: false }, now);
      const refusal = effects.find((effect) => effect.kind === 'refuse')?.refusal;
      return { kind, refusal };
    })
    .find(({ refusal }) => refusal?.code !== 'rotation_out_of_order');
  const laggards = next?.refusal?.code === 'rotation_unproven' ? next.refusal.laggards : [];
  return {
    bundleSequence: state.sequence,
    authorities: authority.stored().map(({ certificate, ...slot }) => ({
      ...slot,
      certificateSha256: createHash('sha256').update(certificate).digest('hex'),
    })),
    coverage: { sequence, confirmed: holders.length - late.length, holders: holders.length },
    next: next === undefined ? null : { step: next.kind, safe: next.refusal === undefined },
    laggards: laggards.slice(0, namedLaggards),
    moreLaggards: Math.max(0, laggards.length - namedLaggards),
    doubt: evidence.doubt,
  };
}

const gatherMs = 100;
const tickMs = 60_000;

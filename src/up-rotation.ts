import { createHash } from 'node:crypto';
import type { Actor } from './audit/event.ts';
import { type Outlook, outlook } from './ca/outlook.ts';
import { rotate } from './ca/rotation.ts';
import { type Evidence, unconfirmed } from './ca/slot.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import type { CaPort, CaReport } from './http/ca-report.ts';
import { type CoverageClient, createCoverage, type IsOver, type SecretContent } from './identity/coverage.ts';
import { nodeEntryPrefix } from './identity/node.ts';
import { createLatch } from './identity/notice.ts';
import type { Log } from './log.ts';
import type { Acknowledgement, Delivery, SdsObserver, StreamIdentity } from './xds/observer.ts';
import type { Store } from './store/store.ts';
import { type AuthorityParts, type KeptAuthority, openAuthority, type RotationWish } from './up-authority.ts';
import { watchClock } from './up-clock.ts';
import { namedLaggards, refusalError } from './up-refusal.ts';

/** The CA of this process, with all that its rotation goes by. */
export type Rotation = {
  readonly authority: KeptAuthority;
  /** Must hear of every secret that is sent or acknowledged. */
  readonly observer: Required<Pick<SdsObserver, 'delivering' | 'acknowledged'>>;
  /** Takes down what a process was sent or has taken into use, wherever it runs. */
  readonly note: (
    isConfirmed: boolean,
    client: CoverageClient,
    name: string,
    content: SecretContent,
    at: Date,
  ) => void;
  readonly ca: CaPort;
  /** What will become of the CA if nobody does anything. */
  readonly outlook: () => Outlook;
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
  /** Whether nobody can use a certificate any more, though it has not ended. Default: none such. */
  readonly isOver?: IsOver;
};

/** Opens the CA and keeps it going. @throws MeshError as {@link openAuthority} */
export async function openRotation(parts: RotationParts): Promise<Rotation> {
  const { store, clock, log, ownEntries, isOver } = parts;
  const rows = await store.loadCoverage();
  // The row stands while a process runs. One that is found was left by a crash, with whatever it had not yet written.
  const hasCrashed = rows.some(({ key }) => key === openRow.key);
  const doubtful = hasCrashed ? await store.unexpiredCertificates(clock.now()) : [];
  const coverage = createCoverage(
    rows.filter(({ key }) => key !== openRow.key),
    // Of a node's own nothing is in doubt: it is with that node alone, and what its agent last said is said again.
    doubtful.filter(({ entryId }) => !ownEntries.has(entryId) && !entryId.startsWith(nodeEntryPrefix)),
  );
  await store.commitCoverage({ put: [openRow], remove: [] });
  const clockWatch = watchClock(clock, () => performance.now());
  const evidence = async (): Promise<Evidence> => {
    const issued = await store.unexpiredCertificates(clock.now());
    const foreign = issued.filter(({ entryId }) => !ownEntries.has(entryId));
    return coverage.evidence(foreign, clock.now(), clockWatch(), isOver);
  };
  const authority = await openAuthority({
    ...parts,
    evidence,
    doubt: clockWatch,
    report: ({ action, kind, keyId, evidence: why = '' }) =>
      // The first keys are no news: the status tells of them.
      log[action === 'created' ? 'info' : 'warn']({ kind, keyId, evidence: why }, `CA key ${action}`),
  });
  let isWhole = true;
  const flush = async (): Promise<void> => {
    const change = coverage.takeChange(clock.now());
    if (change.put.length + change.remove.length === 0) return;
    await store.commitCoverage(change).catch((error: unknown) => {
      isWhole = false;
      log.error(publicError(error), 'coverage could not be stored');
    });
  };
  const changed = createLatch();
  const follow = (told: Delivery | Acknowledgement, note: Note): void => {
    if (told.content === undefined) return;
    note(clientOf(told), told.name, told.content, told.at);
    changed.raise();
  };
  let warnedAt = Number.NEGATIVE_INFINITY;
  const lookAhead = (): void => {
    const { warnings, ended } = outlook(authority.state(), clock.now());
    const nowMs = clock.now().getTime();
    if (ended === null && (warnings.length === 0 || nowMs - warnedAt < warnEveryMs)) return;
    warnedAt = nowMs;
    if (ended !== null) log.error({}, ended);
    for (const warning of warnings) log.warn({}, warning);
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
      // Keys that cannot be stored would only be left behind on the disk, minute by minute.
      if (store.health().ok) await tick(authority, log, clockWatch);
      lookAhead();
      await clock.sleep(tickMs, stop.signal);
    }),
  ];
  return {
    authority,
    observer: {
      delivering: (delivery) => follow(delivery, coverage.sent),
      acknowledged: (acknowledgement) => follow(acknowledgement, coverage.confirmed),
    },
    note: (isConfirmed, client, name, content, at) => {
      (isConfirmed ? coverage.confirmed : coverage.sent)(client, name, content, at);
      changed.raise();
    },
    ca: caPort(authority, evidence, clock),
    outlook: () => outlook(authority.state(), clock.now()),
    doubt: clockWatch,
    close: async () => {
      stop.abort();
      await Promise.all(running);
      await flush();
      if (isWhole) await store.commitCoverage({ put: [], remove: [openRow.key] }).catch(() => undefined);
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
    request: () => {
      const request = authority.request();
      if (request !== null) return request;
      throw refusalError({ code: 'csr_not_waiting', why: 'no key waits for a certificate' });
    },
    rotate: (scope, actor, offline = false) => step({ kind: 'rotate', scope, offline }, actor),
    importChain: (chain, actor) => step({ kind: 'import', chain }, actor),
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
    waiting: state.requested === null ? null : { keyId: state.requested },
    warnings: outlook(state, now).warnings,
    authorities: authority.stored().map(({ certificate, upstream, ...slot }) => ({
      ...slot,
      upstream: upstream.length,
      certificateSha256: createHash('sha256').update(certificate).digest('hex'),
    })),
    coverage: { sequence, confirmed: holders.length - late.length, holders: holders.length },
    next: next === undefined ? null : { step: next.kind, safe: next.refusal === undefined },
    laggards: laggards.slice(0, namedLaggards),
    moreLaggards: Math.max(0, laggards.length - namedLaggards),
    doubt: evidence.doubt,
  };
}

const openRow = { key: 'open', record: '' };
const gatherMs = 100;
const tickMs = 60_000;
const warnEveryMs = 3_600_000;

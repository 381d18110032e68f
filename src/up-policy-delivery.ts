import type { Clock } from './clock.ts';
import { publicError, quote } from './errors.ts';
import { type BannedCallers, bannedCallers } from './identity/banned-callers.ts';
import type { Breathe } from './identity/breath.ts';
import { concernsDestination, rolloutOf } from './identity/candidate.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Mesh } from './identity/mesh.ts';
import { createLatch, createNotice, latchOrSleep } from './identity/notice.ts';
import { policyInForce } from './identity/policy-revision.ts';
import type { Log } from './log.ts';
import type { PolicyInstruments } from './up-policy-metrics.ts';
import { createPolicyBeats } from './xds/policy-beats.ts';
import { createPolicyBook, type OpenedBy, type ProxyPolicyStanding } from './xds/policy-book.ts';
import { createPolicyDesk, type PolicyState } from './xds/policy-desk.ts';
import { createPolicySource } from './xds/policy-source.ts';
import type { ResourceSource } from './xds/source.ts';

/** How long the policies of this process may be used, where that has an end. */
export type PolicyFreshness = {
  readonly isTooOld: () => boolean;
  /** When they become too old if nobody confirms them from now on. */
  readonly usableUntil: () => Date;
  /** Calls back when they were confirmed again after a while without that. */
  readonly onChange: (listener: () => void) => () => void;
};

/** Policies on their way to the proxies that decide by them. */
export type PolicyDelivery = {
  readonly source: ResourceSource;
  readonly standings: () => readonly ProxyPolicyStanding[];
  readonly close: () => Promise<void>;
};

/** The freshness of policies that this process makes itself: its proxies may miss it for `maxStalenessSeconds`. */
export function alwaysFresh(clock: Clock, maxStalenessSeconds: number): PolicyFreshness {
  return {
    isTooOld: () => false,
    usableUntil: () => new Date(clock.now().getTime() + maxStalenessSeconds * 1_000),
    onChange: () => () => undefined,
  };
}

export function openPolicyDelivery(parts: {
  readonly holder: MeshHolder;
  readonly freshness: PolicyFreshness;
  readonly breathe: Breathe;
  readonly instruments: PolicyInstruments;
  readonly clock: Clock;
  readonly log: Log;
}): PolicyDelivery {
  const { holder, freshness, clock, log, instruments } = parts;
  const changed = createNotice();
  const bansNow = rememberBans(clock);
  const state = (): PolicyState => {
    const current = holder.current();
    const { mesh, snapshot } = current;
    const live = rolloutOf(current);
    const bans = bansNow(mesh);
    const reason = freshness.isTooOld() ? 'policy_too_old' : bans.hasOthers ? 'certificates_banned' : null;
    return {
      snapshot,
      bannedIds: bans.ids,
      number: policyInForce(mesh)?.number ?? 0,
      asksAll: (destination) =>
        reason ??
        (bans.ids.some((id) => id.equals(destination))
          ? 'destination_banned'
          : live !== null && concernsDestination(snapshot, live.candidate.snapshot, destination)
            ? 'rollout_under_way'
            : null),
    };
  };
  const stop = new AbortController();
  const running = announceChanges(
    {
      holder,
      freshness,
      clock,
      nextMoment: () => nextMoment(bansNow(holder.current().mesh), freshness, clock),
    },
    changed.announce,
    stop.signal,
  );
  const say = oncePerMinute(clock);
  const detailOf = ({ nodeId, caller }: OpenedBy) => ({
    node: quote(nodeId),
    pid: caller.pid,
    uid: caller.uid,
  });
  const book = createPolicyBook(clock, {
    pushed: () => instruments.messages.add('push'),
    acknowledged: (seconds) => {
      instruments.messages.add('ack');
      instruments.acknowledgedAfter.observe(seconds);
    },
    rejected: (proxy, names, message) => {
      instruments.messages.add('nack');
      if (!say(`rejected ${proxy.caller.uid}`)) return;
      const detail = { ...detailOf(proxy), names: names.slice(0, 8).map(quote), message: quote(message) };
      log.error(detail, 'a proxy refuses its policy and goes on with the one before it');
    },
    unanswered: (proxy, names) => {
      instruments.messages.add('unanswered');
      if (!say(`unanswered ${proxy.caller.uid}`)) return;
      const detail = { ...detailOf(proxy), names: names.slice(0, 8).map(quote) };
      log.warn(detail, 'a proxy was sent a policy and does not say whether it has it in use');
    },
    lacking: (proxy) => {
      if (!say(`lacking ${proxy.caller.uid}`)) return;
      const detail = {
        ...detailOf(proxy),
        lacks: quote(proxy.service.lacks ?? ''),
        served: proxy.service.serves,
      };
      log.warn(detail, 'a proxy asks for a policy to decide by and lacks what that needs');
    },
  });
  const desk = createPolicyDesk({
    state,
    onChange: changed.subscribe,
    breathe: parts.breathe,
    compiled: instruments.compiledIn.observe,
    failed: (destination, error) => {
      instruments.failures.add('failed');
      if (!say('failed')) return;
      const detail = { destination: destination.text, ...publicError(error) };
      log.error(detail, 'a policy for proxies could not be made; they ask about every call');
    },
  });
  instruments.watch(book.standings);
  const source = createPolicySource({
    registry: () => holder.current().registry,
    bans: () => holder.current().bans,
    onChange: holder.onChange,
    desk,
    beats: createPolicyBeats(freshness.usableUntil, clock),
    book,
    clock,
  });
  return {
    source,
    standings: book.standings,
    close: async () => {
      stop.abort('closed');
      await running;
    },
  };
}

/** Announces every change of what policies for proxies are made of, the passing of time included. */
async function announceChanges(
  parts: {
    readonly holder: MeshHolder;
    readonly freshness: PolicyFreshness;
    readonly clock: Clock;
    readonly nextMoment: () => number;
  },
  announce: () => void,
  signal: AbortSignal,
): Promise<void> {
  const { holder, freshness, clock, nextMoment: msToNext } = parts;
  const latch = createLatch();
  const ends = [
    holder.onChange(() => {
      announce();
      latch.raise();
    }),
    freshness.onChange(() => {
      announce();
      latch.raise();
    }),
  ];
  while (!signal.aborted) {
    const waitMs = msToNext();
    const dueAtMs = clock.now().getTime() + waitMs;
    await latchOrSleep(latch, waitMs, clock, signal);
    if (!signal.aborted && clock.now().getTime() >= dueAtMs) announce();
  }
  for (const end of ends) end();
}

/** How long until bans or the age of the policies make another state, in ms; an hour at the most. */
function nextMoment({ until }: BannedCallers, { usableUntil }: PolicyFreshness, clock: Clock): number {
  const now = clock.now().getTime();
  const left = [until, usableUntil()].flatMap((moment) => {
    const ms = (moment?.getTime() ?? 0) - now;
    return ms > 0 ? [ms + 1] : [];
  });
  return Math.min(mostMs, ...left);
}

/** The bans of a mesh are sorted out once, until one of them ends. */
function rememberBans(clock: Clock): (mesh: Mesh) => BannedCallers {
  let last: { readonly bans: Mesh['bans']; readonly sorted: BannedCallers } | undefined;
  return ({ bans }) => {
    const now = clock.now();
    const { sorted } = last ?? {};
    if (sorted !== undefined && last?.bans === bans && (sorted.until === null || now < sorted.until))
      return sorted;
    last = { bans, sorted: bannedCallers(bans.values(), now) };
    return last.sorted;
  };
}

function oncePerMinute(clock: Clock): (key: string) => boolean {
  const last = new Map<string, number>();
  return (key) => {
    const now = clock.now().getTime();
    if (Math.abs(now - (last.get(key) ?? Number.NEGATIVE_INFINITY)) < 60_000) return false;
    if (last.size >= 1_024) last.clear();
    last.set(key, now);
    return true;
  };
}

const mostMs = 3_600_000;

import type { Caller } from '../audit/event.ts';
import type { ProxyCoverageEvent } from '../audit/proxy-event.ts';
import type { Clock } from '../clock.ts';

/** What the counters of a proxy said at a moment. */
export type ProxyCount = {
  /** The proxy, and whom it stands for. */
  readonly caller: Caller;
  readonly destination: string;
  /** By the clock of the proxy, like the beginnings of calls. */
  readonly atMs: number;
  readonly uptimeSeconds: number;
  /** Calls that the policy in it has judged since it began. */
  readonly judged: number;
  /** Calls that are not over. */
  readonly active: number;
  /** Entries of access logs that it has dropped since it began. */
  readonly dropped: number;
};

/** Holds what access logs tell of each proxy against what its counters say. */
export type ProxyTally = {
  /** An access log told of a call that policy in the proxy judged. @param beganMs by the clock of the proxy */
  readonly told: (caller: Caller, beganMs: number) => void;
  readonly counted: (count: ProxyCount) => void;
  /** The proxy says no more: what it said is told a little later, when its access log has come to its end, too. */
  readonly ended: (caller: Caller) => void;
  /** Tells what was counted until now. */
  readonly flush: () => void;
};

/**
 * Starts one. A call is counted when it is judged and told of when it is over. So the calls that a report has counted are
 * held against those of them that were told of until two reports later, without those that are still going on: what is
 * missing then was lost on its way. It is not taken back when it comes later than that.
 * @param options `everyMs` between two records of one proxy at least
 */
export function createProxyTally(options: {
  readonly clock: Clock;
  readonly tell: (event: ProxyCoverageEvent) => void;
  readonly everyMs: number;
}): ProxyTally {
  const { clock, tell, everyMs } = options;
  const proxies = new Map<string, Proxy>();

  return {
    told: (caller, beganMs) => {
      const proxy = recall(caller);
      proxy.told += 1;
      for (const report of proxy.open) if (beganMs <= report.atMs) report.told += 1;
    },
    counted: (count) => {
      const seenMs = clock.now().getTime();
      const startedMs = Math.max(0, Math.floor(seenMs - count.uptimeSeconds * 1_000));
      let proxy = recall(count.caller);
      if (proxy.latest !== undefined && isAnother(proxy, count, startedMs)) {
        // Whoever makes its counters jump has no more records for it.
        if (seenMs - proxy.saidMs >= everyMs) finish(proxy);
        proxies.delete(keyOf(count.caller));
        proxy = recall(count.caller);
      }
      proxy.startedMs ??= startedMs;
      proxy.destination = count.destination;
      proxy.dropped = count.dropped;
      proxy.active = count.active;
      proxy.latest = count.judged;
      const { judged, atMs, active } = count;
      proxy.open.push({ judged, atMs, active, seenMs, told: proxy.told });
      while (proxy.open.length > reportsToSettle) settleOldest(proxy);
      // A clock that was put back makes nobody wait.
      if (Math.abs(seenMs - proxy.saidMs) >= everyMs) say(proxy);
    },
    ended: (caller) => void endLater(keyOf(caller)),
    flush: () => {
      for (const proxy of proxies.values()) finish(proxy);
    },
  };

  function recall(caller: Caller): Proxy {
    const key = keyOf(caller);
    const known = proxies.get(key);
    if (known !== undefined) return known;
    for (const [oldest, proxy] of proxies) {
      if (proxies.size < maxProxies) break;
      finish(proxy);
      proxies.delete(oldest);
    }
    const fresh = newProxy(caller, clock.now().getTime());
    proxies.set(key, fresh);
    return fresh;
  }

  async function endLater(key: string): Promise<void> {
    const proxy = proxies.get(key);
    const latest = proxy?.open.at(-1);
    await clock.sleep(lastWordMs);
    // It may have come back meanwhile, or another in its place.
    if (proxy !== undefined && proxies.get(key) === proxy && proxy.open.at(-1) === latest) finish(proxy);
  }

  function finish(proxy: Proxy): void {
    while (proxy.open.length > 0) settleOldest(proxy);
    say(proxy);
  }

  function say(proxy: Proxy): void {
    const { settled, said, startedMs, destination, dropped, caller } = proxy;
    if (settled === undefined || startedMs === undefined) return;
    const count = settled.judged - said.judged;
    // A call that is over long after it was counted may be found missing then.
    const missing = proxy.missing - said.missing;
    if (count <= 0 && missing <= 0) return;
    const to = new Date(settled.seenMs);
    // INVARIANT: a first record begins where the proxy did: whoever keeps it knows what was said of it before.
    const from = new Date(Math.min(said.toMs ?? startedMs, settled.seenMs));
    proxy.said = { judged: settled.judged, missing: proxy.missing, toMs: settled.seenMs };
    proxy.saidMs = clock.now().getTime();
    const started = new Date(Math.min(startedMs, settled.seenMs));
    const counted = settled.judged;
    tell({
      type: 'proxy_coverage',
      time: to,
      from,
      to,
      count,
      missing,
      destination,
      started,
      counted,
      dropped,
      caller,
    });
  }
}

type Report = {
  readonly judged: number;
  readonly atMs: number;
  readonly active: number;
  /** By our clock. */
  readonly seenMs: number;
  /** Calls that began before it and were told of. */
  told: number;
};

type Proxy = {
  readonly caller: Caller;
  destination: string;
  startedMs: number | undefined;
  told: number;
  dropped: number;
  active: number;
  latest: number | undefined;
  /** Reports whose calls may still be on their way, the oldest first. */
  readonly open: Report[];
  settled: Report | undefined;
  /** Of all calls up to the settled report. */
  missing: number;
  said: { readonly judged: number; readonly missing: number; readonly toMs: number | undefined };
  saidMs: number;
};

function newProxy(caller: Caller, saidMs: number): Proxy {
  const nothing = {
    destination: '',
    startedMs: undefined,
    told: 0,
    dropped: 0,
    active: 0,
    latest: undefined,
  };
  const said = { judged: 0, missing: 0, toMs: undefined };
  return { caller, ...nothing, open: [], settled: undefined, missing: 0, said, saidMs };
}

function settleOldest(proxy: Proxy): void {
  const report = proxy.open.shift();
  if (report === undefined) return;
  const goingOn = Math.min(report.active, proxy.active);
  proxy.missing = Math.max(proxy.missing, report.judged - report.told - goingOn);
  proxy.settled = report;
}

/** Counters go up: one whose do not, or that began later, is another that has the number of the first. */
function isAnother({ latest = 0, startedMs = 0 }: Proxy, { judged }: ProxyCount, sinceMs: number): boolean {
  return judged < latest || sinceMs > startedMs + startSlackMs;
}

function keyOf({ pid, uid }: Caller): string {
  return `${pid} ${uid}`;
}

const reportsToSettle = 2;
const maxProxies = 4_096;
const lastWordMs = 3_000;
// Of an uptime in whole seconds.
const startSlackMs = 10_000;

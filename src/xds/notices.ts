import type { Clock } from '../clock.ts';
import { quote } from '../errors.ts';
import { accountOf } from '../identity/evidence.ts';
import type { SdsObserver, StreamIdentity } from './observer.ts';

/** Told what an operator should see. */
export type LogSds = (
  level: 'warn' | 'error',
  message: string,
  detail: Readonly<Record<string, unknown>>,
) => void;

/** Adds a log line for refused secrets, one a minute for each account: a proxy may refuse as fast as it likes. */
export function reportRejections(observer: SdsObserver, log: LogSds, clock: Clock): SdsObserver {
  const isDue = oncePerMinute(clock);
  return {
    ...observer,
    rejected: (rejection) => {
      observer.rejected?.(rejection);
      const { peer, nodeId, names, message } = rejection;
      if (!isDue(accountOf(peer))) return;
      log('warn', 'a proxy refuses its secrets and keeps the last good ones until they expire', {
        pid: peer.pid,
        account: accountOf(peer),
        node: quote(nodeId),
        names: names.slice(0, 8).map(quote),
        message: quote(message),
      });
    },
  };
}

/** The log line for requests of a kind that is not served, one a minute for each account. */
export function reportIgnored(log: LogSds, clock: Clock): (stream: StreamIdentity, typeUrl: string) => void {
  const isDue = oncePerMinute(clock);
  return ({ peer, nodeId }, typeUrl) => {
    if (!isDue(accountOf(peer))) return;
    log('warn', 'a proxy asks for a kind of resource that is not served here, and is not answered', {
      pid: peer.pid,
      account: accountOf(peer),
      node: quote(nodeId),
      typeUrl: quote(typeUrl),
    });
  };
}

function oncePerMinute(clock: Clock): (account: string) => boolean {
  const last = new Map<string, number>();
  return (account) => {
    const now = clock.now().getTime();
    const before = last.get(account);
    if (before !== undefined && Math.abs(now - before) < lineMs) return false;
    if (last.size >= maxAccounts) last.clear();
    last.set(account, now);
    return true;
  };
}

const lineMs = 60_000;
const maxAccounts = 1_024;

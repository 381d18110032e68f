import type { TrustDomain } from '../spiffe/id.ts';
import type { Clock } from '../clock.ts';
import type { AlarmEvent } from './access-event.ts';
import { claimReasons } from './claim.ts';
import type { AuditEvent } from './event.ts';

/** Looks after certificates that proxies accepted and nobody here gave out. */
export type UnknownCertificates = {
  /** Looks at events that are in the log, without waiting. A serial is looked up once. */
  readonly look: (events: readonly AuditEvent[]) => void;
  /** Resolves when nothing is being looked up. */
  readonly settled: () => Promise<void>;
  readonly close: () => void;
};

/** A certificate that was accepted. */
export type SeenCertificate = {
  readonly serial: string;
  /** SHA-256 of what was signed of it, lower-case hex; empty when the proxy did not send it. */
  readonly tbsSha256: string;
};

/** Certificates that are not ours. */
export type NotOurs = {
  /** Serials that the log has no issuance of. */
  readonly unknown: readonly string[];
  /** Those that are not what the issuance of their serial says, of the ones that were asked about. */
  readonly copied: readonly SeenCertificate[];
};

/** What it asks and tells. */
export type UnknownCertificatesOptions = {
  readonly trustDomain: TrustDomain;
  readonly findUnknown: (seen: readonly SeenCertificate[]) => Promise<NotOurs>;
  readonly raise: (alarm: AlarmEvent) => void;
  /** The serials could not be looked up, and will be again. */
  readonly onError: (error: unknown) => void;
  readonly clock: Clock;
  /** Of alarms that were raised before. */
  readonly raised?: readonly SeenCertificate[];
};

/**
 * Raises an alarm when a certificate of the trust domain was accepted that the log has no issuance of, or that has the serial of
 * one and says something else. Issuances are in the log
 * before their certificates exist, so that none is ever late. At most 60 alarms are raised in a minute, 6 of them about
 * one destination; a certificate that found no room is looked up again when it is seen again.
 *
 * A proxy tells which certificate it has seen. So one that lies can raise an alarm in its own name, and can keep silent.
 */
export function createUnknownCertificates(options: UnknownCertificatesOptions): UnknownCertificates {
  const { trustDomain, findUnknown, raise, onError, clock } = options;
  const known = createRecent(maxKnown);
  const raised = createRecent(maxRaised);
  for (const seen of options.raised ?? []) raised.add(keyOf(seen));
  const waiting = new Map<string, { readonly seen: SeenCertificate; readonly alarm: AlarmEvent }>();
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  let [minuteMs, raisedInMinute] = [-Infinity, 0];
  const raisedOf = new Map<string, number>();

  return {
    look: (events) => {
      for (const event of events) {
        const alarm = alarmOf(event, trustDomain, clock.now());
        if (alarm === undefined || waiting.size >= maxWaiting || stop.signal.aborted) continue;
        const seen = seenIn(event, alarm);
        const key = keyOf(seen);
        if (known.has(key) || raised.has(alarm.serial) || raised.has(key) || waiting.has(key)) continue;
        waiting.set(key, { seen, alarm });
        running ??= run().finally(() => {
          running = undefined;
        });
      }
    },
    settled: async () => running,
    close: () => stop.abort('closed'),
  };

  async function run(): Promise<void> {
    // All that came together are one question.
    await Promise.resolve();
    while (waiting.size > 0 && !stop.signal.aborted) {
      const asked = [...waiting.values()].slice(0, maxAsked);
      try {
        const notOurs = await findUnknown(asked.map(({ seen }) => seen));
        const [unknown, copied] = [new Set(notOurs.unknown), new Set(notOurs.copied.map(keyOf))];
        for (const { seen, alarm } of asked) {
          const key = keyOf(seen);
          waiting.delete(key);
          if (unknown.has(seen.serial)) tell(seen.serial, alarm);
          else if (copied.has(key)) tell(key, { ...alarm, sourceTbsSha256: seen.tbsSha256 });
          else known.add(key);
        }
      } catch (error) {
        onError(error);
        await clock.sleep(retryMs, stop.signal);
      }
    }
  }

  function tell(key: string, alarm: AlarmEvent): void {
    if (raised.has(key)) return;
    const nowMs = clock.now().getTime();
    if (Math.abs(nowMs - minuteMs) >= 60_000) {
      [minuteMs, raisedInMinute] = [nowMs, 0];
      raisedOf.clear();
    }
    if (raisedInMinute >= maxInMinute) return;
    const ofDestination = raisedOf.get(alarm.destination) ?? 0;
    if (ofDestination >= maxOfDestination) return;
    raisedOf.set(alarm.destination, ofDestination + 1);
    raisedInMinute += 1;
    raised.add(key);
    raise(alarm);
  }
}

/** What would have to be said of an event if nobody here gave out the certificate in it. */
function alarmOf(event: AuditEvent, trustDomain: TrustDomain, time: Date): AlarmEvent | undefined {
  if (!('sourceSerial' in event) || event.sourceSerial === '') return undefined;
  // Whoever asked was nobody known, and may have made up the certificate.
  if (event.type === 'decision' && claimReasons.has(event.reason)) return undefined;
  const names = [event.source, event.type === 'connections' ? event.claimedSource : ''];
  const claimedSource = names.find((name) => name.startsWith(`${trustDomain.id}/`));
  if (claimedSource === undefined) return undefined;
  const { sourceSerial: serial, destination, caller, type: seenIn } = event;
  const sourceAddress = 'sourceAddress' in event ? event.sourceAddress : { personal: '' };
  const about = { serial, claimedSource, destination, seenIn, sourceAddress, caller };
  return { type: 'alarm', time, kind: 'unknown_certificate', ...about };
}

function seenIn(event: AuditEvent, { serial }: AlarmEvent): SeenCertificate {
  return { serial, tbsSha256: 'sourceTbsSha256' in event ? (event.sourceTbsSha256 ?? '') : '' };
}

function keyOf({ serial, tbsSha256 }: SeenCertificate): string {
  return tbsSha256 === '' ? serial : `${serial} ${tbsSha256}`;
}

/** The last texts that were added, of which at least half of `capacity` are held. */
function createRecent(capacity: number) {
  let [young, old] = [new Set<string>(), new Set<string>()];
  return {
    has: (text: string): boolean => young.has(text) || old.has(text),
    add: (text: string): void => {
      if (young.size >= capacity / 2) [young, old] = [new Set(), young];
      young.add(text);
    },
  };
}

const maxKnown = 65_536;
const maxRaised = 8_192;
const maxWaiting = 4_096;
const maxAsked = 100;
const maxInMinute = 60;
// INVARIANT: a proxy that makes up serials leaves room for the alarms of others.
const maxOfDestination = 6;
const retryMs = 5_000;

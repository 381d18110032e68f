import { type AccessLog, createAccessLog } from './access-log/access-log.ts';
import type { AlarmEvent } from './audit/access-event.ts';
import type { AuditEvent, RecordEvents } from './audit/event.ts';
import { parseAuditQuery } from './audit/question.ts';
import { createUnknownCertificates } from './audit/unknown-certificates.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import { createDecisionLog, type DecisionLog, decisionsOfCommit } from './ext-authz/decision-log.ts';
import type { Log } from './log.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { RolloutEdits } from './identity/rollout-edits.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import { type CompleteCoverage, createCoverageCompletion } from './up-proxy-coverage.ts';
import { createComplaints } from './up-complaints.ts';
import { openRolloutWatch, type RolloutWatch } from './up-rollout.ts';

/** The way of what proxies ask and tell into the log, and what is noticed on it. */
export type ProxyLogs = {
  readonly decisions: DecisionLog;
  readonly accessLog: AccessLog;
  readonly alarms: Alarms;
  readonly rollouts: Pick<RolloutWatch, 'counts'>;
  /** What arrives of agents goes through it, too. */
  readonly complete: CompleteCoverage;
  /** For what nobody waits for: what cannot be recorded is said in the log of the process. */
  readonly recordQuietly: (events: readonly AuditEvent[]) => void;
  readonly close: () => Promise<void>;
};

/** Certificates that were used and are not in the log. */
export type Alarms = {
  /** Looks at events that are in the log by now, for these and for the rollout. */
  readonly look: (events: readonly AuditEvent[]) => void;
  /** Raised since the start. */
  readonly raised: () => number;
  /** Raised within the last day, those of before the start included, 1,000 of them at most. */
  readonly recent: () => number;
};

/** Opens the queues, both of which look at what they have recorded. */
export async function openProxyLogs(parts: {
  readonly store: Pick<Store, 'recordEvents' | 'recordAtLeisure' | 'namedCertificates' | 'queryAudit'>;
  readonly trustDomain: TrustDomain;
  readonly config: { readonly allowedCallsWindowSeconds: number };
  readonly holder: MeshHolder;
  readonly administration: Pick<RolloutEdits, 'endRollout'>;
  readonly clock: Clock;
  readonly log: Log;
}): Promise<ProxyLogs> {
  const { store, clock, log } = parts;
  const { alarms: unknown, close: closeAlarms } = await openAlarms(parts);
  const rollouts = await openRolloutWatch({ ...parts, endRollout: parts.administration.endRollout });
  const alarms: Alarms = {
    ...unknown,
    look: (events) => {
      unknown.look(events);
      rollouts.look(events);
    },
  };
  const complete = createCoverageCompletion(parts);
  const record: RecordEvents = async (events) => {
    const indexes = await store.recordAtLeisure(await complete(events));
    alarms.look(events);
    return indexes;
  };
  const { allowedCallsWindowSeconds } = parts.config;
  const onError = (message: string) => (error: unknown, lost: number) =>
    log.error({ lost, ...publicError(error) }, message);
  const decisions = createDecisionLog({
    record,
    maxBatch: decisionsOfCommit,
    clock,
    allowedCallsWindowSeconds,
    onError: onError('decisions could not be recorded'),
  });
  const accessLog = createAccessLog({
    record,
    clock,
    allowedCallsWindowSeconds,
    onError: onError('access logs of proxies could not be recorded'),
  });
  return {
    decisions,
    accessLog,
    alarms,
    rollouts,
    complete,
    recordQuietly: (events) => {
      store
        .recordEvents(events)
        .catch((error: unknown) => log.error(publicError(error), 'event could not be recorded'));
    },
    close: async () => {
      await Promise.all([decisions.close(), accessLog.close()]);
      await closeAlarms();
      await rollouts.close();
    },
  };
}

async function openAlarms(parts: Parameters<typeof openProxyLogs>[0]) {
  const { store, trustDomain, clock, log } = parts;
  const complain = createComplaints(clock, (detail, message) => log.error(detail, message));
  const now = clock.now();
  const { rows } = await store.queryAudit(
    parseAuditQuery({ types: ['alarm'], since: '1d', limit: maxRecent }, now),
  );
  const before = rows.map(
    ({ leaf }) =>
      JSON.parse(leaf) as Pick<AlarmEvent, 'serial' | 'sourceTbsSha256'> & { readonly time: string },
  );
  let recent = before.map(({ time }) => Date.parse(time)).reverse();
  let raised = 0;
  const raise = (alarm: AlarmEvent): void => {
    raised += 1;
    recent = [...recent.slice(1 - maxRecent), alarm.time.getTime()];
    const { serial, claimedSource, destination, sourceTbsSha256 } = alarm;
    const isCopy = sourceTbsSha256 !== undefined;
    const keepOut = isCopy
      ? 'a certificate of ours has this serial, and a ban keeps both out: countersign ca taint the CA'
      : serial.length > maxSerialDigits
        ? 'no ban can name such a serial: countersign ca taint the CA'
        : `countersign ban serial ${serial} keeps it out`;
    const fix = `see countersign audit list --serial ${serial}; ${keepOut}`;
    log.error(
      { serial, claimedSource, destination, fix },
      isCopy
        ? 'a certificate was used that is not the one that was given out with its serial'
        : 'a certificate was used that the audit log has no issuance of',
    );
    if (keeping < maxRecent) void keep(alarm);
  };
  const stop = new AbortController();
  let keeping = 0;
  /** A disk may have no room for an hour; its serial is looked up no more. */
  const keep = async (alarm: AlarmEvent): Promise<void> => {
    keeping += 1;
    for (let isKept = false; !isKept && !stop.signal.aborted;) {
      try {
        await store.recordEvents([alarm]);
        isKept = true;
      } catch (error) {
        const detail = publicError(error);
        complain(`alarm ${detail.code}`, 'an alarm could not be recorded, and will be', detail);
        await clock.sleep(keepAgainMs, stop.signal);
      }
    }
    keeping -= 1;
  };
  const unknown = createUnknownCertificates({
    trustDomain,
    findUnknown: async (seen) => {
      const serials = [...new Set(seen.map(({ serial }) => serial))];
      const asked = { spiffeIds: [], keys: [], serials, seen };
      const { unknownSerials: unknown, copied = [] } = await store.namedCertificates(asked, clock.now());
      return { unknown, copied };
    },
    raise,
    onError: (error) => {
      const detail = publicError(error);
      complain(detail.code, 'certificates could not be looked up in the audit log', detail);
    },
    clock,
    raised: before.map(({ serial, sourceTbsSha256 = '' }) => ({ serial, tbsSha256: sourceTbsSha256 })),
  });
  const alarms: Alarms = {
    look: unknown.look,
    raised: () => raised,
    recent: () => {
      const since = clock.now().getTime() - dayMs;
      return recent.filter((ms) => ms >= since).length;
    },
  };
  const close = async (): Promise<void> => {
    unknown.close();
    stop.abort('closed');
    await unknown.settled();
  };
  return { alarms, close };
}

const maxRecent = 1_000;
const keepAgainMs = 5_000;
const dayMs = 86_400_000;
const maxSerialDigits = 40;

import { isFailing, type SourceHealth } from './attest/source-health.ts';
import { publicError } from './errors.ts';
import type { SourceReport, WorkloadOutlook } from './http/status-report.ts';
import type { X509Svid } from './identity/credentials.ts';
import type { RegistrationEntry } from './identity/entry.ts';
import { reservedIds } from './identity/entry-parse.ts';
import type { KeptState } from './identity/keeper.ts';

/** What the outlook of workloads is made of. */
export type OutlookSource = {
  readonly states: readonly KeptState[];
  /** Certificates kept for workloads that have not asked for them again, with their entries. */
  readonly waiting?: readonly (readonly [RegistrationEntry, X509Svid])[];
  /** When calls are denied because policy is too old; null for never. */
  readonly policyUntil: Date | null;
  readonly now: Date;
};

/**
 * For each workload that has a certificate here, or should have one: until when it works if nothing is renewed from now
 * on. The first to go dark first. Certificates of our own doors are left out.
 */
export function workloadOutlooks({
  states,
  waiting = [],
  policyUntil,
  now,
}: OutlookSource): readonly WorkloadOutlook[] {
  const kept = states.flatMap(({ entry, svid, dueAt, failure }): WorkloadOutlook[] => {
    // Forgotten soon, and nobody waits for it.
    if (svid === undefined && dueAt === null) return [];
    return [outlookOf(entry, svid, dueAt, failure, policyUntil, now)];
  });
  const rest = waiting.map(([entry, svid]) => outlookOf(entry, svid, null, undefined, policyUntil, now));
  return [...kept, ...rest]
    .filter(({ entryId }) => !entryId.startsWith(reservedIds))
    .sort((a, b) => a.darkAt.getTime() - b.darkAt.getTime() || (a.spiffeId < b.spiffeId ? -1 : 1));
}

/** How a source of selectors fares, for people. */
export function sourceReport(health: SourceHealth): SourceReport {
  return { ...health, state: health.calls === 0 ? 'unused' : isFailing(health) ? 'failing' : 'ok' };
}

function outlookOf(
  entry: RegistrationEntry,
  svid: X509Svid | undefined,
  renewsAt: Date | null,
  failure: unknown,
  policyUntil: Date | null,
  now: Date,
): WorkloadOutlook {
  const ends: (readonly [Date, WorkloadOutlook['darkBy']])[] = [
    [svid?.notAfter ?? now, 'certificate'],
    ...(policyUntil === null ? [] : ([[policyUntil, 'policy']] as const)),
    ...(entry.expiresAt === null ? [] : ([[entry.expiresAt, 'entry']] as const)),
  ];
  const [darkAt, darkBy] = ends.reduce((first, end) => (end[0] < first[0] ? end : first));
  return {
    spiffeId: entry.spiffeId.text,
    entryId: entry.id,
    serial: svid?.serial ?? '',
    expiresAt: svid?.notAfter ?? null,
    renewsAt,
    darkAt,
    darkBy,
    darkInSeconds: Math.max(0, Math.floor((darkAt.getTime() - now.getTime()) / 1_000)),
    failure: failure === undefined ? '' : publicError(failure).code,
  };
}

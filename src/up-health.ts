import { statfs } from 'node:fs/promises';
import type { Outlook } from './ca/outlook.ts';
import type { Clock } from './clock.ts';
import type { Condition } from './http/condition.ts';
import type { ServerReadiness } from './http/status-report.ts';
import type { StoreHealth } from './store/store.ts';
import type { WitnessTrouble } from './up-audit-log.ts';
import { type ProcessState, processState } from './up-process.ts';

/** What a judgement of a server's health goes by. */
export type HealthFacts = {
  readonly store: StoreHealth;
  /** What is wrong with an entry of the log; null when nothing is known of. */
  readonly damage: string | null;
  readonly outlook: Outlook;
  /** The CA that signs; null while there is none. */
  readonly issuer: { readonly notBefore: Date; readonly notAfter: Date } | null;
  /** Why the clock is not to be trusted; null when it is. */
  readonly doubt: string | null;
  /** Room for the data; null while nobody has looked. */
  readonly freeBytes: number | null;
  /** Decisions that wait for the log, and how many were lost and not yet recorded as lost. */
  readonly decisions: { readonly queued: number; readonly lost: number };
  /** Certificates that were used within a day and that the log has no issuance of. */
  readonly alarms: number;
  /** Of the log; null when nobody is configured to cosign it. */
  readonly witnesses?: WitnessTrouble | null;
  /** Policies that end within a week, and those that have ended. */
  readonly policies: { readonly ending: number; readonly ended: number };
  readonly process: ProcessState;
  readonly now: Date;
};

/** A judgement that can be asked for at any time, and at once. */
export type Health = { readonly readiness: () => ServerReadiness; readonly close: () => void };

/** Watches what takes time to look at, and judges when asked. */
export function watchHealth(parts: {
  readonly dataDir: string;
  readonly facts: () => Omit<HealthFacts, 'freeBytes' | 'process' | 'now'>;
  readonly clock: Clock;
}): Health {
  const stop = new AbortController();
  let freeBytes: number | null = null;
  void watchRoom();
  return {
    readiness: () => {
      const facts = { ...parts.facts(), freeBytes, process: processState(), now: parts.clock.now() };
      return readinessOf(judgeHealth(facts));
    },
    close: () => stop.abort(),
  };

  async function watchRoom(): Promise<void> {
    while (!stop.signal.aborted) {
      freeBytes = await roomOf(parts.dataDir);
      await parts.clock.sleep(lookMs, stop.signal);
    }
  }
}

/** What is wrong, the causes first. */
export function judgeHealth(facts: HealthFacts): readonly Condition[] {
  const { store, damage, outlook, doubt, freeBytes, decisions, alarms, policies, process } = facts;
  return [
    ...(store.ok
      ? []
      : [
          cause(
            'store_failed',
            `store: ${store.cause}`,
            'see the log of the server; a full disk mends itself when there is room',
          ),
        ]),
    ...(damage === null
      ? []
      : [
          warning(
            'log_damaged',
            damage,
            'see countersign audit verify; then restore the data directory from a backup, and keep the damaged one for the auditor',
          ),
        ]),
    ...(outlook.ended === null
      ? []
      : [
          cause(
            'issuer_ended',
            outlook.ended,
            'import a new chain, or rotate; and check the clock of this machine',
          ),
        ]),
    ...(doubt === null
      ? []
      : [
          warning(
            'clock_put',
            doubt,
            'set the clock right; nothing is rotated or retired until it has been steady for an hour',
          ),
        ]),
    ...outlook.warnings.map((text) =>
      warning(
        'successor_waiting',
        text,
        'run countersign ca csr, have the request signed, then countersign ca import',
      ),
    ),
    ...issuerEnding(facts),
    ...(freeBytes === null || freeBytes >= lowDiskBytes
      ? []
      : [
          warning(
            'disk_low',
            `${mebibytes(freeBytes)} MiB are left for the data`,
            'make room before the log cannot grow: nothing is issued then',
          ),
        ]),
    ...(decisions.queued < behindQueued
      ? []
      : [
          warning(
            'log_behind',
            `${decisions.queued} decisions wait for the log`,
            'give the data a faster disk, or the server more processor time',
          ),
        ]),
    ...(decisions.lost === 0
      ? []
      : [
          warning(
            'decisions_lost',
            `${decisions.lost} decisions were lost and are not in the log`,
            'see countersign audit list --type loss, and why the log is behind',
          ),
        ]),
    ...(alarms === 0
      ? []
      : [
          warning(
            'unknown_serial',
            `certificates that the audit log has no issuance of were used within a day: ${alarms}`,
            'see countersign audit list --type alarm: somebody else may have a key of the CA',
          ),
        ]),
    ...witnessesOf(facts),
    ...(policies.ending + policies.ended === 0
      ? []
      : [
          warning(
            'policies_ending',
            `policies that end within a week: ${policies.ending}; that have ended: ${policies.ended}`,
            'see countersign policy list, then write another end, or delete them',
          ),
        ]),
    ...(process.loopDelaySeconds < slowLoopSeconds
      ? []
      : [
          warning(
            'event_loop_slow',
            `one turn in a hundred takes ${process.loopDelaySeconds.toFixed(1)} s or more`,
            'give the server more processor time',
          ),
        ]),
    ...(process.heapUsedBytes < process.heapLimitBytes * fullHeap
      ? []
      : [
          warning(
            'memory_low',
            `${mebibytes(process.heapUsedBytes)} of ${mebibytes(process.heapLimitBytes)} MiB of heap are in use`,
            'raise the limit with NODE_OPTIONS=--max-old-space-size, in MiB',
          ),
        ]),
  ];
}

/** Witnesses that are away stop nobody: what they prove is proven later, or seen to be missing. */
function witnessesOf({ witnesses, now }: HealthFacts): readonly Condition[] {
  if (witnesses === undefined || witnesses === null) return [];
  const { disputing, count, behindSince, size } = witnesses;
  const isBehind = behindSince !== null && now.getTime() - behindSince.getTime() >= unwitnessedMs;
  return [
    ...(disputing === 0
      ? []
      : [
          warning(
            'log_disputed',
            `${disputing} of ${count} witnesses have seen another history of the audit log`,
            'see countersign audit witnesses; the data was set back to an older state, or somebody else has the key of the log',
          ),
        ]),
    ...(isBehind
      ? [
          warning(
            'log_unwitnessed',
            `no quorum has cosigned the audit log since ${behindSince.toISOString()}: it is witnessed up to ${size ?? 0} entries`,
            'see countersign audit witnesses: who does not answer, and why',
          ),
        ]
      : []),
  ];
}

/** An issuer is replaced by itself long before; that it was not means that nobody could. */
function issuerEnding({ issuer, outlook, now }: HealthFacts): readonly Condition[] {
  if (issuer === null || outlook.ended !== null || outlook.warnings.length > 0) return [];
  const leftMs = issuer.notAfter.getTime() - now.getTime();
  const lifeMs = issuer.notAfter.getTime() - issuer.notBefore.getTime();
  if (leftMs * lateFraction > lifeMs) return [];
  const text = `the issuing CA ends at ${issuer.notAfter.toISOString()} and nothing has taken its place`;
  return [warning('issuer_ending', text, 'run countersign ca status, then countersign ca rotate')];
}

function readinessOf(conditions: readonly Condition[]): ServerReadiness {
  const textsOf = (level: Condition['level']) =>
    conditions.filter((one) => one.level === level).map(({ text }) => text);
  const causes = textsOf('cause');
  return { ready: causes.length === 0, causes, warnings: textsOf('warning'), conditions };
}

async function roomOf(dir: string): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(dir);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function cause(code: Condition['code'], text: string, fix: string): Condition {
  return { code, level: 'cause', text, fix };
}

function warning(code: Condition['code'], text: string, fix: string): Condition {
  return { code, level: 'warning', text, fix };
}

function mebibytes(bytes: number): number {
  return Math.floor(bytes / 1_048_576);
}

const lookMs = 30_000;
const lowDiskBytes = 268_435_456;
// Half of what the queue holds.
const behindQueued = 10_000;
const unwitnessedMs = 600_000;
const slowLoopSeconds = 1;
const fullHeap = 0.9;
const lateFraction = 6;

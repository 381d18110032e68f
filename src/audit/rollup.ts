import { auditColumns, callTypes, verdictTypes } from './columns.ts';
import type { AuditEvent, AuditEventType } from './event.ts';
import { hasField } from './asked-fields.ts';

/**
 * What the counts of the log are kept by. INVARIANT: no field of it is text that a caller of a workload can choose at
 * will (methods, paths, hosts, addresses): each new combination is a row for ever. Empty: there is none.
 */
export type RollupKey = {
  readonly type: AuditEventType;
  /**
   * Of a call `allow` or `deny`, of what became of one `ok`, `denied` or `error`, of a connection `mtls`, `plaintext`, `foreign` or `tls_failed`; of calls that a
   * proxy has counted `counted`, of other events their action; of a loss what was lost.
   */
  readonly outcome: string;
  readonly source: string;
  readonly destination: string;
  /** Of a closed list: the reason of a decision, the code of a refusal or of an error, the cause of a loss. */
  readonly reason: string;
  /** `namespace/name rule[n]`. */
  readonly rule: string;
  readonly protocol: string;
};

/** An event as it is counted. */
export type Rollup = RollupKey & {
  /** What the event stands for: calls, refusals or losses; 1 for all else. */
  readonly count: number;
};

/**
 * What an event is counted as. What is counted once stays so: counts are kept, and of old events they are not made again.
 */
export function rollupOf(event: AuditEvent): Rollup {
  const { type, source, destination } = auditColumns(event);
  const rollup = { ...nothing, type, source: source ?? '', destination: destination ?? '' };
  switch (event.type) {
    case 'decision': {
      const { verdict: outcome, reason, rule, protocol } = event;
      return { ...rollup, outcome, reason, rule, protocol };
    }
    case 'allowed_calls': {
      const { reason, rule, protocol, count } = event;
      return { ...rollup, outcome: 'allow', reason, rule, protocol, count };
    }
    case 'candidate_calls': {
      const { change: outcome, reason, rule, protocol, count } = event;
      return { ...rollup, outcome, reason, rule, protocol, count };
    }
    case 'policy_rollout':
      return { ...rollup, outcome: event.action, reason: event.cause };
    case 'proxy_verdict':
    case 'proxy_verdicts': {
      const { verdict: outcome, reason, rule, protocol } = event;
      const count = event.type === 'proxy_verdicts' ? event.count : 1;
      return { ...rollup, outcome, reason, rule, protocol, count };
    }
    case 'proxy_coverage':
      return { ...rollup, outcome: 'counted', count: event.count };
    case 'outcome': {
      const { outcome, rule, protocol } = event;
      return { ...rollup, outcome, rule, protocol };
    }
    case 'outcomes': {
      const { outcome, rule, protocol, count } = event;
      return { ...rollup, outcome, rule, protocol, count };
    }
    // What a peer claimed is no source, and is not counted by.
    case 'connections':
      return { ...rollup, outcome: event.kind, reason: event.failure, count: event.count };
    case 'alarm':
      return { ...rollup, outcome: event.kind };
    case 'refusal':
      return { ...rollup, outcome: 'refused', reason: event.code, count: event.count };
    case 'loss':
      return { ...rollup, outcome: event.what, reason: event.cause, count: event.count };
    case 'issuance':
    case 'jwt_issuance':
      return { ...rollup, outcome: 'issued' };
    case 'admin':
      return { ...rollup, outcome: event.action, reason: event.code };
    case 'node':
      return { ...rollup, outcome: event.action, reason: event.code };
    case 'entry_change':
    case 'policy_change':
    case 'policy_revision':
    case 'authority':
    case 'lifecycle':
    case 'ban':
    case 'jwt_key':
    case 'node_alias_change':
    case 'grant_change':
    case 'retention':
      return { ...rollup, outcome: event.action };
    case 'policy_text':
      return rollup;
    default:
      return event satisfies never;
  }
}

/** The event that a parsed leaf is of, as far as {@link rollupOf} looks at it. */
export function eventOfLeaf(leaf: unknown): AuditEvent {
  const { time, ...members } = leaf as { readonly time: string };
  return { ...members, time: new Date(time) } as AuditEvent;
}

/**
 * The texts of a field of all events that are counted together (see `fieldTexts`), or undefined when they need not have the
 * same.
 */
export function rolledTexts(key: RollupKey, field: string): readonly string[] | undefined {
  const has = (name: string): boolean => hasField(key.type, name);
  switch (field) {
    case 'type':
      return [key.type];
    case 'source':
    case 'destination':
    case 'outcome':
      return key[field] === '' ? [] : [key[field]];
    case 'verdict':
      return verdictTypes.has(key.type) ? [key.outcome] : [];
    case 'reason':
    case 'rule':
    case 'protocol':
      if (callTypes.has(key.type) && has(field)) return [key[field]];
      break;
    case 'spiffeId':
      if (has(field)) return [key.source];
      break;
    case 'action':
    case 'what':
      if (has(field)) return [key.outcome];
      break;
    case 'code':
    case 'cause':
      if (has(field)) return [key.reason];
      break;
    case 'kind':
      if (key.type === 'connections' || key.type === 'alarm') return [key.outcome];
      break;
    case 'failure':
      if (has(field)) return [key.reason];
      break;
    default:
  }
  return has(field.split('.', 1)[0] ?? '') || everyEvent.has(field) ? undefined : [];
}

/** The fields of a {@link RollupKey}, in the order in which they are stored. */
export const rollupFields = [
  'type',
  'outcome',
  'source',
  'destination',
  'reason',
  'rule',
  'protocol',
] as const satisfies readonly (keyof RollupKey)[];

/** In the place of a source, a destination and a rule of kinds that are counted together, as there are too many. */
export const foldedText = '*';

const everyEvent: ReadonlySet<string> = new Set(['time', 'serial', 'hour', 'day']);
const nothing = { outcome: '', source: '', destination: '', reason: '', rule: '', protocol: '', count: 1 };

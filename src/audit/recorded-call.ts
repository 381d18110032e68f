import type { FilteredRecord } from './filter.ts';
import { isCut } from './logged-decision.ts';

/** A call as its record in the log goes, without what tells it from others of its kind: its time, its ID, its proxy. */
export type RecordedCall = {
  /** `decision`: one call, decided. `count`: allowed calls counted together. `seen`: what a proxy told, which decided nothing. */
  readonly kind: 'decision' | 'count' | 'seen';
  /** Empty: the caller showed no certificate. */
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  /** Empty: not told, or there is none. */
  readonly method: string;
  /** Null: not told. */
  readonly host: string | null;
  /** 0: not told. */
  readonly port: number;
  /** Null: not held, withheld, or not asked for. */
  readonly path: string | null;
  /** Of what is counted together: the value of `paths` that all of them fit. Null of all else. */
  readonly pathPattern: string | null;
  /** Without port. Null as above; empty: the proxy had none to tell. */
  readonly sourceAddress: string | null;
  readonly verdict: 'allow' | 'deny';
  readonly reason: string;
  /** `namespace/name rule[0]`, or empty. */
  readonly rule: string;
  /** Of the mesh, that decided; 0: not told. */
  readonly revision: number;
  /** Whether a break-glass grant let it pass. */
  readonly isBroken: boolean;
};

/** Records that agree in all of that. */
export type RecordedCalls = {
  readonly call: RecordedCall;
  /** Calls. */
  readonly count: number;
  readonly records: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Of the records, by their places in the log. */
  readonly firstIndex: number;
  readonly lastIndex: number;
};

/** Which personal values are to be read. */
export type PersonalWanted = { readonly path: boolean; readonly address: boolean };

/** The types of events that tell of calls, and those that tell what proxies saw of them. */
export const decidedTypes = ['decision', 'allowed_calls'] as const;
export const seenTypes = ['outcome', 'outcomes'] as const;

/** Reads a record. What is stored may be of another version, so nothing of it is taken for sure. */
export function readRecordedCall(
  record: FilteredRecord,
  wanted: PersonalWanted,
): { readonly call: RecordedCall; readonly count: number; readonly firstMs: number } {
  const event = record.event();
  const { type, timeMs } = record.columns;
  const at = (name: string): unknown =>
    typeof event === 'object' && event !== null && Object.hasOwn(event, name)
      ? Reflect.get(event, name)
      : undefined;
  const text = (name: string): string => {
    const value = at(name);
    return typeof value === 'string' ? value : '';
  };
  const number = (name: string): number => {
    const value = at(name);
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
  };
  const from = Date.parse(text('from'));
  const counted = { count: Math.max(1, number('count')), firstMs: Number.isNaN(from) ? timeMs : from };
  const common = {
    source: text('source'),
    destination: text('destination'),
    protocol: text('protocol'),
    port: number('port'),
    rule: text('rule'),
  };
  const nothing = { host: null, path: null, pathPattern: null, sourceAddress: null, isBroken: false };
  if (type === 'allowed_calls') {
    const { reason, method } = { reason: text('reason'), method: text('method') };
    const pathPattern = text('pathPattern');
    const decided = { verdict: 'allow', reason, method, revision: number('revision') } as const;
    return { call: { ...nothing, ...common, ...decided, kind: 'count', pathPattern }, ...counted };
  }
  if (type === 'decision') {
    const call: RecordedCall = {
      ...common,
      kind: 'decision',
      method: text('method'),
      host: text('host'),
      path: wanted.path ? (record.personal('path') ?? null) : null,
      pathPattern: null,
      sourceAddress: wanted.address ? addressOf(record.personal('sourceAddress')) : null,
      verdict: at('verdict') === 'allow' ? 'allow' : 'deny',
      reason: text('reason'),
      revision: number('revision'),
      isBroken: text('breakGlass') !== '',
    };
    return { call, count: 1, firstMs: timeMs };
  }
  // Of a closed list, of which one stands for all others.
  const method = text('method') === 'OTHER' ? '' : text('method');
  const verdict = text('outcome') === 'denied' ? 'deny' : 'allow';
  return {
    call: { ...nothing, ...common, kind: 'seen', method, verdict, reason: '', revision: 0 },
    ...counted,
  };
}

/** A text that no other kind of call has. */
export function keyOfCall(call: RecordedCall): string {
  const { kind, source, destination, protocol, method, host, port, path, pathPattern } = call;
  const { sourceAddress, verdict, reason, rule, revision, isBroken } = call;
  // INVARIANT: lengths tell where a text ends. Callers choose some of them, and may write anything.
  return (
    `${kind} ${verdict} ${port} ${revision} ${isBroken} ${partOf(source)}${partOf(destination)}${partOf(protocol)}` +
    `${partOf(method)}${partOf(host)}${partOf(path)}${partOf(pathPattern)}${partOf(sourceAddress)}${partOf(reason)}${partOf(rule)}`
  );
}

function partOf(text: string | null): string {
  return text === null ? '-' : `${text.length}:${text}`;
}

/** Adds records of one kind to those before them. */
export function joinCalls(a: RecordedCalls, b: RecordedCalls): RecordedCalls {
  return {
    call: a.call,
    count: a.count + b.count,
    records: a.records + b.records,
    firstMs: Math.min(a.firstMs, b.firstMs),
    lastMs: Math.max(a.lastMs, b.lastMs),
    firstIndex: Math.min(a.firstIndex, b.firstIndex),
    lastIndex: Math.max(a.lastIndex, b.lastIndex),
  };
}

/** The port is another at each connection, and nothing reads it. */
function addressOf(text: string | undefined): string | null {
  if (text === undefined || isCut(text)) return null;
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::[0-9]{1,5})?$/.exec(text) ?? [];
  return bracketed ?? plain ?? '';
}

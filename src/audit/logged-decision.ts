import type { AuditRow } from './query.ts';

/** A decision as it stands in the log: plain data, ready for JSON. */
export type LoggedDecision = {
  /** In the log. */
  readonly index: number;
  readonly leafHash: string;
  readonly decisionId: string;
  /** RFC 3339, by the clock of who decided. */
  readonly time: string;
  readonly verdict: 'allow' | 'deny';
  /** Of a closed list, unless a later version wrote it. */
  readonly reason: string;
  /** `namespace/name rule[0]`, or empty. */
  readonly rule: string;
  readonly why: string;
  /** Of the mesh, by which it was decided. */
  readonly revision: number;
  /** Empty: the caller showed no certificate. */
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly method: string;
  readonly host: string;
  /** Null: it is not held any more, or whoever asks may not read it. */
  readonly path: string | null;
  /** 0: it was not told. */
  readonly port: number;
  readonly sourceSerial: string;
  /** `address:port` or a path, empty when it was not told; null as above. */
  readonly sourceAddress: string | null;
  /** The proxy that asked; `node` is empty on the machine of the authority. */
  readonly proxy: { readonly node: string; readonly pid: number; readonly uid: number };
  readonly breakGlass: string;
  /** The rollout whose candidate decided; absent for all others. */
  readonly rollout?: string | undefined;
};

/** Reads a row of a decision. What is stored may be of another version, so nothing of it is taken for sure. */
export function readLoggedDecision({ index, leafHash, leaf, personal }: AuditRow): LoggedDecision {
  const event = membersOf(JSON.parse(leaf));
  const caller = membersOf(event['caller']);
  return {
    index,
    leafHash,
    decisionId: textOf(event['decisionId']),
    time: textOf(event['time']),
    verdict: event['verdict'] === 'allow' ? 'allow' : 'deny',
    reason: textOf(event['reason']),
    rule: textOf(event['rule']),
    why: textOf(event['why']),
    revision: numberOf(event['revision']),
    source: textOf(event['source']),
    destination: textOf(event['destination']),
    protocol: textOf(event['protocol']),
    method: textOf(event['method']),
    host: textOf(event['host']),
    path: personalOf(personal, 'path'),
    port: numberOf(event['port']),
    sourceSerial: textOf(event['sourceSerial']),
    sourceAddress: personalOf(personal, 'sourceAddress'),
    proxy: { node: textOf(caller['node']), pid: numberOf(caller['pid']), uid: numberOf(caller['uid']) },
    breakGlass: textOf(event['breakGlass']),
    ...(textOf(event['rollout']) === '' ? {} : { rollout: textOf(event['rollout']) }),
  };
}

/** Whether a text of a record was cut to fit: see `fitEvent`, and the door that wrote it. */
export function isCut(text: string): boolean {
  return /…(?:\[\+[0-9]+\])?$/.test(text);
}

function personalOf(personal: AuditRow['personal'], name: string): string | null {
  return Object.hasOwn(personal, name) ? (personal[name] ?? null) : null;
}

function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function numberOf(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

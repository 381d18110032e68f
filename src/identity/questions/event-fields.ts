import type { AuditRow } from '../../audit/query.ts';

/** A record of the log, to be read field by field. What is stored may be of another version: nothing of it is sure. */
export type LoggedEvent = {
  readonly index: number;
  readonly type: string;
  /** RFC 3339. */
  readonly time: string;
  readonly event: Members;
  readonly personal: AuditRow['personal'];
};

type Members = Readonly<Record<string, unknown>>;

/** Reads a row of the log. @throws SyntaxError for a leaf that is no JSON, which none of ours is */
export function readEvent({ index, leaf, personal }: AuditRow): LoggedEvent {
  const event = membersOf(JSON.parse(leaf));
  return { index, event, personal, type: textOf(event, 'type'), time: textOf(event, 'time') };
}

/** A field of text, or empty. */
export function textOf(event: Members, name: string): string {
  const value = event[name];
  return typeof value === 'string' ? value : '';
}

/** A field that is a whole number, or 0. */
export function numberOf(event: Members, name: string): number {
  const value = event[name];
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : 0;
}

/** A field that is a list of texts, or empty. */
export function listOf(event: Members, name: string): readonly string[] {
  const value = event[name];
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
}

/** A field that has fields. */
export function fieldsOf(event: Members, name: string): Members {
  return membersOf(event[name]);
}

/** A value that stands beside the leaf; null where it is not held, or whoever asks may not read it. */
export function personalOf({ personal }: Pick<LoggedEvent, 'personal'>, name: string): string | null {
  return Object.hasOwn(personal, name) ? (personal[name] ?? null) : null;
}

/** Who did it: `uid:0`, `token:<id>`, a SPIFFE ID, `oidc:<subject>`, `system` or `anonymous`; empty for nobody. */
export function actorName(event: Members): string {
  const actor = fieldsOf(event, 'actor');
  const kind = textOf(actor, 'kind');
  switch (kind) {
    case 'uid':
      return `uid:${numberOf(actor, 'uid')}`;
    case 'token':
      return `token:${textOf(actor, 'tokenId')}`;
    case 'svid':
      return textOf(actor, 'spiffeId');
    case 'oidc':
      return `oidc:${textOf(actor, 'subject')}`;
    default:
      return kind;
  }
}

/** The process that an event names, for people: `uid 1000 pid 77 on web-1`. */
export function processName(event: Members): string {
  const caller = fieldsOf(event, 'caller');
  const certificate = textOf(caller, 'certificate');
  if (certificate !== '') return `certificate ${certificate}`;
  if (caller['uid'] === undefined) return '';
  const node = textOf(caller, 'node');
  const where = node === '' ? '' : ` on ${node}`;
  return `uid ${numberOf(caller, 'uid')} pid ${numberOf(caller, 'pid')}${where}`;
}

function membersOf(value: unknown): Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : {};
}

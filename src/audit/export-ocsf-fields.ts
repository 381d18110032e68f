import { type ExportRecord, textOf } from './export-record.ts';

/** The fields of a record, each of which is either taken by a mapping or left for `unmapped`. */
export type Fields = {
  /** Takes a text, or a number as text; empty when there is none. */
  readonly text: (name: string) => string;
  /** Takes a number; 0 when there is none. */
  readonly number: (name: string) => number;
  /** Takes a time, as milliseconds since 1970. */
  readonly timeMs: (name: string) => number;
  /** Takes a value whatever it is; null when there is none. */
  readonly value: (name: string) => unknown;
  readonly has: (name: string) => boolean;
  /** Looks at a text without taking it. */
  readonly peek: (name: string) => string;
  /** A value that may identify a person; empty when it is not held, or not asked for. */
  readonly personal: (name: string) => string;
  /** What nobody has taken. */
  readonly rest: () => Readonly<Record<string, unknown>>;
};

/** Reads the fields of a record. Its version, type and time are taken. */
export function readFields({ event, personal }: ExportRecord): Fields {
  const left = new Map(Object.entries(event));
  const take = (name: string): unknown => {
    const value = left.get(name);
    left.delete(name);
    return value;
  };
  for (const name of ['v', 'type', 'time']) take(name);
  return {
    text: (name) => textOf(take(name)),
    number: (name) => Number(textOf(take(name))) || 0,
    timeMs: (name) => Date.parse(textOf(take(name))) || 0,
    value: (name) => take(name) ?? null,
    has: (name) => Object.hasOwn(event, name),
    peek: (name) => textOf(event[name]),
    personal: (name) => (Object.hasOwn(personal, name) ? (personal[name] ?? '') : ''),
    rest: () => Object.fromEntries(left),
  };
}

/** The members that are not empty. */
export function filled(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== '' && value !== undefined),
  );
}

/** Who did something, as an OCSF actor. What it has no place for stays in `unmapped`. */
export function actorOf(fields: Fields): Record<string, unknown> {
  const actor = membersOf(fields.value('actor'));
  const role = textOf(actor['role']);
  const user = { ...userOf(actor), ...(role === '' ? {} : { groups: [{ name: role }] }) };
  return { user };
}

function userOf(actor: Readonly<Record<string, unknown>>): Record<string, unknown> {
  switch (actor['kind']) {
    case 'uid':
      return { uid: textOf(actor['uid']), type_id: actor['uid'] === 0 ? 2 : 1 };
    case 'token':
      return { uid: textOf(actor['tokenId']), type_id: 99, type: 'admin token' };
    case 'svid':
      return {
        name: textOf(actor['spiffeId']),
        type_id: 4,
        credential_uid: textOf(actor['serial']),
      };
    case 'oidc':
      return { uid: textOf(actor['subject']), domain: textOf(actor['issuer']), type_id: 1 };
    case 'system':
      return { name: 'countersign', type_id: 3 };
    default:
      return { name: 'anonymous', type_id: 0 };
  }
}

/** The process something was made for or refused to, as an OCSF actor. */
export function callerOf(fields: Fields): Record<string, unknown> {
  const caller = membersOf(fields.value('caller'));
  const [certificate, node] = [textOf(caller['certificate']), textOf(caller['node'])];
  const uid = textOf(caller['uid']);
  if (certificate !== '') return { user: { name: certificate, type_id: 4, credential_uid: certificate } };
  const pid = caller['pid'];
  return {
    process: { pid: typeof pid === 'number' ? pid : 0, ...(node === '' ? {} : { name: `of node ${node}` }) },
    user: { uid: uid === '' ? 'unknown' : uid, type_id: uid === '0' ? 2 : 1 },
  };
}

/** Members of an object; none of anything else. */
export function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

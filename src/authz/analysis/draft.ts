import { SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import type { AuthzRequest } from '../decision.ts';
import { Facts } from '../facts.ts';

/** A call in the making: what is said of it so far. All else is as in a call of which nothing more is told. */
export type Draft = {
  readonly protocol: 'http' | 'tcp';
  readonly source: SpiffeId;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly hostPort: number | null;
  /** 0: not told. */
  readonly port: number;
  /** The peer, which is the client as well: no proxy in front is trusted. */
  readonly client: string | undefined;
  readonly destinationIp: string | undefined;
  readonly sni: string | undefined;
  /** By name, in lower case; undefined: cannot be told. A name that is not in it is not there. */
  readonly headers: ReadonlyMap<string, readonly string[] | undefined>;
  /** `untold`: the proxy tells of no token. */
  readonly token: 'untold' | 'none' | 'present';
  readonly subject: { readonly issuer: string; readonly subject: string } | undefined;
  /** By the names that lead to them. */
  readonly claims: ReadonlyMap<string, Claim>;
  readonly notes: ReadonlyMap<string, Note>;
  readonly atMs: number;
};

/** What one dimension says of a call. */
export type Patch = Partial<Draft>;

/** The texts of a claim, as a list; none when the token has no such claim. */
export type Claim = { readonly names: readonly string[]; readonly texts: readonly string[] };
/** What a filter noted under a key. */
export type Note = { readonly filter: string; readonly key: string; readonly value: unknown };

/** Of a call about which nothing has been said. */
export function blankDraft(trustDomain: TrustDomain, atMs: number): Draft {
  return {
    protocol: 'http',
    source: SpiffeId.parse(`${trustDomain.id}/x`),
    ...{ method: 'GET', path: '/', host: 'unknown.invalid', hostPort: null, port: 8_080 },
    ...{ client: undefined, destinationIp: undefined, sni: undefined },
    ...{ headers: new Map(), token: 'none', subject: undefined, claims: new Map(), notes: new Map() },
    atMs,
  };
}

/** Puts what two dimensions say together. */
export function merge(draft: Draft, patch: Patch): Draft {
  return {
    ...draft,
    ...patch,
    headers: new Map([...draft.headers, ...(patch.headers ?? [])]),
    claims: new Map([...draft.claims, ...(patch.claims ?? [])]),
    notes: new Map([...draft.notes, ...(patch.notes ?? [])]),
  };
}

/** What the rules read of it. */
export function factsOf(draft: Draft, trustDomain: TrustDomain): Facts {
  return new Facts(requestOf(draft, draft.source), trustDomain, new Date(draft.atMs));
}

/** The draft as a call, canonical. */
export function requestOf(draft: Draft, destination: SpiffeId): AuthzRequest {
  const { protocol, source, method, path, host, hostPort, port, client, headers } = draft;
  const isHttp = protocol === 'http';
  return {
    ...{ source, destination, protocol, port },
    ...(isHttp ? { method, path, host, hostPort } : { method: '', path: '', host: '', hostPort: null }),
    context: {
      headerLines: (name) => (headers.has(name) ? headers.get(name) : []),
      sourceIp: client,
      remoteIp: client,
      destinationIp: draft.destinationIp,
      sni: draft.sni,
      claims: claimsOf(draft),
      metadata: notesOf(draft),
    },
  };
}

/** Undefined: nothing is told of a token; null: there is none. */
export function claimsOf({ token, subject, claims }: Draft): ReadonlyMap<string, unknown> | null | undefined {
  if (token !== 'present') return token === 'none' ? null : undefined;
  const root = new Map<string, unknown>();
  if (subject !== undefined) root.set('iss', subject.issuer).set('sub', subject.subject);
  for (const { names, texts } of claims.values()) {
    if (texts.length === 0) continue;
    let at = root;
    for (const name of names.slice(0, -1)) {
      const inner = at.get(name);
      const next = inner instanceof Map ? inner : new Map<string, unknown>();
      at.set(name, next);
      at = next;
    }
    // A list: a text alone could be split at its spaces, or be no text of the list's.
    at.set(names.at(-1) ?? '', texts);
  }
  return root;
}

function notesOf({ notes }: Draft): ReadonlyMap<string, ReadonlyMap<string, unknown>> | undefined {
  if (notes.size === 0) return undefined;
  const filters = new Map<string, Map<string, unknown>>();
  for (const { filter, key, value } of notes.values()) {
    const keys = filters.get(filter) ?? new Map<string, unknown>();
    filters.set(filter, keys);
    if (value !== undefined) keys.set(key, value);
  }
  return filters;
}

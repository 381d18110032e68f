import { MeshError } from '../../errors.ts';
import { SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import { untold } from '../context.ts';
import type { AuthzRequest } from '../decision.ts';
import { Facts, wayTo } from '../facts.ts';
import { headerLinesOf } from '../header-alias.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../request.ts';
import { claimsOf, type Draft, requestOf } from './draft.ts';

/** A call that shows something: all of it, so that it can be judged again and sent to a proxy. Plain data. */
export type Witness = {
  readonly protocol: 'http' | 'tcp';
  /** SPIFFE IDs. */
  readonly source: string;
  readonly destination: string;
  /** Empty for TCP, as are the path and the authority. */
  readonly method: string;
  /** Canonical, without query. */
  readonly path: string;
  /** With a port, or without. */
  readonly authority: string;
  /** The destination's own; 0 when the proxy tells of none. */
  readonly port: number;
  /** Lower-case names and lines. A line with `é` stands for any header that cannot be told. */
  readonly headers: readonly (readonly [name: string, line: string])[];
  /** The peer of the connection, which is the client; null when it does not matter. */
  readonly sourceIp: string | null;
  readonly destinationIp: string | null;
  /** What TLS asked for; null when it does not matter. */
  readonly sni: string | null;
  /** The claims of a verified token; null: none; absent when the proxy tells of no token. */
  readonly claims?: Readonly<Record<string, unknown>> | null;
  /** What filters noted, by filter and key. */
  readonly metadata?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** When the call is made, RFC 3339. */
  readonly at: string;
};

/**
 * A draft as a call that can be made; undefined when nobody can make it: two headers that programs take for each other, or
 * two values of one claim.
 */
export function witnessOf(
  draft: Draft,
  destination: SpiffeId,
  trustDomain: TrustDomain,
): Witness | undefined {
  const { protocol, source, method, path, host, hostPort, port } = draft;
  const isHttp = protocol === 'http';
  const claims = isHttp ? claimsOf(draft) : null;
  const { metadata } = requestOf(draft, destination).context;
  const witness: Witness = {
    protocol,
    source: source.text,
    destination: destination.text,
    method: isHttp ? method : '',
    path: isHttp ? path : '',
    authority: isHttp ? `${host}${hostPort === null ? '' : `:${hostPort}`}` : '',
    port,
    headers: isHttp
      ? [...draft.headers].flatMap(([name, lines]) =>
          (lines ?? [untellable]).map((line) => [name, line] as const),
        )
      : [],
    sourceIp: draft.client ?? null,
    destinationIp: draft.destinationIp ?? null,
    sni: draft.sni ?? null,
    ...(claims === undefined ? {} : { claims: claims === null ? null : plain(claims) }),
    ...(metadata === undefined
      ? {}
      : {
          metadata: Object.fromEntries(
            [...metadata].map(([filter, keys]) => [filter, Object.fromEntries(keys)]),
          ),
        }),
    at: new Date(draft.atMs).toISOString(),
  };
  return isMakeable(draft, witness, trustDomain) ? witness : undefined;
}

/**
 * The call of a witness, read as a door reads it.
 * @throws MeshError `internal` for one that a door would refuse
 */
export function readWitness(witness: Witness): AuthzRequest {
  const { protocol, method, path, authority, port, sourceIp, destinationIp, sni, headers } = witness;
  const [source, destination] = [SpiffeId.parse(witness.source), SpiffeId.parse(witness.destination)];
  const context = {
    ...untold,
    headerLines: headerLinesOf(headers),
    sourceIp: sourceIp ?? undefined,
    remoteIp: sourceIp ?? undefined,
    destinationIp: destinationIp ?? undefined,
    sni: sni ?? undefined,
    claims: witness.claims === undefined || witness.claims === null ? witness.claims : mapOf(witness.claims),
    metadata:
      witness.metadata === undefined
        ? undefined
        : new Map(Object.entries(witness.metadata).map(([filter, keys]) => [filter, mapOf(keys)])),
  };
  const read =
    protocol === 'tcp'
      ? canonicalizeTcp({ source, destination, port, context })
      : canonicalizeHttp({ source, destination, method, path, authority, port, context });
  if (isRejection(read)) throw new MeshError('internal', `an example is no call: ${read.why}`);
  return read;
}

/** Whether a door reads of the witness what the draft says. */
function isMakeable(draft: Draft, witness: Witness, trustDomain: TrustDomain): boolean {
  if (draft.protocol === 'tcp') return true;
  const request = readWitness(witness);
  const facts = new Facts(request, trustDomain, new Date(draft.atMs));
  for (const [name, lines] of draft.headers) {
    if (JSON.stringify(facts.headerLines(name)) !== JSON.stringify(lines)) return false;
  }
  if (draft.token !== 'present') return true;
  const { subject } = draft;
  const isSame = facts.token?.issuer === subject?.issuer && facts.token?.subject === subject?.subject;
  if (!isSame) return false;
  for (const { names, texts } of draft.claims.values()) {
    if (JSON.stringify(facts.claim(wayTo(names))) !== JSON.stringify(texts)) return false;
  }
  return true;
}

/** Outside ASCII: programs read such a header in several ways, so nobody can tell what it says. */
const untellable = 'é';

function plain(claims: ReadonlyMap<string, unknown>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    [...claims].map(([name, value]) => [
      name,
      value instanceof Map ? plain(value as ReadonlyMap<string, unknown>) : value,
    ]),
  );
}

function mapOf(record: Readonly<Record<string, unknown>>): ReadonlyMap<string, unknown> {
  return new Map(Object.entries(record));
}

import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { FastifyRequest } from 'fastify';
import type { Actor } from '../audit/event.ts';
import { type ErrorCode, MeshError } from '../errors.ts';
import type { JudgeCertificate } from '../grpc/tls-certificate.ts';
import { type Grant, rolesWith, roleText, scopeOf } from '../identity/access.ts';
import type { GrantList } from '../identity/admin-grant.ts';
import type { AdminToken } from '../identity/admin-token.ts';
import type { BanList } from '../identity/ban-list.ts';
import { looksLikeJwt, type VerifyIdToken } from '../identity/id-token.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { type PresentedToken, parseAuthorization, provesToken, secretSha256 } from './bearer-token.ts';
import { certificateShown } from './certificate-shown.ts';
import { checkHost, checkOrigin, soleHeader } from './origin.ts';
import { accessOf } from './roles.ts';

/** Where an app answers, and therefore how it knows who asks. One app has one door. */
export type Door =
  | {
      readonly kind: 'unix';
      /** The uid at the other end, from the kernel. Throwing refuses the caller. */
      readonly peerUid: (socket: Socket) => number;
      /** Uids which have the role admin: root's, the server's own and configured ones. */
      readonly adminUids: ReadonlySet<number>;
    }
  | {
      readonly kind: 'tls';
      /** PEM: leaf first. */
      readonly certificate: string;
      /** PKCS#8 PEM. */
      readonly privateKey: string;
      /** Names and addresses a Host header may carry, lower case, without port; IPv6 in brackets. */
      readonly allowedHosts: ReadonlySet<string>;
    };

/** Finds a token by the hash of its secret, whether or not it has expired; null when there is none. */
export type FindToken = (secretSha256: string) => Promise<AdminToken | null>;

/** How those are known who come over TLS. All of it is asked at every request. */
export type AccessPorts = {
  readonly findToken: FindToken;
  /** Judges the certificate of a client against the bundle of this moment. */
  readonly judgeCertificate: JudgeCertificate;
  readonly bans: () => BanList;
  /** Null where no issuer is configured. */
  readonly verifyIdToken: VerifyIdToken | null;
  readonly grants: () => GrantList;
  /** Ours: namespaces are those of its identities. */
  readonly trustDomain: TrustDomain;
  /** Administrators by configuration. */
  readonly isConfiguredAdmin: (id: SpiffeId) => boolean;
};

/** Who asks, once known, and what they may. */
export type AdminCaller = { readonly actor: Actor; readonly grants: readonly Grant[] };

/** A refusal and what the audit log shall say of it. */
export type Refusal = { readonly error: MeshError; readonly actor: Actor; readonly detail: string };

/** What a request comes to: a caller who may go on (null on a public route), or a refusal. */
export type Admission = { readonly caller: AdminCaller | null } | { readonly refusal: Refusal };

/** Decides who asks and whether they may use the route. Reads headers only; the body has not been read yet. */
export async function admit(
  request: FastifyRequest,
  door: Door,
  ports: AccessPorts,
  now: Date,
): Promise<Admission> {
  const pattern = request.routeOptions.url;
  const access = pattern === undefined ? undefined : accessOf(request.method, pattern);
  if (access === 'public') return { caller: null };
  const misled = checkHost(request.raw, hostsOf(door)) ?? checkOrigin(request.raw, door.kind === 'tls');
  if (misled !== undefined) return { refusal: { error: misled, actor: anonymous, detail: misled.message } };
  const found =
    door.kind === 'unix' ? admitPeer(request.raw.socket, door) : await admitOverTls(request, ports, now);
  if ('refusal' in found) return found;
  const { actor, grants } = found.caller;
  // An unknown path answers 404 only to those who are somebody.
  if (access === undefined && grants.length > 0) return found;
  if (access !== undefined && scopeOf(grants, access) !== undefined) return found;
  const wanted = access === undefined ? 'some role' : `the permission ${access}`;
  const roles = access === undefined ? '' : `: ${rolesWith(access).join(', ')}`;
  return refuse('forbidden', `this needs ${wanted}`, actor, { fix: `use a grant that gives it${roles}` });
}

/** The names that a Host header may carry at a door. */
export function hostsOf(door: Door): ReadonlySet<string> {
  return door.kind === 'tls' ? door.allowedHosts : localHosts;
}

/** The other end of a connection, for the record. */
export function sourceAddress(request: FastifyRequest, door: Door): string {
  if (door.kind === 'tls') return request.raw.socket.remoteAddress ?? '';
  try {
    return `uid:${door.peerUid(request.raw.socket)}`;
  } catch {
    return '';
  }
}

type Found = { readonly caller: AdminCaller } | { readonly refusal: Refusal };

function admitPeer(socket: Socket, door: Extract<Door, { kind: 'unix' }>): Found {
  let uid: number;
  try {
    uid = door.peerUid(socket);
  } catch {
    return refuse('unauthenticated', 'the kernel did not say who is connected', anonymous);
  }
  const actor = { kind: 'uid', uid, role: 'admin' } as const;
  if (door.adminUids.has(uid)) return { caller: { actor, grants: everything } };
  return refuse(
    'forbidden',
    `uid ${uid} may not use this socket`,
    { ...actor, role: 'none' },
    {
      fix: 'run the command as the user of the server or as root, or add the uid to adminUids',
    },
  );
}

/**
 * INVARIANT: a credential that is shown is judged, and what it comes to is the answer: one that does not count is never
 * passed over in favour of another, and nobody is two people at once.
 */
async function admitOverTls(request: FastifyRequest, ports: AccessPorts, now: Date): Promise<Found> {
  const { socket } = request.raw;
  const shown = socket instanceof TLSSocket ? certificateShown(socket) : noCertificate;
  const hasHeader = request.raw.rawHeaders.some(
    (name, i) => i % 2 === 0 && name.toLowerCase() === 'authorization',
  );
  if (shown.certificates.length === 0) {
    return admitBearer(soleHeader(request.raw, 'authorization'), ports, now);
  }
  const found = admitCertificate(shown, ports, now);
  if (!hasHeader || 'refusal' in found) return found;
  return refuse('unauthenticated', 'a certificate and a token were presented', found.caller.actor, {
    fix: 'send one of them',
  });
}

function admitCertificate(shown: ReturnType<typeof certificateShown>, ports: AccessPorts, now: Date): Found {
  const leaf = ports.judgeCertificate(shown);
  if (typeof leaf === 'string') {
    return refuse('unauthenticated', `the client certificate does not count: ${leaf}`, anonymous, {
      fix: 'show a live X509-SVID of this trust domain, its intermediates included',
    });
  }
  const { id, serial, spkiSha256 } = leaf;
  const grants = [
    ...(ports.isConfiguredAdmin(id) ? everything : []),
    ...ports.grants().forSpiffeId(id).map(plainGrant),
  ];
  const actor = { kind: 'svid', spiffeId: id.text, serial, role: roleText(grants) } as const;
  if (ports.bans().find({ id, serial, spkiSha256 }, now) !== undefined) {
    // Whoever asks is not told why, by whom or until when.
    return refuse('identity_banned', 'the identity, its certificate or its key is banned', actor, {
      fix: 'ask an operator, who sees why with `countersign ban list`',
    });
  }
  if (grants.length > 0) return { caller: { actor, grants } };
  return refuse('forbidden', 'the SPIFFE ID of the certificate is not that of an administrator', actor, {
    fix: 'ask an admin for a grant: `countersign admin grant create`',
  });
}

async function admitBearer(header: string | undefined, ports: AccessPorts, now: Date): Promise<Found> {
  const jwt = /^[Bb]earer ([!-~]+)$/.exec(header ?? '')?.[1];
  if (jwt !== undefined && ports.verifyIdToken !== null && looksLikeJwt(jwt)) {
    return admitIdToken(jwt, ports.verifyIdToken, ports.grants);
  }
  const presented = parseAuthorization(header);
  if (presented === undefined) {
    return refuse('unauthenticated', 'no bearer token was presented', anonymous, tokenFix);
  }
  const token = await ports.findToken(secretSha256(presented));
  if (!provesToken(presented, token) || token === null) return unknownToken(presented);
  const actor = { kind: 'token', tokenId: token.id, role: roleText(token.grants) } as const;
  if (now >= token.expiresAt) return refuse('unauthenticated', 'the token has expired', actor, tokenFix);
  return { caller: { actor, grants: token.grants } };
}

async function admitIdToken(
  text: string,
  verify: VerifyIdToken,
  list: AccessPorts['grants'],
): Promise<Found> {
  try {
    const { issuer, subject, groups } = await verify(text);
    const grants = list().forOidc(issuer, subject, groups).map(plainGrant);
    const actor = { kind: 'oidc', issuer, subject, role: roleText(grants) } as const;
    if (grants.length > 0) return { caller: { actor, grants } };
    return refuse('forbidden', 'no grant names the subject of the token or a group of it', actor, {
      fix: 'ask an admin for a grant: `countersign admin grant create`',
    });
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    // Nothing of a token that was not believed is taken for its bearer's name.
    return { refusal: { error, actor: anonymous, detail: error.message } };
  }
}

function unknownToken(presented: PresentedToken): Found {
  const message = 'the token is not valid';
  const error = new MeshError('unauthenticated', message, tokenFix);
  // The id is public and tells an auditor which token somebody tried; the secret goes nowhere.
  return { refusal: { error, actor: anonymous, detail: `${message}: id ${presented.id}` } };
}

function refuse(
  code: ErrorCode,
  message: string,
  actor: Actor,
  options: { readonly fix?: string } = {},
): { readonly refusal: Refusal } {
  return { refusal: { error: new MeshError(code, message, options), actor, detail: message } };
}

function plainGrant({ role, namespaces }: Grant): Grant {
  return { role, namespaces };
}

const anonymous: Actor = { kind: 'anonymous' };
const everything: readonly Grant[] = [{ role: 'admin', namespaces: null }];
const noCertificate: ReturnType<typeof certificateShown> = { certificates: [] };
// A Unix socket made reachable over TCP by some relay must not become reachable from web pages.
const localHosts: ReadonlySet<string> = new Set(['localhost']);
const tokenFix = { fix: 'send authorization: Bearer <token>; countersign token create makes one' };

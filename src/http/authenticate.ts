import type { Socket } from 'node:net';
import type { FastifyRequest } from 'fastify';
import type { Actor } from '../audit/event.ts';
import { type ErrorCode, MeshError } from '../errors.ts';
import type { AdminRole, AdminToken } from '../identity/admin-token.ts';
import { type PresentedToken, parseAuthorization, provesToken, secretSha256 } from './bearer-token.ts';
import { checkHost, checkOrigin, soleHeader } from './origin.ts';
import { accessOf, includesRole } from './roles.ts';

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

/** Who asks, once known. */
export type AdminCaller = { readonly actor: Actor; readonly role: AdminRole };

/** A refusal and what the audit log shall say of it. */
export type Refusal = { readonly error: MeshError; readonly actor: Actor; readonly detail: string };

/** What a request comes to: a caller who may go on (null on a public route), or a refusal. */
export type Admission = { readonly caller: AdminCaller | null } | { readonly refusal: Refusal };

/** Decides who asks and whether they may use the route. Reads headers only; the body has not been read yet. */
export async function admit(
  request: FastifyRequest,
  door: Door,
  findToken: FindToken,
  now: Date,
): Promise<Admission> {
  const pattern = request.routeOptions.url;
  // An unknown path answers 404 only to those who may look around.
  const access = pattern === undefined ? 'viewer' : accessOf(request.method, pattern);
  if (access === 'public') return { caller: null };
  const misled =
    checkHost(request.raw, door.kind === 'tls' ? door.allowedHosts : localHosts) ??
    checkOrigin(request.raw, door.kind === 'tls');
  if (misled !== undefined) return { refusal: { error: misled, actor: anonymous, detail: misled.message } };
  const found =
    door.kind === 'unix'
      ? admitPeer(request.raw.socket, door)
      : await admitToken(soleHeader(request.raw, 'authorization'), findToken, now);
  if ('refusal' in found) return found;
  if (!includesRole(found.caller.role, access)) {
    return refuse('forbidden', `this needs the role ${access}`, found.caller.actor, {
      fix: `use a token with the role ${access}`,
    });
  }
  return found;
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
  if (door.adminUids.has(uid)) return { caller: { actor, role: 'admin' } };
  return refuse(
    'forbidden',
    `uid ${uid} may not use this socket`,
    { ...actor, role: 'none' },
    {
      fix: 'run the command as the user of the server or as root, or add the uid to adminUids',
    },
  );
}

async function admitToken(header: string | undefined, findToken: FindToken, now: Date): Promise<Found> {
  const presented = parseAuthorization(header);
  if (presented === undefined)
    return refuse('unauthenticated', 'no bearer token was presented', anonymous, tokenFix);
  const token = await findToken(secretSha256(presented));
  if (!provesToken(presented, token) || token === null) return unknownToken(presented);
  const actor = { kind: 'token', tokenId: token.id, role: token.role } as const;
  if (now >= token.expiresAt) return refuse('unauthenticated', 'the token has expired', actor, tokenFix);
  return { caller: { actor, role: token.role } };
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

const anonymous: Actor = { kind: 'anonymous' };
// A Unix socket made reachable over TCP by some relay must not become reachable from web pages.
const localHosts: ReadonlySet<string> = new Set(['localhost']);
const tokenFix = { fix: 'send authorization: Bearer <token>; countersign token create makes one' };

import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { asBuffer } from '../grpc/as-buffer.ts';
import { readCsr } from '../ca/csr.ts';
import type { PublicKey } from '../ca/public-key.ts';
import type { Clock } from '../clock.ts';
import { type ErrorCode, MeshError, publicError, quote } from '../errors.ts';
import { peerOf } from '../grpc/connections.ts';
import { guardUnary } from '../grpc/guard.ts';
import { minTtlSeconds, type RegistrationEntry } from '../identity/entry.ts';
import type { Attest, Attestation, CallerEvidence, UnixPeer } from '../identity/evidence.ts';
import type { IssueX509 } from '../identity/issuer.ts';
import { createKeyOwners, type KeyOwners } from '../identity/key-owners.ts';
import { createTurns } from '../identity/turns.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { maxIdBytes, SpiffeId } from '../spiffe/id.ts';
import { SigningService as Definition, type SignX509Request, type SignX509Response } from '../wire/sign.ts';
import { createRateLimit, type RateLimits } from '../identity/rate-limit.ts';
import { attestRecently } from './recent-attestation.ts';

/** A caller that was not given a certificate. */
export type SigningRefusal = {
  readonly code: ErrorCode;
  readonly message: string;
  /** The SPIFFE ID that was asked for, or empty. */
  readonly resource: string;
  readonly selectors: readonly string[];
  readonly caller: CallerEvidence;
};

export type SigningLimits = {
  /** What one uid may ask for, granted or not. */
  readonly perUid: RateLimits;
  /** Calls that are worked on at once; more wait, in the order they came. */
  readonly atOnce: number;
  /** Calls that work or wait; one more is turned away. */
  readonly waiting: number;
};

export const defaultSigningLimits: SigningLimits = {
  perUid: { burst: 500, perSecond: 50 },
  atOnce: 128,
  waiting: 1_024,
};

export type SigningOptions = {
  readonly attest: Attest;
  /** The entries a caller is entitled to now, the default one first. */
  readonly entitled: (attestation: Attestation) => readonly RegistrationEntry[];
  readonly issue: IssueX509;
  /** Where requests are read and their proofs are verified; default: on this thread. */
  readonly readCsr?: (input: Uint8Array) => PublicKey | Promise<PublicKey>;
  readonly bundle: () => TrustBundle;
  /** Which identity each key was certified for, also by an earlier process of ours. Default: nothing is known. */
  readonly keyOwners?: KeyOwners;
  /** Takes a refusal for the record without waiting. */
  readonly recordRefusal: (refusal: SigningRefusal) => void;
  readonly clock: Clock;
  /** Told of failures of ours, which the caller only sees as `internal`. */
  readonly report?: (error: unknown) => void;
  readonly limits?: Partial<SigningLimits>;
};

/** `countersign.v1.Signing`, to be handed to a listener. */
export type SigningDoor = {
  readonly definition: typeof Definition;
  readonly implementation: UntypedServiceImplementation;
  /** From now on calls are turned away; those that run come to their end. */
  readonly close: () => void;
};

/**
 * Serves `SignX509`: a process on this machine that keeps its private key to itself hands in a certificate request. Who
 * it is, what it is called and for how long are told by attestation and registration; the request gives a public key and
 * the proof that the caller holds the private one.
 *
 * Calls fail with `rate_limited`, `attestation_failed`, `identity_none`, `message_invalid`, `csr_invalid`,
 * `csr_proof_invalid`, `public_key_unsupported`, `public_key_in_use`, `issuer_expired`, `store_unavailable` and
 * `shutting_down`. All but the last two are recorded.
 */
export function createSigningService(options: SigningOptions): SigningDoor {
  const { clock, report = () => undefined, readCsr: read = readCsr } = options;
  const limits = { ...defaultSigningLimits, ...options.limits };
  const takeToken = createRateLimit(limits.perUid, clock);
  const turns = createTurns(limits.atOnce);
  const attest = attestRecently(options.attest, clock);
  const keyOwners = options.keyOwners ?? createKeyOwners();
  let pending = 0;
  let closed = false;

  const signX509 = guardUnary<SignX509Request, SignX509Response>(
    async (call, signal) => {
      const peer = peerOf(call);
      if (closed) throw new MeshError('shutting_down', 'the service is shutting down');
      const asked: Asked = { peer, attestation: undefined, resource: call.request.spiffeId };
      try {
        return await admit(peer, () => sign(asked, call.request, signal));
      } catch (error) {
        record(asked, error);
        throw error;
      }
    },
    { report },
  );

  async function admit<T>(peer: UnixPeer, work: () => Promise<T>): Promise<T> {
    if (!takeToken(peer.uid)) {
      throw new MeshError('rate_limited', `uid ${peer.uid} asks for too many certificates`, {
        fix: 'wait a while',
      });
    }
    if (pending >= limits.waiting) {
      throw new MeshError('rate_limited', 'too many requests wait to be signed', { fix: 'try again' });
    }
    pending += 1;
    try {
      return await turns(work);
    } finally {
      pending -= 1;
    }
  }

  async function sign(
    asked: Asked,
    request: SignX509Request,
    signal: AbortSignal,
  ): Promise<SignX509Response> {
    demandWaiting(signal);
    const ttlSeconds = readTtl(request.ttlSeconds);
    const wanted = readId(request.spiffeId);
    asked.attestation = await attest(asked.peer);
    const entry = choose(options.entitled(asked.attestation), wanted);
    asked.resource = entry.spiffeId.text;
    // INVARIANT: only a caller with an identity makes us do arithmetic, and only if it is still there.
    demandWaiting(signal);
    const publicKey = await read(request.csr);
    if (!keyOwners.claim(publicKey.spkiSha256, entry.spiffeId)) {
      throw new MeshError('public_key_in_use', 'the public key was certified for another identity', {
        fix: 'make a key for each identity',
      });
    }
    const issued = await options.issue({
      entry,
      publicKey,
      attestation: asked.attestation,
      ...(ttlSeconds === undefined ? {} : { ttlSeconds }),
    });
    return {
      certificates: issued.certificates.map(asBuffer),
      bundle: options.bundle().x509Authorities.map(asBuffer),
      expiresAt: BigInt(issued.notAfter.getTime()) / 1_000n,
      spiffeId: entry.spiffeId.text,
      issuanceProof: issued.proof ?? '',
    };
  }

  function record({ peer, attestation, resource }: Asked, error: unknown): void {
    const { code, message } = publicError(error);
    if (unrecorded.has(code)) return;
    options.recordRefusal({
      code,
      message,
      resource: Buffer.byteLength(resource) > maxIdBytes ? '' : resource,
      selectors: attestation?.selectors.map(({ text }) => text) ?? [],
      caller: { pid: peer.pid, uid: peer.uid, gid: peer.gid },
    });
  }

  return {
    definition: Definition,
    implementation: { signX509 },
    close: () => {
      closed = true;
    },
  };
}

/** What is known of a call, for the record of its refusal. */
type Asked = { readonly peer: UnixPeer; attestation: Attestation | undefined; resource: string };

/** Whoever has given up is not made a certificate for. */
function demandWaiting(signal: AbortSignal): void {
  if (signal.aborted) throw new MeshError('shutting_down', 'the caller has given up');
}

/** @returns undefined for the lifetime of the entry */
function readTtl(seconds: bigint): number | undefined {
  if (seconds === 0n) return undefined;
  if (seconds < BigInt(minTtlSeconds)) {
    throw new MeshError('message_invalid', `ttl_seconds is less than ${minTtlSeconds}`, {
      fix: 'leave it out for the lifetime of the identity',
    });
  }
  // More than any entry has is cut to what the entry has.
  return Number(seconds > maxExactSeconds ? maxExactSeconds : seconds);
}

function readId(text: string): SpiffeId | undefined {
  return text === '' ? undefined : SpiffeId.parseWorkload(text);
}

function choose(entries: readonly RegistrationEntry[], wanted: SpiffeId | undefined): RegistrationEntry {
  const entry = wanted === undefined ? entries[0] : entries.find(({ spiffeId }) => spiffeId.equals(wanted));
  if (entry !== undefined) return entry;
  throw wanted === undefined || entries.length === 0
    ? new MeshError('identity_none', 'no registration entry matches the caller', {
        fix: 'register it, for example with countersign entry create',
      })
    : new MeshError('identity_none', `the caller is not entitled to ${quote(wanted.text)}`);
}

// Where the store is away there is nowhere to record it, and an end is nobody's refusal.
const unrecorded: ReadonlySet<ErrorCode> = new Set(['store_unavailable', 'shutting_down']);
const maxExactSeconds = 2n ** 31n;

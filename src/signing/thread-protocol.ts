import type { PublicKeyFacts, PublicKeyKind } from '../ca/public-key.ts';
import { type ErrorCode, MeshError } from '../errors.ts';

// What travels between the main thread and the one that proves: plain data, and all bytes of a batch in one buffer that
// changes hands. No private key is ever among it.

/** A CA as far as its leaves are judged by it; sent once. */
export type IssuerFacts = {
  readonly der: Uint8Array;
  readonly hash: 'sha256' | 'sha384';
  /** Of the leaves, also when the certificate itself names none. */
  readonly trustDomain: string | null;
};

/** Sizes are those of the parts in the bytes of the batch, in their order. */
export type Job =
  | { readonly kind: 'csr'; readonly sizes: readonly [csr: number] }
  | {
      readonly kind: 'leaf';
      readonly sizes: readonly [der: number, tbs: number, spki: number, keyId: number];
      readonly issuer: number;
      readonly keyKind: PublicKeyKind;
      readonly spkiSha256: string;
      readonly id: string;
      readonly dnsNames: readonly string[];
      readonly serial: string;
      readonly notBeforeMs: number;
      readonly notAfterMs: number;
    };

export type Batch = {
  readonly jobs: readonly Job[];
  readonly bytes: Uint8Array;
  /** By their numbers; those that no batch before it has brought. */
  readonly issuers: readonly (readonly [number, IssuerFacts])[];
};

/** In the order of the jobs: the key of a request, null for a good leaf, or why it is refused. */
export type Verdict = PublicKeyFacts | Failure | null;

export type Failure = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly fix: string | undefined;
  /** For logs only: the text of what lies beneath. */
  readonly detail: string | undefined;
};

/** Reduces a thrown value to plain data; anything but a MeshError is `internal`. */
export function describeFailure(error: unknown): Failure {
  if (!(error instanceof MeshError)) {
    const detail = error instanceof Error ? error.message : String(error);
    return { code: 'internal', message: 'a proof could not be judged', fix: undefined, detail };
  }
  const detail = error.cause instanceof Error ? error.cause.message : undefined;
  return { code: error.code, message: error.message, fix: error.fix, detail };
}

/** The error that {@link describeFailure} described. */
export function restoreFailure({ code, message, fix, detail }: Failure): MeshError {
  return new MeshError(code, message, {
    ...(fix === undefined ? {} : { fix }),
    ...(detail === undefined ? {} : { cause: new Error(detail) }),
  });
}

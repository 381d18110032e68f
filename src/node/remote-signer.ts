import { createHash } from 'node:crypto';
import { asBuffer } from '../grpc/as-buffer.ts';
import type { PublicKey } from '../ca/public-key.ts';
import { type ErrorCode, errorKinds, MeshError } from '../errors.ts';
import type { Attestation } from '../identity/evidence.ts';
import type { IssuedX509, IssueX509 } from '../identity/issuer.ts';
import type { MintJwt } from '../identity/jwt-svid.ts';
import type { GenerateKeyPair } from '../identity/keeper.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type {
  NodeClient,
  SignJwtRequest,
  SignJwtResponse,
  SignX509Item,
  SignX509Result,
  SignX509Results,
} from '../wire/node.ts';
import { makeCertificateRequest } from './certificate-request.ts';
import { callerToWire } from './event-shipment.ts';
import { ask } from './node-client.ts';
import type { DemandProof } from './proven-issuance.ts';
import { dateOf } from './wire-values.ts';

/** Signing by the server, in the place of a CA of our own. */
export type RemoteSigner = {
  readonly issue: IssueX509;
  readonly mintJwt: MintJwt;
  /** As it was given, with the proof of each key kept for the server. */
  readonly generateKeyPair: GenerateKeyPair;
  readonly readCsr: (csr: Uint8Array) => Promise<PublicKey>;
};

/**
 * Asks the server for signatures. A key goes there with the proof that somebody holds it: that of the process which
 * handed in a request, or our own for a key that was made here. What is asked for within one turn goes in one message.
 */
export function createRemoteSigner(parts: {
  readonly client: () => NodeClient;
  readonly generateKeyPair: GenerateKeyPair;
  readonly readCsr: (csr: Uint8Array) => Promise<PublicKey>;
  /** What proxies of this node verify with now. */
  readonly bundle: () => TrustBundle;
  /** Judges whether the issuance of a certificate is in the log of the server; default: nobody asks. */
  readonly demandProof?: DemandProof;
}): RemoteSigner {
  // By the very value that a key is known by here, so that the proof goes when the key goes.
  const proofs = new WeakMap<object, Uint8Array>();
  let waiting: Waiting[] = [];

  const flush = async (batch: readonly Waiting[]): Promise<void> => {
    try {
      const client = parts.client();
      const items = batch.map(({ item }) => item);
      const { results } = await ask<SignX509Results>((metadata, options, done) =>
        client.signX509({ items }, metadata, options, done),
      );
      for (const [at, { settle }] of batch.entries()) settle(results[at]);
    } catch (error) {
      for (const { fail } of batch) fail(error);
    }
  };
  const sign = (item: SignX509Item): Promise<SignX509Result | undefined> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, settle: resolve, fail: reject });
      if (waiting.length > 1) return;
      setImmediate(() => {
        const all = waiting;
        waiting = [];
        for (let at = 0; at < all.length; at += maxItems) void flush(all.slice(at, at + maxItems));
      });
    });

  return {
    generateKeyPair: async () => {
      const pair = await parts.generateKeyPair();
      proofs.set(pair.publicKey, makeCertificateRequest(pair.publicKey, pair.privateKey));
      return pair;
    },
    readCsr: async (csr) => {
      const publicKey = await parts.readCsr(csr);
      proofs.set(publicKey, csr);
      return publicKey;
    },
    issue: async ({ entry, publicKey, attestation, ttlSeconds = 0 }) => {
      const csr = proofs.get(publicKey);
      if (csr === undefined) throw new MeshError('csr_proof_invalid', 'nobody has proven to hold the key');
      const result = await sign({
        entryId: entry.id,
        entryRevision: BigInt(entry.revision),
        csr: asBuffer(csr),
        ttlSeconds: BigInt(ttlSeconds),
        presented: attestation.presented?.certificates.map(asBuffer) ?? [],
        ...evidenceOf(attestation),
      });
      const issued = readResult(result);
      const leaf = checkX509SvidLeaf(issued.certificates[0] ?? new Uint8Array(0));
      const spki = publicKey instanceof Uint8Array ? sha256(publicKey) : publicKey.spkiSha256;
      if (!leaf.id.equals(entry.spiffeId) || leaf.spkiSha256 !== spki) {
        throw new MeshError('svid_invalid', 'the server signed something else than was asked for');
      }
      const { serial, notBefore, notAfter } = leaf;
      demandTrusted(issued.certificates, parts.bundle(), notBefore);
      parts.demandProof?.(issued.certificates[0] ?? new Uint8Array(0), issued.proof ?? '');
      return { ...issued, serial, notBefore, notAfter };
    },
    mintJwt: async ({ entry, audiences, attestation, ttlSeconds = 0 }) => {
      const client = parts.client();
      const request: SignJwtRequest = {
        entryId: entry.id,
        entryRevision: BigInt(entry.revision),
        audiences: [...audiences],
        ttlSeconds: BigInt(ttlSeconds),
        ...evidenceOf(attestation),
      };
      const answer = await ask<SignJwtResponse>((metadata, options, done) =>
        client.signJwt(request, metadata, options, done),
      );
      return {
        id: entry.spiffeId,
        token: answer.token,
        audiences,
        keyId: answer.keyId,
        issuedAt: dateOf(answer.issuedAtMs),
        expiresAt: dateOf(answer.expiresAtMs),
        hint: entry.hint,
        entryId: entry.id,
      };
    },
  };
}

type Waiting = {
  readonly item: SignX509Item;
  readonly settle: (result: SignX509Result | undefined) => void;
  readonly fail: (error: unknown) => void;
};

function evidenceOf({ selectors, caller }: Attestation) {
  return { selectors: selectors.map(({ text }) => text), caller: callerToWire(caller) };
}

function readResult(
  result: SignX509Result | undefined,
): Pick<IssuedX509, 'certificates' | 'issuerKeyId' | 'proof'> {
  if (result?.kind?.$case === 'signed') {
    const { certificates, issuerKeyId, issuanceProof: proof } = result.kind.signed;
    return {
      certificates: certificates.map((der) => new Uint8Array(der)),
      issuerKeyId,
      ...(proof === '' ? {} : { proof }),
    };
  }
  if (result?.kind?.$case !== 'failure') throw new MeshError('message_invalid', 'the server did not answer');
  const { code, message } = result.kind.failure;
  throw new MeshError(Object.hasOwn(errorKinds, code) ? (code as ErrorCode) : 'internal', message);
}

/**
 * INVARIANT: bundles first. A certificate under a root that the server published while this node was away is asked for
 * again when the view has come.
 * @param at a moment within the dates: clocks of two machines differ
 */
function demandTrusted(chain: readonly Uint8Array[], { x509Authorities }: TrustBundle, at: Date): void {
  if (inspectChain(chain, { authorities: x509Authorities, at }).broken.length === 0) return;
  throw new MeshError('credentials_pending', 'the CA that signed is not in the bundle of this node yet', {
    fix: 'try again: the bundle comes with the view of the server',
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const maxItems = 64;

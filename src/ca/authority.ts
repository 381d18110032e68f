import { type TrustBundle, makeBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { MeshError, publicError } from '../errors.ts';
import { checkIssuerChain } from './chain.ts';
import { openIssuer, refuseAuthority } from './issuer.ts';
import type { CaKey } from './key-port.ts';
import { createLeafTemplate } from './leaf-template.ts';
import { type LeafRequest, type LeafSigner, type PreparedLeaf, prepareLeaf, signLeaf } from './leaf.ts';
import { type LintLeaf, lintLeaf } from './lint.ts';
import type { Profile } from './profile.ts';
import { asPublicKey } from './public-key.ts';
import { checkRefused, type RefusedKeys } from './refused-keys.ts';
import { poolRandom, type RandomBytes } from './serial.ts';

/** A certificate as it is handed out. */
export type IssuedSvid = {
  /** DER: the leaf, then the intermediate and whatever stands above it; never the root. */
  readonly certificates: readonly Uint8Array[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** An issuing CA, proven and ready. It keeps no record: who calls it writes one between `prepare` and `sign`. */
export type Authority = {
  readonly trustDomain: TrustDomain;
  /**
   * Decides a leaf at `now`: see {@link prepareLeaf}, also for what it throws.
   * @throws MeshError `public_key_leaked` for a key whose private half is known to others
   */
  readonly prepare: (request: LeafRequest, now: Date) => PreparedLeaf;
  /** Signs a leaf that this authority prepared, once: see {@link signLeaf}, also for what it throws. */
  readonly sign: (prepared: PreparedLeaf) => Promise<IssuedSvid>;
  /** What verifies the leaves: the root. */
  readonly bundle: TrustBundle;
  /** What we call the intermediate's key, lower-case hex. */
  readonly issuerKeyId: string;
  /** When the intermediate ends, and every leaf at the latest. */
  readonly notAfter: Date;
};

/**
 * Opens an issuing CA and proves it first: the whole chain as {@link checkIssuerChain} does, and that the key is the
 * intermediate's. The root may be anybody's.
 * @param options.intermediate.upstream CAs between the intermediate and the root, the lower one first; default none
 * @param options.refused keys no leaf may hold besides the intermediate's own and the root's; default none
 * @param options.bundleSequence of the bundle; default 1
 * @param options.lint judges the leaves; default: `lintLeaf` on this thread
 * @throws MeshError `authority_invalid`
 * @see RFC 5280 section 6.1
 */
export function createAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly root: { readonly certificate: Uint8Array };
  readonly intermediate: {
    readonly certificate: Uint8Array;
    readonly key: CaKey;
    readonly upstream?: readonly Uint8Array[];
  };
  readonly profile: Profile;
  readonly randomBytes: RandomBytes;
  readonly refused?: RefusedKeys;
  readonly bundleSequence?: number;
  readonly lint?: LintLeaf;
}): Authority {
  const { trustDomain, profile, randomBytes, refused } = options;
  const { certificate, key, upstream = [] } = options.intermediate;
  const chain = orInvalid(() =>
    checkIssuerChain(
      [certificate, ...upstream, options.root.certificate].map((der) => ({ der, place: nowhere })),
      trustDomain,
    ),
  );
  const issuer = openIssuer(chain.signer.der, key, trustDomain);
  const above = [chain.signer, ...chain.upstream].map(({ der }) => der);
  const signer: LeafSigner = {
    issuer,
    template: createLeafTemplate(issuer),
    profile,
    reservedKeys: new Set(
      [chain.signer, ...chain.upstream, chain.root].map(({ publicKey }) => publicKey.spkiSha256),
    ),
    randomBytes: poolRandom(randomBytes),
    lint: options.lint ?? lintLeaf,
  };
  return {
    trustDomain,
    prepare: (request, now) => {
      if (refused === undefined) return prepareLeaf(signer, request, now);
      const publicKey = asPublicKey(request.publicKey);
      checkRefused(refused, publicKey);
      return prepareLeaf(signer, { ...request, publicKey }, now);
    },
    sign: async (prepared) => {
      const { certificate: leaf, ...signed } = await signLeaf(signer, prepared);
      return { certificates: [leaf, ...above.map((der) => new Uint8Array(der))], ...signed };
    },
    bundle: makeBundle(trustDomain, [chain.root.der], options.bundleSequence ?? 1),
    issuerKeyId: chain.signer.keyId,
    notAfter: new Date(chain.signer.notAfter),
  };
}

function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    return refuseAuthority(`is refused: ${publicError(cause).message}`, cause);
  }
}

/** What was stored has no file with lines. */
const nowhere = { file: 'store', line: 1, column: 1 };

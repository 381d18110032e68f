import { constants, type VerifyKeyObjectInput } from 'node:crypto';

/** How tokens of one `alg` are signed and verified. */
export type JwtAlgorithm = {
  /** The name that node:crypto knows the digest by. */
  readonly hash: string;
  /** Whether a key, described as describeKey does, is of the kind this algorithm needs. */
  readonly fits: (kind: string) => boolean;
  /** What node:crypto is told besides the key. */
  readonly options: Omit<VerifyKeyObjectInput, 'key'>;
  /** How long a signature may be, in octets; with ECDSA there is one length. */
  readonly signatureBytes: { readonly min: number; readonly max: number };
};

const rsaSignature = { min: 256, max: 1_024 };
const pkcs1 = { padding: constants.RSA_PKCS1_PADDING };

/**
 * Every algorithm a JWT-SVID may be signed with, by the value of `alg`. Each needs one kind of key: the elliptic curve of
 * its size, or RSA of 2,048 bits or more (a smaller one may not be used with these, and one of more than 8,192 is slow).
 * @see JWT-SVID section 2.1; RFC 7518 sections 3.3 to 3.5
 */
export const jwtAlgorithms: ReadonlyMap<string, JwtAlgorithm> = new Map(
  (['256', '384', '512'] as const).flatMap((size): [string, JwtAlgorithm][] => {
    const hash = `sha${size}`;
    const curve = { 256: 'ECDSA P-256', 384: 'ECDSA P-384', 512: 'ECDSA P-521' }[size];
    const octets = { 256: 64, 384: 96, 512: 132 }[size];
    const ecdsa = { min: octets, max: octets };
    const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
    const fits = (kind: string): boolean => kind === curve;
    return [
      [`ES${size}`, { hash, fits, options: { dsaEncoding: 'ieee-p1363' }, signatureBytes: ecdsa }],
      [`RS${size}`, { hash, fits: isRsa, options: pkcs1, signatureBytes: rsaSignature }],
      [`PS${size}`, { hash, fits: isRsa, options: pss, signatureBytes: rsaSignature }],
    ];
  }),
);

/**
 * The algorithms that a key, described as describeKey does, may be used with, the most widely known first; none
 * for a key that verifies no tokens.
 */
export function algorithmsOf(kind: string): readonly string[] {
  return [...jwtAlgorithms].flatMap(([name, { fits }]) => (fits(kind) ? [name] : []));
}

function isRsa(kind: string): boolean {
  const bits = kind.startsWith('RSA ') ? Number(kind.slice(4)) : 0;
  return bits >= 2_048 && bits <= 8_192;
}

import { constants, createHash, type KeyObject, sign, verify } from 'node:crypto';

/** How many bytes a challenge has. */
export const challengeBytes = 32;

/**
 * Signs a challenge with the key of the machine: for this purpose and this certificate request alone,
 * so that whoever passes the challenge on gains nothing.
 */
export function answerChallenge(key: KeyObject, asked: Challenge): Uint8Array {
  return new Uint8Array(sign('sha256', toBeSigned(asked), optionsOf(key)));
}

/** Whether the answer was made with the private half of `key`. */
export function provesKey(key: KeyObject, asked: Challenge, answer: Uint8Array): boolean {
  if (answer.length === 0 || answer.length > maxAnswerBytes) return false;
  return verify('sha256', toBeSigned(asked), optionsOf(key), answer);
}

export type Challenge = {
  readonly nonce: Uint8Array;
  /** The request for the node's certificate, as it was sent. */
  readonly csr: Uint8Array;
};

function toBeSigned({ nonce, csr }: Challenge): Uint8Array {
  const digest = createHash('sha256').update(csr).digest();
  return Buffer.concat([Buffer.from(purpose, 'latin1'), nonce, digest]);
}

function optionsOf(key: KeyObject) {
  return key.asymmetricKeyType === 'rsa'
    ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : { key };
}

const purpose = 'countersign x509pop v1\0';
const maxAnswerBytes = 512;

import { createPrivateKey, sign } from 'node:crypto';
import { bitString, objectIdentifier, sequence, tlv, unsignedInteger } from '../ca/der-writer.ts';

/**
 * A PKCS #10 request for an ECDSA key: the public key, the proof that somebody holds the private one, and nothing else.
 * @param publicKey SPKI, DER
 * @param privateKey PKCS #8, DER
 * @see RFC 2986 section 4
 */
export function makeCertificateRequest(publicKey: Uint8Array, privateKey: Uint8Array): Uint8Array {
  const key = createPrivateKey({ key: Buffer.from(privateKey), format: 'der', type: 'pkcs8' });
  const info = sequence(unsignedInteger(Uint8Array.of(0)), sequence(), publicKey, tlv(attributesTag));
  return sequence(info, sequence(objectIdentifier(ecdsaWithSha256)), bitString(sign('sha256', info, key)));
}

const attributesTag = 0xa0;
const ecdsaWithSha256 = '1.2.840.10045.4.3.2';

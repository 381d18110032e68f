import 'reflect-metadata';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { Crypto } from '@peculiar/webcrypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** What to put into the certificate; hex in lower case, keys and certificates in DER. */
export type ReferenceLeaf = {
  readonly uri: string;
  readonly dnsNames: readonly string[];
  readonly spki: Uint8Array;
  readonly subjectKeyId: string;
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/**
 * Makes a function that issues a leaf of our profile with @peculiar/x509: the oracle of the tests and the reference of
 * the benchmark.
 */
export async function makeReferenceIssuer(issuer: {
  readonly certificate: Uint8Array;
  readonly privateKey: Uint8Array;
  readonly keyId: string;
}): Promise<(leaf: ReferenceLeaf) => Promise<Uint8Array>> {
  const crypto = new Crypto();
  const certificate = new X509Certificate(Buffer.from(issuer.certificate));
  const key = createPrivateKey({ key: Buffer.from(issuer.privateKey), format: 'der', type: 'pkcs8' });
  const p384 = key.asymmetricKeyDetails?.namedCurve === 'secp384r1';
  const signingAlgorithm = { name: 'ECDSA', hash: p384 ? 'SHA-384' : 'SHA-256' };
  const signingKey = await crypto.subtle.importKey(
    'pkcs8',
    Uint8Array.from(issuer.privateKey),
    { name: 'ECDSA', namedCurve: p384 ? 'P-384' : 'P-256' },
    false,
    ['sign'],
  );
  return async (leaf) => {
    const made = await X509CertificateGenerator.create(
      {
        serialNumber: leaf.serial,
        issuer: certificate.subjectName,
        subject: '',
        notBefore: leaf.notBefore,
        notAfter: leaf.notAfter,
        publicKey: await crypto.subtle.importKey(
          'spki',
          Uint8Array.from(leaf.spki),
          importParams(leaf.spki),
          true,
          ['verify'],
        ),
        signingKey,
        signingAlgorithm,
        extensions: [
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'], false),
          new BasicConstraintsExtension(false, undefined, true),
          new SubjectKeyIdentifierExtension(leaf.subjectKeyId, false),
          new AuthorityKeyIdentifierExtension(issuer.keyId, false),
          new SubjectAlternativeNameExtension(
            [
              { type: 'url', value: leaf.uri },
              ...leaf.dnsNames.map((value) => ({ type: 'dns' as const, value })),
            ],
            true,
          ),
        ],
      },
      crypto,
    );
    return new Uint8Array(made.rawData);
  };
}

function importParams(spki: Uint8Array) {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  return key.asymmetricKeyType === 'rsa'
    ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
    : { name: 'ECDSA', namedCurve: key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'P-384' : 'P-256' };
}

import 'reflect-metadata';
import { Crypto } from '@peculiar/webcrypto';
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { encodePem } from '../../src/spiffe/pem.ts';
import type { Shown } from '../node/node-certificates.ts';
import { makeKey, type TestAuthority } from '../ca/test-authority.ts';

/** What TLS shows. */
export type OddShown = Pick<Shown, 'certificate' | 'privateKey'>;

/** A leaf as our CA never makes one, signed with the key of our CA, or with its own. */
export async function makeOddLeaf(
  signer: TestAuthority | 'itself',
  uris: readonly string[],
  now: Date,
): Promise<OddShown> {
  const crypto = new Crypto();
  const { pkcs8, spki } = makeKey('ec-prime256v1');
  const curve = { name: 'ECDSA', namedCurve: 'P-256' };
  const own = await crypto.subtle.importKey('pkcs8', Uint8Array.from(pkcs8), curve, false, ['sign']);
  const ca = signer === 'itself' ? undefined : signer.intermediate;
  const made = await X509CertificateGenerator.create(
    {
      serialNumber: '0a0b0c',
      ...(ca === undefined
        ? { issuer: 'CN=nobody', subject: 'CN=nobody' }
        : { issuer: new X509Certificate(Buffer.from(ca.certificate)).subjectName, subject: '' }),
      notBefore: new Date(now.getTime() - 60_000),
      notAfter: new Date(now.getTime() + 3_600_000),
      publicKey: await crypto.subtle.importKey('spki', Uint8Array.from(spki), curve, true, ['verify']),
      signingKey:
        ca === undefined
          ? own
          : await crypto.subtle.importKey('pkcs8', Uint8Array.from(ca.privateKey), curve, false, ['sign']),
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      extensions: [
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new BasicConstraintsExtension(false, undefined, true),
        new SubjectAlternativeNameExtension(
          uris.map((value) => ({ type: 'url' as const, value })),
          true,
        ),
      ],
    },
    crypto,
  );
  const chain = [new Uint8Array(made.rawData), ...(ca === undefined ? [] : [ca.certificate])];
  return {
    certificate: chain.map((der) => encodePem('CERTIFICATE', der)).join(''),
    privateKey: encodePem('PRIVATE KEY', pkcs8),
  };
}

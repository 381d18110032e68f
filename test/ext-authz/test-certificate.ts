import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { encodeCertificate } from './check-input.ts';

/** A certificate with these names and serial 0102, as a proxy sends it. */
export async function makeCertificate(names: x509.JsonGeneralNames): Promise<string> {
  x509.cryptoProvider.set(globalThis.crypto);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '0102',
    name: 'CN=test',
    keys,
    signingAlgorithm: algorithm,
    extensions: names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)],
  });
  return encodeCertificate(made.toString('pem'));
}

import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';

/**
 * What the TLS door is opened with, and what it is renewed with: a renewal replaces all of these, so one that named
 * only the certificate would quietly drop the rest.
 * @param certificate PEM, leaf first
 * @param privateKey PKCS#8 PEM
 */
export function tlsSettings(certificate: string, privateKey: string): SecureContextOptions {
  return {
    cert: certificate,
    key: privateKey,
    minVersion: 'TLSv1.3',
    sessionIdContext: 'countersign-admin',
    // A resumed session would outlive the certificate it was made under.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

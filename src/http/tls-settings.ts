import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';

/** The oldest version of TLS that a door speaks. */
export type OldestTls = 'TLSv1.3' | 'TLSv1.2';

/**
 * What a TLS door is opened with, and what it is renewed with: a renewal replaces all of these, so one that named
 * only the certificate would quietly drop the rest.
 * @param certificate PEM, leaf first
 * @param privateKey PKCS#8 PEM
 * @param oldest TLS 1.2 comes with forward secrecy and authenticated encryption only, and without renegotiation
 */
export function tlsSettings(
  certificate: string,
  privateKey: string,
  oldest: OldestTls = 'TLSv1.3',
): SecureContextOptions {
  return {
    cert: certificate,
    key: privateKey,
    minVersion: oldest,
    ...(oldest === 'TLSv1.2' ? { ciphers: strongCiphers, honorCipherOrder: true } : {}),
    sessionIdContext: 'countersign',
    // A resumed session would outlive the certificate it was made under.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}

const strongCiphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { type Issuer, openIssuer } from '../../src/ca/issuer.ts';
import { openMemoryKey } from '../../src/ca/memory-key.ts';

/** A CA that OpenSSL made, so that a list is not only read by what wrote its issuer. */
export function makeIssuer(kind: string): { readonly issuer: Issuer; readonly pem: string } {
  const dir = mkdtempSync(join(tmpdir(), 'crl-'));
  try {
    const [keyFile, certFile] = [join(dir, 'key.der'), join(dir, 'ca.pem')];
    const curve = kind === 'ecdsa-p384' ? 'P-384' : 'P-256';
    const run = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
    run(
      'genpkey',
      '-algorithm',
      'EC',
      '-pkeyopt',
      `ec_paramgen_curve:${curve}`,
      '-outform',
      'DER',
      '-out',
      keyFile,
    );
    run(
      ...['req', '-x509', '-new', '-key', keyFile, '-keyform', 'DER', '-days', '3650', '-out', certFile],
      ...[
        '-subj',
        '/O=Elsewhere/CN=A CA with a \u00fc',
        '-utf8',
        '-addext',
        'keyUsage=critical,keyCertSign,cRLSign',
      ],
    );
    const pem = readFileSync(certFile, 'utf8');
    const pkcs8 = execFileSync('openssl', [
      'pkcs8',
      '-topk8',
      '-nocrypt',
      '-inform',
      'DER',
      '-in',
      keyFile,
      '-outform',
      'DER',
    ]);
    return { issuer: openIssuer(new Uint8Array(new X509Certificate(pem).raw), openMemoryKey(pkcs8)), pem };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

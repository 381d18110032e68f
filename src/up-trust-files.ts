import { createPrivateKey, X509Certificate } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync, realpathSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { Clock } from './clock.ts';
import { MeshError, publicError, quote } from './errors.ts';
import type { Log } from './log.ts';
import { decodePem, encodePem } from './spiffe/pem.ts';
import { maxKeyFileBytes, readPrivateFile } from './store/key-files.ts';
import type { DoorCertificate } from './up-own-certificate.ts';

/** Where an operator, or what renews certificates for him, puts the certificate of a public door. */
export type CertificateFiles = { readonly certificate: string; readonly privateKey: string };

/**
 * Reads a certificate chain and its key. Links are followed, for that is how such files are swapped; the key must lie in
 * a file of mode 0600 or narrower that is ours or root's.
 * @throws MeshError `file_missing`, `file_permissions`, `config_invalid` when they are no pair
 */
export function readCertificateFiles(files: CertificateFiles): DoorCertificate {
  const certificate = readCertificateFile(files.certificate);
  const privateKey = Buffer.from(readPrivateFile(resolveLinks(files.privateKey))).toString('latin1');
  let fits: boolean;
  try {
    const [leaf] = decodePem(certificate, 'CERTIFICATE', { maxBytes: maxKeyFileBytes });
    fits = new X509Certificate(Buffer.from(leaf ?? [])).checkPrivateKey(createPrivateKey(privateKey));
    // What TLS itself refuses, such as a weak key, is found here and not at the first handshake.
    createSecureContext({ cert: certificate, key: privateKey });
  } catch (cause) {
    throw notAPair(files, 'are no certificate and key that TLS can use', cause);
  }
  if (!fits) throw notAPair(files, 'do not belong together');
  return { certificate, privateKey };
}

/**
 * Looks every few seconds whether the files hold another pair. One that cannot be used is reported once, and the one
 * before it goes on being served.
 * @param read the pair that is served now
 * @param renew takes a new pair
 * @returns stops looking
 */
export function watchCertificateFiles(
  files: CertificateFiles,
  read: DoorCertificate,
  renew: (certificate: DoorCertificate) => void,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): () => void {
  const stop = new AbortController();
  void (async () => {
    let served = read;
    let complaint = '';
    for (;;) {
      await clock.sleep(lookEveryMs, stop.signal);
      if (stop.signal.aborted) return;
      try {
        const next = readCertificateFiles(files);
        const isNew = next.certificate !== served.certificate || next.privateKey !== served.privateKey;
        if (isNew) {
          renew(next);
          served = next;
          log.info(describeCertificate(next), 'the trust endpoint has a new certificate');
        }
        if (complaint !== '' && !isNew)
          log.info({}, 'the certificate files of the trust endpoint are fit again');
        complaint = '';
      } catch (error) {
        const shown = publicError(error);
        if (shown.message === complaint) continue;
        complaint = shown.message;
        log.error(shown, 'the trust endpoint keeps its old certificate: the new one cannot be used');
      }
    }
  })();
  return () => stop.abort();
}

/** What of a certificate helps whoever reads the log. */
export function describeCertificate({ certificate }: DoorCertificate): {
  readonly subject: string;
  readonly until: string;
} {
  const leaf = new X509Certificate(certificate);
  return { subject: quote(leaf.subjectAltName ?? leaf.subject), until: leaf.validTo };
}

function readCertificateFile(path: string): string {
  let fd: number;
  try {
    // Without O_NONBLOCK a FIFO put in its place would hang us.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile() || stats.size > maxKeyFileBytes) {
      throw new MeshError('config_invalid', `${quote(path)} is no file of at most ${maxKeyFileBytes} bytes`, {
        fix: 'set trustTlsCertificate to a PEM file, leaf first',
      });
    }
    // Names before and between the blocks are usual in such files; what is served holds none.
    const text = readFileSync(fd, 'latin1');
    return pemBlocks(text).join('');
  } finally {
    closeSync(fd);
  }
}

/** The certificates of a PEM text, without what stands around them. Time grows in step with the text. */
function pemBlocks(text: string): readonly string[] {
  const [begin, end] = ['-----BEGIN CERTIFICATE-----', '-----END CERTIFICATE-----'];
  const blocks: string[] = [];
  for (let at = text.indexOf(begin); at !== -1; at = text.indexOf(begin, at)) {
    const stop = text.indexOf(end, at);
    if (stop === -1) break;
    const block = `${text.slice(at, stop)}${end}\n`;
    const [der = new Uint8Array()] = decodePem(block, 'CERTIFICATE', { maxBytes: maxKeyFileBytes });
    blocks.push(encodePem('CERTIFICATE', der));
    at = stop + end.length;
  }
  return blocks;
}

function resolveLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): MeshError {
  const isMissing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
  return isMissing
    ? new MeshError('file_missing', `${quote(path)} does not exist`, { cause })
    : new MeshError('file_permissions', `${quote(path)} may not be opened`, {
        cause,
        fix: 'let the user that runs this read it',
      });
}

function notAPair(files: CertificateFiles, why: string, cause?: unknown): MeshError {
  return new MeshError(
    'config_invalid',
    `${quote(files.certificate)} and ${quote(files.privateKey)} ${why}`,
    {
      fix: 'set trustTlsCertificate to a PEM chain, leaf first, and trustTlsKey to its unencrypted PEM key',
      cause,
    },
  );
}

const lookEveryMs = 10_000;

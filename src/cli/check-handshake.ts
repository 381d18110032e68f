import { type PeerCertificate, connect } from 'node:tls';
import { MeshError, quote } from '../errors.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';

/** A TLS door to knock at. */
export type TlsDoor = {
  readonly host: string;
  readonly port: number;
  /** What it must prove: the CAs it chains to, PEM, and its SPIFFE ID. Null for a web certificate, which is only read. */
  readonly proof: { readonly ca: string; readonly spiffeId: string } | null;
  readonly alpn?: readonly string[];
};

/**
 * Shakes hands with a door as a client would; its chain, its dates and its name have to prove it.
 * @returns when its certificate ends
 * @throws MeshError `server_unreachable`, `server_untrusted`
 */
export function shakeHands(door: TlsDoor, timeoutMs: number): Promise<Date> {
  const at = `${door.host}:${door.port}`;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: door.host,
      port: door.port,
      servername: 'localhost',
      minVersion: 'TLSv1.3',
      ...(door.proof === null ? {} : { ca: door.proof.ca }),
      rejectUnauthorized: door.proof !== null,
      ...(door.alpn === undefined ? {} : { ALPNProtocols: [...door.alpn] }),
      checkServerIdentity: (_host, certificate) => refusalOf(certificate, door.proof?.spiffeId),
    });
    const give = (error: MeshError): void => {
      socket.destroy();
      reject(error);
    };
    socket.setTimeout(timeoutMs, () => give(unreachable(at, 'it did not answer in time')));
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const { code = '', message } = error;
      if (error instanceof MeshError) return give(error);
      if (/CERT|SIGNATURE|ISSUER|VERIFY/.test(code)) {
        return give(
          new MeshError(
            'server_untrusted',
            `${quote(at)} shows a certificate that is not to be trusted: ${code}`,
            {
              fix: 'find out what listens there; countersign status shows what should',
              cause: error,
            },
          ),
        );
      }
      return give(unreachable(at, code === '' ? message : code, error));
    });
    socket.once('secureConnect', () => {
      const { valid_to: until } = socket.getPeerCertificate();
      socket.destroy();
      resolve(new Date(until));
    });
  });
}

function refusalOf({ raw }: PeerCertificate, spiffeId: string | undefined): Error | undefined {
  if (spiffeId === undefined) return undefined;
  let shown: string;
  try {
    shown = checkX509SvidLeaf(new Uint8Array(raw)).id.text;
  } catch (error) {
    return error as Error;
  }
  if (shown === spiffeId) return undefined;
  return new MeshError('server_untrusted', `it shows ${quote(shown)}, not ${quote(spiffeId)}`, {
    fix: 'find out what listens there; countersign status shows what should',
  });
}

function unreachable(at: string, why: string, cause?: unknown): MeshError {
  return new MeshError('server_unreachable', `no TLS at ${quote(at)}: ${why}`, {
    fix: 'see the log of the server for why the door is not open',
    cause,
  });
}

import { createHash } from 'node:crypto';
import { connect } from 'node:tls';
import { MeshError, quote } from '../errors.ts';
import { shownBy } from '../grpc/tls-connections.ts';
import { reservedPath } from '../identity/entry-parse.ts';
import { encodePem } from '../spiffe/pem.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';

/** Where a server answers agents. */
export type ServerAddress = { readonly host: string; readonly port: number };

/** What lets an agent in and tells it which server to trust. */
export type JoinSecret = {
  /** 64 lower-case hex digits. */
  readonly secret: string;
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootSha256: string;
};

/** The text that an operator carries to a node: `cst1.<secret>.<SHA-256 of the root>`. */
export function formatJoinSecret({ secret, rootSha256 }: JoinSecret): string {
  return `cst1.${secret}.${rootSha256}`;
}

/** @throws MeshError `node_evidence_invalid` that does not repeat the text, which is a secret */
export function parseJoinSecret(text: string): JoinSecret {
  const [, secret, rootSha256] = /^cst1\.([0-9a-f]{64})\.([0-9a-f]{64})$/.exec(text.trim()) ?? [];
  if (secret !== undefined && rootSha256 !== undefined) return { secret, rootSha256 };
  throw new MeshError('node_evidence_invalid', 'the join token is not of the form cst1.<secret>.<root>', {
    fix: 'copy the whole text that countersign node token create printed',
  });
}

/** What an agent believes of a server before it has a bundle of its own. */
export type ServerTrust = {
  /** CA certificates, DER. */
  readonly roots: readonly Uint8Array[];
  readonly trustDomain: TrustDomain;
};

/**
 * Learns the root and the trust domain of a server from the server itself, and believes the root only if it has the
 * digest that the operator gave: nothing is trusted for having come first. Nothing is sent to the server.
 * @param signal ends it before its time
 * @throws MeshError `server_unreachable`, `server_untrusted`
 */
export async function learnServer(
  at: ServerAddress,
  rootSha256: string,
  now: Date,
  signal?: AbortSignal,
): Promise<ServerTrust> {
  const shown = await fetchChain(at, signal);
  const root = shown.find((der) => createHash('sha256').update(der).digest('hex') === rootSha256);
  if (root === undefined) throw untrusted(at, 'its certificate does not lead to the root that was given');
  const chain = shown.slice(0, shown.indexOf(root));
  const roots = [root];
  const why = whyUntrusted(chain, roots, now, null);
  if (why !== undefined) throw untrusted(at, why);
  const { id } = checkX509SvidLeaf(chain[0] ?? new Uint8Array(0));
  return { roots, trustDomain: id.trustDomain };
}

/** Why a chain, the leaf first, is not that of a server of ours; undefined when it is. */
export function whyUntrusted(
  chain: readonly Uint8Array[],
  roots: readonly Uint8Array[],
  now: Date,
  trustDomain: TrustDomain | null,
): string | undefined {
  try {
    const [first = new Uint8Array(0)] = chain;
    const { id } = checkX509SvidLeaf(first);
    if (trustDomain !== null && !id.memberOf(trustDomain)) {
      return `its certificate is of the trust domain ${quote(id.trustDomain.name)}`;
    }
    // INVARIANT: a workload of the mesh cannot pass for the server.
    if (id.path !== serverPath) return `its certificate is that of ${quote(id.text)}`;
    const { broken } = inspectChain(chain, { authorities: roots, at: now });
    return broken[0] === undefined ? undefined : `its certificate is not valid here: ${broken[0].message}`;
  } catch (error) {
    if (error instanceof MeshError) return error.message;
    throw error;
  }
}

/** CA certificates as TLS wants them. */
export function rootsPem(roots: readonly Uint8Array[]): string {
  return roots.map((der) => encodePem('CERTIFICATE', der)).join('');
}

function fetchChain(
  { host, port }: ServerAddress,
  signal: AbortSignal | undefined,
): Promise<readonly Uint8Array[]> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      ALPNProtocols: ['h2'],
      minVersion: 'TLSv1.3',
      // What it shows is judged by us, and nothing is said before.
      rejectUnauthorized: false,
      timeout: connectMs,
    });
    const end = () => socket.destroy(new Error('stopped'));
    if (signal?.aborted === true) end();
    signal?.addEventListener('abort', end, { once: true });
    socket.once('close', () => signal?.removeEventListener('abort', end));
    const fail = (cause: Error): void => {
      socket.destroy();
      reject(
        new MeshError('server_unreachable', `the server at ${quote(`${host}:${port}`)} does not answer`, {
          fix: 'check its address, and that it runs',
          cause,
        }),
      );
    };
    socket.once('error', fail);
    socket.once('timeout', () => fail(new Error('timeout')));
    socket.once('secureConnect', () => {
      const shown = shownBy(socket);
      socket.destroy();
      resolve(shown);
    });
  });
}

function untrusted({ host, port }: ServerAddress, why: string): MeshError {
  return new MeshError(
    'server_untrusted',
    `the server at ${quote(`${host}:${port}`)} is not trusted: ${why}`,
    {
      fix: 'make a new join token, or take the trust bundle from the server anew',
    },
  );
}

const serverPath = `${reservedPath}server`;
const connectMs = 10_000;

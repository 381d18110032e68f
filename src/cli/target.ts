import { statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import type { GlobalOptions } from './global-options.ts';
import { readText } from './read-text.ts';

/** What finding the server needs of the process. */
export type ClientSurroundings = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly isRoot: boolean;
};

/**
 * The server that the options and the environment name: `--socket`, else `--server` with a token, else the admin socket
 * of this machine.
 * @throws MeshError `usage`, `config_invalid`, `file_missing`, `file_permissions`
 */
export function findTarget(options: GlobalOptions, around: ClientSurroundings): Target {
  if (options.server !== undefined && options.socket !== undefined) {
    throw new MeshError('usage', '--server and --socket name two servers', { fix: 'give one of them' });
  }
  // What stands on the line goes before what stands in the environment.
  const isLocal = options.server === undefined && (options.socket ?? options.dataDir) !== undefined;
  return (isLocal ? undefined : tlsTarget(options, around)) ?? socketTarget(options, around);
}

/** Where the server is, and how to speak to it. */
export type Target = {
  readonly address: string;
  readonly base: RequestOptions;
  readonly headers: Readonly<Record<string, string>>;
  readonly connect: typeof httpRequest | typeof httpsRequest;
};

function socketTarget(options: GlobalOptions, around: ClientSurroundings): Target {
  const { adminSocket } = loadConfig({
    flags: {
      ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
      ...(options.socket === undefined ? {} : { adminSocket: options.socket }),
    },
    environment: around.environment,
    file: options.config ?? null,
    isRoot: around.isRoot,
  });
  return {
    address: adminSocket,
    base: { socketPath: adminSocket, agent: false },
    headers: { host: 'localhost' },
    connect: httpRequest,
  };
}

function tlsTarget(options: GlobalOptions, { environment }: ClientSurroundings): Target | undefined {
  const server = options.server ?? environment['COUNTERSIGN_SERVER'];
  if (server === undefined) return undefined;
  const match = /^https:\/\/(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z.-]+)(?::([0-9]{1,5}))?\/?$/.exec(server);
  if (match?.[1] === undefined) {
    throw new MeshError('usage', `server ${quote(server)} is not a URL like https://host:port`, {
      fix: 'give scheme, host and port only; the admin API speaks TLS and nothing else',
    });
  }
  const credential = readCredential(options, environment);
  const caFile = options.caFile ?? environment['COUNTERSIGN_CA_FILE'];
  return {
    address: server,
    base: {
      host: match[1].replace(/^\[|\]$/g, ''),
      port: Number(match[2] ?? 443),
      minVersion: 'TLSv1.3',
      // Whatever NODE_TLS_REJECT_UNAUTHORIZED says: a token goes to nobody who is not verified.
      rejectUnauthorized: true,
      checkServerIdentity: checkIdentity,
      agent: false,
      ...(caFile === undefined ? {} : { ca: readText(caFile, caFile) }),
      ...credential.tls,
    },
    headers: credential.headers,
    connect: httpsRequest,
  };
}

/**
 * A certificate of the mesh must be the server's own besides: any workload may have been given the name, and would be
 * shown the token.
 */
function checkIdentity(host: string, certificate: PeerCertificate): Error | undefined {
  const [, path] = /URI:spiffe:\/\/[^/,"]*([^,"]*)/.exec(certificate.subjectaltname ?? '') ?? [];
  if (path === undefined || path === serverPath) return checkServerIdentity(host, certificate);
  return new Error('a workload answers there, not the server');
}

type Credential = {
  readonly tls: { readonly cert?: string; readonly key?: string };
  readonly headers: Readonly<Record<string, string>>;
};

/** A certificate and its key, or a token. What stands on the line goes before what stands in the environment. */
function readCredential(options: GlobalOptions, environment: ClientSurroundings['environment']): Credential {
  const { tokenFile, clientCert, clientKey } = options;
  const named = [tokenFile, clientCert ?? clientKey].filter((file) => file !== undefined).length;
  if (named > 1) {
    throw new MeshError('usage', '--token-file and --client-cert name two callers', {
      fix: 'give one of them',
    });
  }
  const token = tokenFile ?? (named > 0 ? undefined : environment['COUNTERSIGN_TOKEN_FILE']);
  const cert = clientCert ?? (token === undefined ? environment['COUNTERSIGN_CLIENT_CERT'] : undefined);
  const key = clientKey ?? (token === undefined ? environment['COUNTERSIGN_CLIENT_KEY'] : undefined);
  if (token !== undefined) return { tls: {}, headers: { authorization: `Bearer ${readToken(token)}` } };
  if (cert !== undefined && key !== undefined) {
    return { tls: { cert: readText(cert, cert), key: readSecret(key, 'key') }, headers: {} };
  }
  throw new MeshError('usage', '--server needs a token, or a certificate and its key', {
    fix: 'give --token-file <file>; countersign token create --out <file> makes one. Or --client-cert and --client-key',
  });
}

function readToken(file: string): string {
  const text = readSecret(file, 'token').trim();
  // The text itself is a secret, so no message may repeat it. An ID token has three parts.
  if (
    !/^ctk_[0-9a-f]{16}_[0-9a-f]{64}$/.test(text) &&
    !/^eyJ[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}$/.test(text)
  ) {
    throw new MeshError('usage', `the file ${quote(file)} holds no token`, {
      fix: 'put the one line that countersign token create printed into it, or an ID token',
    });
  }
  return text;
}

function readSecret(file: string, what: 'token' | 'key'): string {
  const text = readText(file, file);
  // Of what it leads to: a link has the mode of none.
  const found = statSync(file);
  if (found.isFile() && (found.mode & 0o077) !== 0) {
    throw new MeshError('file_permissions', `the ${what} file ${quote(file)} can be read by others`, {
      fix: `run chmod 600 ${file}`,
    });
  }
  return text;
}

/** The path of the server's SPIFFE ID. */
const serverPath = '/countersign/server';

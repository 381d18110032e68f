import { Agent, type ClientRequest, type IncomingMessage } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import { type ErrorCode, errorKinds, MeshError, type Place, quote } from '../errors.ts';
import type { GlobalOptions } from './global-options.ts';
import { type ClientSurroundings, findTarget } from './target.ts';

/** Calls the admin API. Every method rejects with the server's own error, place and fix included. */
export type AdminClient = {
  /** The socket or URL, for people. */
  readonly address: string;
  readonly get: <T>(path: string, query?: Query) => Promise<T>;
  readonly getText: (path: string) => Promise<string>;
  /** For many in a row: they share a few connections. An answer of more than `maxBytes` is none. */
  readonly getBytes: (path: string, maxBytes: number) => Promise<Uint8Array>;
  /** @param waitMs for an answer that takes longer than others */
  readonly post: <T>(path: string, body: unknown, waitMs?: number) => Promise<T>;
  readonly patch: <T>(path: string, body: unknown) => Promise<T>;
  readonly delete: <T>(path: string) => Promise<T>;
};

/** Query parameters; an array repeats its name, undefined leaves it out. */
export type Query = Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * A client for `--server` with a token, or else for the admin socket of this machine.
 * @throws MeshError `usage`, `config_invalid`, `file_missing`, `file_permissions`
 */
export function openAdminClient(options: GlobalOptions, around: ClientSurroundings): AdminClient {
  const { address, base, headers: own, connect } = findTarget(options, around);
  const isTls = base.socketPath === undefined;
  let shared: Agent | undefined;
  const call = async (
    method: string,
    path: string,
    body?: unknown,
    { agent, maxBytes = maxAnswerBytes, waitMs = answerMs }: CallLimits = {},
  ): Promise<Buffer> => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      ...own,
      accept: 'application/json',
      ...(text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': `${Buffer.byteLength(text)}` }),
    };
    const answer = await exchange(
      (done) =>
        connect(
          { ...base, method, path, headers, timeout: waitMs, ...(agent === undefined ? {} : { agent }) },
          done,
        ),
      text,
      maxBytes,
    ).catch((cause: unknown) => {
      throw unreachable(cause, address, isTls);
    });
    if (answer.status >= 200 && answer.status < 300) return answer.body;
    throw refusalOf(answer);
  };
  const json = async <T>(method: string, path: string, body?: unknown, limits?: CallLimits): Promise<T> => {
    const text = (await call(method, path, body, limits)).toString('utf8');
    return (text === '' ? undefined : parseAnswer(text)) as T;
  };
  return {
    address,
    get: (path, query = {}) => json('GET', withQuery(path, query)),
    getText: async (path) => (await call('GET', path)).toString('utf8'),
    getBytes: async (path, maxBytes) => {
      shared ??= new (isTls ? TlsAgent : Agent)({ keepAlive: true, maxSockets: sharedConnections });
      try {
        return await call('GET', path, undefined, { agent: shared, maxBytes });
      } catch (error) {
        // The server may have closed a connection that we were about to use again.
        if (!(error instanceof MeshError) || error.code !== 'server_unreachable') throw error;
        return call('GET', path, undefined, { maxBytes });
      }
    },
    post: (path, body, waitMs = answerMs) => json('POST', path, body, { waitMs }),
    patch: (path, body) => json('PATCH', path, body),
    delete: (path) => json('DELETE', path),
  };
}

type CallLimits = { readonly agent?: Agent; readonly maxBytes?: number; readonly waitMs?: number };
type Answer = { readonly status: number; readonly body: Buffer };
type Send = (done: (response: IncomingMessage) => void) => ClientRequest;

function exchange(send: Send, body: string | undefined, maxBytes: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = send((response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > maxBytes) response.destroy(new Error('the answer is too long'));
        else chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
    });
    request.on('error', reject);
    request.on('timeout', () => request.destroy(new Error('the server did not answer in time')));
    request.end(body);
  });
}

function unreachable(cause: unknown, address: string, isTls: boolean): MeshError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') {
    return new MeshError('forbidden', `you may not use the socket ${quote(address)}`, {
      fix: 'run the command as the user that runs countersign up, or as root',
      cause,
    });
  }
  if (isTls && code?.startsWith('ERR_OSSL_') === true) {
    return new MeshError('input_unreadable', `the certificate, key or CA file cannot be used: ${code}`, {
      fix: 'give --client-cert leaf first, --client-key that belongs to it, and --ca-file, each as PEM',
      cause,
    });
  }
  const why = code === 'ENOENT' || code === 'ECONNREFUSED' ? '' : `: ${code ?? message}`;
  return new MeshError('server_unreachable', `no server answers at ${quote(address)}${why}`, {
    fix: isTls
      ? certificateFix(code)
      : 'is countersign up running, or server, or agent? countersign check says what is there',
    cause,
  });
}

function certificateFix(code: string | undefined): string {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return 'use a name the certificate has, such as https://localhost:port';
  const isTrust = code !== undefined && /CERT|SIGNATURE|ISSUER/.test(code);
  return isTrust
    ? 'give --ca-file with the output of countersign trust-bundle from the server'
    : 'check the address and that the server has adminAddress set';
}

function refusalOf({ status, body }: Answer): MeshError {
  const problem = parseAnswer(body.toString('utf8')) as Partial<Record<string, unknown>> | null;
  const code = problem?.['code'];
  const detail = typeof problem?.['detail'] === 'string' ? problem['detail'] : `status ${status}`;
  const errorId =
    typeof problem?.['errorId'] === 'string' ? ` (id ${problem['errorId']} in the server's log)` : '';
  if (typeof code !== 'string' || !Object.hasOwn(errorKinds, code)) {
    return new MeshError(
      'internal',
      `the server answered in a way this version does not know: ${quote(detail)}`,
    );
  }
  const place = placeOf(problem?.['place']);
  return new MeshError(code as ErrorCode, `${detail}${errorId}`, {
    ...(place === undefined ? {} : { place }),
    ...(typeof problem?.['fix'] === 'string' ? { fix: problem['fix'] } : {}),
  });
}

function placeOf(value: unknown): Place | undefined {
  const place = value as Partial<Place> | undefined;
  const { file, line, column } = place ?? {};
  if (typeof file !== 'string' || typeof line !== 'number' || typeof column !== 'number') return undefined;
  return { file, line, column };
}

function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MeshError('internal', 'the server answered with something that is not JSON', { cause });
  }
}

function withQuery(path: string, query: Query): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map((one) => `${name}=${encodeURIComponent(one)}`),
  );
  return pairs.length === 0 ? path : `${path}?${pairs.join('&')}`;
}

const answerMs = 30_000;
const sharedConnections = 4;
// A page of the log holds at most 1,000 records of 64 KiB.
const maxAnswerBytes = 134_217_728;

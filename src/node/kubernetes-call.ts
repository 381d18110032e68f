import { open } from 'node:fs/promises';
import { request, type RequestOptions } from 'node:https';
import type { HttpsPlace } from './kubernetes-cluster.ts';

/** One question over TLS, and how much is put up with. */
export type HttpsQuestion = {
  readonly at: HttpsPlace;
  readonly method: 'GET' | 'POST';
  /** The whole path: that of the URL counts for nothing here. */
  readonly path: string;
  /** JSON, for a POST. */
  readonly body?: string;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
};

export type HttpsAnswer = { readonly status: number; readonly text: string };

/**
 * Asks once, on a connection of its own; the certificate must be for the host, and redirects are not followed.
 * @throws Error that says why there is no whole answer
 */
export async function askHttps({
  at,
  method,
  path,
  body,
  maxBytes,
  signal,
}: HttpsQuestion): Promise<HttpsAnswer> {
  const [ca, token] = await Promise.all([
    at.caFile === null ? undefined : readBounded(at.caFile, maxFileBytes),
    at.tokenFile === null ? undefined : readBearer(at.tokenFile),
  ]);
  signal.throwIfAborted();
  const options: RequestOptions = {
    host: at.url.hostname.replace(/^\[|\]$/g, ''),
    // A URL leaves out the usual port of its protocol.
    port: at.url.port === '' ? 443 : Number(at.url.port),
    method,
    path,
    agent: false,
    signal,
    minVersion: 'TLSv1.2',
    rejectUnauthorized: true,
    maxHeaderSize: 16_384,
    headers: {
      accept: 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': `${Buffer.byteLength(body)}` }),
    },
    ...(ca === undefined ? {} : { ca }),
  };
  return new Promise((resolve, reject) => {
    const call = request(options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= maxBytes) chunks.push(chunk);
        else response.destroy(new Error(`the answer has more than ${maxBytes} bytes`));
      });
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
      response.once('close', () => reject(new Error('the answer was cut short')));
    });
    call.once('error', reject);
    // INVARIANT: every way out settles; an answer such as 101 ends the call without an error and without a response.
    const unanswered = (): void => reject(new Error('there was no answer'));
    call.once('close', unanswered);
    call.once('response', () => call.off('close', unanswered));
    call.end(body);
  });
}

/** Reads a file that others write, such as a projected one. @throws Error */
export async function readBounded(file: string, maxBytes: number): Promise<string> {
  const handle = await open(file, 'r');
  try {
    // Not by its size: what is no ordinary file has none, and one that grows meanwhile another.
    const buffer = Buffer.alloc(maxBytes + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
      length += bytesRead;
      if (length > maxBytes) throw new Error(`${file} has more than ${maxBytes} bytes`);
      if (bytesRead === 0) return buffer.subarray(0, length).toString('utf8');
    }
  } finally {
    await handle.close();
  }
}

async function readBearer(file: string): Promise<string> {
  const token = (await readBounded(file, maxTokenFileBytes)).trim();
  // What is no token must not break out of the header.
  if (!/^[A-Za-z0-9._~+/=-]+$/.test(token)) throw new Error(`${file} holds no token`);
  return token;
}

const maxFileBytes = 262_144;
const maxTokenFileBytes = 16_384;

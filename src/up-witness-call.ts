import { request as httpRequest, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { WitnessReply } from './audit/gather.ts';
import { readBounded } from './node/kubernetes-call.ts';

/** Where a witness takes checkpoints: its submission prefix, of https, or of http on this machine. */
export type WitnessPlace = { readonly url: URL; readonly caFile: string | null };

/**
 * Reads the URL of a witness.
 * @throws Error that says what is wrong with it
 */
export function parseWitnessUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    url === undefined ||
    url.username !== '' ||
    url.password !== '' ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    throw new Error('is no plain https URL');
  }
  const isHere = /^(127(\.[0-9]{1,3}){3}|\[::1\]|localhost)$/.test(url.hostname);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isHere)) {
    throw new Error('is neither https nor http to this machine');
  }
  return url;
}

/**
 * Shows a checkpoint to a witness, on a connection of its own. Redirects are not followed, and no proxy is asked.
 * @throws Error that says why there is no whole answer
 */
export async function postCheckpoint(
  { url, caFile }: WitnessPlace,
  body: string,
  stop: AbortSignal,
): Promise<WitnessReply> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(answerMs)]);
  const ca = caFile === null ? undefined : await readBounded(caFile, maxFileBytes);
  signal.throwIfAborted();
  const options: RequestOptions & { readonly ca?: string } = {
    method: 'POST',
    agent: false,
    signal,
    maxHeaderSize: 16_384,
    headers: { 'content-type': 'text/plain; charset=utf-8', 'content-length': Buffer.byteLength(body) },
    ...(ca === undefined ? {} : { ca }),
  };
  const at = new URL(`${url.pathname.replace(/\/$/, '')}/add-checkpoint`, url);
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const call = request(at, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= maxAnswerBytes) chunks.push(chunk);
        else response.destroy(new Error(`the answer has more than ${maxAnswerBytes} bytes`));
      });
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
      response.once('close', () => reject(new Error('the answer was cut short')));
    });
    call.once('error', (error) =>
      reject(signal.aborted && !stop.aborted ? new Error(`no answer within ${answerMs / 1_000} s`) : error),
    );
    // INVARIANT: every way out settles; an answer such as 101 ends the call without an error and without a response.
    const unanswered = (): void => reject(new Error('there was no answer'));
    call.once('close', unanswered);
    call.once('response', () => call.off('close', unanswered));
    call.end(body);
  });
}

const answerMs = 5_000;
const maxAnswerBytes = 16_384;
const maxFileBytes = 262_144;

import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { systemClock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';

/** Sends one ExportLogsServiceRequest as JSON, and comes back when the collector has it. */
export type SendLogs = (body: string) => Promise<void>;

/**
 * A sender of logs over OTLP/HTTP: one request at a time, each tried {@link maxTries} times with growing pauses when the
 * collector is away or busy. A collector that says when to come again is not asked sooner, unless that is in more than a
 * minute.
 * @param stop ends the pauses
 * @throws MeshError from each call: `collector_unreachable` when the tries are used up, `collector_refused` for an answer that
 *   trying again does not change, and for records that the collector did not take
 * @see https://opentelemetry.io/docs/specs/otlp/#otlphttp
 */
export function openOtlpSender(url: string, stop?: AbortSignal, pauseMs = firstPauseMs): SendLogs {
  return async (body) => {
    let why = '';
    let askedMs = 0;
    for (let tries = 0; tries < maxTries; tries++) {
      if (tries > 0) await systemClock.sleep(Math.max(askedMs, pauseMs * 2 ** (tries - 1)), stop);
      if (tries > 0 && stop?.aborted === true) break;
      const answer = await post(url, body).catch((error: NodeJS.ErrnoException) => error);
      askedMs = 0;
      if (answer instanceof Error) {
        why = answer.code ?? answer.message;
        continue;
      }
      why = `status ${answer.status}`;
      if (answer.status >= 200 && answer.status < 300) return checkTaken(url, answer.text);
      if (!retried.has(answer.status)) throw refused(url, why);
      askedMs = readRetryAfter(answer.retryAfter, systemClock.now());
    }
    throw new MeshError('collector_unreachable', `the collector at ${quote(url)} did not take logs: ${why}`, {
      fix: 'is it running? With --cursor-file the next run goes on with what it has not taken',
    });
  };
}

/**
 * How long an HTTP `Retry-After` asks to wait, a number of seconds or a date, in ms: 0 for none and for one that is
 * neither, a minute for more than that, so that no collector holds an export up for ever.
 * @see RFC 9110 section 10.2.3
 */
export function readRetryAfter(text: string | undefined, now: Date): number {
  if (text === undefined || text.length > maxRetryAfter) return 0;
  const isSeconds = /^[0-9]+$/.test(text);
  const ms = isSeconds ? Number(text) * 1_000 : isHttpDate.test(text) ? Date.parse(text) - now.getTime() : 0;
  return Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), longestAskedMs);
}

type Answer = {
  readonly status: number;
  readonly text: string;
  readonly retryAfter: string | undefined;
};

function post(url: string, body: string): Promise<Answer> {
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const options = { method: 'POST', agent: false, headers, signal: AbortSignal.timeout(answerMs) };
    const request = send(url, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > maxAnswerBytes) response.destroy(new Error('the answer is too long'));
        else chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          text: Buffer.concat(chunks).toString('utf8'),
          retryAfter: response.headers['retry-after'],
        }),
      );
    });
    request.on('error', reject);
    // INVARIANT: every way out settles; an answer such as 101 ends the request without an error and without a response.
    request.on('close', () => reject(new Error('there was no whole answer')));
    request.end(body);
  });
}

/** A success may be a partial one: what was not taken must not be sent again, and is not to be passed over. */
function checkTaken(url: string, text: string): void {
  let rejected: unknown;
  try {
    const answer = JSON.parse(text) as { partialSuccess?: { rejectedLogRecords?: unknown } } | null;
    rejected = answer?.partialSuccess?.rejectedLogRecords;
  } catch {
    // Collectors may answer with nothing, or in protobuf.
  }
  if (Number(rejected ?? 0) > 0) throw refused(url, `${Number(rejected)} records of a request were rejected`);
}

function refused(url: string, why: string): MeshError {
  return new MeshError(
    'collector_refused',
    `the collector at ${quote(url)} does not take these logs: ${why}`,
    {
      fix: 'see its log; the path is usually /v1/logs',
    },
  );
}

/** How often one request is sent. */
export const maxTries = 6;
const firstPauseMs = 500;
const answerMs = 10_000;
const maxAnswerBytes = 65_536;
const longestAskedMs = 60_000;
const maxRetryAfter = 64;
const isHttpDate = /^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;
// Those that OTLP/HTTP tells to try again.
const retried: ReadonlySet<number> = new Set([429, 502, 503, 504]);

import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { MeshError } from '../errors.ts';
import { addressKey } from '../grpc/address-key.ts';
import { everyAnswer, hasBody } from './hardening.ts';
import { soleHeader } from './origin.ts';
import { problemMediaType, problemOf, type ReportFailure } from './problem.ts';
import type { TrustDocuments } from './trust-documents.ts';
import type { TakeToken } from '../identity/rate-limit.ts';
import { answerWitness, type WitnessDoorPorts, witnessAnswers, witnessPrefix } from './witness-door.ts';

/** What an answer was; a closed set, for counting. */
export const trustAnswers = [
  'bundle',
  'discovery',
  'keys',
  'not_modified',
  ...witnessAnswers,
  'refused',
  'failed',
] as const;
export type TrustAnswer = (typeof trustAnswers)[number];

/** All that the trust endpoint needs of the rest of the house. */
export type TrustPorts = {
  readonly documents: TrustDocuments;
  /** How long an answer may be kept, in seconds. */
  readonly maxAgeSeconds: number;
  readonly takeTurn: TakeToken<string>;
  readonly answered: (answer: TrustAnswer) => void;
  readonly reportFailure: ReportFailure;
  readonly randomBytes: (size: number) => Uint8Array;
  /** Cosigns checkpoints of logs of others; null when none is witnessed. */
  readonly witness?: WitnessDoorPorts | null;
};

/**
 * Answers strangers: public documents, to GET and HEAD, checkpoints of logs that are witnessed, and nothing else. Nobody
 * is asked who they are (SPIFFE Federation, sections 5.2.1.3 and 5.2.2.3), but for a checkpoint no body is read, and what
 * is asked is written nowhere: a flood costs a count.
 */
export function createTrustHandler(ports: TrustPorts): RequestListener {
  return (request, response) => {
    for (const [name, value] of Object.entries(everyAnswer)) response.setHeader(name, value);
    try {
      const path = admit(request, ports);
      if (path.startsWith(witnessPrefix) && (ports.witness ?? null) !== null) {
        void answerWitness(path, request, response, ports.witness as WitnessDoorPorts)
          .catch((error: unknown) => refuse(error, response, ports))
          .then(ports.answered);
        return;
      }
      ports.answered(answer(path, request, response, ports));
    } catch (error) {
      ports.answered(refuse(error, response, ports));
    }
  };
}

/** @returns the path that is asked for */
function admit(request: IncomingMessage, ports: TrustPorts): string {
  if (!ports.takeTurn(addressKey(request.socket.remoteAddress))) {
    throw new MeshError('rate_limited', 'too many requests of this address', {
      fix: `ask again in a few seconds, and then every ${ports.maxAgeSeconds}`,
    });
  }
  if (soleHeader(request, 'host') === undefined && request.httpVersion !== '1.0') {
    throw new MeshError('body_invalid', 'the request has no Host header, or more than one');
  }
  return (request.url ?? '').split('?', 1)[0] ?? '';
}

function answer(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
  ports: TrustPorts,
): TrustAnswer {
  const document = ports.documents().get(path);
  if (document === undefined) {
    throw new MeshError('route_not_found', 'no such route', {
      fix: 'ask for /bundle; docs/trust-endpoint.md has all routes',
    });
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    throw new MeshError('method_not_allowed', 'this can only be read', { fix: 'use GET or HEAD' });
  }
  if (hasBody(request)) {
    throw new MeshError('body_invalid', 'the request has a body, which nobody reads', {
      fix: 'send none',
    });
  }
  response.setHeader('cache-control', `public, max-age=${ports.maxAgeSeconds}`);
  response.setHeader('etag', document.etag);
  if (matches(request.headers['if-none-match'], document.etag)) {
    response.writeHead(304).end();
    return 'not_modified';
  }
  response.setHeader('content-type', 'application/json');
  response.setHeader('content-length', document.body.length);
  response.writeHead(200).end(request.method === 'HEAD' ? undefined : document.body);
  return document.kind;
}

function refuse(error: unknown, response: ServerResponse, ports: TrustPorts): TrustAnswer {
  const problem = problemOf(error, ports.reportFailure, () =>
    Buffer.from(ports.randomBytes(8)).toString('hex'),
  );
  const body = Buffer.from(JSON.stringify(problem), 'utf8');
  response.setHeader('content-type', problemMediaType);
  response.setHeader('content-length', body.length);
  if (problem.status === 429) response.setHeader('retry-after', '5');
  // Nobody reads the body of a refused request: the connection goes, not the bytes.
  response.setHeader('connection', 'close');
  response.writeHead(problem.status).end(body);
  return problem.status >= 500 ? 'failed' : 'refused';
}

/** RFC 9110 section 13.1.2: a list of tags, compared weakly, or `*`. */
function matches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header
    .split(',')
    .map((tag) => tag.trim().replace(/^W\//, ''))
    .some((tag) => tag === '*' || tag === etag);
}

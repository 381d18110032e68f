import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HeldCheckpoint, Witness } from '../audit/witness.ts';
import { MeshError } from '../errors.ts';
import { hasBody } from './hardening.ts';

/** What witnessing needs of the house. */
export type WitnessDoorPorts = Witness & {
  /** Every log that has come; few, for each is configured. */
  readonly heldCheckpoints: () => Promise<readonly HeldCheckpoint[]>;
};

/** What an answer was; a closed set, for counting. */
export const witnessAnswers = ['cosigned', 'conflict', 'witnessed'] as const;

/** Below it stand the submission prefix and the monitoring prefix of the witness: they are one. */
export const witnessPrefix = '/witness/';

/**
 * Answers logs, and whoever watches them. Nobody is asked who they are: what is asked is signed by its log, or nothing
 * is done. What is refused is thrown.
 * @throws MeshError `body_invalid`, `body_too_large`, `witness_log_unknown`, `witness_unsigned`, `witness_inconsistent`,
 *   `route_not_found`, `method_not_allowed`, and what the store throws
 * @see https://c2sp.org/tlog-witness
 */
export async function answerWitness(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
  ports: WitnessDoorPorts,
): Promise<(typeof witnessAnswers)[number]> {
  const name = path.slice(witnessPrefix.length);
  const isSubmission = name === 'add-checkpoint';
  const origin = /^(?<hash>[0-9a-f]{64})\/checkpoint$/.exec(name)?.groups?.['hash'];
  if (!isSubmission && origin === undefined) {
    throw new MeshError('route_not_found', 'no such route', { fix: 'see c2sp.org/tlog-witness' });
  }
  const methods = isSubmission ? ['POST'] : ['GET', 'HEAD'];
  if (!methods.includes(request.method ?? '')) {
    response.setHeader('allow', methods.join(', '));
    throw new MeshError('method_not_allowed', `this takes ${methods.join(' or ')}`);
  }
  return isSubmission
    ? addCheckpoint(request, response, ports)
    : show(origin ?? '', request, response, ports);
}

async function addCheckpoint(
  request: IncomingMessage,
  response: ServerResponse,
  ports: WitnessDoorPorts,
): Promise<'cosigned' | 'conflict'> {
  const answer = await ports.addCheckpoint(await readBody(request, response));
  switch (answer.kind) {
    case 'cosigned':
      send(response, 200, 'text/plain; charset=utf-8', answer.lines);
      return 'cosigned';
    case 'conflict':
      send(response, 409, 'text/x.tlog.size', `${answer.size}\n`);
      return 'conflict';
    case 'malformed':
      throw new MeshError('body_invalid', answer.why, { fix: 'see c2sp.org/tlog-witness' });
    case 'unknown_log':
      throw new MeshError('witness_log_unknown', 'no log of this origin is witnessed here', {
        fix: 'its key belongs into witnessLogs of this server',
      });
    case 'unsigned':
      throw new MeshError('witness_unsigned', 'no key that is known of this log has signed the checkpoint');
    case 'inconsistent':
      throw new MeshError(
        'witness_inconsistent',
        'the checkpoint does not go on from the one that was cosigned before',
        {
          fix: 'send the consistency proof from that size; when it is right, the log has rewritten its history',
        },
      );
    default:
      return answer satisfies never;
  }
}

async function show(
  originHash: string,
  request: IncomingMessage,
  response: ServerResponse,
  { heldCheckpoints }: WitnessDoorPorts,
): Promise<'witnessed'> {
  if (hasBody(request)) {
    throw new MeshError('body_invalid', 'the request has a body, which nobody reads', { fix: 'send none' });
  }
  const held = (await heldCheckpoints()).find(
    ({ origin }) => createHash('sha256').update(origin).digest('hex') === originHash,
  );
  if (held === undefined) {
    throw new MeshError('witness_log_unknown', 'no checkpoint of this log was cosigned here');
  }
  response.setHeader('cache-control', `public, max-age=${maxAgeSeconds}`);
  send(response, 200, 'text/plain; charset=utf-8', held.note, request.method === 'HEAD');
  return 'witnessed';
}

async function readBody(request: IncomingMessage, response: ServerResponse): Promise<Uint8Array> {
  const length = Number(request.headers['content-length'] ?? '0');
  if (length > maxBodyBytes) throw tooLarge();
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue();
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    // Whoever sent too much is told so, on the connection that is still there.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      bytes += (chunk as Buffer).length;
      if (bytes > maxBodyBytes) throw tooLarge();
      chunks.push(chunk as Buffer);
    }
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    // No failure of ours, and nobody is there to be told.
    throw new MeshError('body_invalid', 'the body was cut short', { cause });
  }
  return Buffer.concat(chunks);
}

function tooLarge(): MeshError {
  return new MeshError('body_too_large', `the body is larger than ${maxBodyBytes} bytes`, {
    fix: 'leave out signatures of others',
  });
}

function send(response: ServerResponse, status: number, type: string, text: string, isHead = false): void {
  const body = Buffer.from(text, 'utf8');
  response.setHeader('content-type', type);
  response.setHeader('content-length', body.length);
  response.writeHead(status).end(isHead ? undefined : body);
}

// A proof of 63 hashes, and a note with a few signatures, those of keys that are safe from quantum computers too.
const maxBodyBytes = 32_768;
const maxAgeSeconds = 5;

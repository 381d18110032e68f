import { randomBytes } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { disconnect } from '../grpc/connections.ts';
import type { WatchCredentials, WorkloadCredentials } from '../identity/credentials.ts';
import { type Attest, type Attestation, type UnixPeer, stillHolds } from '../identity/evidence.ts';
import type { DiscoveryRequest } from '../wire/discovery.ts';
import type { SdsObserver, StreamIdentity } from './observer.ts';
import type { Refusals } from '../identity/refusals.ts';
import { encodeResponse } from './response.ts';
import { isBannedName, secretOf, secretTypeUrl, type SecretFormat, svidOf } from './secret.ts';
import {
  type FindResource,
  next,
  openStream,
  type Resource,
  type SentResponse,
  type StreamEffect,
  type StreamEvent,
  type StreamRequest,
} from './stream.ts';

/** How long a stream may keep us waiting. */
export type PipeLimits = {
  /** For its first request. */
  readonly firstRequestMs: number;
  /** For the bytes of a response to leave; then the whole connection is cut. */
  readonly writeMs: number;
  /** For the ACK or NACK of a response when a newer one waits; then the stream is ended, to be opened again. */
  readonly answerMs: number;
};

/** What the streams of a service share. */
export type PipeParts = {
  readonly attest: Attest;
  readonly watch: WatchCredentials;
  readonly refusals: Refusals;
  readonly clock: Clock;
  readonly observer: SdsObserver;
  readonly limits: PipeLimits;
};

/** Responses are encoded by whoever writes them. */
export type SecretCall = ServerDuplexStream<DiscoveryRequest, Buffer>;

/** One stream at work. */
export type Pipe = {
  /** Resolves when the stream has ended in order. @throws MeshError what the stream ends with */
  readonly finished: Promise<void>;
  readonly shutDown: () => void;
};

/**
 * Carries credentials from the watch to one stream, through the protocol's reducer. The caller is attested at its
 * first request, and again before each response that holds a key: if anything about it has changed the stream ends.
 *
 * A stream that was given an identity ends with `identity_banned` when that is banned, so that its client learns of it.
 * SDS cannot take a secret back, and Envoy keeps it and opens the stream again: that one stays open with nothing to say,
 * because a refused one would be retried with a growing delay, and would learn of the end of the ban that much later.
 * @param signal aborts when the call is over
 */
export function openPipe(call: SecretCall, peer: UnixPeer, signal: AbortSignal, parts: PipeParts): Pipe {
  const { clock, observer, limits } = parts;
  const finish = Promise.withResolvers<void>();
  const over = new AbortController();
  let state = openStream(secretTypeUrl, randomBytes(8).toString('hex'));
  let identity: StreamIdentity = { peer, nodeId: '' };
  let attestation: Attestation | undefined;
  let credentials: WorkloadCredentials | undefined;
  let written = new AbortController();
  let answered = new AbortController();

  const end = (error?: unknown): void => {
    over.abort(done);
    written.abort(done);
    answered.abort(done);
    if (error === undefined) finish.resolve();
    else finish.reject(error);
  };
  const step = (event: StreamEvent): void => {
    if (over.signal.aborted) return;
    try {
      const [after, effects] = next(state, event);
      state = after;
      for (const effect of effects) apply(effect);
    } catch (error) {
      end(error);
    }
  };
  const apply = (effect: StreamEffect): void => {
    switch (effect.kind) {
      case 'send':
        void send(effect.response).catch(end);
        return;
      case 'acknowledged':
        answered.abort(done);
        for (const { name, version, content } of effect.response.resources) {
          const what = { name, version, ...(content === undefined ? {} : { content }) };
          observer.acknowledged?.({ ...identity, ...what, at: clock.now() });
        }
        return;
      case 'rejected':
        answered.abort(done);
        observer.rejected?.({ ...identity, names: namesOf(effect.response), message: effect.message });
        return;
      case 'withheld':
        for (const name of effect.names) {
          if (credentials !== undefined && isBannedName(credentials, name)) refuseBanned(name);
          else refuse('identity_none', 'no entry gives the caller this name', name);
        }
        return;
      case 'fail':
        end(new MeshError(effect.code, effect.message));
        return;
      case 'end':
        end();
        return;
      default:
        effect satisfies never;
    }
  };
  const refuse = (
    code: 'identity_none' | 'identity_banned' | 'attestation_failed',
    message: string,
    resource: string,
  ): void => {
    const caller = { pid: peer.pid, uid: peer.uid, gid: peer.gid };
    const selectors = (attestation?.selectors ?? []).map(({ text }) => text);
    parts.refusals.add({ code, message, resource, selectors, caller });
  };
  const refuseBanned = (name: string): void => refuse('identity_banned', 'the identity is banned', name);
  const attest = async (): Promise<Attestation> => {
    try {
      return await parts.attest(peer);
    } catch (error) {
      // A caller that leaves is not refused anything.
      if (!over.signal.aborted && error instanceof MeshError && error.code === 'attestation_failed') {
        refuse('attestation_failed', error.message, '');
      }
      throw error;
    }
  };
  const follow = async (format: SecretFormat): Promise<void> => {
    const found = await attest();
    attestation = found;
    for await (const now of parts.watch(found, over.signal)) {
      const lost = bannedOf(state.sent, credentials, now);
      credentials = now;
      if (lost !== undefined) {
        refuseBanned(lost);
        throw new MeshError('identity_banned', 'the identity is banned', {
          fix: 'ask an operator, who sees why with `countersign ban list`',
        });
      }
      step({ kind: 'resources', find: remember(now, format) });
    }
    end();
  };
  const send = async (response: SentResponse): Promise<void> => {
    if (response.resources.some(({ holdsKey }) => holdsKey)) await confirm();
    if (over.signal.aborted) return;
    for (const { name, content } of response.resources) {
      const what = { name, ...(content === undefined ? {} : { content }) };
      observer.delivering?.({ ...identity, ...what, at: clock.now() });
    }
    const leaving = new AbortController();
    written = leaving;
    call.write(encodeResponse(response), () => leaving.abort(done));
    observer.pushed?.({ ...identity, names: namesOf(response), version: response.version });
    answered = new AbortController();
    void expectWritten(leaving.signal);
    await expectAnswer(answered.signal);
  };
  const confirm = async (): Promise<void> => {
    const now = await attest();
    if (peer.isAlive() && attestation !== undefined && stillHolds(attestation, now)) return;
    const message = 'the caller has changed since the stream was opened';
    refuse('attestation_failed', message, '');
    throw new MeshError('attestation_failed', message, { fix: 'open the stream again' });
  };
  const expectWritten = async (leaving: AbortSignal): Promise<void> => {
    await clock.sleep(limits.writeMs, leaving);
    if (leaving.aborted || over.signal.aborted) return;
    // An orderly end would wait behind the bytes that do not move.
    disconnect(peer);
    end(new MeshError('stream_stalled', 'the stream does not read what it is sent'));
  };
  const expectAnswer = async (answer: AbortSignal): Promise<void> => {
    while (!answer.aborted) {
      await clock.sleep(limits.answerMs, answer);
      if (!answer.aborted) step({ kind: 'overdue' });
    }
  };
  const expectFirst = async (first: AbortSignal): Promise<void> => {
    await clock.sleep(limits.firstRequestMs, first);
    if (!first.aborted) end(new MeshError('stream_stalled', 'the stream asks for nothing'));
  };

  const first = new AbortController();
  signal.addEventListener('abort', () => {
    first.abort(done);
    end();
  });
  call.on('data', (request: DiscoveryRequest) => {
    const opens = !first.signal.aborted;
    first.abort(done);
    // Only the first request names the node; what a later one says of it does not count.
    if (opens) identity = { peer, nodeId: (request.node?.id ?? '').slice(0, maxNodeIdLength) };
    step({ kind: 'request', request: fromWire(request) });
    if (opens && !over.signal.aborted) void follow(formatOf(request)).catch(end);
  });
  call.on('end', () => {
    first.abort(done);
    end();
  });
  void expectFirst(first.signal);
  return { finished: finish.promise, shutDown: () => step({ kind: 'shutdown' }) };
}

/** The name under which a stream was given an identity that has been banned since. */
function bannedOf(
  sent: SentResponse | undefined,
  before: WorkloadCredentials | undefined,
  { banned }: WorkloadCredentials,
): string | undefined {
  if (sent === undefined || before === undefined || banned.length === 0) return undefined;
  const isBanned = ({ name, holdsKey }: Resource): boolean => {
    const given = holdsKey ? svidOf(before, name) : undefined;
    return given !== undefined && banned.some((id) => id.equals(given.id));
  };
  return sent.resources.find(isBanned)?.name;
}

/** Makes each secret once for one state of the credentials, however often the reducer asks. */
function remember(credentials: WorkloadCredentials, format: SecretFormat): FindResource {
  const made = new Map<string, Resource | undefined>();
  return (name) => {
    if (!made.has(name)) made.set(name, secretOf(credentials, name, format));
    return made.get(name);
  };
}

function formatOf({ node }: DiscoveryRequest): SecretFormat {
  const wish: unknown = node?.metadata?.['disable_spiffe_cert_validation'];
  return { plainTrustedCa: wish === true || wish === 'true' };
}

function fromWire(request: DiscoveryRequest): StreamRequest {
  return {
    typeUrl: request.typeUrl,
    names: request.resourceNames,
    nonce: request.responseNonce,
    rejection: request.errorDetail?.message,
  };
}

function namesOf({ resources }: SentResponse): readonly string[] {
  return resources.map(({ name }) => name);
}

const maxNodeIdLength = 256;
// Without a reason each abort makes an error with a stack of its own.
const done = 'done';

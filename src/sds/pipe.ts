import { hash, randomBytes } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { disconnect } from '../grpc/connections.ts';
import { type Attestation, type CallerEvidence, type Peer, stillHolds } from '../identity/evidence.ts';
import type { Refusals } from '../identity/refusals.ts';
import {
  type AggregateEffect,
  type AggregateEvent,
  givenOf,
  nextAggregate,
  openAggregate,
} from './aggregate.ts';
import { createDeadlines, type Deadlines } from './deadlines.ts';
import type { Form, WireRequest } from './form.ts';
import type { SdsObserver, StreamIdentity } from './observer.ts';
import { isGivenStill, type SentResponse } from './resource.ts';
import type { FollowOffers, Offer, RefusalReason, ResourceSource } from './source.ts';

/** How long a stream may keep us waiting. */
export type PipeLimits = {
  /** For its first request. */
  readonly firstRequestMs: number;
  /** For the bytes of a response to leave; then the whole connection is cut. */
  readonly writeMs: number;
  /** For the ACK or NACK of a response when a newer one waits; then the stream is ended, to be opened again. */
  readonly answerMs: number;
};

/** The waits of all streams. */
export type PipeDeadlines = Readonly<Record<'first' | 'write' | 'answer', Deadlines>>;

/** What the streams of a service share. */
export type PipeParts = {
  readonly attest: (peer: Peer) => Promise<Attestation>;
  readonly refusals: Refusals;
  readonly clock: Clock;
  readonly observer: SdsObserver;
  /** Told of requests for kinds of resource that nobody here has. */
  readonly ignored: (stream: StreamIdentity, typeUrl: string) => void;
  /** One for each of {@link PipeLimits}, shared by all streams. */
  readonly deadlines: PipeDeadlines;
};

/** What one stream may carry. */
export type Cargo = { readonly sources: readonly ResourceSource[]; readonly isAggregated: boolean };

/** Responses are encoded by whoever writes them. */
export type PipeCall<Wire> = ServerDuplexStream<Wire, Buffer>;

/** One stream at work. */
export type Pipe = {
  /** Resolves when the stream has ended in order. @throws MeshError what the stream ends with */
  readonly finished: Promise<void>;
  readonly shutDown: () => void;
};

/**
 * Carries resources from their sources to one stream, through the reducers of its protocol. The caller is attested at
 * its first request, and again before each response that holds a key: if anything about it has changed the stream ends.
 *
 * A stream that was given an identity ends with `identity_banned` when that is banned, so that its client learns of it.
 * SDS cannot take a secret back, and Envoy keeps it and opens the stream again: that one stays open with nothing to say,
 * because a refused one would be retried with a growing delay, and would learn of the end of the ban that much later.
 * @param signal aborts when the call is over
 */
export function openPipe<Wire extends WireRequest, State, Request>(
  call: PipeCall<Wire>,
  peer: Peer,
  signal: AbortSignal,
  form: Form<Wire, State, Request>,
  { sources, isAggregated }: Cargo,
  parts: PipeParts,
): Pipe {
  const { clock, observer, deadlines } = parts;
  const typeUrls = sources.map(({ typeUrl }) => typeUrl);
  const seed = randomBytes(16).toString('hex');
  const nonceOf = (kind: number, response: number): string =>
    hash('sha256', `${seed} ${kind} ${response}`, 'hex').slice(0, 32);
  const rules = { typeUrls, isAggregated, nonceOf };
  const finish = Promise.withResolvers<void>();
  const over = new AbortController();
  const followers = new Map<string, FollowOffers>();
  const offers = new Map<string, Offer>();
  /** By kind, what ends the waits for the response in flight: at most one of each. */
  const [leaving, unanswered] = [new Map<string, () => void>(), new Map<string, () => void>()];
  let state = openAggregate<State>();
  let identity: StreamIdentity = { peer, nodeId: '' };
  let attestation: Attestation | undefined;
  let attesting: Promise<Attestation> | undefined;

  const end = (error?: unknown): void => {
    over.abort(done);
    asked();
    for (const stop of [...leaving.values(), ...unanswered.values()]) stop();
    if (error === undefined) finish.resolve();
    else finish.reject(error);
  };
  const step = (event: AggregateEvent<Request>): void => {
    if (over.signal.aborted) return;
    try {
      const [after, effects] = nextAggregate(form.protocol, rules, state, event);
      state = after;
      for (const effect of effects) apply(effect);
    } catch (error) {
      end(error);
    }
  };
  const apply = (effect: AggregateEffect): void => {
    switch (effect.kind) {
      case 'opened':
        void follow(effect.typeUrl).catch(end);
        return;
      case 'send':
        void send(effect.response, effect.typeUrl).catch(end);
        return;
      case 'acknowledged':
        // What a client has from before this stream answers nothing.
        if (effect.nonce !== '') unanswered.get(effect.typeUrl)?.();
        for (const { name, version, content } of effect.resources) {
          const what = { name, version, ...(content === undefined ? {} : { content }) };
          observer.acknowledged?.({ ...identity, ...what, at: clock.now() });
        }
        return;
      case 'rejected':
        unanswered.get(effect.typeUrl)?.();
        observer.rejected?.({ ...identity, names: namesOf(effect.response), message: effect.message });
        return;
      case 'withheld': {
        const offer = offers.get(effect.typeUrl);
        for (const name of effect.names) if (offer !== undefined) refuse(offer.reasonFor(name), name);
        return;
      }
      case 'ignored':
        parts.ignored(identity, effect.typeUrl);
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
    { code, message }: RefusalReason | { readonly code: 'attestation_failed'; readonly message: string },
    resource: string,
  ): void => {
    const selectors = (attestation?.selectors ?? []).map(({ text }) => text);
    parts.refusals.add({ code, message, resource, selectors, caller: evidenceOf(peer) });
  };
  const attest = async (): Promise<Attestation> => {
    try {
      return await parts.attest(peer);
    } catch (error) {
      // A caller that leaves is not refused anything.
      if (!over.signal.aborted && error instanceof MeshError && error.code === 'attestation_failed') {
        refuse({ code: 'attestation_failed', message: error.message }, '');
      }
      throw error;
    }
  };
  const follow = async (typeUrl: string): Promise<void> => {
    const offersOf = followers.get(typeUrl);
    if (offersOf === undefined) throw new MeshError('internal', 'a kind of resource has no source');
    // The kinds of one stream have one caller.
    const found = await (attesting ??= attest());
    attestation = found;
    for await (const offer of offersOf(found, over.signal)) {
      offers.set(typeUrl, offer);
      const lost = offer.bannedOf(givenOf(form.protocol, state, typeUrl));
      if (lost !== undefined) {
        refuse({ code: 'identity_banned', message: 'the identity is banned' }, lost);
        throw new MeshError('identity_banned', 'the identity is banned', {
          fix: 'ask an operator, who sees why with `countersign ban list`',
        });
      }
      step({ kind: 'resources', typeUrl, find: offer.find });
    }
    end();
  };
  const send = async (response: SentResponse, typeUrl: string): Promise<void> => {
    if (response.resources.some(({ holdsKey }) => holdsKey)) await confirm(response, typeUrl);
    if (over.signal.aborted) return;
    for (const { name, content } of response.resources) {
      const what = { name, ...(content === undefined ? {} : { content }) };
      observer.delivering?.({ ...identity, ...what, at: clock.now() });
    }
    const written = deadlines.write.expect(onUnwritten);
    leaving.set(typeUrl, written);
    expectAnswer(typeUrl);
    call.write(form.encode(response, typeUrl), written);
    observer.pushed?.({ ...identity, names: namesOf(response), version: response.version });
  };
  const confirm = async ({ resources }: SentResponse, typeUrl: string): Promise<void> => {
    const now = await attest();
    if (!peer.isAlive() || attestation === undefined || !stillHolds(attestation, now)) {
      const message = 'the caller has changed since the stream was opened';
      refuse({ code: 'attestation_failed', message }, '');
      throw new MeshError('attestation_failed', message, { fix: 'open the stream again' });
    }
    const find = offers.get(typeUrl)?.find;
    // INVARIANT: what was taken away while the caller was attested again does not leave.
    if (!resources.every((resource) => isGivenStill(resource, find))) {
      throw new MeshError('credentials_pending', 'what the caller may have has changed meanwhile', {
        fix: 'open the stream again',
      });
    }
  };
  const onUnwritten = (): void => {
    if (over.signal.aborted) return;
    // An orderly end would wait behind the bytes that do not move.
    disconnect(peer);
    end(new MeshError('stream_stalled', 'the stream does not read what it is sent'));
  };
  const expectAnswer = (typeUrl: string): void => {
    const stop = deadlines.answer.expect(() => {
      if (over.signal.aborted) return;
      expectAnswer(typeUrl);
      step({ kind: 'overdue', typeUrl });
    });
    unanswered.set(typeUrl, stop);
  };

  const asked = deadlines.first.expect(() => {
    end(new MeshError('stream_stalled', 'the stream asks for nothing'));
  });
  let isFirst = true;
  signal.addEventListener('abort', () => end());
  call.on('data', (request: Wire) => {
    // Only the first request names the node; what a later one says of it does not count.
    if (isFirst) {
      const { node } = request;
      identity = { peer, nodeId: nodeIdOf(node) };
      for (const { typeUrl, forNode } of sources) followers.set(typeUrl, forNode(node));
    }
    isFirst = false;
    asked();
    step({ kind: 'request', typeUrl: request.typeUrl, request: form.read(request) });
  });
  call.on('end', () => end());
  return { finished: finish.promise, shutDown: () => step({ kind: 'shutdown' }) };
}

/** The waits of a service, one timer for each of the limits. */
export function createPipeDeadlines(clock: Clock, limits: PipeLimits): PipeDeadlines {
  const { firstRequestMs, writeMs, answerMs } = limits;
  return {
    first: createDeadlines(clock, firstRequestMs),
    write: createDeadlines(clock, writeMs),
    answer: createDeadlines(clock, answerMs),
  };
}

/** Who a caller is, for the record. */
export function evidenceOf(peer: Peer): CallerEvidence {
  const { pid, uid, gid } = peer;
  return { pid, uid, gid, ...(peer.kind === 'certified' ? { certificate: peer.presented.serial } : {}) };
}

/** What a client calls itself, the beginning of it. */
export function nodeIdOf(node: WireRequest['node']): string {
  // A copy: a slice would keep all that it was cut from, as long as anybody keeps the slice.
  return Buffer.from((node?.id ?? '').slice(0, maxNodeIdLength)).toString();
}

function namesOf({ resources }: SentResponse): readonly string[] {
  return resources.map(({ name }) => name);
}

const maxNodeIdLength = 256;
// Without a reason each abort makes an error with a stack of its own.
const done = 'done';

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
import { newNonce } from './nonce.ts';
import type { SdsObserver, StreamIdentity } from './observer.ts';
import { isGivenStill, type Resource, type SentResponse } from './resource.ts';
import type { FollowOffers, Offer, RefusalReason, ResourceSource } from './source.ts';
import type { Turn } from './turn.ts';

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
export type PipeParts = Turn & {
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
  /** Ends the stream in order. */
  readonly shutDown: () => void;
  /** The call is over: whatever waits for it ends, and nothing is sent. */
  readonly leave: () => void;
};

/** How a stream stands with one kind of resource. */
type Kind = {
  readonly follow: FollowOffers;
  stop: (() => void) | undefined;
  offer: Offer | undefined;
  /** What ends the waits for the response in flight: for its bytes to leave, and for its answer. */
  leaving: (() => void) | undefined;
  unanswered: (() => void) | undefined;
};

/**
 * Carries resources from their sources to one stream, through the reducers of its protocol. The caller is attested at
 * its first request, and again before each response that holds a key: if anything about it has changed the stream ends.
 *
 * A stream that was given an identity ends with `identity_banned` when that is banned, so that its client learns of it.
 * SDS cannot take a secret back, and Envoy keeps it and opens the stream again: that one stays open with nothing to say,
 * because a refused one would be retried with a growing delay, and would learn of the end of the ban that much later.
 *
 * Whatever is known at once is done at once: where the caller was seen in this turn of the event loop, and what it may have
 * is there, its first request is answered before the next is looked at, and nothing is awaited.
 * @param finish called once, with the MeshError that the stream ends with, or with nothing
 */
export function openPipe<Wire extends WireRequest, State, Request>(
  call: PipeCall<Wire>,
  peer: Peer,
  form: Form<Wire, State, Request>,
  { sources, isAggregated }: Cargo,
  parts: PipeParts,
  finish: (error?: unknown) => void,
): Pipe {
  const { clock, observer, deadlines } = parts;
  const rules = { typeUrls: sources.map(({ typeUrl }) => typeUrl), isAggregated, nonceOf: newNonce };
  const kinds = new Map<string, Kind>();
  let state = openAggregate<State>();
  let identity: StreamIdentity = { peer, nodeId: '' };
  let attestation: Attestation | undefined;
  let attesting: Attestation | Promise<Attestation> | undefined;
  let isOver = false;
  /** What happens while something else is being done. */
  const waiting: AggregateEvent<Request>[] = [];
  let isStepping = false;

  const end = (error?: unknown): void => {
    if (isOver) return;
    isOver = true;
    asked();
    for (const { stop, leaving, unanswered } of kinds.values()) {
      stop?.();
      leaving?.();
      unanswered?.();
    }
    finish(error);
  };
  const step = (first: AggregateEvent<Request>): void => {
    // INVARIANT: one event after the other, each with all that follows from it.
    if (isStepping) return void waiting.push(first);
    isStepping = true;
    try {
      for (let event: typeof first | undefined = first; event !== undefined; event = waiting.shift()) {
        if (isOver) break;
        const [after, effects] = nextAggregate(form.protocol, rules, state, event);
        state = after;
        for (const effect of effects) apply(effect);
      }
    } catch (error) {
      end(error);
    } finally {
      isStepping = false;
    }
  };
  const apply = (effect: AggregateEffect): void => {
    switch (effect.kind) {
      case 'opened':
        whenDone(attestFirst(), (found) => follow(effect.typeUrl, found));
        return;
      case 'send':
        send(effect.response, effect.typeUrl);
        return;
      case 'acknowledged':
        // What a client has from before this stream answers nothing.
        if (effect.nonce !== '') kinds.get(effect.typeUrl)?.unanswered?.();
        tellAcknowledged(effect.resources, kinds.get(effect.typeUrl));
        return;
      case 'rejected':
        kinds.get(effect.typeUrl)?.unanswered?.();
        tellRejected(effect.response, effect.message, kinds.get(effect.typeUrl));
        return;
      case 'withheld': {
        const offer = kinds.get(effect.typeUrl)?.offer;
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
  const tellAcknowledged = (resources: readonly Resource[], kind: Kind | undefined): void => {
    if (kind?.offer?.told !== undefined) return kind.offer.told.acknowledged(resources);
    const at = clock.now();
    for (const { name, version, content } of resources) {
      const what = content === undefined ? { name, version } : { name, version, content };
      observer.acknowledged?.({ peer, nodeId: identity.nodeId, ...what, at });
    }
  };
  const tellRejected = (response: SentResponse, message: string, kind: Kind | undefined): void => {
    if (kind?.offer?.told !== undefined) return kind.offer.told.rejected(response, message);
    observer.rejected?.({ ...identity, names: namesOf(response), message });
  };
  /** Goes on at once with what is there. */
  const whenDone = <T>(value: T | Promise<T>, go: (value: T) => void): void => {
    if (value instanceof Promise) void value.then(go).catch(end);
    else go(value);
  };
  const unattested = (error: unknown): never => {
    // A caller that leaves is not refused anything.
    if (!isOver && error instanceof MeshError && error.code === 'attestation_failed') {
      refuse({ code: 'attestation_failed', message: error.message }, '');
    }
    throw error;
  };
  const attest = (): Attestation | Promise<Attestation> => {
    try {
      const found = parts.attest(peer);
      return found instanceof Promise ? found.catch(unattested) : found;
    } catch (error) {
      return unattested(error);
    }
  };
  // The kinds of one stream have one caller.
  const attestFirst = (): Attestation | Promise<Attestation> => (attesting ??= attest());
  const follow = (typeUrl: string, found: Attestation): void => {
    if (isOver) return;
    const kind = kinds.get(typeUrl);
    if (kind === undefined) throw new MeshError('internal', 'a kind of resource has no source');
    attestation = found;
    const offered = (offer: Offer): void => {
      if (isOver) return;
      kind.offer = offer;
      const lost = offer.bannedOf(givenOf(form.protocol, state, typeUrl));
      if (lost === undefined) return step({ kind: 'resources', typeUrl, find: offer.find });
      refuse({ code: 'identity_banned', message: 'the identity is banned' }, lost);
      end(
        new MeshError('identity_banned', 'the identity is banned', {
          fix: 'ask an operator, who sees why with `countersign ban list`',
        }),
      );
    };
    const beat = (hasLapsed: boolean): void => step({ kind: 'beat', typeUrl, hasLapsed });
    kind.stop = kind.follow(found, { offered, failed: end, ended: end, beat });
    // It may have ended with the very first offer.
    if (over()) kind.stop();
  };
  const over = (): boolean => isOver;
  const send = (response: SentResponse, typeUrl: string): void => {
    if (!response.resources.some(({ holdsKey }) => holdsKey)) return write(response, typeUrl);
    return whenDone(attest(), (now) => {
      confirm(response, typeUrl, now);
      write(response, typeUrl);
    });
  };
  const write = (response: SentResponse, typeUrl: string): void => {
    const kind = kinds.get(typeUrl);
    if (isOver || kind === undefined) return;
    const { told, ttlSeconds } = kind.offer ?? {};
    if (told === undefined) tellDelivering(response);
    kind.leaving = deadlines.write.expect(onUnwritten);
    expectAnswer(kind, typeUrl);
    call.write(form.encode(response, typeUrl, ttlSeconds?.()), kind.leaving);
    if (told !== undefined) told.pushed(response);
    else observer.pushed?.({ ...identity, names: namesOf(response), version: response.version });
  };
  const tellDelivering = ({ resources }: SentResponse): void => {
    const at = clock.now();
    for (const { name, content } of resources) {
      const what = content === undefined ? { name } : { name, content };
      observer.delivering?.({ peer, nodeId: identity.nodeId, ...what, at });
    }
  };
  const confirm = ({ resources }: SentResponse, typeUrl: string, now: Attestation): void => {
    if (isOver) return;
    if (!parts.isAlive(peer, now) || attestation === undefined || !stillHolds(attestation, now)) {
      const message = 'the caller has changed since the stream was opened';
      refuse({ code: 'attestation_failed', message }, '');
      throw new MeshError('attestation_failed', message, { fix: 'open the stream again' });
    }
    const find = kinds.get(typeUrl)?.offer?.find;
    // INVARIANT: what was taken away while the caller was attested again does not leave.
    if (!resources.every((resource) => isGivenStill(resource, find))) {
      throw new MeshError('credentials_pending', 'what the caller may have has changed meanwhile', {
        fix: 'open the stream again',
      });
    }
  };
  const onUnwritten = (): void => {
    if (isOver) return;
    // An orderly end would wait behind the bytes that do not move.
    disconnect(peer);
    end(new MeshError('stream_stalled', 'the stream does not read what it is sent'));
  };
  const expectAnswer = (kind: Kind, typeUrl: string): void => {
    kind.unanswered = deadlines.answer.expect(() => {
      if (isOver) return;
      kind.offer?.told?.unanswered();
      expectAnswer(kind, typeUrl);
      step({ kind: 'overdue', typeUrl });
    });
  };

  const asked = deadlines.first.expect(() => {
    end(new MeshError('stream_stalled', 'the stream asks for nothing'));
  });
  call.on('data', (request: Wire) => {
    if (isOver) return;
    // Only the first request names the node; what a later one says of it does not count.
    if (kinds.size === 0) {
      const { node } = request;
      identity = { peer, nodeId: nodeIdOf(node) };
      for (const source of sources) kinds.set(source.typeUrl, kindOf(source, node));
      asked();
    }
    step({ kind: 'request', typeUrl: request.typeUrl, request: form.read(request) });
  });
  const close = (): void => end();
  call.on('end', close);
  return { shutDown: () => step({ kind: 'shutdown' }), leave: close };
}

function kindOf(source: ResourceSource, node: WireRequest['node']): Kind {
  return {
    follow: source.forNode(node),
    stop: undefined,
    offer: undefined,
    leaving: undefined,
    unanswered: undefined,
  };
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
  const id = node?.id ?? '';
  if (id.length <= maxNodeIdLength) return id;
  // A copy: a slice would keep all that it was cut from, as long as anybody keeps the slice.
  return Buffer.from(id.slice(0, maxNodeIdLength)).toString();
}

function namesOf({ resources }: SentResponse): readonly string[] {
  return resources.map(({ name }) => name);
}

const maxNodeIdLength = 256;

import { createHash } from 'node:crypto';
import { type ErrorCode, MeshError, quote } from '../errors.ts';
import type { SecretContent } from '../identity/coverage.ts';

/** The most names one stream may ask for, and the most bytes of each. */
export const maxNames = 100;
export const maxNameBytes = 2_048;

/** One named, versioned thing that a stream can be sent. */
export type Resource = {
  readonly name: string;
  /** Follows from the content: equal content has an equal version, in the next process as well. */
  readonly version: string;
  /** Whether it carries a private key. */
  readonly holdsKey: boolean;
  /** The encoded resource. */
  readonly value: Buffer;
  /** What a rotation of the CA has to know of it; absent when it is nothing of ours. */
  readonly content?: SecretContent;
};

/** What the caller may have now, by name. Pure: the same name always finds the same resource. */
export type FindResource = (name: string) => Resource | undefined;

/** A request of the client, without its node. */
export type StreamRequest = {
  readonly typeUrl: string;
  readonly names: readonly string[];
  readonly nonce: string;
  /** The message of `error_detail`, undefined when there is none: that alone tells a NACK from an ACK. */
  readonly rejection: string | undefined;
};

export type StreamEvent =
  | { readonly kind: 'request'; readonly request: StreamRequest }
  | { readonly kind: 'resources'; readonly find: FindResource }
  /** The client has left the last response without an answer for too long. */
  | { readonly kind: 'overdue' }
  | { readonly kind: 'shutdown' };

/** A response as it was sent. */
export type SentResponse = {
  readonly nonce: string;
  readonly version: string;
  readonly resources: readonly Resource[];
};

export type StreamEffect =
  | { readonly kind: 'send'; readonly response: SentResponse }
  | { readonly kind: 'acknowledged'; readonly response: SentResponse }
  | { readonly kind: 'rejected'; readonly response: SentResponse; readonly message: string }
  /** Names that the caller asks for and may not have, each told once until it becomes available. */
  | { readonly kind: 'withheld'; readonly names: readonly string[] }
  | { readonly kind: 'fail'; readonly code: ErrorCode; readonly message: string }
  | { readonly kind: 'end' };

export type StreamState = {
  readonly typeUrl: string;
  readonly noncePrefix: string;
  readonly phase: 'new' | 'open' | 'ended';
  /** What the client asks for, in its order, without duplicates. */
  readonly names: readonly string[];
  readonly find: FindResource | undefined;
  readonly withheld: ReadonlySet<string>;
  readonly responses: number;
  /** The last response. */
  readonly sent: SentResponse | undefined;
  /** INVARIANT: true only between a response and its ACK or NACK; meanwhile nothing is sent. */
  readonly awaiting: boolean;
  /** The content that the client refused last; it is not offered again. */
  readonly refused: string | undefined;
  /** The names have changed since the last response, so the client is owed one even if the content has not. */
  readonly owed: boolean;
};

/**
 * A stream before its first request.
 * @param noncePrefix unguessable, so that a client can only name responses it was sent
 */
export function openStream(typeUrl: string, noncePrefix: string): StreamState {
  return {
    typeUrl,
    noncePrefix,
    phase: 'new',
    names: [],
    find: undefined,
    withheld: new Set(),
    responses: 0,
    sent: undefined,
    awaiting: false,
    refused: undefined,
    owed: false,
  };
}

/**
 * The state-of-the-world xDS protocol for one stream of one type, as a pure reducer. The first request is answered
 * whatever version it brings; requests with another nonce than the last are ignored; a refused content is not sent
 * again until it changes; one response is in flight at a time, and what changes meanwhile is folded into the next.
 * A name that is not available is left out, and pushed when it is; a response is never empty.
 * @see https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
 */
export function next(
  state: StreamState,
  event: StreamEvent,
): readonly [StreamState, readonly StreamEffect[]] {
  if (state.phase === 'ended') return [state, []];
  switch (event.kind) {
    case 'request':
      return onRequest(state, event.request);
    case 'resources':
      return offer({ ...state, find: event.find }, []);
    case 'overdue':
      return onOverdue(state);
    case 'shutdown':
      return [{ ...state, phase: 'ended' }, [{ kind: 'end' }]];
    default:
      return event satisfies never;
  }
}

function onRequest(state: StreamState, request: StreamRequest): ReturnType<typeof next> {
  if (request.typeUrl !== '' && request.typeUrl !== state.typeUrl) {
    return fail(state, 'message_invalid', 'the type_url names another resource type than this service has');
  }
  if (request.names.length > maxNames) {
    return fail(state, 'resource_names_exceeded', `a stream may ask for at most ${maxNames} names`);
  }
  if (request.names.some((name) => Buffer.byteLength(name) > maxNameBytes)) {
    return fail(state, 'resource_names_exceeded', `a name may have at most ${maxNameBytes} bytes`);
  }
  if (state.phase === 'new') {
    // A nonce or an error here belongs to an earlier stream.
    return offer({ ...state, phase: 'open', names: [...new Set(request.names)], owed: true }, []);
  }
  if (request.nonce !== '' && request.nonce !== state.sent?.nonce) return [state, []];
  const answers = request.nonce !== '' && state.awaiting;
  const [settled, effects] = answers ? settle(state, request.rejection) : ([state, []] as const);
  return offer(subscribe(settled, request.names), effects);
}

/** The client has answered the response in flight. */
function settle(state: StreamState, rejection: string | undefined): ReturnType<typeof next> {
  const { sent } = state;
  if (sent === undefined) return [state, []];
  if (rejection === undefined) {
    return [{ ...state, awaiting: false }, [{ kind: 'acknowledged', response: sent }]];
  }
  const refused = { ...state, awaiting: false, refused: sent.version };
  return [refused, [{ kind: 'rejected', response: sent, message: rejection }]];
}

function subscribe(state: StreamState, names: readonly string[]): StreamState {
  const wanted = new Set(names);
  const changed = wanted.size !== state.names.length || state.names.some((name) => !wanted.has(name));
  return changed ? { ...state, names: [...wanted], owed: true } : state;
}

/** Sends what the client should have now, if it may be sent now. */
function offer(state: StreamState, before: readonly StreamEffect[]): ReturnType<typeof next> {
  if (state.phase !== 'open' || state.find === undefined) return [state, before];
  const { find } = state;
  const resources = resourcesOf(state.names, find);
  const available = new Set(resources.map(({ name }) => name));
  const missing = state.names.filter((name) => !available.has(name));
  const news = missing.filter((name) => !state.withheld.has(name));
  const told = { ...state, withheld: new Set(missing) };
  const effects: StreamEffect[] = [...before];
  if (news.length > 0) effects.push({ kind: 'withheld', names: news });

  const version = versionOf(resources);
  const upToDate = version === state.sent?.version && !state.owed;
  if (state.awaiting || resources.length === 0 || upToDate || version === state.refused) {
    return [told, effects];
  }
  const responses = state.responses + 1;
  const response = { nonce: `${state.noncePrefix}-${responses}`, version, resources };
  effects.push({ kind: 'send', response });
  return [{ ...told, responses, sent: response, awaiting: true, refused: undefined, owed: false }, effects];
}

function onOverdue(state: StreamState): ReturnType<typeof next> {
  if (!state.awaiting || state.find === undefined) return [state, []];
  const now = versionOf(resourcesOf(state.names, state.find));
  // Nothing newer waits: a client that never acknowledges does no harm until then.
  if (now === state.sent?.version) return [state, []];
  return fail(state, 'stream_stalled', 'the last response was not acknowledged and a newer one waits');
}

function resourcesOf(names: readonly string[], find: FindResource): readonly Resource[] {
  return names.flatMap((name) => {
    const resource = find(name);
    // INVARIANT: a response holds nothing under another name than was asked for; Envoy would drop it in silence.
    if (resource !== undefined && resource.name !== name) {
      throw new MeshError('internal', `a resource for ${quote(name)} calls itself ${quote(resource.name)}`);
    }
    return resource ?? [];
  });
}

function fail(state: StreamState, code: ErrorCode, message: string): ReturnType<typeof next> {
  return [{ ...state, phase: 'ended' }, [{ kind: 'fail', code, message }]];
}

/** The version of a response: that of its resources, in whatever order they were asked for. */
function versionOf(resources: readonly Resource[]): string {
  const [only] = resources;
  if (only === undefined || resources.length > 1) return digestOf(resources);
  const known = versions.get(only) ?? digestOf(resources);
  versions.set(only, known);
  return known;
}

// Most responses are of one secret, which many streams share.
const versions = new WeakMap<Resource, string>();

function digestOf(resources: readonly Resource[]): string {
  const hash = createHash('sha256');
  for (const line of resources.map(({ name, version }) => JSON.stringify([name, version])).sort()) {
    hash.update(line).update('\n');
  }
  return hash.digest('hex').slice(0, 32);
}

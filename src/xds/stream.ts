import {
  excessOf,
  type FindResource,
  lookUp,
  type NonceOf,
  type Resource,
  type SentResponse,
  type StreamEffect,
  type StreamEvent,
  versionOf,
} from './resource.ts';

/** A request of the client for one kind of resource, without its node. */
export type StreamRequest = {
  readonly names: readonly string[];
  readonly nonce: string;
  /** The message of `error_detail`, undefined when there is none: that alone tells a NACK from an ACK. */
  readonly rejection: string | undefined;
};

export type StreamState = {
  readonly nonceOf: NonceOf;
  readonly phase: 'new' | 'open';
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

/** A stream before its first request. */
export function openStream(nonceOf: NonceOf): StreamState {
  return {
    nonceOf,
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
  event: StreamEvent<StreamRequest>,
): readonly [StreamState, readonly StreamEffect[]] {
  switch (event.kind) {
    case 'request':
      return onRequest(state, event.request);
    case 'resources':
      return offer({ ...state, find: event.find }, []);
    case 'overdue':
      return onOverdue(state);
    case 'beat':
      return event.hasLapsed ? offer({ ...state, owed: true }, []) : beat(state);
    default:
      return event satisfies never;
  }
}

/** What the client was given under names that it asks for still. */
export function givenTo({ sent, names }: StreamState): readonly Resource[] {
  return sent?.resources.filter(({ name }) => names.includes(name)) ?? [];
}

function onRequest(state: StreamState, request: StreamRequest): ReturnType<typeof next> {
  const excess = excessOf(request.names);
  if (excess !== undefined)
    return [state, [{ kind: 'fail', code: 'resource_names_exceeded', message: excess }]];
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
    const { nonce, resources } = sent;
    return [{ ...state, awaiting: false }, [{ kind: 'acknowledged', nonce, resources }]];
  }
  const refused = { ...state, awaiting: false, refused: sent.version };
  return [refused, [{ kind: 'rejected', response: sent, message: rejection }]];
}

function subscribe(state: StreamState, names: readonly string[]): StreamState {
  // Nearly every answer repeats them.
  if (names.length === state.names.length && names.every((name, i) => name === state.names[i])) return state;
  const wanted = new Set(names);
  const changed = wanted.size !== state.names.length || state.names.some((name) => !wanted.has(name));
  if (!changed) return state;
  // Who gives up all names begins anew: what it comes back for may be another thing by then.
  return { ...state, names: [...wanted], owed: true, refused: wanted.size === 0 ? undefined : state.refused };
}

/** Sends what the client should have now, if it may be sent now. */
function offer(state: StreamState, before: readonly StreamEffect[]): ReturnType<typeof next> {
  if (state.phase !== 'open' || state.find === undefined) return [state, before];
  const { find, withheld } = state;
  const resources: Resource[] = [];
  const missing: string[] = [];
  for (const name of state.names) {
    const resource = lookUp(name, find);
    if (resource === undefined) missing.push(name);
    else resources.push(resource);
  }
  const news = missing.filter((name) => !withheld.has(name));
  const isAsTold = missing.length === 0 && withheld.size === 0;
  const told = isAsTold ? state : { ...state, withheld: new Set(missing) };
  const effects: readonly StreamEffect[] =
    news.length === 0 ? before : [...before, { kind: 'withheld', names: news }];

  const version = versionOf(resources);
  const upToDate = version === state.sent?.version && !state.owed;
  if (state.awaiting || resources.length === 0 || upToDate || version === state.refused) {
    return [told, effects];
  }
  const responses = state.responses + 1;
  const response = { nonce: state.nonceOf(responses), version, resources, removed: [] };
  return [
    { ...told, responses, sent: response, awaiting: true, refused: undefined, owed: false },
    [...effects, { kind: 'send', response }],
  ];
}

/** Says of what the client has that it lives on. What is about to be replaced, or was refused, is left alone. */
function beat(state: StreamState): ReturnType<typeof next> {
  const { sent, names } = state;
  if (sent === undefined || state.awaiting || state.owed || state.refused !== undefined) return [state, []];
  if (!sent.resources.some(({ name, expires }) => expires === true && names.includes(name)))
    return [state, []];
  const responses = state.responses + 1;
  const response = { ...sent, nonce: state.nonceOf(responses), isBeat: true };
  // INVARIANT: the client answers with the nonce that it read last, so that one has to be known as the last.
  return [{ ...state, responses, sent: response, awaiting: true }, [{ kind: 'send', response }]];
}

function onOverdue(state: StreamState): ReturnType<typeof next> {
  if (!state.awaiting || state.find === undefined) return [state, []];
  const now = versionOf(resourcesOf(state.names, state.find));
  // Nothing newer waits: a client that never acknowledges does no harm until then.
  if (now === state.sent?.version) return [state, []];
  const message = 'the last response was not acknowledged and a newer one waits';
  return [state, [{ kind: 'fail', code: 'stream_stalled', message }]];
}

function resourcesOf(names: readonly string[], find: FindResource): readonly Resource[] {
  return names.flatMap((name) => lookUp(name, find) ?? []);
}

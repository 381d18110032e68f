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
export type DeltaRequest = {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** What the client has from an earlier stream: version by name. Counts in the first request alone. */
  readonly initialVersions: ReadonlyMap<string, string>;
  readonly nonce: string;
  /** The message of `error_detail`, undefined when there is none: that alone tells a NACK from an ACK. */
  readonly rejection: string | undefined;
};

/** One name that the client asks for. */
export type Subscription = {
  /** What the client has in use, by its own word. */
  readonly held: Resource | undefined;
  /** The version it says it has from an earlier stream, until it is known to have something else or nothing. */
  readonly claimed: string | undefined;
  /** The version it refused; it is not offered again. */
  readonly refused: string | undefined;
  /** The version it refused together with others, of which one may be to blame: it is offered once more, alone. */
  readonly suspect: string | undefined;
  /** It has asked for the name since it was sent last, and is owed the resource even if it has it. */
  readonly owed: boolean;
};

export type DeltaState = {
  readonly nonceOf: NonceOf;
  readonly phase: 'new' | 'open';
  /** What the client asks for, in its order. */
  readonly names: ReadonlyMap<string, Subscription>;
  readonly find: FindResource | undefined;
  readonly withheld: ReadonlySet<string>;
  readonly responses: number;
  /** The last response. */
  readonly sent: SentResponse | undefined;
  /** INVARIANT: true only between a response and its ACK or NACK; meanwhile nothing is sent. */
  readonly awaiting: boolean;
};

/** A stream before its first request. */
export function openDelta(nonceOf: NonceOf): DeltaState {
  return {
    nonceOf,
    phase: 'new',
    names: new Map(),
    find: undefined,
    withheld: new Set(),
    responses: 0,
    sent: undefined,
    awaiting: false,
  };
}

/**
 * The incremental xDS protocol for one stream and one kind of resource, as a pure reducer. What the client has already,
 * by its `initial_resource_versions`, is not sent again, and counts as acknowledged; what it has and may not have any
 * longer is named in `removed_resources`. A name that it has nothing of, and may not have, is not answered until it is
 * available: Envoy takes its removal for the end of the wait and opens the listener without a certificate. A request
 * with a stale nonce acknowledges nothing, but what it subscribes to and unsubscribes from holds. A refused resource is
 * not sent again until it changes; refused among others it is offered once more, alone. There is no wildcard: `*` and
 * an empty first request stand for nothing.
 * @see https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
 */
export function nextDelta(
  state: DeltaState,
  event: StreamEvent<DeltaRequest>,
): readonly [DeltaState, readonly StreamEffect[]] {
  switch (event.kind) {
    case 'request':
      return onRequest(state, event.request);
    case 'resources':
      return offer({ ...state, find: event.find }, []);
    case 'overdue':
      return onOverdue(state);
    case 'beat':
      return event.hasLapsed ? offer(oweAll(state), []) : beat(state);
    default:
      return event satisfies never;
  }
}

/** What the client was given, or says it was, under names that it asks for still. */
export function givenByDelta({ names, sent, awaiting }: DeltaState): readonly Resource[] {
  const inFlight = awaiting ? (sent?.resources ?? []) : [];
  const held = [...names.values()].flatMap((subscription) => subscription.held ?? []);
  return [...held, ...inFlight.filter(({ name }) => names.has(name))];
}

function onRequest(state: DeltaState, request: DeltaRequest): ReturnType<typeof nextDelta> {
  const { subscribe, unsubscribe, nonce, rejection } = request;
  const excess = excessOf(subscribe) ?? excessOf(unsubscribe);
  if (excess !== undefined) return fail(state, excess);
  const isFirst = state.phase === 'new';
  const isStale = !state.awaiting || nonce !== state.sent?.nonce;
  // It says nothing, in five bytes: ten thousand of them arrive at once.
  if (!isFirst && isStale && subscribe.length + unsubscribe.length === 0) return [state, []];
  // A nonce or an error in the first request belongs to an earlier stream.
  const answers = !isFirst && !isStale;
  const [settled, effects] = answers ? settle(state, rejection) : ([state, []] as const);
  const names = new Map(settled.names);
  for (const name of subscribe) {
    const before = names.get(name);
    const claimed = isFirst ? request.initialVersions.get(name) : undefined;
    if (before === undefined) names.set(name, { ...nothing, claimed, owed: claimed === undefined });
    else if (!isFirst) names.set(name, { ...before, owed: true });
  }
  for (const name of unsubscribe) names.delete(name);
  const sum = subscribe.length === 0 ? undefined : excessOf([...names.keys()]);
  if (sum !== undefined) return fail(state, sum);
  return offer({ ...settled, phase: 'open', names }, effects);
}

/** The client has answered the response in flight. */
function settle(state: DeltaState, rejection: string | undefined): ReturnType<typeof nextDelta> {
  const { sent } = state;
  if (sent === undefined) return [state, []];
  const { nonce, resources, removed } = sent;
  const names = new Map(state.names);
  const amend = (name: string, change: Partial<Subscription>): void => {
    const subscription = names.get(name);
    if (subscription !== undefined) names.set(name, { ...subscription, ...change });
  };
  // A removal is told once: Envoy takes note of it and keeps what it has.
  for (const name of removed) amend(name, { held: undefined, claimed: undefined });
  const isAlone = resources.length === 1;
  for (const resource of resources) {
    const { name, version } = resource;
    if (rejection === undefined)
      amend(name, { ...nothing, held: resource, owed: names.get(name)?.owed === true });
    else amend(name, isAlone ? { refused: version, suspect: undefined } : { suspect: version });
  }
  const settled = { ...state, names, awaiting: false };
  if (rejection !== undefined) return [settled, [{ kind: 'rejected', response: sent, message: rejection }]];
  return [settled, [{ kind: 'acknowledged', nonce, resources }]];
}

/** Sends what the client should have now, if it may be sent now. */
function offer(state: DeltaState, before: readonly StreamEffect[]): ReturnType<typeof nextDelta> {
  if (state.phase !== 'open' || state.find === undefined) return [state, before];
  const [compared, known] = compare(state, state.find);
  const missing = [...compared.names.keys()].filter((name) => lookUp(name, state.find ?? none) === undefined);
  const news = missing.filter((name) => !state.withheld.has(name));
  const told = { ...compared, withheld: new Set(missing) };
  const effects = [...before];
  if (known.length > 0) effects.push({ kind: 'acknowledged', nonce: '', resources: known });
  if (news.length > 0) effects.push({ kind: 'withheld', names: news });

  const due = dueOf(compared.names, state.find);
  // What it brings along lives as long as somebody has said who is gone: perhaps a moment only.
  const brought = known.filter(({ expires }) => expires === true);
  if (state.awaiting || due.resources.length + due.removed.length === 0) {
    const [after, renewed] = brought.length > 0 ? beat(told) : [told, []];
    return [after, [...effects, ...renewed]];
  }
  const { removed } = due;
  const resources = [...due.resources, ...brought];
  const responses = state.responses + 1;
  const nonce = state.nonceOf(responses);
  const response = { nonce, version: versionOf(resources), resources, removed };
  effects.push({ kind: 'send', response });
  const names = new Map(compared.names);
  for (const { name } of resources) names.set(name, { ...(names.get(name) ?? nothing), owed: false });
  return [{ ...told, names, responses, sent: response, awaiting: true }, effects];
}

/** Takes the client at its word about the versions it has that are those of now. */
function compare(state: DeltaState, find: FindResource): readonly [DeltaState, readonly Resource[]] {
  const known: Resource[] = [];
  const names = new Map(state.names);
  for (const [name, subscription] of names) {
    if (subscription.claimed === undefined) continue;
    const resource = lookUp(name, find);
    if (resource === undefined || resource.version !== subscription.claimed) continue;
    known.push(resource);
    names.set(name, { ...subscription, claimed: undefined, held: resource });
  }
  return known.length === 0 ? [state, known] : [{ ...state, names }, known];
}

function dueOf(
  names: ReadonlyMap<string, Subscription>,
  find: FindResource,
): Pick<SentResponse, 'resources' | 'removed'> {
  const resources: Resource[] = [];
  const suspects: Resource[] = [];
  const removed: string[] = [];
  for (const [name, { held, claimed, refused, suspect, owed }] of names) {
    const resource = lookUp(name, find);
    if (resource === undefined) {
      if (held !== undefined || claimed !== undefined) removed.push(name);
    } else if ((owed || held?.version !== resource.version) && refused !== resource.version) {
      (suspect === resource.version ? suspects : resources).push(resource);
    }
  }
  const [first] = suspects;
  if (first === undefined || resources.length + removed.length > 0) return { resources, removed };
  return { resources: [first], removed };
}

/** Says of what the client has that it lives on; what is about to be replaced is left alone. */
function beat(state: DeltaState): ReturnType<typeof nextDelta> {
  if (state.phase !== 'open' || state.find === undefined || state.awaiting) return [state, []];
  const { find } = state;
  const resources = [...state.names].flatMap(([name, { held }]) =>
    held?.expires === true && lookUp(name, find)?.version === held.version ? [held] : [],
  );
  if (resources.length === 0) return [state, []];
  const responses = state.responses + 1;
  const nonce = state.nonceOf(responses);
  const response = { nonce, version: versionOf(resources), resources, removed: [], isBeat: true };
  return [{ ...state, responses, sent: response, awaiting: true }, [{ kind: 'send', response }]];
}

function oweAll(state: DeltaState): DeltaState {
  const names = new Map<string, Subscription>();
  for (const [name, subscription] of state.names) names.set(name, { ...subscription, owed: true });
  return { ...state, names };
}

function onOverdue(state: DeltaState): ReturnType<typeof nextDelta> {
  if (!state.awaiting || state.sent === undefined || state.find === undefined) return [state, []];
  const { find, sent } = state;
  const { resources, removed } = dueOf(state.names, find);
  const leaves = new Set(sent.resources.map(({ name, version }) => `${version} ${name}`));
  const isNewer =
    resources.some(({ name, version }) => !leaves.has(`${version} ${name}`)) ||
    removed.some((name) => !sent.removed.includes(name));
  // Nothing newer waits: a client that never acknowledges does no harm until then.
  if (!isNewer) return [state, []];
  const message = 'the last response was not acknowledged and a newer one waits';
  return [state, [{ kind: 'fail', code: 'stream_stalled', message }]];
}

function fail(state: DeltaState, message: string): ReturnType<typeof nextDelta> {
  return [state, [{ kind: 'fail', code: 'resource_names_exceeded', message }]];
}

const none: FindResource = () => undefined;

const nothing: Subscription = {
  held: undefined,
  claimed: undefined,
  refused: undefined,
  suspect: undefined,
  owed: false,
};

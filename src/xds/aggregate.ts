import type { ErrorCode } from '../errors.ts';
import type { FindResource, Protocol, Resource, StreamEffect } from './resource.ts';

/** What a stream may carry. */
export type AggregateRules = {
  /** The kinds of resource that are served. */
  readonly typeUrls: readonly string[];
  /**
   * Whether many kinds share the stream, as on ADS. Otherwise it carries the only one: a request that names no kind means
   * it, and one that names another is an error.
   */
  readonly isAggregated: boolean;
  /** By the number of the kind on the stream, and of the response of that kind. */
  readonly nonceOf: (kind: number, response: number) => string;
};

export type AggregateEvent<Request> =
  | { readonly kind: 'request'; readonly typeUrl: string; readonly request: Request }
  | { readonly kind: 'resources'; readonly typeUrl: string; readonly find: FindResource }
  | { readonly kind: 'overdue'; readonly typeUrl: string }
  | { readonly kind: 'beat'; readonly typeUrl: string; readonly hasLapsed: boolean }
  | { readonly kind: 'shutdown' };

export type AggregateEffect =
  | (Exclude<StreamEffect, { kind: 'fail' }> & { readonly typeUrl: string })
  /** The first request for a kind: its resources are wanted from now on. */
  | { readonly kind: 'opened'; readonly typeUrl: string }
  /** A request for a kind that is not served, told once for each. */
  | { readonly kind: 'ignored'; readonly typeUrl: string }
  | { readonly kind: 'fail'; readonly code: ErrorCode; readonly message: string }
  | { readonly kind: 'end' };

export type AggregateState<State> = {
  readonly phase: 'open' | 'ended';
  /** What has been asked for, each kind with its own names, nonces and versions. */
  readonly kinds: ReadonlyMap<string, State>;
  readonly ignored: ReadonlySet<string>;
};

export function openAggregate<State>(): AggregateState<State> {
  return { phase: 'open', kinds: new Map(), ignored: new Set() };
}

/**
 * The kinds of resource on one stream, each speaking its protocol as if it were alone. A kind that is not served is not
 * answered: an empty answer would be a statement, and of clusters or listeners Envoy would take it for the order to drop
 * them all.
 */
export function nextAggregate<State, Request>(
  protocol: Protocol<State, Request>,
  rules: AggregateRules,
  state: AggregateState<State>,
  event: AggregateEvent<Request>,
): readonly [AggregateState<State>, readonly AggregateEffect[]] {
  if (state.phase === 'ended') return [state, []];
  if (event.kind === 'shutdown') return [{ ...state, phase: 'ended' }, [{ kind: 'end' }]];
  if (event.kind !== 'request') return advance(protocol, state, event.typeUrl, event);
  const typeUrl = kindOf(rules, event.typeUrl);
  if (typeUrl === undefined) return turnAway(rules, state, event.typeUrl);
  if (state.kinds.has(typeUrl)) return advance(protocol, state, typeUrl, event);
  const kind = state.kinds.size;
  const opened = protocol.open((response) => rules.nonceOf(kind, response));
  const kinds = new Map(state.kinds).set(typeUrl, opened);
  const [after, effects] = advance(protocol, { ...state, kinds }, typeUrl, event);
  return [after, after.phase === 'ended' ? effects : [{ kind: 'opened', typeUrl }, ...effects]];
}

/** What the client was given of a kind, under names that it asks for still. */
export function givenOf<State, Request>(
  protocol: Protocol<State, Request>,
  { kinds }: AggregateState<State>,
  typeUrl: string,
): readonly Resource[] {
  const state = kinds.get(typeUrl);
  return state === undefined ? [] : protocol.given(state);
}

function kindOf({ typeUrls, isAggregated }: AggregateRules, asked: string): string | undefined {
  if (asked === '' && !isAggregated) return typeUrls[0];
  return typeUrls.find((typeUrl) => typeUrl === asked);
}

function turnAway<State>(
  { isAggregated }: AggregateRules,
  state: AggregateState<State>,
  typeUrl: string,
): readonly [AggregateState<State>, readonly AggregateEffect[]] {
  const message = !isAggregated
    ? 'the type_url names another resource type than this service has'
    : typeUrl === ''
      ? 'a request on an aggregated stream has to name its type_url'
      : undefined;
  if (message !== undefined) {
    return [{ ...state, phase: 'ended' }, [{ kind: 'fail', code: 'message_invalid', message }]];
  }
  // What a client invents is not kept without end.
  const isKept = typeUrl.length <= maxTypeUrlLength && state.ignored.size < maxIgnored;
  if (state.ignored.has(typeUrl) || !isKept) return [state, []];
  return [{ ...state, ignored: new Set(state.ignored).add(typeUrl) }, [{ kind: 'ignored', typeUrl }]];
}

function advance<State, Request>(
  protocol: Protocol<State, Request>,
  state: AggregateState<State>,
  typeUrl: string,
  event: Exclude<AggregateEvent<Request>, { kind: 'shutdown' }>,
): readonly [AggregateState<State>, readonly AggregateEffect[]] {
  const before = state.kinds.get(typeUrl);
  if (before === undefined) return [state, []];
  const [after, effects] = protocol.next(before, event);
  const failed = effects.find((effect) => effect.kind === 'fail');
  if (failed !== undefined) return [{ ...state, phase: 'ended' }, [failed]];
  const kinds = after === before ? state.kinds : new Map(state.kinds).set(typeUrl, after);
  const told = effects.flatMap((effect) => (effect.kind === 'fail' ? [] : [{ ...effect, typeUrl }]));
  return [{ ...state, kinds }, told];
}

const maxIgnored = 16;
const maxTypeUrlLength = 256;

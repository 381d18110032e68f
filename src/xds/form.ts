import type { Node } from '../wire/core.ts';
import type { DeltaDiscoveryRequest, DiscoveryRequest } from '../wire/discovery.ts';
import { type DeltaRequest, type DeltaState, givenByDelta, nextDelta, openDelta } from './delta.ts';
import type { Protocol, SentResponse } from './resource.ts';
import { encodeDeltaResponse, encodeResponse } from './response.ts';
import { encodeDeltaLiving, encodeLiving } from './response-ttl.ts';
import { givenTo, next, openStream, type StreamRequest, type StreamState } from './stream.ts';

/** What a request of either form says of itself. */
export type WireRequest = { readonly node: Node | undefined; readonly typeUrl: string };

/** A protocol and the messages it is spoken in. */
export type Form<Wire extends WireRequest, State, Request> = {
  readonly protocol: Protocol<State, Request>;
  readonly read: (request: Wire) => Request;
  /** @param ttlSeconds of the resources that expire; needed when there are any */
  readonly encode: (response: SentResponse, typeUrl: string, ttlSeconds?: number) => Buffer;
};

/** State of the world: each response holds everything that was asked for. */
export const worldForm: Form<DiscoveryRequest, StreamState, StreamRequest> = {
  protocol: { open: openStream, next, given: givenTo },
  read: ({ resourceNames, responseNonce, errorDetail }) => ({
    names: resourceNames,
    nonce: responseNonce,
    rejection: errorDetail?.message,
  }),
  encode: (response, typeUrl, ttlSeconds) =>
    ttlSeconds === undefined
      ? encodeResponse(response, typeUrl)
      : encodeLiving(response, typeUrl, ttlSeconds),
};

/** Incremental: each response holds what the client does not have yet. */
export const deltaForm: Form<DeltaDiscoveryRequest, DeltaState, DeltaRequest> = {
  protocol: { open: openDelta, next: nextDelta, given: givenByDelta },
  read: (request) => ({
    subscribe: request.resourceNamesSubscribe,
    unsubscribe: request.resourceNamesUnsubscribe,
    initialVersions: versionsOf(request),
    nonce: request.responseNonce,
    rejection: request.errorDetail?.message,
  }),
  encode: (response, typeUrl, ttlSeconds) =>
    ttlSeconds === undefined
      ? encodeDeltaResponse(response, typeUrl)
      : encodeDeltaLiving(response, typeUrl, ttlSeconds),
};

/** Of what is asked for and of no more: a client may have seen any number of others, under any version. */
function versionsOf(request: DeltaDiscoveryRequest): ReadonlyMap<string, string> {
  const { resourceNamesSubscribe, initialResourceVersions } = request;
  const versions = new Map<string, string>();
  for (const name of resourceNamesSubscribe) {
    if (!Object.hasOwn(initialResourceVersions, name)) continue;
    const version = initialResourceVersions[name] ?? '';
    versions.set(name, version.length > maxVersionLength ? 'none of ours' : version);
  }
  return versions;
}

const maxVersionLength = 64;

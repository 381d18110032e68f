import { DeltaDiscoveryResponse, DiscoveryResponse, Resource as WireResource } from '../wire/discovery.ts';
import type { Resource, SentResponse } from './resource.ts';

/**
 * The bytes of a response whose resources may expire: each is wrapped in what names its time to live. A beat holds all of
 * it again: Envoy 1.40 passes by a resource without content, as the protocol has it, and does not lengthen its life; one
 * that it has already it compares and leaves as it is.
 * @param ttlSeconds from 1
 * @see https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
 */
export function encodeLiving(response: SentResponse, typeUrl: string, ttlSeconds: number): Buffer {
  const { nonce, version, resources } = response;
  return join(
    DiscoveryResponse.encode({
      versionInfo: version,
      resources: [],
      canary: false,
      typeUrl,
      nonce,
      controlPlane: { identifier: 'countersign' },
      resourceErrors: [],
    }).finish(),
    resources.map((resource) =>
      remember(worlds, resource, `${version} ${ttlSeconds}`, () => {
        const value = wrap(resource, version, typeUrl, ttlSeconds, false);
        return DiscoveryResponse.encode({
          ...emptyResponse,
          resources: [{ typeUrl: resourceTypeUrl, value: Buffer.from(WireResource.encode(value).finish()) }],
        }).finish();
      }),
    ),
  );
}

/** The same for the incremental form, in which a beat holds the wrapping alone: Envoy knows it by the version it has. */
export function encodeDeltaLiving(response: SentResponse, typeUrl: string, ttlSeconds: number): Buffer {
  const { nonce, version, resources, removed, isBeat = false } = response;
  return join(
    DeltaDiscoveryResponse.encode({
      systemVersionInfo: version,
      resources: [],
      typeUrl,
      nonce,
      removedResources: [...removed],
      controlPlane: { identifier: 'countersign' },
      resourceErrors: [],
    }).finish(),
    resources.map((resource) =>
      remember(isBeat ? undefined : deltas, resource, `${ttlSeconds}`, () =>
        DeltaDiscoveryResponse.encode({
          ...emptyDelta,
          resources: [wrap(resource, resource.version, typeUrl, ttlSeconds, isBeat)],
        }).finish(),
      ),
    ),
  );
}

function wrap(
  { name, value, expires }: Resource,
  version: string,
  typeUrl: string,
  ttlSeconds: number,
  isBeat: boolean,
): WireResource {
  return {
    name,
    version,
    resource: isBeat ? undefined : { typeUrl, value },
    aliases: [],
    ttl: expires === true ? { seconds: BigInt(ttlSeconds), nanos: 0 } : undefined,
  };
}

/** Parts of one message may be joined. */
function join(head: Uint8Array, parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat([head, ...parts]);
}

/** The streams of many proxies are sent the same, most of them with the same time to live: it is encoded once. */
function remember(
  made: Made | undefined,
  resource: Resource,
  key: string,
  make: () => Uint8Array,
): Uint8Array {
  const known = made?.get(resource);
  if (known?.key === key) return known.bytes;
  const bytes = make();
  made?.set(resource, { key, bytes });
  return bytes;
}

type Made = WeakMap<Resource, { readonly key: string; readonly bytes: Uint8Array }>;
const worlds: Made = new WeakMap();
const deltas: Made = new WeakMap();

const resourceTypeUrl = 'type.googleapis.com/envoy.service.discovery.v3.Resource';
const emptyResponse: DiscoveryResponse = {
  versionInfo: '',
  resources: [],
  canary: false,
  typeUrl: '',
  nonce: '',
  controlPlane: undefined,
  resourceErrors: [],
};
const emptyDelta: DeltaDiscoveryResponse = {
  systemVersionInfo: '',
  resources: [],
  typeUrl: '',
  nonce: '',
  removedResources: [],
  controlPlane: undefined,
  resourceErrors: [],
};

import { DeltaDiscoveryResponse, DiscoveryResponse } from '../wire/discovery.ts';
import type { Resource, SentResponse } from './resource.ts';

/**
 * The bytes of a response. Thousands of streams are sent the same secrets: each is encoded once, and what is made for one
 * stream is the rest.
 */
export function encodeResponse({ nonce, version, resources }: SentResponse, typeUrl: string): Buffer {
  const head = encode({
    versionInfo: version,
    resources: [],
    canary: false,
    // Envoy drops a response with another type_url in silence.
    typeUrl,
    nonce,
    controlPlane,
    resourceErrors: [],
  });
  return Buffer.concat([head, ...resources.map((resource) => part(resource, typeUrl))]);
}

/** A response of one resource and nothing else: parts of one message may be joined. */
function part(resource: Resource, typeUrl: string): Buffer {
  const known = encoded.get(resource);
  if (known !== undefined) return known;
  const made = encode({
    versionInfo: '',
    resources: [{ typeUrl, value: resource.value }],
    canary: false,
    typeUrl: '',
    nonce: '',
    controlPlane: undefined,
    resourceErrors: [],
  });
  encoded.set(resource, made);
  return made;
}

function encode(response: DiscoveryResponse): Buffer {
  return Buffer.from(DiscoveryResponse.encode(response).finish());
}

/** The bytes of an incremental response, of which each resource is encoded once for all streams. */
export function encodeDeltaResponse(response: SentResponse, typeUrl: string): Buffer {
  const { nonce, version, resources, removed } = response;
  const head = encodeDelta({
    systemVersionInfo: version,
    resources: [],
    typeUrl,
    nonce,
    removedResources: [...removed],
    controlPlane,
    resourceErrors: [],
  });
  return Buffer.concat([head, ...resources.map((resource) => deltaPart(resource, typeUrl))]);
}

/** As {@link part}. */
function deltaPart(resource: Resource, typeUrl: string): Buffer {
  const known = deltaEncoded.get(resource);
  if (known !== undefined) return known;
  const { name, version, value } = resource;
  const part = encodeDelta({
    systemVersionInfo: '',
    resources: [{ name, version, resource: { typeUrl, value }, aliases: [], ttl: undefined }],
    typeUrl: '',
    nonce: '',
    removedResources: [],
    controlPlane: undefined,
    resourceErrors: [],
  });
  deltaEncoded.set(resource, part);
  return part;
}

function encodeDelta(response: DeltaDiscoveryResponse): Buffer {
  return Buffer.from(DeltaDiscoveryResponse.encode(response).finish());
}

const controlPlane = { identifier: 'countersign' };

// INVARIANT: as long as the secret itself, which holds a key, and no longer; a resource is of one kind.
const encoded = new WeakMap<Resource, Buffer>();
const deltaEncoded = new WeakMap<Resource, Buffer>();

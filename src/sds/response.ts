import { DeltaDiscoveryResponse, DiscoveryResponse } from '../wire/discovery.ts';
import type { Resource, SentResponse } from './resource.ts';

/**
 * The bytes of a response. Thousands of streams are sent the same secret: it is encoded once, and a response of that one
 * secret differs from stream to stream by its nonce alone.
 */
export function encodeResponse({ nonce, version, resources }: SentResponse, typeUrl: string): Buffer {
  const [only] = resources;
  if (only === undefined || resources.length > 1) return encode(nonce, version, resources, typeUrl);
  const known = encoded.get(only);
  const body = known?.version === version ? known.body : encode('', version, resources, typeUrl);
  encoded.set(only, { version, body });
  // The fields of a message may stand in any order, and one that is empty is absent.
  return Buffer.concat([body, encode(nonce, '', [], '')]);
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

/** A response of one resource and nothing else: parts of one message may be joined. */
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

function encode(nonce: string, versionInfo: string, resources: readonly Resource[], typeUrl: string): Buffer {
  const response: DiscoveryResponse = {
    versionInfo,
    resources: resources.map(({ value }) => ({ typeUrl, value })),
    canary: false,
    // Envoy drops a response with another type_url in silence.
    typeUrl,
    nonce,
    controlPlane: typeUrl === '' ? undefined : controlPlane,
    resourceErrors: [],
  };
  return Buffer.from(DiscoveryResponse.encode(response).finish());
}

const controlPlane = { identifier: 'countersign' };

// INVARIANT: as long as the secret itself, which holds a key, and no longer; a resource is of one kind.
const encoded = new WeakMap<Resource, { readonly version: string; readonly body: Buffer }>();
const deltaEncoded = new WeakMap<Resource, Buffer>();

import { DeltaDiscoveryResponse, DiscoveryResponse } from '../wire/discovery.ts';
import type { Resource, SentResponse } from './resource.ts';

/**
 * The bytes of a response. Thousands of streams are sent the same secrets: each is encoded once, and all that a response
 * says but its nonce is put together once.
 */
export function encodeResponse(response: SentResponse, typeUrl: string): Buffer {
  return withNonce(rememberFor(response, typeUrl, wholes, encodeWhole), response.nonce);
}

function encodeWhole({ version, resources }: SentResponse, typeUrl: string): Buffer {
  const head = encode({
    versionInfo: version,
    resources: [],
    canary: false,
    // Envoy drops a response with another type_url in silence.
    typeUrl,
    nonce: '',
    controlPlane,
    resourceErrors: [],
  });
  return Buffer.concat([head, ...resources.map((resource) => part(resource, typeUrl))]);
}

/** Adds the nonce, which is field 5 of either form: ours are ASCII, and short. */
function withNonce(message: Buffer, nonce: string): Buffer {
  if (nonce === '') return message;
  const { length } = message;
  const bytes = Buffer.allocUnsafe(length + 2 + nonce.length);
  message.copy(bytes);
  bytes[length] = 0x2a;
  bytes[length + 1] = nonce.length;
  bytes.write(nonce, length + 2, 'latin1');
  return bytes;
}

/** Makes the same for the same resources once. */
function rememberFor(
  response: SentResponse,
  typeUrl: string,
  made: WeakMap<Resource, Whole>,
  make: (response: SentResponse, typeUrl: string) => Buffer,
): Buffer {
  const { version, resources } = response;
  const [owner = resources[0], ...others] = resources.filter(({ holdsKey }) => holdsKey);
  // INVARIANT: a key lives as long as its secret, and no longer: with that of another it would outlive its own.
  if (owner === undefined || others.length > 0) return make(response, typeUrl);
  const known = made.get(owner);
  // The version follows from the names and contents, but not from their order.
  const isSame = known?.version === version && resources.every(({ name }, i) => name === known.names[i]);
  if (isSame) return known.bytes;
  const bytes = make(response, typeUrl);
  made.set(owner, { version, names: resources.map(({ name }) => name), bytes });
  return bytes;
}

type Whole = { readonly version: string; readonly names: readonly string[]; readonly bytes: Buffer };

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
  const { nonce, removed } = response;
  if (removed.length > 0) return withNonce(encodeDeltaWhole(response, typeUrl), nonce);
  return withNonce(rememberFor(response, typeUrl, deltaWholes, encodeDeltaWhole), nonce);
}

function encodeDeltaWhole({ version, resources, removed }: SentResponse, typeUrl: string): Buffer {
  const head = encodeDelta({
    systemVersionInfo: version,
    resources: [],
    typeUrl,
    nonce: '',
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
const wholes = new WeakMap<Resource, Whole>();
const deltaWholes = new WeakMap<Resource, Whole>();

import { DiscoveryResponse } from '../wire/discovery.ts';
import { secretTypeUrl } from './secret.ts';
import type { Resource, SentResponse } from './stream.ts';

/**
 * The bytes of a response. Thousands of streams are sent the same secret: it is encoded once, and a response of that one
 * secret differs from stream to stream by its nonce alone.
 */
export function encodeResponse({ nonce, version, resources }: SentResponse): Buffer {
  const [only] = resources;
  if (only === undefined || resources.length > 1) return encode(nonce, version, resources);
  const known = encoded.get(only);
  const body = known?.version === version ? known.body : encode('', version, resources);
  encoded.set(only, { version, body });
  // The fields of a message may stand in any order, and one that is empty is absent.
  return Buffer.concat([body, encode(nonce, '', [], false)]);
}

function encode(nonce: string, versionInfo: string, resources: readonly Resource[], isWhole = true): Buffer {
  const response: DiscoveryResponse = {
    versionInfo,
    resources: resources.map(({ value }) => ({ typeUrl: secretTypeUrl, value })),
    canary: false,
    // Envoy drops a response with another type_url in silence.
    typeUrl: isWhole ? secretTypeUrl : '',
    nonce,
    controlPlane: isWhole ? { identifier: 'countersign' } : undefined,
    resourceErrors: [],
  };
  return Buffer.from(DiscoveryResponse.encode(response).finish());
}

// INVARIANT: as long as the secret itself, which holds a key, and no longer.
const encoded = new WeakMap<Resource, { readonly version: string; readonly body: Buffer }>();

import type { FindResource, Resource, StreamEvent } from '../../src/sds/stream.ts';

/** Events of a stream, as short as a table needs them; a number stands for a content. */
export const type = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export function asks(wanted: readonly string[], nonce = '', rejection?: string, typeUrl = type): StreamEvent {
  return { kind: 'request', request: { typeUrl, names: wanted, nonce, rejection } };
}

export function acks(nonce: string, wanted: readonly string[]): StreamEvent {
  return asks(wanted, nonce);
}

export function nacks(nonce: string, wanted: readonly string[], message = 'bad'): StreamEvent {
  return asks(wanted, nonce, message);
}

export function has(content: Readonly<Record<string, number>>): StreamEvent {
  return { kind: 'resources', find: findIn(new Map(Object.entries(content))) };
}

export function findIn(content: ReadonlyMap<string, number>): FindResource {
  return (name) => {
    const version = content.get(name);
    return version === undefined ? undefined : resource(name, String(version));
  };
}

export function resource(name: string, version: string): Resource {
  return { name, version, holdsKey: false, value: Buffer.from(name) };
}

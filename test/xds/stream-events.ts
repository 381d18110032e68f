import type { FindResource, Resource, StreamEffect, StreamEvent } from '../../src/xds/resource.ts';
import type { DeltaRequest } from '../../src/xds/delta.ts';
import type { StreamRequest } from '../../src/xds/stream.ts';

/** Events of a stream, as short as a table needs them; a number stands for a content. */
export const type = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export function asks(wanted: readonly string[], nonce = '', rejection?: string): StreamEvent<StreamRequest> {
  return { kind: 'request', request: { names: wanted, nonce, rejection } };
}

export function acks(nonce: string, wanted: readonly string[]): StreamEvent<StreamRequest> {
  return asks(wanted, nonce);
}

export function nacks(nonce: string, wanted: readonly string[], message = 'bad'): StreamEvent<StreamRequest> {
  return asks(wanted, nonce, message);
}

/** A request of the incremental protocol; what is left out is empty. */
export function says(request: {
  readonly sub?: readonly string[];
  readonly unsub?: readonly string[];
  readonly has?: Readonly<Record<string, number>>;
  readonly nonce?: string;
  readonly rejection?: string;
}): StreamEvent<DeltaRequest> {
  const { sub = [], unsub = [], has: versions = {}, nonce = '', rejection } = request;
  const initialVersions = new Map(Object.entries(versions).map(([name, version]) => [name, String(version)]));
  return {
    kind: 'request',
    request: { subscribe: sub, unsubscribe: unsub, initialVersions, nonce, rejection },
  };
}

export function has(content: Readonly<Record<string, number>>): StreamEvent<never> {
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

export function show(effect: StreamEffect): string {
  switch (effect.kind) {
    case 'send': {
      const { nonce, resources, removed } = effect.response;
      const parts = [
        ...resources.map((one) => `${one.name}@${one.version}`),
        ...removed.map((name) => `-${name}`),
      ];
      return ['send', nonce, ...parts].join(' ');
    }
    case 'acknowledged': {
      const names = effect.resources.map((one) => `${one.name}@${one.version}`);
      return effect.nonce === '' ? `known ${names.join(' ')}` : `acknowledged ${effect.nonce}`;
    }
    case 'rejected':
      return `rejected ${effect.response.nonce} ${effect.message}`;
    case 'withheld':
      return `withheld ${effect.names.join(' ')}`;
    case 'fail':
      return `fail ${effect.code}`;
    default:
      return effect satisfies never;
  }
}

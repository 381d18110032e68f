import { DiscoveryResponse } from '../../src/wire/discovery.ts';
import { TypedExtensionConfig } from '../../src/wire/xds_core.ts';

/**
 * The bytes of a DiscoveryResponse with a route for each RBAC filter, chosen by the header `x-set`, and one for every
 * other call, on which the filter is off. A proxy so gets the very bytes that were made, in one configuration.
 * @see envoy.config.route.v3.RouteConfiguration
 */
export function encodeRoutes(filters: readonly Uint8Array[]): Uint8Array {
  const routes = filters.map((bytes, set) =>
    route(perRoute(field(2, bytes)), field(6, text(1, 'x-set'), field(13, text(1, String(set))))),
  );
  const virtualHost = field(2, text(1, 'all'), text(2, '*'), ...routes, route(perRoute(Buffer.alloc(0))));
  const value = Buffer.concat([text(1, 'trees'), virtualHost]);
  return encodeResponse('envoy.config.route.v3.RouteConfiguration', value);
}

/** The bytes of a DiscoveryResponse with one network RBAC filter, by its name. */
export function encodeNetworkFilter(name: string, filter: Uint8Array): Uint8Array {
  const typedConfig = {
    typeUrl: typeUrl('envoy.extensions.filters.network.rbac.v3.RBAC'),
    value: Buffer.from(filter),
  };
  const config = TypedExtensionConfig.encode({ name, typedConfig }).finish();
  return encodeResponse('envoy.config.core.v3.TypedExtensionConfig', Buffer.from(config));
}

function encodeResponse(type: string, value: Buffer): Uint8Array {
  const empty = DiscoveryResponse.decode(new Uint8Array());
  const resources = [{ typeUrl: typeUrl(type), value }];
  return DiscoveryResponse.encode({ ...empty, versionInfo: '1', typeUrl: typeUrl(type), resources }).finish();
}

/** A Route that answers 200 when nothing before it does. */
function route(config: Buffer, ...headers: readonly Buffer[]): Buffer {
  const status = Buffer.from([0x08, 0xc8, 0x01]);
  return field(3, field(1, text(1, '/'), ...headers), field(7, status), config);
}

function perRoute(config: Buffer): Buffer {
  const any = [text(1, typeUrl('envoy.extensions.filters.http.rbac.v3.RBACPerRoute')), field(2, config)];
  return field(13, text(1, 'envoy.filters.http.rbac'), field(2, ...any));
}

function typeUrl(name: string): string {
  return `type.googleapis.com/${name}`;
}

function text(number: number, value: string): Buffer {
  return field(number, Buffer.from(value));
}

function field(number: number, ...parts: readonly Uint8Array[]): Buffer {
  const value = Buffer.concat(parts);
  const head = [(number << 3) | 2];
  let rest = value.length;
  for (; rest > 0x7f; rest >>>= 7) head.push((rest & 0x7f) | 0x80);
  return Buffer.concat([Uint8Array.from([...head, rest]), value]);
}

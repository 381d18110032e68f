import { AccessLogCommon, HTTPAccessLogEntry, TCPAccessLogEntry } from '../../src/wire/access_log.ts';
import { Address } from '../../src/wire/core.ts';
import { Struct } from '../../src/wire/google/protobuf/struct.ts';
import { field } from '../ext-authz/proto-bytes.ts';

export const web = 'spiffe://mesh.test/ns/shop/sa/web';
export const orders = 'spiffe://mesh.test/ns/shop/sa/orders';
/** When the calls and connections of here begin; each takes 20 ms. */
export const began = new Date('2026-01-31T12:00:00.000Z');

/** What an entry tells, in short; what is left out is as for an allowed call of `web` to `orders` over mTLS. */
export type EntryInput = {
  readonly peer?: string | readonly string[] | null;
  readonly own?: string | null;
  readonly serial?: string;
  readonly failure?: string;
  readonly status?: number;
  readonly details?: string;
  readonly method?: number;
  readonly flags?: Readonly<Record<string, boolean>>;
  /** What the authorization filter noted; null for nothing. */
  readonly note?: Readonly<Record<string, unknown>> | null;
  readonly filter?: string;
  readonly bytes?: number;
  readonly type?: number;
  readonly at?: Date;
  readonly authority?: string;
  readonly path?: string;
  /** What the filters for policies noted: the result and the leaf. */
  readonly rbac?: readonly [result: string, leaf: string];
  readonly ended?: string;
};

export const allowedNote = { decision_id: 'd-1', verdict: 'allow', rule: 'shop/orders rule[0]' };

/** An HTTPAccessLogEntry. */
export function httpEntry(input: EntryInput = {}): Uint8Array {
  const { method = 1, status = 200, details = 'via_upstream', type = 6 } = input;
  const { authority = 'orders.shop', path = '/orders/17?token=x' } = input;
  return HTTPAccessLogEntry.encode({
    commonProperties: common({ ...input, type }),
    request: { requestMethod: method, authority: Buffer.from(authority), path: Buffer.from(path) },
    response: { responseCode: status, responseCodeDetails: details },
  }).finish();
}

/** A TCPAccessLogEntry, as a listener writes it. */
export function tcpEntry(input: EntryInput = {}): Uint8Array {
  const { bytes = 100, note = null } = input;
  return TCPAccessLogEntry.encode({
    commonProperties: common({ ...input, note }),
    connectionProperties: { receivedBytes: BigInt(bytes), sentBytes: BigInt(bytes) },
  }).finish();
}

/** A StreamAccessLogsMessage, with an identifier that nobody is to believe. */
export function message(kind: 'http' | 'tcp', ...entries: readonly Uint8Array[]): Buffer {
  const logs = Buffer.concat(entries.map((entry) => field(1, entry)));
  return Buffer.concat([field(1, field(1, field(1, 'somebody else'))), field(kind === 'http' ? 2 : 3, logs)]);
}

function common(input: EntryInput): AccessLogCommon {
  const { peer = web, own = orders, serial = '0A1B', failure = '', note = allowedNote } = input;
  const { flags, type = 0, at = began, filter = 'envoy.filters.http.ext_authz' } = input;
  const empty = AccessLogCommon.decode(new Uint8Array());
  const [result, leaf] = input.rbac ?? [];
  const rbac = { enforced_engine_result: result, enforced_effective_policy_id: leaf };
  const namespaces = [
    ...(note === null ? [] : [space(filter, note)]),
    ...(result === undefined ? [] : [space('envoy.filters.http.rbac', rbac)]),
  ];
  const namesOf = (uris: readonly string[]) => ({ subjectAltName: uris.map((uri) => ({ uri })) });
  return {
    ...empty,
    downstreamLocalAddress: address('127.0.0.1', 15_443),
    downstreamDirectRemoteAddress: address('192.0.2.9', 51_000),
    upstreamRemoteAddress: address('::1', 8_080),
    tlsProperties:
      own === null
        ? undefined
        : {
            tlsVersion: 4,
            localCertificateProperties: namesOf([own]),
            peerCertificateProperties: namesOf(peer === null ? [] : [peer].flat()),
          },
    startTime: { seconds: BigInt(Math.floor(at.getTime() / 1_000)), nanos: 0 },
    duration: { seconds: 0n, nanos: 20_000_000 },
    responseFlags:
      flags === undefined
        ? undefined
        : {
            ...AccessLogCommon.decode(field(16, '')).responseFlags!,
            ...flags,
          },
    metadata: namespaces.length === 0 ? undefined : { filterMetadata: namespaces },
    customTags: serial === '' ? [] : [{ key: 'peer_serial', value: serial }],
    connectionTerminationDetails: input.ended ?? '',
    downstreamTransportFailureReason: failure,
    downstreamWireBytesReceived: 200n,
    downstreamWireBytesSent: 300n,
    accessLogType: type,
  };
}

function space(key: string, fields: Readonly<Record<string, unknown>>) {
  return { key, value: Buffer.from(Struct.encode(Struct.wrap(fields)).finish()) };
}

/** The bytes of an Address. */
export function address(host: string, port: number): Buffer {
  const portSpecifier = { $case: 'portValue', portValue: port } as const;
  const socketAddress = { protocol: 0, address: host, portSpecifier };
  return Buffer.from(Address.encode({ address: { $case: 'socketAddress', socketAddress } }).finish());
}

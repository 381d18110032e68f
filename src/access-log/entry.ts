import type { ConnectionsEvent, OutcomeEvent } from '../audit/access-event.ts';
import { isRuleName } from '../audit/closed-texts.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { asBuffer } from '../grpc/as-buffer.ts';
import { type AccessLogCommon, HTTPAccessLogEntry, TCPAccessLogEntry } from '../wire/access_log.ts';
import { Address } from '../wire/core.ts';
import type { Duration } from '../wire/google/protobuf/duration.ts';
import { type DecisionNote, readDecisionNote } from './decision-note.ts';
import type { Frame } from './frames.ts';
import { type LeafVerdict, readProxyVerdict } from './proxy-verdict.ts';
import { formatFlags } from './response-flags.ts';
import { cut, readOwnUri, readTlsPeer } from './tls-peer.ts';

/** A call as a proxy tells of it. */
export type Call = Omit<OutcomeEvent, 'type' | 'destination' | 'caller' | 'upstream'> & {
  /** Of who answered, for {@link readAddress}. */
  readonly upstreamAddress: Uint8Array;
  /** Whether the decision about it has a record of its own. */
  readonly isRecorded: boolean;
  /** Where the proxy decided by itself, and nobody was asked. */
  readonly judged?: JudgedCall;
};

/** What a proxy says that it decided by itself, and about what. */
export type JudgedCall = LeafVerdict & {
  readonly host: string;
  /** Without a query. */
  readonly path: string;
  /** `address:port`. */
  readonly sourceAddress: string;
  /** The value of the rule's `paths` that the path fits; left out where no rule is known to it. */
  readonly pathPattern?: string;
};

/** A connection as a proxy tells of it. */
export type Connection = Omit<
  ConnectionsEvent,
  'type' | 'from' | 'to' | 'count' | 'destination' | 'caller' | 'sourceAddress'
> & { readonly sourceAddress: string };

/** What an entry tells of: one of the two, both for a TCP connection that policy decided about, or nothing that counts. */
export type Seen = {
  /** The identity in the certificate that the proxy has shown; undefined when there was no TLS. */
  readonly ownUri: string | undefined;
  /** When the call began, by the clock of the proxy, where a filter for policies judged it: those are counted there, too. */
  readonly judgedMs?: number;
  readonly call?: Call;
  readonly connection?: Connection;
};

/**
 * Reads an entry of Envoy's access log. Those that it writes of a call or a connection that goes on tell of nothing: each is
 * told when it is over.
 * @param now no time that it tells is later, or earlier than a day ago
 * @throws Error when it is none
 * @see https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/data/accesslog/v3/accesslog.proto
 */
export function readEntry({ kind, bytes }: Frame, trustDomain: TrustDomain, now: Date): Seen {
  return kind === 'http'
    ? readHttp(HTTPAccessLogEntry.decode(bytes), trustDomain, now)
    : readTcp(TCPAccessLogEntry.decode(bytes), trustDomain, now);
}

/**
 * An envoy.config.core.v3.Address as `address:port` or the path of a socket; empty when it is neither.
 * @throws Error when it is none
 */
export function readAddress(bytes: Uint8Array): string {
  if (bytes.length > maxAddressBytes) return '';
  const whole = Address.decode(bytes);
  const of = whole.address;
  if (of?.$case === 'pipe') return cut(of.pipe.path, maxAddress);
  if (of?.$case !== 'socketAddress') return '';
  const host = of.socketAddress.address;
  return cut(`${host.includes(':') ? `[${host}]` : host}:${portOf(whole)}`, maxAddress);
}

function readHttp(entry: HTTPAccessLogEntry, trustDomain: TrustDomain, now: Date): Seen {
  const { commonProperties: common, request, response } = entry;
  if (common === undefined) throw new Error('an entry without common properties');
  const ownUri = readOwnUri(common);
  if (!endsOfCalls.has(common.accessLogType)) return { ownUri };
  const { source, sourceSerial } = readTlsPeer(common, true, trustDomain);
  const status = response?.responseCode ?? 0;
  const details = cut(response?.responseCodeDetails ?? '', maxDetails);
  const note = readDecisionNote(common.metadata);
  const said = readProxyVerdict(common.metadata);
  const judged = note === undefined ? said.verdict : undefined;
  const isDenied = note?.verdict === 'deny' || details.startsWith('rbac_access_denied');
  const method = methods[request?.requestMethod ?? 0] ?? otherMethod;
  const outcome = isDenied ? 'denied' : status === 0 || status >= 500 ? 'error' : 'ok';
  const call = { protocol: 'http', method, outcome, status, details, source, sourceSerial } as const;
  const bytes = {
    bytesReceived: integerOf(common.downstreamWireBytesReceived),
    bytesSent: integerOf(common.downstreamWireBytesSent),
  };
  const parts = { ...call, ...bytes, ...partsOfCall(common, note, now) };
  const began = said.result !== '' ? { judgedMs: startOf(common, now) } : {};
  if (judged === undefined) return { ownUri, ...began, call: parts };
  const host = cut(asBuffer(request?.authority ?? noBytes).toString('utf8', 0, maxHost), maxHost);
  const path = pathOf(request?.path ?? noBytes);
  const sourceAddress = readAddress(common.downstreamDirectRemoteAddress);
  const told = { ...judged, host, path, sourceAddress };
  return { ownUri, ...began, call: { ...parts, rule: judged.rule, judged: told } };
}

function readTcp(entry: TCPAccessLogEntry, trustDomain: TrustDomain, now: Date): Seen {
  const { commonProperties: common, connectionProperties } = entry;
  if (common === undefined) throw new Error('an entry without common properties');
  const ownUri = readOwnUri(common);
  if (!endsOfConnections.has(common.accessLogType)) return { ownUri };
  const bytes = {
    bytesReceived: integerOf(connectionProperties?.receivedBytes ?? 0n),
    bytesSent: integerOf(connectionProperties?.sentBytes ?? 0n),
  };
  const said = readProxyVerdict(common.metadata, common.connectionTerminationDetails);
  // Policy judges at the first byte of the application.
  const hasSpoken = bytes.bytesReceived + bytes.bytesSent > 0 || said.result !== '';
  const peer = readTlsPeer(common, hasSpoken, trustDomain);
  const connection: Connection = {
    ...peer,
    time: endOf(common, now),
    port: readPort(common.downstreamLocalAddress),
    sourceAddress: readAddress(common.downstreamDirectRemoteAddress),
  };
  const note = readDecisionNote(common.metadata);
  const judged = note === undefined ? said.verdict : undefined;
  // Envoy names no leaf of those that it lets pass.
  const began = said.result === 'denied' ? { judgedMs: startOf(common, now) } : {};
  if (note === undefined && judged === undefined) return { ownUri, ...began, connection };
  const parts = partsOfCall(common, note, now);
  const verdict = note?.verdict ?? judged?.verdict;
  const outcome = verdict === 'deny' ? 'denied' : parts.flags === '' ? 'ok' : 'error';
  const { source, sourceSerial } = peer;
  const call = {
    protocol: 'tcp',
    method: '',
    outcome,
    status: 0,
    details: '',
    source,
    sourceSerial,
  } as const;
  const told = { ...call, ...bytes, ...parts };
  if (judged === undefined) return { ownUri, ...began, connection, call: told };
  const { sourceAddress } = connection;
  return {
    ownUri,
    ...began,
    connection,
    call: { ...told, rule: judged.rule, judged: { ...judged, host: '', path: '', sourceAddress } },
  };
}

/** The clock of the proxy alone: it is held against other times of the same clock. */
function startOf({ startTime }: AccessLogCommon, now: Date): number {
  return startTime === undefined
    ? now.getTime()
    : integerOf(startTime.seconds) * 1_000 + startTime.nanos / 1_000_000;
}

/** A query may hold secrets and decides nothing. */
function pathOf(bytes: Uint8Array): string {
  const written = asBuffer(bytes).toString('utf8', 0, maxPathBytes);
  return cut(written.replace(/[?#].*$/s, ''), maxPath);
}

function partsOfCall(common: AccessLogCommon, note: DecisionNote | undefined, now: Date) {
  return {
    time: endOf(common, now),
    decisionId: note?.decisionId ?? '',
    isRecorded: note?.isRecorded ?? false,
    // A proxy that makes one up has none: counts are kept by it.
    rule: note !== undefined && isRuleName(note.rule) ? note.rule : '',
    port: readPort(common.downstreamLocalAddress),
    flags: formatFlags(common.responseFlags),
    upstreamAddress: common.upstreamRemoteAddress,
    durationMs: Math.max(0, msOf(common.duration)),
  };
}

/** A clock that is a little ahead or behind is no lie; a time of next year would head every list until then. */
function endOf({ startTime, duration }: AccessLogCommon, now: Date): Date {
  const nowMs = now.getTime();
  if (startTime === undefined) return now;
  const ms = integerOf(startTime.seconds) * 1_000 + startTime.nanos / 1_000_000 + msOf(duration);
  return ms > nowMs - oldestMs && ms < nowMs ? new Date(Math.floor(ms)) : now;
}

function msOf(duration: Duration | undefined): number {
  if (duration === undefined) return 0;
  return Math.min(
    maxDurationMs,
    integerOf(duration.seconds) * 1_000 + Math.round(duration.nanos / 1_000_000),
  );
}

/** Counts are whole numbers that JSON holds; what is more is as much as that. */
function integerOf(value: bigint): number {
  if (value < 0n) return 0;
  return value > maxInteger ? maxCount : Number(value);
}

/** The port of an address, which is the same for all entries of a listener. */
function readPort(bytes: Uint8Array): number {
  const own = asBuffer(bytes);
  if (own.equals(lastAddress.bytes)) return lastAddress.port;
  const port = bytes.length > maxAddressBytes ? 0 : portOf(Address.decode(bytes));
  lastAddress = { bytes: Buffer.from(own), port };
  return port;
}

let lastAddress = { bytes: Buffer.alloc(0), port: 0 };

function portOf({ address }: Address): number {
  const port = address?.$case === 'socketAddress' ? address.socketAddress.portSpecifier : undefined;
  return port?.$case === 'portValue' ? Math.min(port.portValue, 65_535) : 0;
}

// envoy.data.accesslog.v3.AccessLogType: not set, DownstreamEnd.
const endsOfCalls: ReadonlySet<number> = new Set([0, 6]);
// Not set, TcpConnectionEnd.
const endsOfConnections: ReadonlySet<number> = new Set([0, 3]);
// envoy.config.core.v3.RequestMethod; what it does not know is 0.
const otherMethod = 'OTHER';
const methods = [
  otherMethod,
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
] as const;
const noBytes = new Uint8Array();
const maxHost = 255;
const maxPath = 2_048;
const maxPathBytes = 8_192;
const maxDetails = 256;
const maxAddress = 255;
const maxAddressBytes = 1_024;
const oldestMs = 86_400_000;
const maxDurationMs = 31_536_000_000;
/** Sums of a window stay whole numbers. */
const maxCount = 2 ** 40;
const maxInteger = BigInt(maxCount);

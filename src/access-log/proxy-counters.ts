import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { asBuffer } from '../grpc/as-buffer.ts';
import { CounterFamily } from '../wire/metrics.ts';
import type { ProxyCount } from './proxy-tally.ts';

/** The counters of policy and access logs in one message; undefined when it has none of them. */
export type PolicyCounters = Pick<ProxyCount, 'atMs' | 'uptimeSeconds' | 'judged' | 'active' | 'dropped'>;

/**
 * Reads an `envoy.service.metrics.v3.StreamMetricsMessage`, in which a proxy tells all of its counters as they are: names are
 * looked at, and few are decoded. For TCP denials are what counts, as access logs name no others.
 * @throws Error where the message is none
 */
export function readPolicyCounters(message: Uint8Array): PolicyCounters | undefined {
  const judged = new Map<string, number>();
  const active = new Map<string, number>();
  let [tcpDenied, dropped, uptimeSeconds, atMs] = [0, 0, 0, 0];
  let hasPolicy = false;
  for (const { name, bytes } of familiesOf(message)) {
    const kind = kindOf(name);
    if (kind === undefined) continue;
    const { value, timestampMs } = readValue(bytes);
    atMs = timestampMs;
    if (kind.of === 'uptime') uptimeSeconds = value;
    else if (kind.of === 'dropped') dropped = value;
    else if (kind.of === 'active') active.set(kind.prefix, value);
    else {
      hasPolicy = true;
      if (kind.of === 'tcp') tcpDenied = add(tcpDenied, value);
      else judged.set(kind.prefix, add(judged.get(kind.prefix) ?? 0, value));
    }
  }
  if (!hasPolicy) return undefined;
  let [all, goingOn] = [tcpDenied, 0];
  for (const [prefix, value] of judged) {
    all = add(all, value);
    goingOn = add(goingOn, active.get(prefix) ?? 0);
  }
  return { atMs, uptimeSeconds, judged: all, active: goingOn, dropped };
}

type Kind =
  | { readonly of: 'uptime' }
  | { readonly of: 'dropped' }
  | { readonly of: 'tcp' }
  | { readonly of: 'http'; readonly prefix: string }
  | { readonly of: 'active'; readonly prefix: string };

/** By the names that Envoy gives; those of trials (`shadow_`) and of single rules are others. */
function kindOf(name: string): Kind | undefined {
  if (name.endsWith('.downstream_rq_active')) {
    const [, prefix] = /^http\.(.+)\.downstream_rq_active$/.exec(name) ?? [];
    return prefix === undefined ? undefined : { of: 'active', prefix };
  }
  if (name.includes('.rbac.')) {
    const [, prefix] = /^http\.(.+)\.rbac\.(?:countersign\.)?(?:allowed|denied)$/.exec(name) ?? [];
    if (prefix !== undefined) return { of: 'http', prefix };
    return /^(?!http\.).+\.rbac\.denied$/.test(name) ? { of: 'tcp' } : undefined;
  }
  if (name === 'server.uptime') return { of: 'uptime' };
  return name === 'access_logs.grpc_access_log.logs_dropped' ? { of: 'dropped' } : undefined;
}

type Family = { readonly name: string; readonly bytes: Uint8Array };

function* familiesOf(message: Uint8Array): Generator<Family, void> {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field !== envoyMetrics || wireType !== WireType.LengthDelimited) {
      reader.skip(wireType, field);
      continue;
    }
    const bytes = reader.bytes();
    const name = nameOf(bytes);
    if (name !== '') yield { name, bytes };
  }
}

/** Envoy writes the name first: a tag, a length of one byte or two, and the text. Empty where there is none that is read. */
function nameOf(bytes: Uint8Array): string {
  const [tag = 0, low = 0, high = 0] = bytes;
  if (tag !== nameTag) return '';
  const isLong = low > 0x7f;
  const length = isLong ? (low & 0x7f) | (high << 7) : low;
  const from = isLong ? 3 : 2;
  if (length > maxName || from + length > bytes.length) return '';
  // Of a hundred names few end so.
  const last = bytes[from + length - 1];
  if (last !== letterD && last !== letterE) return '';
  return asBuffer(bytes).toString('latin1', from, from + length);
}

function readValue(bytes: Uint8Array): { readonly value: number; readonly timestampMs: number } {
  const [metric] = CounterFamily.decode(bytes).metric;
  const value = metric?.counter?.value ?? metric?.gauge?.value ?? 0;
  const timestampMs = metric?.timestampMs ?? 0n;
  return {
    value: Number.isFinite(value) ? Math.min(maxCount, Math.max(0, Math.floor(value))) : 0,
    timestampMs: timestampMs > 0n && timestampMs < maxTime ? Number(timestampMs) : 0,
  };
}

function add(a: number, b: number): number {
  return Math.min(maxCount, a + b);
}

const envoyMetrics = 2;
const nameTag = 0x0a;
const [letterD, letterE] = [0x64, 0x65];
const maxName = 512;
/** Sums stay whole numbers. */
const maxCount = 2 ** 40;
const maxTime = 8_640_000_000_000_000n;

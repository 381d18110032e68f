import { isCut } from '../audit/logged-decision.ts';
import type { RecordedCall } from '../audit/recorded-call.ts';
import { untold } from '../authz/context.ts';
import type { Attribute } from '../authz/document.ts';
import { parsePathPattern } from '../authz/path-cover.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { CallToRejudge } from '../authz/rejudge.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { asSent, callOfRecord, neverHeld } from './decision-call.ts';
import { readLoggedId } from './logged-id.ts';

/** Reads identities out of records; thousands of records name the same few. */
export type ReadId = (text: string) => SpiffeId | undefined;

/** Makes it. What is no identity of a workload is undefined. */
export function createReadId(): ReadId {
  const known = new Map<string, SpiffeId | undefined>();
  return (text) => {
    if (known.has(text)) return known.get(text);
    if (known.size >= maxRemembered) known.clear();
    const id = readLoggedId(text);
    known.set(text, id);
    return id;
  };
}

/**
 * The calls of a record, as far as it goes. Undefined when it does not say who called whom.
 * @param then how policies were read; null when that is not known
 * @param now how they are to be read
 */
export function callToRejudge(
  call: RecordedCall,
  readId: ReadId,
  then: PolicyMode | null,
  now: PolicyMode,
): CallToRejudge | undefined {
  if (call.kind === 'decision') return decided(call, then, now);
  const { protocol, method, port } = call;
  const destination = readId(call.destination);
  const source = call.source === '' ? null : readId(call.source);
  if (destination === undefined || source === undefined || isCut(method)) return undefined;
  const unknown = new Set<Attribute>([...neverHeld, 'source.ip', 'remote.ip']);
  // The door that decided knew the port, or said that it did not; a proxy's log may have none of its own accord.
  if (call.kind === 'seen' && port === 0) unknown.add('destination.port');
  const ends = { source, destination, port, context: untold };
  const known = { unknown, isHostPortUnknown: false };
  if (protocol === 'tcp') return { call: { protocol, ...ends }, ...known, paths: null };
  if (protocol !== 'http') return undefined;
  unknown.add('request.host');
  // A path that Istio's reading compared may be one that strict mode refuses.
  const isCanonical = then === 'strict' || (then === null && now === 'strict');
  const paths = isCanonical && call.pathPattern !== null ? parsePathPattern(call.pathPattern) : undefined;
  if (paths === undefined) unknown.add('request.path');
  if (method === '') unknown.add('request.method');
  const sent = { method: method === '' ? 'GET' : method, path: '/', authority: 'unknown' };
  return { call: { protocol, ...ends, ...sent }, ...known, paths: paths ?? null };
}

function decided(call: RecordedCall, then: PolicyMode | null, now: PolicyMode): CallToRejudge | undefined {
  const { sourceAddress } = call;
  const record = {
    ...nothing,
    ...call,
    host: call.host ?? '',
    sourceAddress: sourceAddress?.includes(':') === true ? `[${sourceAddress}]` : sourceAddress,
  };
  const known = callOfRecord(record, then);
  if (known === undefined) return undefined;
  return { ...(now === 'istio' ? asSent(known, record, then) : known), paths: null };
}

const nothing = {
  ...{ index: 0, leafHash: '', decisionId: '', time: '', why: '', sourceSerial: '', breakGlass: '' },
  proxy: { node: '', pid: 0, uid: 0 },
};
const maxRemembered = 65_536;

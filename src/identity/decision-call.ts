import { isCut, type LoggedDecision } from '../audit/logged-decision.ts';
import { parseAddress } from '../authz/cidr.ts';
import { untold } from '../authz/context.ts';
import type { Attribute } from '../authz/document.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { PartlyKnownCall } from '../authz/replay.ts';
import { readLoggedId } from './logged-id.ts';

/** A call as far as its record in the log goes, and what the record does not hold, in words. */
export type CallOfRecord = PartlyKnownCall & { readonly notHeld: readonly string[] };

/**
 * The call that a record is about. Undefined when the record does not say who called whom: a proxy claimed a name that is
 * none, or a text was cut.
 * @param mode how policies were read then; null when that is not known
 */
export function callOfRecord(record: LoggedDecision, mode: PolicyMode | null): CallOfRecord | undefined {
  const destination = readLoggedId(record.destination);
  const source = record.source === '' ? null : readLoggedId(record.source);
  if (destination === undefined || source === undefined) return undefined;
  if ([record.method, record.host].some(isCut)) return undefined;
  const { protocol, port, path, host, method } = record;
  if (protocol !== 'http' && protocol !== 'tcp') return undefined;
  const address = readAddress(record.sourceAddress);
  const unknown = new Set<Attribute>(neverHeld);
  const notHeld = protocol === 'http' ? [...missingOfHttp] : [...missingOfTcp];
  if (address === undefined) {
    unknown.add('source.ip').add('remote.ip');
    notHeld.push('the address of the caller');
  }
  const context = { ...untold, sourceIp: address?.ip, remoteIp: address?.ip };
  const common = { source, destination, port, context };
  if (protocol === 'tcp') {
    return { call: { protocol, ...common }, unknown, isHostPortUnknown: false, notHeld };
  }
  const isPathHeld = path !== null && !isCut(path);
  if (!isPathHeld) {
    unknown.add('request.path');
    notHeld.push('the path');
  }
  // What was judged strictly is there as it was compared: the port of the host is not, and escapes are undone.
  const isAsSent = mode === 'istio' || deniedAsSent.has(record.reason);
  const isHostPortUnknown = !isAsSent && !/:[0-9]{1,5}$/.test(host);
  if (isHostPortUnknown) notHeld.push('the port in the host, if there was one');
  const sent = { method, path: isPathHeld ? path : '/', authority: host };
  return { call: { protocol, ...common, ...sent }, unknown, isHostPortUnknown, notHeld };
}

/** The same call where policies are read as Istio does: it compares with what was sent, of which strict mode keeps another form. */
export function asSent(known: CallOfRecord, record: LoggedDecision, mode: PolicyMode | null): CallOfRecord {
  if (known.call.protocol === 'tcp' || mode === 'istio' || deniedAsSent.has(record.reason)) return known;
  const unknown = new Set<Attribute>([...known.unknown, 'request.path', 'request.host']);
  return { ...known, unknown };
}

const deniedAsSent: ReadonlySet<string> = new Set([
  'banned',
  'request_ambiguous',
  'request_invalid',
  'caller_unknown',
  'destination_forged',
]);

/** What no record of a call holds. */
export const neverHeld: readonly Attribute[] = [
  'request.headers',
  'request.auth.principal',
  'request.auth.audiences',
  'request.auth.presenter',
  'request.auth.claims',
  'connection.sni',
  'destination.ip',
  'filter.metadata',
];
const missingOfTcp: readonly string[] = [
  'the name that TLS asked for',
  'the address of the destination',
  'what filters of the proxy noted',
];
const missingOfHttp: readonly string[] = ['the query', 'headers', 'the token', ...missingOfTcp];

/** Undefined when it is not known; without an `ip` when the proxy had none to tell. */
function readAddress(text: string | null): { readonly ip: string | undefined } | undefined {
  if (text === null || isCut(text)) return undefined;
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::[0-9]{1,5})?$/.exec(text) ?? [];
  const ip = bracketed ?? plain;
  return { ip: ip !== undefined && parseAddress(ip) !== undefined ? ip : undefined };
}

import { type OcsfEvent, ocsfClasses } from './export-ocsf-event.ts';
import { callerOf, type Fields, filled } from './export-ocsf-fields.ts';

/** A call that was decided about, or several: HTTP Activity, or Network Activity for those of TCP. */
export function decisionEvent(fields: Fields, isAllowed: boolean): OcsfEvent {
  const isTcp = fields.text('protocol') === 'tcp';
  const method = fields.peek('method');
  const [rule, revision] = [fields.text('rule'), fields.text('revision')];
  const serial = fields.text('sourceSerial');
  const members = filled({
    // The security_control profile: what a control did about the activity.
    ...(isAllowed
      ? { action_id: 1, action: 'Allowed', disposition_id: 1, disposition: 'Allowed' }
      : { action_id: 2, action: 'Denied', disposition_id: 2, disposition: 'Blocked' }),
    policy: { name: rule === '' ? 'none' : rule, version: revision },
    status_code: fields.text('reason'),
    status_detail: fields.text('why'),
    src_endpoint: {
      svc_name: fields.text('source') || 'no certificate',
      ...peersOf(fields.personal('sourceAddress')),
      ...(serial === '' ? {} : { uid: serial }),
    },
    dst_endpoint: endpointOf(fields),
    actor: callerOf(fields),
    ...(isTcp ? {} : { http_request: requestOf(fields) }),
  });
  return {
    ocsfClass: isTcp ? ocsfClasses.network : ocsfClasses.http,
    activity: isTcp
      ? isAllowed
        ? [1, 'Open']
        : [5, 'Refuse']
      : (httpActivities.get(method) ?? [99, method === '' ? 'Other' : method]),
    status: isAllowed ? 'success' : 'failure',
    // host: it has the actor.
    profiles: ['host', 'security_control'],
    members,
  };
}

/** An address as an endpoint: `192.0.2.7:1234`, `[2001:db8::1]:1234`, an address alone, or a path. Nothing of nothing. */
export function peersOf(address: string): Readonly<Record<string, unknown>> {
  const match = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)|([0-9a-f:.]+))(?::([0-9]{1,5}))?$/i.exec(address);
  const [, bracketed, v4, v6, port] = match ?? [];
  const ip = bracketed ?? v4 ?? v6;
  if (address === '') return {};
  if (ip === undefined) return { name: address };
  return port === undefined ? { ip } : { ip, port: Number(port) };
}

function endpointOf(fields: Fields): Readonly<Record<string, unknown>> {
  const [host, port] = [fields.text('host'), fields.number('port')];
  return {
    svc_name: fields.text('destination') || 'unknown',
    ...(host === '' ? {} : { domain: host }),
    ...(port === 0 ? {} : { port }),
  };
}

function requestOf(fields: Fields): Readonly<Record<string, unknown>> {
  const path = fields.personal('path');
  return {
    // Of others the schema has no word: they stay in `unmapped`.
    ...(httpActivities.has(fields.peek('method')) ? { http_method: fields.text('method') } : {}),
    ...(path === '' ? {} : { url: { path } }),
  };
}

const httpActivities: ReadonlyMap<string, readonly [number, string]> = new Map([
  ['CONNECT', [1, 'Connect']],
  ['DELETE', [2, 'Delete']],
  ['GET', [3, 'Get']],
  ['HEAD', [4, 'Head']],
  ['OPTIONS', [5, 'Options']],
  ['POST', [6, 'Post']],
  ['PUT', [7, 'Put']],
  ['TRACE', [8, 'Trace']],
  ['PATCH', [9, 'Patch']],
]);

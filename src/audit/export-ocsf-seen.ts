import { decisionEvent, peersOf } from './export-ocsf-calls.ts';
import { type OcsfEvent, ocsfClasses } from './export-ocsf-event.ts';
import { callerOf, type Fields, filled } from './export-ocsf-fields.ts';

/** What became of a call, as the proxy before its callee saw it. */
export function outcomeEvent(fields: Fields): OcsfEvent {
  const outcome = fields.text('outcome');
  const event = decisionEvent(fields, outcome !== 'denied');
  const [status, details] = [fields.number('status'), fields.text('details')];
  const answer = { status_code: status === 0 ? outcome : `${status}`, status_detail: details };
  return {
    ...event,
    status: outcome === 'ok' ? 'success' : 'failure',
    members: filled({ ...event.members, ...answer }),
  };
}

/** Several of them, counted together. */
export function outcomesEvent(fields: Fields): OcsfEvent {
  const { members, ...event } = outcomeEvent(fields);
  return { ...event, members: { ...members, ...timesOf(fields), count: fields.number('count') } };
}

/** Connections to a proxy: Network Activity. What nobody verified stays in `unmapped`, and is the name of nobody. */
export function connectionsEvent(fields: Fields): OcsfEvent {
  const kind = fields.text('kind');
  const isOpen = kind !== 'tls_failed';
  const serial = fields.text('sourceSerial');
  const port = fields.number('port');
  return {
    ocsfClass: ocsfClasses.network,
    activity: isOpen ? [1, 'Open'] : [4, 'Fail'],
    status: isOpen ? 'success' : 'failure',
    profiles: ['host'],
    members: filled({
      status_code: kind,
      status_detail: fields.text('failure'),
      src_endpoint: {
        svc_name: fields.text('source') || 'not verified',
        ...peersOf(fields.personal('sourceAddress')),
        ...(serial === '' ? {} : { uid: serial }),
      },
      dst_endpoint: {
        svc_name: fields.text('destination') || 'unknown',
        ...(port === 0 ? {} : { port }),
      },
      actor: callerOf(fields),
      ...timesOf(fields),
      count: fields.number('count'),
    }),
  };
}

function timesOf(fields: Fields): Readonly<Record<string, number | undefined>> {
  return { start_time: fields.timeMs('from'), end_time: fields.timeMs('to') };
}

import type { AuditEventType } from './event.ts';
import { decisionEvent, peersOf } from './export-ocsf-calls.ts';
import { type OcsfEvent, ocsfClasses } from './export-ocsf-event.ts';
import { connectionsEvent, outcomeEvent, outcomesEvent } from './export-ocsf-seen.ts';
import { actorOf, callerOf, type Fields, filled } from './export-ocsf-fields.ts';

/** A record of a type that this program does not know: all of it is in `unmapped`. */
export function unknownEvent(): OcsfEvent {
  return { ocsfClass: ocsfClasses.base, activity: [99, 'Other'], status: 'success', members: {} };
}

/** How records of each type are written. A type that is new has no row here, and does not compile. */
export const ocsfMappings: Record<AuditEventType, (fields: Fields) => OcsfEvent> = {
  issuance: (fields) =>
    entityEvent(activities.created, {
      entity: entity('X.509-SVID', fields.text('serial'), fields.text('spiffeId')),
      actor: callerOf(fields),
    }),
  jwt_issuance: (fields) =>
    entityEvent(activities.created, {
      entity: entity('JWT-SVID', fields.text('jwtId'), fields.text('spiffeId')),
      actor: fields.has('actor') ? actorOf(fields) : callerOf(fields),
    }),
  refusal: (fields) => {
    const actor = callerOf(fields);
    return {
      ocsfClass: ocsfClasses.authentication,
      activity: [1, 'Logon'],
      status: 'failure',
      members: {
        user: actor['user'],
        actor,
        service: { name: fields.text('door') },
        status_code: fields.text('code'),
        status_detail: fields.text('message'),
        count: fields.number('count'),
      },
    };
  },
  entry_change: (fields) =>
    changeEvent(
      fields,
      entity('registration entry', fields.text('entryId'), fields.text('spiffeId'), fields.text('revision')),
    ),
  policy_change: (fields) => {
    const [name, version] = [fields.text('policy'), fields.text('revision')];
    return changeEvent(fields, {
      type_id: 5,
      type: 'Policy',
      name,
      version,
      policy: { name, version },
    });
  },
  policy_text: (fields) =>
    entityEvent([99, 'Part'], {
      entity: {
        type_id: 5,
        type: 'Policy',
        name: fields.text('policy'),
        version: fields.text('revision'),
      },
    }),
  policy_revision: (fields) =>
    changeEvent(fields, entity('policy revision', fields.text('number'), '', fields.text('revision')), {
      comment: fields.text('message'),
    }),
  policy_rollout: (fields) =>
    changeEvent(fields, entity('policy rollout', fields.text('rollout'), '', fields.text('step')), {
      comment: fields.text('message'),
    }),
  // Two verdicts of one call have no place in the schema: all of it is in `unmapped`.
  candidate_calls: unknownEvent,
  decision: (fields) => decisionEvent(fields, fields.text('verdict') === 'allow'),
  allowed_calls: (fields) => {
    const { members, ...event } = decisionEvent(fields, true);
    const times = { start_time: fields.timeMs('from'), end_time: fields.timeMs('to') };
    return { ...event, members: { ...members, ...times, count: fields.number('count') } };
  },
  outcome: outcomeEvent,
  outcomes: outcomesEvent,
  connections: connectionsEvent,
  proxy_verdict: (fields) => decisionEvent(fields, fields.text('verdict') === 'allow'),
  proxy_verdicts: (fields) => {
    const { members, ...event } = decisionEvent(fields, fields.text('verdict') === 'allow');
    const times = { start_time: fields.timeMs('from'), end_time: fields.timeMs('to') };
    return { ...event, members: { ...members, ...times, count: fields.number('count') } };
  },
  proxy_coverage: unknownEvent,
  // Its members have no place in the base event.
  alarm: unknownEvent,
  loss: (fields) => ({
    ocsfClass: ocsfClasses.eventLog,
    activity: [99, 'Lose'],
    status: 'failure',
    members: {
      log_name: fields.text('what'),
      log_provider: 'countersign',
      count: fields.number('count'),
      start_time: fields.timeMs('from'),
      end_time: fields.timeMs('to'),
      status_detail: fields.text('cause'),
    },
  }),
  authority: (fields) =>
    changeEvent(fields, entity('certificate authority', fields.text('keyId'), fields.text('trustDomain'))),
  admin: adminEvent,
  lifecycle: (fields) => ({
    ocsfClass: ocsfClasses.lifecycle,
    activity: fields.text('action') === 'stopped' ? [4, 'Stop'] : [3, 'Start'],
    status: 'success',
    members: { app: { name: 'Countersign', vendor_name: 'Countersign', version: fields.text('version') } },
  }),
  ban: (fields) =>
    changeEvent(
      fields,
      entity(`ban of a ${fields.text('kind')}`, fields.text('value'), '', fields.text('revision')),
      { comment: fields.text('reason') },
    ),
  jwt_key: (fields) =>
    changeEvent(fields, entity('JWT key', fields.text('keyId'), fields.text('trustDomain'))),
  node: nodeEvent,
  node_alias_change: (fields) =>
    changeEvent(fields, entity('node alias', fields.text('alias'), '', fields.text('revision'))),
  grant_change: (fields) =>
    changeEvent(fields, entity('grant', fields.text('grant'), '', fields.text('revision'))),
  retention: (fields) => ({
    ocsfClass: ocsfClasses.eventLog,
    activity: [2, 'Delete'],
    status: 'success',
    members: {
      log_name: fields.text('class'),
      log_provider: 'countersign',
      count: fields.number('entries'),
      actor: actorOf(fields),
    },
  }),
};

function adminEvent(fields: Fields): OcsfEvent {
  const [action, method] = [fields.text('action'), fields.text('method')];
  const [route, code] = [fields.text('route'), fields.text('code')];
  const operation = [method, route].filter((part) => part !== '').join(' ');
  return {
    ocsfClass: ocsfClasses.api,
    activity: apiActivities.get(method) ?? [99, 'Other'],
    status: action === 'refused' || code !== '' ? 'failure' : 'success',
    members: {
      actor: actorOf(fields),
      api: {
        operation: operation === '' ? action : operation,
        service: { name: 'countersign' },
        ...(code === '' ? {} : { response: { error: code } }),
      },
      // The class asks for one, and the address is held apart from the log.
      src_endpoint: endpointOf(fields.personal('sourceAddress')),
      status_code: action,
      status_detail: fields.text('detail'),
    },
  };
}

/** A machine that comes in proves who it is; what is done to it by others is the management of an entity. */
function nodeEvent(fields: Fields): OcsfEvent {
  const action = fields.peek('action');
  const isToken = action.startsWith('token_');
  const name = fields.text('node') || 'unknown';
  if (action !== 'attested' && action !== 'renewed' && action !== 'refused')
    return changeEvent(fields, entity(isToken ? 'join token' : 'node', name, name));
  fields.text('action');
  return {
    ocsfClass: ocsfClasses.authentication,
    activity: action === 'renewed' ? [99, 'Renew'] : [1, 'Logon'],
    status: action === 'refused' ? 'failure' : 'success',
    members: filled({
      user: { name, type_id: 4 },
      actor: actorOf(fields),
      service: { name: 'node' },
      auth_protocol_id: 99,
      auth_protocol: fields.text('method') || 'unknown',
      src_endpoint: endpointOf(fields.personal('sourceAddress')),
      status_code: fields.text('code'),
    }),
  };
}

/** Somebody changed something that is managed here. */
function changeEvent(
  fields: Fields,
  managed: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>> = {},
): OcsfEvent {
  const action = fields.text('action');
  const known = changeActivities.get(action);
  return entityEvent(known ?? [99, action === '' ? 'Other' : action], {
    entity: managed,
    ...(fields.has('actor') ? { actor: actorOf(fields) } : {}),
    ...more,
  });
}

function entityEvent(
  activity: readonly [number, string],
  members: Readonly<Record<string, unknown>>,
): OcsfEvent {
  return { ocsfClass: ocsfClasses.entity, activity, status: 'success', members: filled(members) };
}

/** `type_id` 99: the schema has no word for what is managed here. */
function entity(type: string, uid: string, name = '', version = ''): Readonly<Record<string, unknown>> {
  return filled({ type_id: 99, type, uid: uid === '' ? 'none' : uid, name, version });
}

function endpointOf(address: string): Readonly<Record<string, unknown>> {
  return address === '' ? { name: 'not told' } : peersOf(address);
}

const activities = {
  created: [1, 'Create'],
  updated: [3, 'Update'],
  deleted: [4, 'Delete'],
} as const;

// The other actions of ours are none of the schema's: `activity_id` 99, and the action as `activity_name`.
const changeActivities: ReadonlyMap<string, readonly [number, string]> = new Map<
  string,
  readonly [number, string]
>([
  ['created', activities.created],
  ['requested', activities.created],
  ['token_created', activities.created],
  ['updated', activities.updated],
  ['edited', activities.updated],
  ['deleted', activities.deleted],
  ['dropped', activities.deleted],
  ['lifted', activities.deleted],
  ['token_revoked', activities.deleted],
  ['forgotten', activities.deleted],
  ['evicted', [7, 'Unenroll']],
  ['activated', [10, 'Activate']],
  ['retired', [11, 'Deactivate']],
  ['tainted', [9, 'Disable']],
]);

const apiActivities: ReadonlyMap<string, readonly [number, string]> = new Map<
  string,
  readonly [number, string]
>([
  ['POST', activities.created],
  ['GET', [2, 'Read']],
  ['HEAD', [2, 'Read']],
  ['PUT', activities.updated],
  ['PATCH', activities.updated],
  ['DELETE', activities.deleted],
]);

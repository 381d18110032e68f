import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalJson } from '../../src/audit/canonical-json.ts';
import { encodeEvent } from '../../src/audit/canonical.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { toCloudEvent } from '../../src/audit/export-cloudevents.ts';
import { toOcsf } from '../../src/audit/export-ocsf.ts';
import { toOtlpLogs } from '../../src/audit/export-otlp.ts';
import type { ExportRecord } from '../../src/audit/export-record.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { allowedCalls, decision, issuance, noon, oneOfEach } from './events.ts';
import { hostileEvents } from './hostile-events.ts';
import { hex } from './log-files.ts';

const source = { origin: 'example.org/audit', version: '0.1.0' };
const personal = { path: '/accounts/7', sourceAddress: '192.0.2.7:1234' };

function recordOf(event: AuditEvent, more: Partial<ExportRecord> = {}): ExportRecord {
  const { leaf } = encodeEvent(event, (count) => Buffer.alloc(count, 7));
  const text = Buffer.from(leaf).toString('utf8');
  return {
    index: 42,
    leafHash: hex(leafHash(leaf)),
    leaf: text,
    event: JSON.parse(text),
    personal: {},
    ...more,
  };
}

const unknown = recordOf(issuance(), {
  event: { v: 2, type: 'of_a_later_version', time: noon.toISOString(), action: 'done', what: [1] },
});
const all: readonly (readonly [string, ExportRecord])[] = [
  ...oneOfEach.flatMap((event) => [
    [event.type, recordOf(event)] as const,
    [`${event.type} with personal values`, recordOf(event, { personal })] as const,
  ]),
  ['a decision about TCP', recordOf(decision({ protocol: 'tcp', method: '', host: '' }))],
  ['a call of no known method', recordOf(decision({ method: 'PURGE', source: '', verdict: 'allow' }))],
  ['calls of TCP', recordOf(allowedCalls({ protocol: 'tcp', method: '' }))],
  ['a break-glass call', recordOf(decision({ verdict: 'allow', breakGlass: 'INC-7 lifted' }))],
  ['a type of a later version', unknown],
  ['no time at all', { ...unknown, event: {} }],
];

describe('CloudEvents', () => {
  test.each(all)('%s', (_, record) => {
    const event = toCloudEvent(record, source);
    // Spec 1.0.2: the required attributes, the names of all, and what a String and a Timestamp may hold.
    expect(event).toMatchObject({ specversion: '1.0', id: '42', source: 'example.org/audit' });
    for (const [name, value] of Object.entries(event)) {
      expect(name).toMatch(/^[a-z0-9]{1,20}$/);
      if (name !== 'data') expect(value).toMatch(/^[^\p{Cc}\p{Cs}]*$/u);
    }
    expect(event['subject']).not.toBe('');
    const { data, leafhash } = event as { data: { event: object }; leafhash: string };
    if (record === unknown || Object.keys(record.event).length === 0) return;
    expect(hex(leafHash(Buffer.from(canonicalJson(data.event))))).toBe(leafhash);
  });

  test('the source is a URI reference whatever the log is called', () => {
    expect(toCloudEvent(all[0]![1], { ...source, origin: 'a:b/ü c' })['source']).toBe('./a:b/%C3%BC%20c');
  });
});

describe('OTLP', () => {
  test.each(all)('%s', (_, record) => {
    const { resourceLogs } = JSON.parse(JSON.stringify(toOtlpLogs([record, record], source)));
    const [{ resource, scopeLogs }] = resourceLogs;
    expect(Object.keys(resource)).toEqual(['attributes']);
    const [{ scope, logRecords }] = scopeLogs;
    expect([Object.keys(scope), logRecords.length]).toEqual([['name', 'version'], 2]);
    // The JSON encoding of protobuf: 64-bit numbers are text, names are in camel case, and unknown ones are dropped.
    const one = logRecords[0];
    expect(Object.keys(one).sort()).toEqual([
      ...['attributes', 'body', 'eventName', 'observedTimeUnixNano', 'severityNumber', 'severityText'],
      'timeUnixNano',
    ]);
    expect(one.timeUnixNano).toMatch(/^-?[0-9]+$/);
    expect(one.body).toEqual({ stringValue: record.leaf });
    const keys = one.attributes.map(({ key }: { key: string }) => key);
    expect(new Set(keys).size).toBe(keys.length);
    for (const { value } of one.attributes) {
      const [[kind, held]] = Object.entries(value) as [[string, unknown]];
      expect(['stringValue', 'intValue', 'boolValue']).toContain(kind);
      expect(typeof held).toBe(kind === 'boolValue' ? 'boolean' : 'string');
    }
    expect(one.attributes).toContainEqual({
      key: 'countersign.audit.leaf_hash',
      value: { stringValue: record.leafHash },
    });
  });
});

type Schema = {
  readonly classes: Readonly<
    Record<string, Shape & { readonly uid: number; readonly category: number; caption: string }>
  >;
  readonly objects: Readonly<Record<string, Shape>>;
};
type Shape = {
  readonly atLeastOne: readonly string[];
  readonly attributes: Readonly<Record<string, string>>;
};
const schema = JSON.parse(readFileSync('test/vectors/ocsf-1.8.0.json', 'utf8')) as Schema;

describe('OCSF', () => {
  test.each(all)('%s', (_, record) => {
    const event = toOcsf(record, source);
    const found = Object.values(schema.classes).find(({ uid }) => uid === event['class_uid'])!;
    expect(problems(event, withBase(found), 'event')).toEqual([]);
    expect([event['category_uid'], event['class_name']]).toEqual([found.category, found.caption]);
    expect(event['type_uid']).toBe(found.uid * 100 + Number(event['activity_id']));
    expect(event['metadata']).toMatchObject({ version: '1.8.0', uid: record.leafHash, sequence: 42 });
    expect(hex(leafHash(Buffer.from(String(event['raw_data']))))).toBe(record.leafHash);
    if (record === unknown)
      expect(event).toMatchObject({ class_uid: 0, unmapped: { action: 'done', what: [1] } });
  });

  test('personal values are there when they are given, and no others', () => {
    const shown = JSON.stringify(toOcsf(recordOf(decision(), { personal }), source));
    expect(shown).toContain('"url":{"path":"/accounts/7"}');
    expect(shown).toContain('"ip":"192.0.2.7","port":1234');
    expect(JSON.stringify(toOcsf(recordOf(decision()), source))).not.toContain('/accounts/7');
  });

  test.each<[string, AuditEvent, object]>([
    [
      'a denial',
      decision(),
      { class_uid: 4_002, activity_id: 3, action_id: 2, disposition_id: 2, status_id: 2, severity_id: 2 },
    ],
    ['a refused TCP call', decision({ protocol: 'tcp' }), { class_uid: 4_001, activity_id: 5 }],
    ['allowed calls', allowedCalls(), { class_uid: 4_002, count: 117, action_id: 1, status_id: 1 }],
    [
      'a certificate',
      issuance(),
      {
        class_uid: 3_004,
        activity_id: 1,
        entity: { type: 'X.509-SVID', name: 'spiffe://example.org/ns/shop/sa/web' },
      },
    ],
    [
      'a loss',
      oneOfEach.find(({ type }) => type === 'loss')!,
      { class_uid: 1_008, activity_id: 99, count: 12, severity_id: 4 },
    ],
    [
      'a refused administrator',
      oneOfEach.find(({ type }) => type === 'admin')!,
      { class_uid: 6_003, activity_id: 2, status_id: 2, api: { operation: 'GET /v1/audit' } },
    ],
    [
      'a start',
      oneOfEach.find(({ type }) => type === 'lifecycle')!,
      { class_uid: 6_002, activity_id: 3, unmapped: {} },
    ],
    [
      'a machine that came in',
      oneOfEach.find(({ type }) => type === 'node')!,
      { class_uid: 3_002, activity_id: 1, user: { name: 'web-1' } },
    ],
    [
      'a ban',
      oneOfEach.find(({ type }) => type === 'ban')!,
      { class_uid: 3_004, activity_id: 1, comment: 'host taken over', severity_id: 3 },
    ],
  ])('%s', (_, event, members) => {
    expect(toOcsf(recordOf(event), source)).toMatchObject(members);
  });
});

test('what the schema does not allow is found', () => {
  const right = toOcsf(recordOf(decision()), source);
  const shape = withBase(schema.classes['http_activity']!);
  const { http_request: _, ...without } = right;
  expect(problems({ ...right, activity_id: 10, verdict: 'deny', time: '12:00' }, shape, 'event')).toEqual([
    'event.activity_id is 10',
    'event.time is not of type timestamp_t',
    'event.verdict is no attribute',
  ]);
  expect(problems({ ...without, metadata: {} }, shape, 'event')).toEqual([
    'event.metadata.product is missing',
    'event.metadata.version is missing',
    'event has none of http_request,http_response',
  ]);
});

test('whatever a stranger writes into a record, every format takes it', () => {
  fc.assert(
    fc.property(hostileEvents, (event) => {
      const record = recordOf(event, { personal: { path: '\u0001', sourceAddress: '::' } });
      const ocsf = toOcsf(record, source);
      const found = Object.values(schema.classes).find(({ uid }) => uid === ocsf['class_uid'])!;
      expect(problems(ocsf, withBase(found), 'event')).toEqual([]);
      const formatted = [toCloudEvent(record, source), ocsf, toOtlpLogs([record], source)];
      for (const one of formatted) expect(JSON.stringify(one)).not.toMatch(/[\n\r]/);
    }),
    { numRuns: 200 },
  );
});

function withBase(found: Shape): Shape {
  return { ...found, attributes: { ...schema.classes['base_event']!.attributes, ...found.attributes } };
}

/** What of a value its shape does not allow. */
function problems(value: object, { attributes, atLeastOne }: Shape, place: string): readonly string[] {
  const wrong = Object.entries(value).flatMap(([name, member]) => {
    const [type = '', ...values] = attributes[name]?.split(' ') ?? [];
    const here = `${place}.${name}`;
    if (type === '') return [`${here} is no attribute`];
    if (values.length > 0 && !values.includes(String(member))) return [`${here} is ${member}`];
    const bare = type.replace(/[!]$/, '');
    if (bare.endsWith('[]')) {
      if (!Array.isArray(member)) return [`${here} is no list`];
      return member.flatMap((one) => problemsOf(one, bare.slice(0, -2), here));
    }
    return problemsOf(member, bare, here);
  });
  const names = Object.keys(value);
  const missing = Object.entries(attributes)
    .filter(([name, type]) => type.split(' ')[0]!.endsWith('!') && !names.includes(name))
    .map(([name]) => `${place}.${name} is missing`);
  const none = atLeastOne.length > 0 && !atLeastOne.some((name) => names.includes(name));
  return [...wrong, ...missing, ...(none ? [`${place} has none of ${atLeastOne.join()}`] : [])];
}

function problemsOf(value: unknown, type: string, place: string): readonly string[] {
  const shape = schema.objects[type];
  if (shape !== undefined)
    return typeof value === 'object' && value !== null
      ? problems(value, shape, place)
      : [`${place} is no object`];
  const isRight =
    type === 'object' || type === 'json_t'
      ? typeof value === 'object'
      : /^(integer|long|timestamp|port)_t$/.test(type)
        ? Number.isSafeInteger(value)
        : type === 'boolean_t'
          ? typeof value === 'boolean'
          : type.endsWith('_t') && typeof value === 'string';
  return isRight ? [] : [`${place} is not of type ${type}`];
}

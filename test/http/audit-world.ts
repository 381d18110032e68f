import { expect } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import {
  alarm,
  allowedCalls,
  connections,
  decision,
  issuance,
  jwtIssuance,
  oneOfEach,
} from '../audit/events.ts';
import { proxyCoverage, proxyVerdict, proxyVerdicts } from '../audit/proxy-events.ts';
import { entry, id } from './documents.ts';
import { type Harness, startHarness } from './harness.ts';

export const [web, job, ledger] = [id('web'), id('job'), id('ledger', 'bank')];
/** Whose calls the proxy of the callee decides by itself. */
export const kiosk = { source: id('cart', 'kiosk'), destination: id('basket', 'kiosk') };
export const serials = { first: 'aa01', second: 'aa02', orphan: 'bb01', token: '4a'.repeat(16) };
const at = (time: string) => new Date(`2027-01-01T${time}Z`);

export const policy = (methods: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: bank }\nspec:\n  rules:\n    - from: [{ source: { principals: [${web.replace('spiffe://', '')}] } }]\n      to: [{ operation: { methods: [${methods}] } }]\n    - from: [{ source: { namespaces: [shop] } }]\n      to: [{ operation: { methods: [TRACE] } }]\n`;
const certificateOf = (spiffeId: string, serial: string, time: Date, change: object = {}) =>
  issuance({
    spiffeId,
    serial,
    time,
    notBefore: new Date(time.getTime() - 30_000),
    notAfter: new Date(time.getTime() + 3_600_000),
    entryId: spiffeId === web ? 'web' : 'job',
    ...change,
  });
const like = (type: AuditEvent['type'], change: object): AuditEvent => {
  const event = oneOfEach.find((one) => one.type === type);
  if (event === undefined) throw new Error(`no event of type ${type}`);
  return { ...event, ...change };
};
const call = {
  source: web,
  destination: ledger,
  rule: 'bank/p rule[0]',
  caller: { pid: 1, uid: 2, gid: 3, node: 'db-1' },
};

/** A log of five hours, of which every question finds something. */
export async function startAuditWorld(): Promise<Harness> {
  const harness = await startHarness();
  const { clock, store } = harness;
  const until = (time: string) => clock.move(at(time).getTime() - clock.now().getTime());
  const apply = async (...texts: string[]) => {
    const files = texts.map((text, i) => ({ file: `${i}.yaml`, text }));
    const { status, text } = await harness.overTls({
      method: 'POST',
      path: '/v1/apply',
      body: { files, message: 'for the audit' },
    });
    expect(status, text).toBe(200);
  };
  await apply(
    entry('web'),
    entry('job'),
    entry('ledger', 'bank').replace('{ name: ledger }', '{ name: ledger, labels: { pci: "true" } }'),
    policy('GET, PUT'),
  );
  until('01:00:00');
  const revision = harness.ports.administration.current().entries.get('web')?.revision ?? 0;
  await store.recordEvents([
    certificateOf(web, serials.first, at('01:00:00'), { entryRevision: revision }),
    jwtIssuance({ time: at('01:05:00'), issuedAt: at('01:05:00'), notAfter: at('01:10:00') }),
    allowedCalls({
      ...call,
      sourceSerial: serials.first,
      from: at('01:09:00'),
      to: at('01:10:00'),
      time: at('01:10:00'),
    }),
    ...['d-1', 'd-2'].map((decisionId) =>
      decision({
        decisionId,
        source: job,
        destination: ledger,
        time: at('01:12:00'),
        sourceSerial: serials.orphan,
      }),
    ),
    decision({
      decisionId: 'd-3',
      source: '',
      destination: ledger,
      time: at('01:13:00'),
      sourceSerial: '',
      reason: 'caller_unknown',
    }),
    decision({ decisionId: 'd-4', source: ledger, destination: web, time: at('01:14:00'), sourceSerial: '' }),
    certificateOf(web, serials.second, at('01:30:00'), { entryRevision: revision }),
  ]);
  until('02:00:00');
  await apply(policy('PUT'));
  await store.recordEvents([
    decision({ ...call, rule: '', decisionId: 'd-5', time: at('02:10:00'), sourceSerial: serials.second }),
    certificateOf(job, serials.orphan, at('02:45:00')),
  ]);
  until('03:00:00');
  expect((await harness.overTls({ method: 'DELETE', path: '/v1/entries/job' })).status).toBe(200);
  until('04:00:00');
  const ban = { kind: 'spiffe-id', value: web, reason: 'host taken over' };
  expect((await harness.overTls({ method: 'POST', path: '/v1/bans', body: ban })).status).toBe(201);
  await store.recordEvents([
    allowedCalls({
      ...call,
      sourceSerial: serials.second,
      count: 2,
      from: at('04:00:03'),
      to: at('04:00:07'),
      time: at('04:00:07'),
    }),
    ...(
      [
        ['mtls', web, '', 2_000],
        ['mtls', job, '', 999],
        ['plaintext', '', '', 1],
        ['foreign', '', '', 5],
        ['tls_failed', '', 'unknown_issuer', 4],
        ['tls_failed', '', 'unknown_issuer', 3],
      ] as const
    ).map(([kind, source, failure, count], i) =>
      connections({
        ...{ kind, source, failure, count, destination: ledger },
        ...{ sourceSerial: kind === 'mtls' ? serials.second : '', claimedSource: `spiffe://elsewhere/${i}` },
        ...{ from: at('04:05:00'), to: at('04:06:00'), time: at('04:06:00') },
      }),
    ),
    alarm({ time: at('04:07:00'), claimedSource: web, destination: ledger }),
    alarm({ time: at('04:08:00'), claimedSource: job, destination: ledger }),
    like('lifecycle', { time: at('04:10:00') }),
    like('lifecycle', { time: at('04:11:00') }),
    like('loss', { time: at('04:12:00'), from: at('04:10:00'), to: at('04:11:00') }),
    like('authority', {
      time: at('04:13:00'),
      action: 'forced',
      actor: { kind: 'uid', uid: 0, role: 'admin' },
    }),
    like('jwt_key', { time: at('04:14:00') }),
    like('policy_change', {
      time: at('04:15:00'),
      policy: 'bank/glass',
      breakGlass: 'outage, ticket 7, until 05:00',
    }),
    like('entry_change', { time: at('04:16:00'), entryId: 'slow', after: { ttlSeconds: 86_400 } }),
    proxyVerdicts({ ...kiosk, count: 40, time: at('04:20:00') }),
    proxyVerdict({ ...kiosk, time: at('04:21:00') }),
    proxyCoverage({ destination: kiosk.destination, count: 43, missing: 2, time: at('04:22:00') }),
    like('loss', {
      time: at('04:22:00'),
      what: 'proxy_verdict',
      cause: 'not_told',
      count: 2,
      service: kiosk.destination,
    }),
  ]);
  until('05:00:00');
  return harness;
}

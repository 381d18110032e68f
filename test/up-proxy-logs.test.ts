import { expect, test } from 'vitest';
import type { AuditEvent } from '../src/audit/event.ts';
import { parseAuditQuery } from '../src/audit/question.ts';
import { systemClock } from '../src/clock.ts';
import { MeshError } from '../src/errors.ts';
import { compileStoredMesh, createMeshHolder } from '../src/identity/current-mesh.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { openProxyLogs } from '../src/up-proxy-logs.ts';
import { allowedCalls, decision, issuance, noon } from './audit/events.ts';
import { eventually } from './harness/eventually.ts';
import { openTestStore } from './store/directories.ts';

const trustDomain = TrustDomain.parse('example.org');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };

test('an alarm that the log had no room for is recorded once it has', async () => {
  const store = await openTestStore();
  let refusals = 2;
  const recordEvents = async (events: readonly AuditEvent[]) => {
    if (events.some(({ type }) => type === 'alarm') && refusals-- > 0) {
      throw new MeshError('store_unavailable', 'the disk is full');
    }
    return store.recordEvents(events);
  };
  const said: string[] = [];
  const proxyLogs = await openProxyLogs({
    store: { ...store, recordEvents },
    trustDomain,
    config: { allowedCallsWindowSeconds: 0 },
    holder: createMeshHolder(compileStoredMesh(await store.loadMesh(), settings)),
    administration: { endRollout: async () => false },
    clock: { now: () => noon, sleep: (_ms, signal) => systemClock.sleep(1, signal) },
    log: { error: (_detail: unknown, message: string) => said.push(message) } as never,
  });
  proxyLogs.alarms.look([decision({ sourceSerial: 'f0', verdict: 'allow', reason: 'allow_rule' })]);
  await eventually('the alarm', async () => (await store.auditSize()) === 1);
  await proxyLogs.close();
  expect([proxyLogs.alarms.raised(), refusals < 0]).toEqual([1, true]);
  expect(said).toEqual([
    'a certificate was used that the audit log has no issuance of',
    'an alarm could not be recorded, and will be',
  ]);
});

test('a certificate with the serial of another is an alarm in the log, also after the next start', async () => {
  const store = await openTestStore();
  const [ours, theirs] = ['11'.repeat(32), '22'.repeat(32)];
  await store.recordEvents([issuance({ serial: '0a', tbsSha256: ours })]);
  const said: unknown[] = [];
  const open = async () =>
    openProxyLogs({
      store,
      trustDomain: TrustDomain.parse('example.org'),
      config: { allowedCallsWindowSeconds: 0 },
      holder: createMeshHolder(compileStoredMesh(await store.loadMesh(), settings)),
      administration: { endRollout: async () => false },
      clock: { now: () => noon, sleep: (_ms, signal) => systemClock.sleep(1, signal) },
      log: { error: (detail: unknown, message: string) => said.push([detail, message]) } as never,
    });
  const genuine = allowedCalls({ sourceSerial: '0a', sourceTbsSha256: ours });
  const forged = allowedCalls({ sourceSerial: '0a', sourceTbsSha256: theirs });
  const first = await open();
  first.alarms.look([genuine, forged]);
  await eventually('the alarm', async () => (await store.auditSize()) === 2);
  await first.close();
  const second = await open();
  second.alarms.look([forged, genuine]);
  await second.close();
  expect([first.alarms.raised(), second.alarms.raised(), second.alarms.recent()]).toEqual([1, 0, 1]);
  const { rows } = await store.queryAudit(parseAuditQuery({ types: ['alarm'] }, noon));
  expect(rows.map(({ leaf }) => JSON.parse(leaf))).toMatchObject([{ serial: '0a', sourceTbsSha256: theirs }]);
  expect(said).toEqual([
    [
      expect.objectContaining({ serial: '0a', fix: expect.stringContaining('countersign ca taint the CA') }),
      'a certificate was used that is not the one that was given out with its serial',
    ],
  ]);
});

import { expect, test } from 'vitest';
import { agentReportFromWire, agentReportToWire } from '../../src/node/agent-report.ts';
import { createNodePresences } from '../../src/node/node-presence.ts';
import { nodesReport } from '../../src/up-nodes-report.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { attestedNode } from './node-certificates.ts';

const proxyPolicies = { filters: 9, behind: 1, rejecting: 2, lacking: 3, oldestPolicy: 4 };
const said = { eventsQueued: 1, eventsLost: 2, workloads: 3, darkAt: null, proxyPolicies };
const second = 1_000;

test('a node is there while it watches, and behind until it says that it has what was sent', async () => {
  const clock = manualClock();
  const presences = createNodePresences(clock);
  expect(presences.of('web-1')).toMatchObject({ connected: false, since: null, lastContactAt: null });
  const stream = presences.opened('web-1', '1.2.3');
  stream.sent(1);
  const sentAt = clock.now();
  await clock.advance(5 * second);
  stream.sent(2);
  expect(presences.of('web-1')).toMatchObject({ connected: true, viewSent: 2, behindSince: sentAt });
  presences.reported('web-1', { ...said, viewRevision: 1 });
  expect(presences.of('web-1')).toMatchObject({
    agentVersion: '1.2.3',
    viewInForce: 1,
    behindSince: clock.now(),
    report: said,
  });
  presences.reported('web-1', { ...said, viewRevision: 2 });
  expect(presences.of('web-1').behindSince).toBeNull();
  await clock.advance(second);
  stream.closed();
  expect(presences.of('web-1')).toMatchObject({
    connected: false,
    since: clock.now(),
    behindSince: clock.now(),
  });
});

test('what a stream of before ends with, and a revision that was never sent, change nothing', () => {
  const presences = createNodePresences(manualClock());
  const before = presences.opened('web-1', '1');
  const now = presences.opened('web-1', '2');
  now.sent(1);
  before.sent(9);
  before.closed();
  presences.reported('web-1', { ...said, viewRevision: 9 });
  expect(presences.of('web-1')).toMatchObject({
    connected: true,
    agentVersion: '2',
    viewSent: 1,
    viewInForce: 0,
  });
});

test('however many revisions nobody confirms, memory is bounded and the oldest counts', async () => {
  const clock = manualClock();
  const presences = createNodePresences(clock);
  const stream = presences.opened('web-1', 'v'.repeat(5_000));
  const first = clock.now();
  for (let revision = 1; revision <= 1_000; revision += 1) stream.sent(revision);
  await clock.advance(second);
  expect(presences.of('web-1')).toMatchObject({ viewSent: 1_000, behindSince: first });
  expect(presences.of('web-1').agentVersion).toHaveLength(64);
  presences.reported('web-1', { ...said, viewRevision: 999 });
  expect(presences.of('web-1').behindSince).not.toBeNull();
  presences.reported('web-1', { ...said, viewRevision: 1_000 });
  expect(presences.of('web-1').behindSince).toBeNull();
});

test('a report travels whole, and an impossible one is refused', () => {
  const kept = { bundleSequence: 3, bundleSha256: 'ab'.repeat(32), serial: '0a' };
  const report = { ...said, viewRevision: 7, darkAt: new Date('2027-01-01T00:00:00Z'), kept };
  expect(agentReportFromWire(agentReportToWire(report))).toEqual(report);
  expect(agentReportFromWire(agentReportToWire({ ...report, kept: null })).kept).toBeNull();
  expect(agentReportFromWire(agentReportToWire({ ...report, darkAt: null })).darkAt).toBeNull();
  for (const wrong of [{ viewRevision: -1n }, { eventsLost: 2n ** 60n }, { darkAtMs: 2n ** 60n }]) {
    expect(() => agentReportFromWire({ ...agentReportToWire(report), ...wrong })).toThrow(
      expect.objectContaining({ code: 'message_invalid' }),
    );
  }
});

test('the laggard is who has been without its view for longest; who is out of the mesh is none', async () => {
  const clock = manualClock();
  const presences = createNodePresences(clock);
  const node = (name: string) => ({
    ...attestedNode(name, [], clock.now()),
    serials: ['0a'],
    notAfter: new Date(clock.now().getTime() + 3_600_000),
  });
  const nodes = [
    node('a'),
    node('b'),
    { ...node('c'), evictedAt: clock.now() },
    { ...node('d'), notAfter: clock.now() },
  ];
  const a = presences.opened('a', '1');
  presences.opened('b', '1');
  presences.opened('c', '1').sent(1);
  const report = () => nodesReport(nodes, presences, clock.now());
  expect(report()).toEqual({ attested: 2, connected: 2, laggard: null });
  await clock.advance(second);
  a.sent(1);
  expect(report().laggard).toEqual({ name: 'a', behindSince: clock.now(), connected: true });
  a.closed();
  expect(report()).toMatchObject({ connected: 1, laggard: { name: 'a', connected: false } });
  // Not seen since the server started: behind since it had its certificate.
  expect(nodesReport([node('z')], presences, clock.now()).laggard).toMatchObject({ name: 'z' });
});

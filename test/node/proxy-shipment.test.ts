import { describe, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import { MeshError } from '../../src/errors.ts';
import { readShipment, writeShipment } from '../../src/node/event-shipment.ts';
import { EventBatch, type ProxyCoverage, type ProxyVerdict } from '../../src/wire/node.ts';
import { caller, noon } from '../audit/events.ts';
import { proxyCoverage, proxyVerdict, proxyVerdicts } from '../audit/proxy-events.ts';

const mine = 'spiffe://mesh.test/ns/a/sa/one';
const shipper = { node: 'web-1', isOwn: (id: string) => id === mine, now: noon };
const events: readonly AuditEvent[] = [
  proxyVerdict({ destination: mine }),
  proxyVerdicts({ destination: mine }),
  proxyCoverage({ destination: mine }),
];

function travelled(): EventBatch {
  const batch = writeShipment({ epoch: 'ab'.repeat(16), sequence: 1, events });
  return EventBatch.decode(EventBatch.encode(batch).finish());
}

function refusalOf(batch: EventBatch): string {
  try {
    readShipment(shipper, batch);
    return '';
  } catch (error) {
    return error instanceof MeshError ? error.code : String(error);
  }
}

test('what proxies of a node decided by themselves arrives as it was told, under the name of the node', () => {
  expect(readShipment(shipper, travelled()).events).toEqual(
    events.map((event) => ({ ...event, caller: { ...caller, node: 'web-1' } })),
  );
});

test('a reason of a newer agent is another one', () => {
  const batch = travelled();
  batch.proxyVerdicts[0]!.reason = 'of_next_year';
  expect(readShipment(shipper, batch).events[0]).toMatchObject({ reason: 'other' });
});

describe('a hostile agent is refused', () => {
  test.each<[string, Partial<ProxyVerdict>, string?]>([
    ['a call at another workload', { destination: 'spiffe://mesh.test/ns/a/sa/two' }, 'identity_none'],
    ['a verdict that is none', { verdict: 'ask' }],
    ['no verdict', { verdict: '' }],
    ['a caller that is none', { source: 'somebody' }],
    ['a rule that is none', { rule: 'everything' }],
    ['a rule with a line break', { rule: 'a/b\n rule[0]' }],
    ['a rule of a million', { rule: `a/${'b'.repeat(600)} rule[0]` }],
    ['a leaf that is none', { leaf: 'none' }],
    ['no leaf', { leaf: '' }],
    ['a leaf that asks', { leaf: 'ask:path' }],
    ['a leaf with a control character', { leaf: 'deny:\u001b[2J' }],
    ['a leaf without an end', { leaf: `deny:${'x'.repeat(300)}` }],
    ['another protocol', { protocol: 'udp' }],
    ['a method of its own', { method: 'get' }],
    ['a serial that is none', { sourceSerial: 'xyz' }],
    ['a port below zero', { port: -1n }],
    ['a revision below zero', { revision: -1n }],
    ['nobody', { caller: undefined }],
    ['an end before its beginning', { fromMs: BigInt(noon.getTime() + 1) }],
    ['the end of time', { toMs: 2n ** 60n }],
    ['next year', { toMs: BigInt(noon.getTime() + 400 * 86_400_000) }],
    ['a count below zero', { count: -1n }],
    ['one that is several', { pathPattern: '/a' }],
    ['several that are one', { count: 2n }],
  ])('for %s', (_, change, code = 'message_invalid') => {
    const batch = travelled();
    Object.assign(batch.proxyVerdicts[0]!, change);
    expect(refusalOf(batch)).toBe(code);
  });

  test.each<[string, Partial<ProxyCoverage>, string?]>([
    ['counts of another workload', { destination: 'spiffe://mesh.test/ns/a/sa/two' }, 'identity_none'],
    ['more in a window than in all', { count: 7_001n }],
    ['more missing than there were', { missing: 7_001n }],
    ['nothing', { count: 0n, missing: 0n }],
    ['a count below zero', { count: -1n }],
    ['counts of before it began', { startedMs: BigInt(noon.getTime()) }],
    ['an end before its beginning', { fromMs: BigInt(noon.getTime() + 1) }],
    ['counts of nobody', { caller: undefined }],
    ['more than can be counted', { counted: 2n ** 60n }],
  ])('for %s', (_, change, code = 'message_invalid') => {
    const batch = travelled();
    Object.assign(batch.proxyCoverage[0]!, change);
    expect(refusalOf(batch)).toBe(code);
  });

  test('for too many of them together', () => {
    const batch = travelled();
    batch.proxyVerdicts = Array.from({ length: 250 }, () => batch.proxyVerdicts[0]!);
    expect(refusalOf(batch)).toBe('message_too_large');
  });
});

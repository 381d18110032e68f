import { describe, expect, test } from 'vitest';
import { readShipment, type Shipper, writeShipment } from '../../src/node/event-shipment.ts';
import { type CandidateCalls, EventBatch } from '../../src/wire/node.ts';
import { decision, noon } from '../audit/events.ts';
import { candidateCalls } from '../audit/rollout-events.ts';

const epoch = 'ab'.repeat(16);
const own = candidateCalls().destination;
const shipper: Shipper = { node: 'web-1', isOwn: (id) => id === own, now: noon };
const caller = { pid: 4_711, uid: 1_000, gid: 1_000, node: 'web-1' };

function batchOf(change: Partial<CandidateCalls> = {}): EventBatch {
  const batch = writeShipment({ epoch, sequence: 1, events: [candidateCalls()] });
  const bytes = EventBatch.encode({
    ...batch,
    candidateCalls: batch.candidateCalls.map((calls) => ({ ...calls, ...change })),
  }).finish();
  return EventBatch.decode(bytes);
}

describe('what a node says of a candidate', () => {
  test('comes as it went, with the name of the node', () => {
    expect(readShipment(shipper, batchOf()).events).toEqual([candidateCalls({ caller })]);
    const made = decision({ rollout: 'cd'.repeat(16), destination: own });
    const sent = writeShipment({ epoch, sequence: 1, events: [made] });
    expect(readShipment(shipper, sent).events).toEqual([{ ...made, caller }]);
  });

  test.each<[string, string, Partial<CandidateCalls>]>([
    ['a workload that is not its own', 'identity_none', { destination: 'spiffe://example.org/ns/x/sa/y' }],
    ['no change', 'message_invalid', { change: '' }],
    ['a change that there is not', 'message_invalid', { change: 'denied' }],
    ['an answer by nobody', 'message_invalid', { applied: '' }],
    ['no call', 'message_invalid', { count: 0n }],
    ['a rule of no policy', 'message_invalid', { rule: 'whatever' }],
    ['a rule of no candidate', 'message_invalid', { candidateRule: 'whatever' }],
    ['a caller that nothing names', 'message_invalid', { source: 'web' }],
    ['no protocol that there is', 'message_invalid', { protocol: 'carrier pigeon' }],
    ['fewer calls than none', 'message_invalid', { count: -1n }],
    ['an end before the beginning', 'message_invalid', { fromMs: 9n, toMs: 8n }],
    ['a rollout that is none', 'message_invalid', { rollout: 'x' }],
    ['next year', 'message_invalid', { toMs: BigInt(noon.getTime() + 32_000_000_000) }],
    ['nobody who asked', 'message_invalid', { caller: undefined }],
  ])('is refused when it is of %s', (_, code, change) => {
    expect(() => readShipment(shipper, batchOf(change))).toThrow(expect.objectContaining({ code }));
  });

  test('is refused with a decision of a rollout that is none', () => {
    const batch = writeShipment({
      epoch,
      sequence: 1,
      events: [decision({ rollout: 'x', destination: own })],
    });
    expect(() => readShipment(shipper, batch)).toThrow(expect.objectContaining({ code: 'message_invalid' }));
  });
});

import type { RetentionEvent } from '../../src/audit/retention-event.ts';

const noon = new Date('2026-01-31T12:00:00.000Z');

export function retention(change: Partial<RetentionEvent> = {}): RetentionEvent {
  return {
    type: 'retention',
    time: noon,
    action: 'pruned',
    class: 'calls',
    first: 0,
    last: 8_191,
    entries: 8_000,
    values: 0,
    types: ['decision', 'allowed_calls'],
    olderThan: new Date('2025-10-31T12:00:00.000Z'),
    by: [],
    reason: 'retainCallsDays=90',
    actor: { kind: 'system' },
    ...change,
  };
}

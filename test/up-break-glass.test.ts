import { pino } from 'pino';
import { expect, test } from 'vitest';
import { denyDecision } from '../src/authz/decide.ts';
import { createBreakGlassLog } from '../src/up-break-glass.ts';
import { manualClock } from './harness/manual-clock.ts';

test('calls by a grant are told at once, and then once a minute with their number', () => {
  const lines: unknown[] = [];
  const clock = manualClock();
  const tell = createBreakGlassLog(
    clock,
    pino({ base: null, timestamp: false }, { write: (line: string) => lines.push(JSON.parse(line)) }),
  );
  const call = (rule: string) =>
    tell({ ...denyDecision('deny_rule', '', 1), verdict: 'allow', rule, breakGlass: 'fire (INC-7)' });
  call('a/b rule[0]');
  call('a/b rule[0]');
  call('a/b rule[0]');
  call('a/c rule[0]');
  clock.jump(60_000);
  call('a/b rule[0]');
  expect(lines).toMatchObject([
    { level: 40, rule: 'a/b rule[0]', breakGlass: 'fire (INC-7)', calls: 1 },
    { rule: 'a/c rule[0]', calls: 1 },
    { rule: 'a/b rule[0]', calls: 3 },
  ]);
});

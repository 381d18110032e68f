import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { StreamEvent } from '../../src/xds/resource.ts';
import { next, openStream, type StreamRequest } from '../../src/xds/stream.ts';
import { acks, asks, findIn, nacks, resource } from './stream-events.ts';

describe('any sequence of events', () => {
  const name = fc.constantFrom('a', 'b', 'c', '__proto__');
  const nameList = fc.uniqueArray(name, { maxLength: 4 });
  const store = fc.dictionary(name, fc.integer({ min: 1, max: 3 }), { noNullPrototype: false });
  const move = fc.oneof(
    fc.record({ move: fc.constant('store' as const), store }),
    fc.record({ move: fc.constantFrom('ack' as const, 'nack' as const), names: fc.option(nameList) }),
    fc.record({ move: fc.constantFrom('stale' as const, 'plain' as const), names: nameList }),
    fc.record({ move: fc.constant('overdue' as const) }),
  );

  test('keeps the promises of the protocol', () => {
    fc.assert(
      fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
        let state = openStream((count) => `n-${count}`);
        // The model: what the client has said and been told.
        let asked: readonly string[] = [];
        let content = new Map<string, number>();
        let inFlight: { nonce: string; version: string } | undefined;
        let last: { nonce: string; version: string } | undefined;
        let refused: string | undefined;
        const nonces = new Set<string>();
        for (const m of moves) {
          let event: StreamEvent<StreamRequest>;
          let mayAnswerSame = false;
          switch (m.move) {
            case 'store':
              content = new Map(Object.entries(m.store));
              event = { kind: 'resources', find: findIn(content) };
              break;
            case 'ack':
            case 'nack': {
              if (last === undefined) continue;
              const names = m.names ?? asked;
              event = m.move === 'ack' ? acks(last.nonce, names) : nacks(last.nonce, names);
              if (m.move === 'nack' && inFlight !== undefined) refused = inFlight.version;
              inFlight = undefined;
              mayAnswerSame = !sameSet(names, asked);
              asked = names;
              break;
            }
            case 'stale':
              event = acks('stale', m.names);
              if (state.phase === 'new') [asked, mayAnswerSame] = [m.names, true];
              break;
            case 'plain':
              event = asks(m.names);
              mayAnswerSame = state.phase === 'new' || !sameSet(m.names, asked);
              asked = m.names;
              break;
            case 'overdue':
              event = { kind: 'overdue' };
              break;
            default:
              throw m satisfies never;
          }
          // Who gives up all names begins anew.
          if (asked.length === 0) refused = undefined;
          const owed: boolean = state.owed || mayAnswerSame;
          const [after, effects] = next(state, event);
          for (const effect of effects) {
            if (effect.kind !== 'send') continue;
            const { nonce, version, resources } = effect.response;
            expect(inFlight).toBeUndefined();
            expect(nonces.has(nonce)).toBe(false);
            expect(resources.length).toBeGreaterThan(0);
            expect(resources.every((r) => asked.includes(r.name))).toBe(true);
            expect(resources.every((r) => content.get(r.name) === Number(r.version))).toBe(true);
            expect(resources.length).toBe(asked.filter((n) => content.has(n)).length);
            expect(version).not.toBe(refused);
            if (!owed) expect(version).not.toBe(last?.version);
            refused = undefined;
            nonces.add(nonce);
            inFlight = last = { nonce, version };
          }
          if (m.move === 'stale' && state.phase !== 'new') expect(effects).toEqual([]);
          state = after;
          // At rest the client has the newest there is, unless it refused exactly that.
          const due = asked.filter((n) => content.has(n)).map((n) => resource(n, String(content.get(n))));
          const opened = state.phase === 'open' && state.find !== undefined;
          if (opened && inFlight === undefined && due.length > 0) {
            const wanted = next(
              { ...state, owed: true, refused: undefined },
              { kind: 'resources', find: findIn(content) },
            );
            const sent = wanted[1].find((effect) => effect.kind === 'send');
            expect([last?.version, refused]).toContain(sent?.response.version);
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one) => b.includes(one));
}

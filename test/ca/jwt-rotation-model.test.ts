import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type JwtKeyEffect, type JwtKeyEvent, rotateJwtKeys } from '../../src/ca/jwt-rotation.ts';
import { type JwtKeyState, jwtSignerOf, publishedJwtKeys } from '../../src/ca/jwt-slot.ts';
import { activate, at, empty, made, proof, retire, taint, tick } from './jwt-rotation-steps.ts';

// Validators that fetch the bundle every 300 seconds and keep it for twice that at most, a server that is down at times,
// tokens of any lifetime, and an operator who asks for anything at any time. Unless somebody forces a step or taints a key,
// every validator believes every token that has not expired, and never one of a tainted key once it has looked again.
test('whatever happens in whatever order, the invariants hold', () => {
  const command = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('mint' as const),
        ttl: fc.oneof(fc.constant(300), fc.constant(86_400)),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ do: fc.constant('pass' as const), seconds: fc.constantFrom(1, 599, 600, 660) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('pass' as const),
        seconds: fc.integer({ min: 1, max: 3_000_000 }),
      }),
    },
    { weight: 2, arbitrary: fc.constant({ do: 'rotate' as const }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('activate' as const), force: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('retire' as const), force: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('taint' as const), pick: fc.nat(20) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('down' as const),
        seconds: fc.integer({ min: 1, max: 200_000 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('lost' as const) }) },
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 50 }), fc.boolean(), (commands, mayForce) => {
      let state: JwtKeyState = empty;
      let [now, servedSince, keys] = [0, 0, 0];
      let forced = false;
      const expiries: Record<string, number> = {};
      const tokens: { keyId: string; expiry: number }[] = [];
      const tainted = new Set<string>();
      const withdrawn = new Set<string>();
      // What was in the bundle and when: the validator that lags most has that of ten minutes ago, when it was served then.
      const bundles: { from: number; keyIds: ReadonlySet<string> }[] = [];
      const evidence = () => proof({ expiries, servedSince });

      const take = (event: JwtKeyEvent, loseKey = false): void => {
        const before = state;
        const [next, effects] = rotateJwtKeys(state, event, at(now));
        if (effects.some(({ kind }) => kind === 'refuse'))
          expect([next, effects.length]).toEqual([before, 1]);
        check(before, next, effects);
        state = next;
        if (effects.some(({ kind }) => kind === 'replace')) take({ kind: 'replace' }, loseKey);
        if (!loseKey && effects.some(({ kind }) => kind === 'make')) take(made(`k${++keys}`));
      };
      const check = (before: JwtKeyState, next: JwtKeyState, effects: readonly JwtKeyEffect[]): void => {
        for (const one of ['active', 'prepared']) {
          expect(next.slots.filter((slot) => slot.state === one).length).toBeLessThan(2);
        }
        const ids = (of: JwtKeyState) => publishedJwtKeys(of).map(({ keyId }) => keyId);
        const isChanged = JSON.stringify(ids(before)) !== JSON.stringify(ids(next));
        expect(next.sequence - before.sequence).toBe(isChanged ? 1 : 0);
        expect(effects.filter(({ kind }) => kind === 'publish')).toHaveLength(isChanged ? 1 : 0);
        for (const slot of before.slots) {
          const later = next.slots.find(({ keyId }) => keyId === slot.keyId);
          expect(order.indexOf(later?.state ?? 'prepared')).toBeGreaterThanOrEqual(order.indexOf(slot.state));
        }
        const forgotten = effects.flatMap((effect) => (effect.kind === 'forget' ? effect.keyIds : []));
        expect(forgotten.sort()).toEqual(
          ids(before)
            .filter((id) => !ids(next).includes(id))
            .sort(),
        );
        for (const id of forgotten) withdrawn.add(id);
        for (const id of ids(next)) expect(tainted.has(id) || withdrawn.has(id)).toBe(false);
        if (isChanged) bundles.push({ from: now, keyIds: new Set(ids(next)) });
        if (forced) return;
        for (const { keyId, expiry } of tokens) if (expiry > now) expect(ids(next)).toContain(keyId);
        const signer = jwtSignerOf(next)?.keyId;
        if (signer === undefined || signer === jwtSignerOf(before)?.keyId || keys <= 1) return;
        // Who lags most has a bundle that was in force at some moment of the last ten minutes of service.
        const seen = Math.min(now, Math.max(now - 600, servedSince));
        expect(now - servedSince).toBeGreaterThanOrEqual(600);
        const known = bundles.filter(({ from }) => from <= seen).at(-1);
        expect(known?.keyIds.has(signer)).toBe(true);
      };

      take(tick(evidence()));
      for (const one of commands) {
        switch (one.do) {
          case 'mint': {
            const keyId = jwtSignerOf(state)?.keyId;
            if (keyId === undefined) break;
            tokens.push({ keyId, expiry: now + one.ttl });
            expiries[keyId] = Math.max(expiries[keyId] ?? 0, now + one.ttl);
            break;
          }
          case 'pass':
            now += one.seconds;
            take(tick(evidence()));
            break;
          case 'rotate':
            take({ kind: 'rotate' });
            break;
          case 'activate':
          case 'retire': {
            const force = one.force && mayForce;
            forced ||= force;
            take((one.do === 'activate' ? activate : retire)(evidence(), force));
            break;
          }
          case 'taint': {
            const slot = state.slots[one.pick % Math.max(1, state.slots.length)];
            if (!mayForce || slot === undefined || slot.state === 'retired') break;
            forced = true;
            tainted.add(slot.keyId);
            take(taint(slot.keyId));
            break;
          }
          case 'down':
            now += one.seconds;
            servedSince = now;
            take(tick(evidence()));
            break;
          case 'lost':
            // The process died between the sealed key and the row that names it.
            take({ kind: 'rotate' }, true);
            take(tick(evidence()), true);
            break;
        }
        // Whatever happened, the next tick leaves a key that signs.
        take(tick(evidence()));
        expect(jwtSignerOf(state)).toBeDefined();
      }
    }),
    { numRuns: 1_000 },
  );
});

const order = ['prepared', 'active', 'retiring', 'retired'];

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { rotate } from '../../src/ca/rotation.ts';
import type { RotationEffect, RotationEvent } from '../../src/ca/rotation-event.ts';
import {
  type Evidence,
  publishedRoots,
  type RotationState,
  signerOf,
  type Slot,
  type SlotState,
} from '../../src/ca/slot.ts';
import {
  activate,
  at,
  empty,
  evidence,
  imported,
  intermediate,
  made,
  offlineRoot,
  requested,
  retire,
  root,
  taint,
  tick,
} from './rotation-steps.ts';

// A mesh of workloads that hold leaves and confirm bundles in any order, and an operator who asks for anything at any
// time: after each step nobody may be cut off, but by force.
test('whatever happens in whatever order, the invariants hold', () => {
  const command = fc.oneof(
    fc.record({ do: fc.constant('rotate' as const), scope: fc.constantFrom('root', 'intermediate') }),
    fc.record({ do: fc.constant('go_offline' as const) }),
    fc.record({ do: fc.constant('import' as const), root: fc.nat(9), wrongKey: fc.boolean() }),
    fc.record({ do: fc.constant('activate' as const), force: fc.boolean() }),
    fc.record({ do: fc.constant('retire' as const), force: fc.boolean() }),
    fc.record({ do: fc.constant('taint' as const), pick: fc.nat(20) }),
    fc.record({ do: fc.constant('issue' as const), to: fc.nat(3) }),
    fc.record({ do: fc.constant('confirm' as const), by: fc.nat(3) }),
    fc.record({ do: fc.constant('pass' as const), days: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ do: fc.constant('crash' as const) }),
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
      let [state] = rotate(empty, made(root('r0', 0), intermediate('i0', 'r0', 0)), at(0));
      let now = 0;
      let count = 1;
      let forced = false;
      const workloads = [0, 1, 2, 3].map(() => ({
        sequence: null as number | null,
        leaves: [] as { issuerKeyId: string; notAfter: Date }[],
      }));
      const bundles = new Map<number, ReadonlySet<string>>();
      const proof = (): Evidence => evidence(...workloads);
      const take = (event: RotationEvent, crash = false): void => {
        const before = state;
        const [next, effects] = rotate(state, event, at(now));
        const refused = effects.some(({ kind }) => kind === 'refuse');
        if (refused) expect([next, effects.length]).toEqual([before, 1]);
        check(before, next, effects, event);
        state = next;
        for (const effect of effects) {
          if (effect.kind === 'request' && !crash) take(requested(`q${count++}`));
          if (effect.kind !== 'make' || crash) continue;
          const n = count++;
          const under = effect.rootKeyId ?? `r${n}`;
          const keys = [intermediate(`i${n}`, under, now, now + 30)];
          take(made(...(effect.rootKeyId === null ? [root(under, now, now + 3_650), ...keys] : keys)));
        }
      };
      const check = (
        before: RotationState,
        next: RotationState,
        effects: readonly RotationEffect[],
        event: RotationEvent,
      ): void => {
        const rootOf = (keyId: string | null) => next.slots.find((slot) => slot.keyId === keyId);
        const isOffline = next.slots.find(
          ({ kind, state: at2 }) => kind === 'root' && at2 === 'active',
        )?.offline;
        for (const effect of effects) {
          if (effect.kind === 'make') {
            // What is kept elsewhere signs nothing here, and nothing here takes its place.
            expect([effect.rootKeyId, rootOf(effect.rootKeyId)?.offline ?? isOffline]).toEqual([
              effect.rootKeyId,
              false,
            ]);
          }
          if (effect.kind === 'request') expect(next.requested).toBeNull();
          if (effect.kind === 'forget') expect(effect.keyIds).not.toContain(next.requested);
        }
        expect(next.slots.map(({ keyId }) => keyId)).not.toContain(next.requested);
        const of = (kind: Slot['kind'], at2: SlotState) =>
          next.slots.filter((slot) => slot.kind === kind && slot.state === at2);
        expect(of('intermediate', 'active')).toHaveLength(1);
        expect(of('root', 'active')).toHaveLength(1);
        expect(of('root', 'prepared').length).toBeLessThan(2);
        expect(signerOf(next)?.rootKeyId).toBe(of('root', 'active')[0]?.keyId);
        const roots = (state2: RotationState) => publishedRoots(state2).map(({ keyId }) => keyId);
        const changed = JSON.stringify(roots(before)) !== JSON.stringify(roots(next));
        expect(next.sequence - before.sequence).toBe(changed ? 1 : 0);
        expect(effects.filter(({ kind }) => kind === 'publish')).toHaveLength(changed ? 1 : 0);
        expect(roots(next).length).toBeGreaterThan(0);
        for (const slot of before.slots) {
          const later = next.slots.find(({ keyId }) => keyId === slot.keyId);
          expect(order.indexOf(later?.state ?? 'prepared')).toBeGreaterThanOrEqual(order.indexOf(slot.state));
        }
        bundles.set(next.sequence, new Set(roots(next)));
        forced ||= 'force' in event && event.force;
        if (forced) return;
        // Whoever has a leaf trusts, with the oldest bundle it may still use, whoever signs and whoever signed a leaf.
        const holders = workloads.filter(({ leaves }) => leaves.some(({ notAfter }) => notAfter > at(now)));
        const signed = new Set(
          holders.flatMap(({ leaves }) =>
            leaves
              .filter(({ notAfter }) => notAfter > at(now))
              .map(({ issuerKeyId }) => next.slots.find(({ keyId }) => keyId === issuerKeyId)?.rootKeyId),
          ),
        );
        for (const rootKeyId of signed) expect(roots(next)).toContain(rootKeyId);
        if (signerOf(before)?.rootKeyId === signerOf(next)?.rootKeyId) return;
        for (const { sequence } of holders) {
          expect(bundles.get(sequence ?? 0)).toContain(signerOf(next)?.rootKeyId);
        }
      };
      bundles.set(1, new Set(['r0']));
      for (const one of commands) {
        switch (one.do) {
          case 'rotate':
            take({ kind: 'rotate', scope: one.scope });
            break;
          case 'go_offline':
            take({ kind: 'rotate', scope: 'root', offline: true });
            break;
          case 'import': {
            const known = state.slots.filter(({ kind }) => kind === 'root')[one.root];
            const keyId = one.wrongKey ? 'somebody' : (state.requested ?? 'nobody');
            const under = known?.keyId ?? `x${count++}`;
            take(
              imported(
                { ...offlineRoot(under, now, now + 3_650) },
                intermediate(keyId, under, now, now + 30),
              ),
            );
            break;
          }
          case 'activate':
            take(activate(proof(), one.force && commands.length % 7 === 0));
            break;
          case 'retire':
            take(retire(proof(), one.force && commands.length % 7 === 0));
            break;
          case 'taint':
            take(taint(state.slots[one.pick % state.slots.length]?.keyId ?? ''));
            break;
          case 'issue': {
            const workload = workloads[one.to];
            const signer = signerOf(state);
            if (workload === undefined || signer === undefined || signer.notAfter <= at(now)) break;
            workload.leaves = [...workload.leaves, { issuerKeyId: signer.keyId, notAfter: at(now + 1) }];
            // It gets the bundle with its first leaf, and keeps an old one until it confirms another.
            workload.sequence ??= state.sequence;
            break;
          }
          case 'confirm': {
            const workload = workloads[one.by];
            if (workload !== undefined) workload.sequence = state.sequence;
            break;
          }
          case 'pass':
            now += one.days;
            take(tick(proof()));
            break;
          case 'crash':
            // The keys of a `make` were lost; the state was stored.
            take({ kind: 'rotate', scope: 'root' }, true);
            take(tick(proof()), true);
            break;
        }
      }
    }),
    { numRuns: 500 },
  );
});

const order: readonly SlotState[] = ['prepared', 'active', 'retiring', 'retired'];

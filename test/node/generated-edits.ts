import fc from 'fast-check';

/** One change of what views are made of. */
export type Edit =
  | { readonly kind: 'entry'; readonly id: string; readonly nodes: readonly string[] }
  | { readonly kind: 'no-entry' | 'policy' | 'no-policy' | 'ban' | 'no-ban'; readonly id: string }
  | { readonly kind: 'bundle' }
  | { readonly kind: 'crls'; readonly lists: readonly Uint8Array[] }
  | { readonly kind: 'settings'; readonly ttlSeconds: number };

// Few names, so that edits meet.
const id = fc.constantFrom('a', 'b', 'c');
const nodes = fc.subarray(['node:web-1', 'node:web-2', 'alias:edge', '*']);

export const edits: fc.Arbitrary<readonly Edit[]> = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('entry' as const), id, nodes }),
    fc.record({
      kind: fc.constantFrom(
        ...(['no-entry', 'policy', 'no-policy', 'ban', 'no-ban'] as const satisfies Edit['kind'][]),
      ),
      id,
    }),
    fc.record({ kind: fc.constant('bundle' as const) }),
    fc.record({
      kind: fc.constant('crls' as const),
      lists: fc.array(fc.uint8Array({ minLength: 1, maxLength: 4 }), { maxLength: 2 }),
    }),
    fc.record({ kind: fc.constant('settings' as const), ttlSeconds: fc.integer({ min: 20, max: 22 }) }),
  ),
  { maxLength: 20 },
);

import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { AttestedNode } from '../../src/identity/node.ts';
import { createNamesInEntries, type NodeAlias } from '../../src/identity/node-alias.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { applyDelta, createViewMaker, diffViews, type ViewSource } from '../../src/identity/view.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';

const trustDomain = TrustDomain.parse('mesh.test');
let bundle: TrustBundle;
beforeAll(async () => {
  bundle = (await makeTestAuthority(new Date('2026-01-01T00:00:00Z'), {}, 'mesh.test')).authority.bundle;
});

type State = { readonly source: ViewSource; readonly nodes: ReadonlyMap<string, AttestedNode> };
type Change =
  | { readonly kind: 'entry'; readonly id: string; readonly nodes: readonly string[] | null }
  | { readonly kind: 'alias'; readonly name: string; readonly selectors: readonly string[] | null }
  | { readonly kind: 'node'; readonly name: string; readonly selectors: readonly string[] };

// Few of each, so that changes meet.
const selectors = ['k8s_psat:cluster:a', 'k8s_psat:cluster:b', 'k8s_psat:agent_ns:mesh', 'join_token:web-1'];
const nodeNames = ['web-1', 'web-2'];
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    kind: fc.constant('entry' as const),
    id: fc.constantFrom('x', 'y', 'z'),
    nodes: fc.option(
      fc.subarray(['*', 'node:web-1', 'node:edge', 'alias:edge', 'alias:web-1', 'alias:core']),
    ),
  }),
  fc.record({
    kind: fc.constant('alias' as const),
    name: fc.constantFrom('edge', 'web-1', 'core'),
    selectors: fc.option(fc.subarray(selectors, { minLength: 1 })),
  }),
  fc.record({
    kind: fc.constant('node' as const),
    name: fc.constantFrom(...nodeNames),
    selectors: fc.subarray(selectors),
  }),
);

test('a node sees the entries that a naive look finds, after each of any changes', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      const [makeView, namesInEntries] = [createViewMaker(), createNamesInEntries()];
      let state = start();
      const viewOf = (name: string, revision: number) => {
        const node = state.nodes.get(name)!;
        return makeView(namesInEntries(node, state.source.mesh.aliases), state.source, revision);
      };
      const held = new Map(nodeNames.map((name) => [name, viewOf(name, 1)]));
      for (const step of changes) {
        state = take(state, step);
        for (const name of nodeNames) {
          const before = held.get(name)!;
          const delta = diffViews(before, viewOf(name, 0));
          const view = delta === undefined ? before : applyDelta(before, delta);
          held.set(name, view);
          expect([...view.mesh.entries.keys()].sort()).toEqual(naiveEntries(state, name));
          // A node is not told what it is called.
          expect(view.mesh.aliases).toBeUndefined();
        }
      }
    }),
  );
});

/** Which entries a node may serve, said in the plainest way. */
function naiveEntries({ source, nodes }: State, name: string): readonly string[] {
  const found: string[] = [];
  for (const entry of source.mesh.entries.values()) {
    for (const text of entry.nodes ?? []) {
      if (text === '*' || text === `node:${name}`) found.push(entry.id);
      if (!text.startsWith('alias:')) continue;
      const alias = source.mesh.aliases?.get(text.slice(6));
      if (alias === undefined) continue;
      const has = new Set(nodes.get(name)?.selectors);
      if (alias.selectors.filter((selector) => !has.has(selector)).length === 0) found.push(entry.id);
    }
  }
  return [...new Set(found)].sort();
}

function start(): State {
  const settings = {
    trustDomain: 'mesh.test',
    rootNamespace: 'root',
    ttlSeconds: 60,
    maxStalenessSeconds: 60,
  };
  return {
    source: {
      mesh: { revision: 0, entries: new Map(), policies: new Map(), bans: new Map(), aliases: new Map() },
      bundle,
      jwtBundle: { trustDomain, authorities: [], sequence: 1 },
      crls: [],
      outgoing: [],
      settings,
    },
    nodes: new Map(nodeNames.map((name) => [name, nodeOf(name, [])])),
  };
}

function take({ source, nodes }: State, step: Change): State {
  if (step.kind === 'node') {
    return { source, nodes: new Map(nodes).set(step.name, nodeOf(step.name, step.selectors)) };
  }
  const { mesh } = source;
  const revision = mesh.revision + 1;
  const entries = new Map(mesh.entries);
  const aliases = new Map(mesh.aliases);
  if (step.kind === 'entry')
    put(entries, step.id, step.nodes === null ? null : entryOf(step.id, step.nodes, revision));
  else put(aliases, step.name, step.selectors === null ? null : aliasOf(step.name, step.selectors, revision));
  return { source: { ...source, mesh: { ...mesh, revision, entries, aliases } }, nodes };
}

function put<T>(map: Map<string, T>, key: string, value: T | null): void {
  if (value === null) map.delete(key);
  else map.set(key, value);
}

function aliasOf(name: string, wanted: readonly string[], revision: number): NodeAlias {
  return { name, selectors: [...wanted].sort(), revision };
}

function nodeOf(name: string, has: readonly string[]): AttestedNode {
  const now = new Date('2026-01-01T00:00:00Z');
  return {
    name,
    method: 'k8s_psat',
    selectors: [...has].sort(),
    attestedAt: now,
    renewedAt: now,
    notAfter: now,
    serials: [],
    evictedAt: null,
  };
}

function entryOf(id: string, nodes: readonly string[], revision: number): RegistrationEntry {
  return {
    id,
    spiffeId: SpiffeId.parseWorkload(`spiffe://mesh.test/${id}`),
    selectors: [parseSelector('unix:uid:1000')],
    ttlSeconds: 60,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    nodes,
    revision,
  };
}

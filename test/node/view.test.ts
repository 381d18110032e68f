import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import type { Ban } from '../../src/identity/ban.ts';
import { banKey } from '../../src/identity/ban.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { Mesh, PolicyDocument } from '../../src/identity/mesh.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import {
  applyDelta,
  createViewMaker,
  diffViews,
  type NodeView,
  type ViewDelta,
  type ViewSource,
} from '../../src/identity/view.ts';
import { createViewEncoder } from '../../src/node/view-encoder.ts';
import { viewToWire } from '../../src/node/view-wire.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { ViewUpdate } from '../../src/wire/node.ts';
import { type Edit, edits } from './generated-edits.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const settings = {
  trustDomain: 'mesh.test',
  rootNamespace: 'root',
  ttlSeconds: 3_600,
  maxStalenessSeconds: 60,
};
let bundle: TrustBundle;
beforeAll(async () => {
  bundle = (await makeTestAuthority(new Date('2026-01-01T00:00:00Z'), {}, 'mesh.test')).authority.bundle;
});

test('any sequence of deltas from any start gives the full state', () => {
  fc.assert(
    fc.property(edits, edits, fc.constantFrom(...allNames), (before, after, name) => {
      const make = createViewMaker();
      let source = run(emptySource(), before);
      let sent = make([name], source, 1);
      let held = sent;
      for (const edit of after) {
        source = apply(source, edit);
        const next = make([name], source, sent.revision);
        const delta = diffViews(sent, next);
        if (delta === undefined) {
          expect(stateOf(held)).toEqual(stateOf(next));
          continue;
        }
        sent = { ...next, revision: delta.revision };
        held = applyDelta(held, delta);
        expect(held.revision).toBe(sent.revision);
        expect(stateOf(held)).toEqual(stateOf(sent));
      }
    }),
  );
});

test('a node never sees an entry that is not its own, and sees all that are', () => {
  fc.assert(
    fc.property(edits, fc.subarray(allNames), (all, names) => {
      const source = run(emptySource(), all);
      const view = createViewMaker()(names, source, 1);
      const own = [...source.mesh.entries.values()].filter(({ nodes = [] }) =>
        nodes.some((node) => node === '*' || names.includes(node)),
      );
      expect([...view.mesh.entries.keys()].sort()).toEqual(own.map(({ id }) => id).sort());
    }),
  );
});

test('what a node is sent reads as its view, whatever any node was sent before', () => {
  fc.assert(
    fc.property(edits, (all) => {
      const make = createViewMaker();
      const encode = createViewEncoder();
      let source = emptySource();
      for (const edit of all) {
        source = apply(source, edit);
        for (const name of allNames) {
          const view = make([name], source, 1);
          const read = ViewUpdate.decode(encode(view));
          expect(read).toEqual(ViewUpdate.decode(plainly({ $case: 'full', full: viewToWire(view) })));
        }
      }
    }),
    { numRuns: 40 },
  );
});

test('nodes that have the same entries are given one map, and the next revision another', () => {
  const make = createViewMaker();
  const source = run(emptySource(), [
    { kind: 'entry', id: 'a', nodes: ['*'] },
    { kind: 'entry', id: 'b', nodes: ['node:web-1'] },
  ]);
  const entriesOf = (name: string, from = source) => make([name], from, 1).mesh.entries;
  expect(entriesOf('node:web-2')).toBe(entriesOf('node:web-3'));
  expect([...entriesOf('node:web-1').keys()]).toHaveLength(2);
  const before = entriesOf('node:web-2');
  expect(entriesOf('node:web-2', apply(source, { kind: 'entry', id: 'a', nodes: ['*'] }))).not.toBe(before);
});

function plainly(kind: NonNullable<ViewUpdate['kind']>): Uint8Array {
  return ViewUpdate.encode({ kind }).finish();
}

test('an entry without nodes is nobody’s', () => {
  const source = run(emptySource(), [{ kind: 'entry', id: 'a', nodes: [] }]);
  expect(createViewMaker()([...allNames, '*'], source, 1).mesh.entries.size).toBe(0);
});

test('a ban in a view does not say who made it', () => {
  const source = run(emptySource(), [{ kind: 'ban', id: 'a' }]);
  const [ban] = createViewMaker()([], source, 1).mesh.bans.values();
  expect(ban).toMatchObject({ kind: 'spiffe-id', reason: 'because', actor: { kind: 'system' } });
});

test('views that say the same have no delta, and a mere step of the mesh has one', () => {
  const make = createViewMaker();
  const source = run(emptySource(), [{ kind: 'entry', id: 'a', nodes: ['node:web-2'] }]);
  const view = make(['node:web-1'], source, 1);
  expect(diffViews(view, make(['node:web-1'], source, 1))).toBeUndefined();
  const next = apply(source, { kind: 'entry', id: 'b', nodes: ['node:web-2'] });
  expect(diffViews(view, make(['node:web-1'], next, 1))).toMatchObject({ meshRevision: 2, putEntries: [] });
});

test('revocation lists that are withdrawn are a change', () => {
  const make = createViewMaker();
  const source = { ...emptySource(), crls: [Uint8Array.of(1)] };
  const view = make([], source, 1);
  const delta = diffViews(view, make([], { ...source, crls: [] }, 1));
  expect(delta?.crls).toEqual([]);
  expect(applyDelta(view, delta!).crls).toEqual([]);
});

test.each([
  ['the one before', 0, 1],
  ['one that was missed', 2, 3],
  ['one step that is two', 1, 3],
  ['no step', 1, 1],
  ['a step back', 1, 0],
])('a delta that does not follow is a gap: %s', (_, baseRevision, revision) => {
  const view = createViewMaker()([], emptySource(), 1);
  const delta = { ...emptyDelta, baseRevision, revision };
  expect(() => applyDelta(view, delta)).toThrowError(expect.objectContaining({ code: 'view_gap' }));
});

test('what did not change is the same map, so that what was compiled of it stays good', () => {
  const make = createViewMaker();
  const source = run(emptySource(), [{ kind: 'policy', id: 'a' }]);
  const view = make([], source, 1);
  const delta = diffViews(view, make([], apply(source, { kind: 'ban', id: 'x' }), 1));
  const next = applyDelta(view, delta!);
  expect(next.mesh.policies).toBe(view.mesh.policies);
  expect(next.mesh.entries).toBe(view.mesh.entries);
  expect(next.mesh.bans).not.toBe(view.mesh.bans);
});

const allNames = ['node:web-1', 'node:web-2', 'alias:edge'];

const emptyDelta: ViewDelta = {
  baseRevision: 1,
  revision: 2,
  meshRevision: 1,
  putEntries: [],
  deleteEntries: [],
  putPolicies: [],
  deletePolicies: [],
  putBans: [],
  deleteBans: [],
  bundle: undefined,
  jwtBundle: undefined,
  crls: undefined,
  outgoing: undefined,
  settings: undefined,
  policyRevision: undefined,
  rollout: undefined,
};

function emptySource(): ViewSource {
  return {
    mesh: { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() },
    bundle,
    jwtBundle: { trustDomain, authorities: [], sequence: 1 },
    crls: [],
    outgoing: [],
    settings,
  };
}

function run(source: ViewSource, all: readonly Edit[]): ViewSource {
  return all.reduce(apply, source);
}

function apply(source: ViewSource, edit: Edit): ViewSource {
  const { mesh } = source;
  const revision = mesh.revision + 1;
  const next = (change: Partial<Mesh>): ViewSource => ({ ...source, mesh: { ...mesh, revision, ...change } });
  switch (edit.kind) {
    case 'entry':
      return next({ entries: new Map(mesh.entries).set(edit.id, entryOf(edit.id, edit.nodes, revision)) });
    case 'no-entry':
      return next({ entries: without(mesh.entries, edit.id) });
    case 'policy':
      return next({ policies: new Map(mesh.policies).set(edit.id, policyOf(edit.id, revision)) });
    case 'no-policy':
      return next({ policies: without(mesh.policies, edit.id) });
    case 'ban': {
      const ban = banOf(edit.id, revision);
      return next({ bans: new Map(mesh.bans).set(banKey(ban), ban) });
    }
    case 'no-ban':
      return next({ bans: without(mesh.bans, banKey(banOf(edit.id, 0))) });
    case 'bundle':
      return { ...source, bundle: { ...source.bundle, sequence: source.bundle.sequence + 1 } };
    case 'crls':
      return { ...source, crls: edit.lists };
    case 'settings':
      return { ...source, settings: { ...settings, ttlSeconds: edit.ttlSeconds } };
    default:
      return edit satisfies never;
  }
}

function stateOf({ mesh, ...rest }: NodeView): unknown {
  const sorted = <T>(map: ReadonlyMap<string, T>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    ...rest,
    mesh: {
      revision: mesh.revision,
      entries: sorted(mesh.entries),
      policies: sorted(mesh.policies),
      bans: sorted(mesh.bans),
    },
  };
}

function without<T>(map: ReadonlyMap<string, T>, key: string): ReadonlyMap<string, T> {
  const next = new Map(map);
  next.delete(key);
  return next;
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

function policyOf(key: string, revision: number): PolicyDocument {
  return { key, source: `${revision}`, file: 'f', line: 1, sha256: '', revision };
}

function banOf(id: string, revision: number): Ban {
  return {
    kind: 'spiffe-id',
    value: `spiffe://mesh.test/${id}`,
    reason: 'because',
    until: null,
    createdAt: new Date(0),
    actor: { kind: 'uid', uid: 1000, role: 'admin' },
    revision,
  };
}

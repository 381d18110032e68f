import { beforeEach, expect, test } from 'vitest';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { compileMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import type { MeshChange } from '../../src/identity/mesh.ts';
import { nodeSelector, nodeSelectorKinds, parseNodeSelector } from '../../src/identity/node-selector.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner, noHistory } from '../harness/policy-signer.ts';
import { entry } from '../harness/mesh.ts';

const [cluster, zone] = ['k8s_psat:cluster:edge', 'k8s_psat:agent_node_label:zone:a'];
const actor = { kind: 'uid', uid: 0, role: 'admin' } as const;
let holder: MeshHolder;
let mesh: Administration;
let committed: MeshChange[];

beforeEach(() => {
  const settings = { trustDomain: TrustDomain.parse('mesh.test'), rootNamespace: 'root', ttlSeconds: 60 };
  const empty = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map(), aliases: new Map() };
  committed = [];
  holder = createMeshHolder(compileMesh(empty, new Map(), settings));
  mesh = createAdministration({
    holder,
    settings,
    signer: makePolicySigner(),
    history: noHistory,
    commit: async (change) => void committed.push(change),
    latestExpiry: async () => null,
    latestExpiries: async (ids) => ids.map(() => null),
    clock: manualClock(),
  });
});

test('an alias is created, changed, left alone and deleted, each step with its event', async () => {
  const apply = (text: string) => mesh.apply([{ file: 'f', text }], actor, { dryRun: false });
  const edge = { kind: 'node-alias', key: 'edge' };
  expect((await apply(alias('edge', zone, cluster))).changes).toEqual([{ ...edge, action: 'created' }]);
  expect((await apply(alias('edge', cluster, zone, cluster))).changes).toEqual([
    { ...edge, action: 'unchanged' },
  ]);
  expect((await apply(alias('edge', cluster))).changes).toEqual([{ ...edge, action: 'updated' }]);
  expect(mesh.current().aliases?.get('edge')).toEqual({ name: 'edge', selectors: [cluster], revision: 2 });
  expect(await mesh.deleteAlias('edge', actor)).toMatchObject({ name: 'edge' });
  expect(mesh.current().aliases?.size).toBe(0);
  expect(committed.map(({ events }) => events)).toMatchObject([
    [
      {
        type: 'node_alias_change',
        action: 'created',
        alias: 'edge',
        before: [],
        after: [zone, cluster],
        actor,
      },
    ],
    [{ action: 'updated', before: [zone, cluster], after: [cluster] }],
    [{ action: 'deleted', before: [cluster], after: [] }],
  ]);
});

test('an entry and the alias it names may come in one file, in any order', async () => {
  const text = entry('spiffe://mesh.test/web', '/web', { nodes: ['alias:edge'] }) + alias('edge', cluster);
  const { changes } = await mesh.apply([{ file: 'f', text }], actor, { dryRun: false });
  expect(changes.map(({ action }) => action)).toEqual(['created', 'created']);
});

test('an entry cannot name an alias that is not there', async () => {
  const text = `---\n${entry('spiffe://mesh.test/web', '/web', { nodes: ['*', 'alias:egde'] })}`;
  const applied = mesh.apply([{ file: 'f', text: text + alias('edge', cluster) }], actor, { dryRun: false });
  await expect(applied).rejects.toMatchObject({
    code: 'node_alias_not_found',
    message: 'there is no node alias "egde"',
    place: { file: 'f', line: expect.any(Number) },
  });
  const input = {
    id: 'web',
    spiffeId: 'spiffe://mesh.test/web',
    selectors: ['unix:uid:1'],
    nodes: ['alias:x'],
  };
  await expect(mesh.createEntry(input, actor)).rejects.toMatchObject({ code: 'node_alias_not_found' });
  await mesh.createEntry({ ...input, nodes: [] }, actor);
  await expect(mesh.updateEntry('web', { nodes: ['alias:x'] }, actor)).rejects.toMatchObject({
    code: 'node_alias_not_found',
  });
  expect(mesh.current().revision).toBe(1);
});

test('an alias that entries name is not deleted, and they are named', async () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
  const entries = names.map((id) => entry(`spiffe://mesh.test/${id}`, `/${id}`, { nodes: ['alias:edge'] }));
  await mesh.apply([{ file: 'f', text: entries.join('') + alias('edge', cluster) }], actor, {
    dryRun: false,
  });
  await expect(mesh.deleteAlias('edge', actor)).rejects.toMatchObject({
    code: 'node_alias_in_use',
    message: 'entries name the node alias "edge": "a", "b", "c", "d", "e" and 2 more',
  });
  for (const id of names) await mesh.updateEntry(id, { nodes: ['*'] }, actor);
  await mesh.deleteAlias('edge', actor);
  await expect(mesh.deleteAlias('edge', actor)).rejects.toMatchObject({ code: 'node_alias_not_found' });
});

test.each<[string, string, string]>([
  ['no selectors', 'node_alias_invalid', alias('edge')],
  [
    'too many selectors',
    'node_alias_invalid',
    alias('edge', ...Array.from({ length: 17 }, (_, at) => `join_token:n${at}`)),
  ],
  ['a name with a colon', 'node_alias_invalid', alias("'node:web'", cluster)],
  ['a name in upper case', 'node_alias_invalid', alias('Edge', cluster)],
  ['a selector of workloads', 'selector_invalid', alias('edge', 'unix:uid:1000')],
  ['a selector without a kind', 'selector_invalid', alias('edge', 'prod')],
  ['a selector without a value', 'selector_invalid', alias('edge', "'k8s_psat:cluster:'")],
  [
    'a field with a slip of the pen',
    'document_field_unknown',
    alias('edge', cluster).replace('selectors', 'selector'),
  ],
  ['no spec', 'document_field_missing', alias('edge', cluster).replace(/^spec:[^]*/m, '')],
  [
    'labels',
    'document_field_unknown',
    alias('edge', cluster).replace('name: edge', 'name: edge, labels: {}'),
  ],
  ['another version', 'document_kind_unknown', alias('edge', cluster).replace('/v1', '/v2')],
  ['a second of its name', 'document_field_value', alias('edge', cluster) + alias('edge', zone)],
])('a file is refused whose alias has %s (%s)', async (_, code, text) => {
  const applied = mesh.apply([{ file: 'f', text }], actor, { dryRun: false });
  await expect(applied).rejects.toMatchObject({ code, place: { file: 'f' } });
  expect(mesh.current().revision).toBe(0);
});

test('a mesh has so many aliases and no more', async () => {
  const text = Array.from({ length: 1_000 }, (_, at) => alias(`a${at}`, cluster)).join('');
  await mesh.apply([{ file: 'f', text }], actor, { dryRun: false });
  const more = mesh.apply([{ file: 'f', text: alias('more', cluster) }], actor, { dryRun: false });
  await expect(more).rejects.toMatchObject({ code: 'document_too_large' });
});

test.each([
  'join_token:web-1',
  'join_token:id',
  'join_token:id:0123456789abcdef',
  `x509pop:certificate:${'ab'.repeat(32)}`,
  `x509pop:ca:fingerprint:${'ab'.repeat(32)}`,
  'x509pop:subject:cn:web 1, Inc.',
  'k8s_psat:cluster:prod',
  'k8s_psat:agent_node_label:topology.kubernetes.io/zone:a',
  'k8s_psat:agent_node_label:node-role.kubernetes.io/worker:',
])('%s is a selector of nodes', (text) => {
  expect(parseNodeSelector(text)).toBe(text);
});

test.each([
  '',
  'join_token',
  'join_token:',
  'join_token:Web',
  'join_token:id:xyz',
  'join_token:web:1',
  'x509pop:subject:web',
  'x509pop:subject:cn:',
  'x509pop:subject:cn:web\u202e',
  'x509pop:subject:cn:wéb',
  `x509pop:subject:cn:${'a'.repeat(257)}`,
  'x509pop:ca:fingerprint:AB',
  'k8s_psat:agent_ns:..',
  'k8s_psat:agent_ns:a/b',
  'k8s_psat:agent_ns:a%2f',
  'k8s_psat:agent_pod_uid:web',
  'k8s_psat:agent_node_label:zone',
  'k8s_psat:agent_node_label::a',
  '__proto__:a',
])('%j is no selector of nodes', (text) => {
  expect(() => parseNodeSelector(text)).toThrow(expect.objectContaining({ code: 'selector_invalid' }));
});

test('what an attestor sees and nobody could ask for is left out', () => {
  expect(nodeSelectorKinds.flatMap((kind) => nodeSelector(kind, 'a\u0000/../'))).toEqual([]);
});

function alias(name: string, ...selectors: readonly string[]): string {
  const items = selectors.map(
    (selector) => `\n    - ${selector.startsWith("'") ? selector : `'${selector}'`}`,
  );
  return `---
apiVersion: countersign.dev/v1
kind: NodeAlias
metadata: { name: ${name} }
spec:
  selectors:${items.length === 0 ? ' []' : items.join('')}
`;
}

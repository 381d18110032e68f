import { expect, test } from 'vitest';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import {
  kubernetesNodeName,
  nodeNameOf,
  nodeSpiffeId,
  parseChosenNodeName,
} from '../../src/identity/node.ts';
import { parseBan } from '../../src/identity/ban.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const uid = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee';
const now = new Date('2026-01-01T00:00:00Z');
const made = (nodes?: readonly string[]) =>
  parseEntry(
    {
      id: 'web',
      spiffeId: 'spiffe://mesh.test/web',
      selectors: ['unix:uid:1000'],
      ...(nodes === undefined ? {} : { nodes }),
    },
    { trustDomain, ttlSeconds: 60 },
    1,
  );

test('nodes are kept sorted, each once', () => {
  expect(made(['node:web-2', '*', 'alias:edge', 'node:web-1', '*']).nodes).toEqual([
    '*',
    'alias:edge',
    'node:web-1',
    'node:web-2',
  ]);
  expect(made().nodes).toEqual([]);
});

test.each([
  ['a bare name', 'web-1'],
  ['no alias', 'alias:'],
  ['an alias in upper case', 'alias:Edge'],
  ['a selector', 'k8s_psat:cluster:prod'],
  ['no name', 'node:'],
  ['upper case', 'node:Web'],
  ['a path', 'node:a/b'],
  ['a pattern', 'node:web-*'],
  ['nothing', ''],
  ['a long name', `node:${'a'.repeat(129)}`],
])('refused in nodes: %s', (_, node) => {
  expect(() => made([node])).toThrow(expect.objectContaining({ code: 'entry_invalid' }));
});

test('too many nodes are refused', () => {
  const nodes = Array.from({ length: 65 }, (_, at) => `node:n${at}`);
  expect(() => made(nodes)).toThrow(expect.objectContaining({ code: 'entry_invalid' }));
});

test.each([
  [undefined, 1],
  [[], 1],
  [['*'], 0],
  [['node:web-1'], 0],
  [['alias:edge'], 0],
])('an entry with the nodes %j matches %i callers of this very machine', (nodes, count) => {
  const entry = made(nodes);
  const registry = indexEntries([entry]);
  expect(registry.match(entry.selectors, now)).toHaveLength(count);
  // It is registered all the same: the server signs for it.
  expect(registry.entry('web')).toBe(entry);
});

test.each([
  ['spiffe://mesh.test/countersign/node/web-1', 'web-1'],
  ['spiffe://other.test/countersign/node/web-1', undefined],
  ['spiffe://mesh.test/countersign/node', undefined],
  ['spiffe://mesh.test/countersign/node/a/b', undefined],
  ['spiffe://mesh.test/countersign/node/Web', undefined],
  ['spiffe://mesh.test/countersign/server', undefined],
  ['spiffe://mesh.test/ns/countersign/node/web-1', undefined],
])('%s is the node %s', (text, name) => {
  expect(nodeNameOf(trustDomain, SpiffeId.parse(text))).toBe(name);
});

test('a node has one name, and nobody chooses that of an attestor', () => {
  expect(nodeNameOf(trustDomain, nodeSpiffeId(trustDomain, 'web-1'))).toBe('web-1');
  expect(kubernetesNodeName('edge', uid)).toBe(`k8s-edge-${uid}`);
  for (const name of ['x509pop-ab', 'k8s-x', '.', '', 'a b']) {
    expect(() => parseChosenNodeName(name)).toThrow(expect.objectContaining({ code: 'node_name_invalid' }));
  }
});

test.each([
  ['countersign/node/web-1', true],
  ['countersign/server', false],
  ['countersign/trust-endpoint', false],
])('spiffe://mesh.test/%s may be banned: %s', (path, may) => {
  const ban = () =>
    parseBan({ kind: 'spiffe-id', value: `spiffe://mesh.test/${path}`, reason: 'stolen' }, trustDomain, {
      actor: { kind: 'system' },
      revision: 1,
      now,
    });
  if (may) expect(ban().value).toContain(path);
  else expect(ban).toThrow(expect.objectContaining({ code: 'ban_invalid' }));
});

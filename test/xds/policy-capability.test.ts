import { expect, test } from 'vitest';
import { policyServiceFor } from '../../src/xds/policy-capability.ts';
import { readPolicyName } from '../../src/xds/policy-resource.ts';
import { nodeOf } from './policy-door.ts';

const both = ['ask-v1', 'matcher-v1'];

test.each([
  ['all it takes', nodeOf(), 'policy', null],
  ['more than that, by a later Envoy', nodeOf({ policy: ['x', ...both], minor: 99 }), 'policy', null],
  ['no node', undefined, 'nothing', 'its node metadata does not declare ask-v1'],
  ['nothing', nodeOf({ policy: null }), 'nothing', 'its node metadata does not declare ask-v1'],
  ['a text in place of a list', nodeOf({ policy: 'ask-v1' }), 'nothing', 'does not declare ask-v1'],
  ['an object in place of a list', nodeOf({ policy: { 0: 'ask-v1' } }), 'nothing', 'does not declare ask-v1'],
  ['it too far down', nodeOf({ policy: [...Array<string>(64).fill(''), ...both] }), 'nothing', 'ask-v1'],
  ['trees without asking', nodeOf({ policy: ['matcher-v1'] }), 'nothing', 'ask-v1'],
  ['asking without trees', nodeOf({ policy: ['ask-v1'] }), 'ask', 'does not declare matcher-v1'],
  ['trees of another kind', nodeOf({ policy: ['ask-v1', 'matcher-v2'] }), 'ask', 'matcher-v1'],
  ['an older Envoy', nodeOf({ minor: 39 }), 'ask', 'it is Envoy 1.39; policies are for 1.40 and later'],
  ['something else than Envoy', nodeOf({ agent: 'grpc' }), 'ask', 'it does not say which Envoy it is'],
])('a proxy that declares %s', (_, node, serves, lacks) => {
  const found = policyServiceFor(node);
  expect(found.serves).toBe(serves);
  if (lacks === null) expect(found.lacks).toBeNull();
  else expect(found.lacks).toContain(lacks);
});

test.each([
  ['countersign.policy', { filter: 'http', id: null }],
  ['countersign.tcp-policy', { filter: 'tcp', id: null }],
  ['countersign.policy/spiffe://a.test/b', { filter: 'http', id: 'spiffe://a.test/b' }],
  ['countersign.tcp-policy/spiffe://a.test/b', { filter: 'tcp', id: 'spiffe://a.test/b' }],
  ['', undefined],
  ['countersign', undefined],
  ['countersign.policy/', undefined],
  ['countersign.policy//spiffe://a.test/b', undefined],
  ['countersign.policy/spiffe://a.test', undefined],
  ['countersign.policy/spiffe://A.test/b', undefined],
  ['countersign.policy/SPIFFE://a.test/b', undefined],
  ['countersign.policy/spiffe://a.test/b/../c', undefined],
  ['countersign.policy/spiffe://a.test/b?c', undefined],
  ['Countersign.policy', undefined],
])('the name %j', (name, read) => {
  expect(readPolicyName(name)).toEqual(read);
});

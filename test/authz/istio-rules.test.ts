// Which rule decides, and how many are tried for it.
import { expect, test } from 'vitest';
import type { ProxyRequest } from '../../src/authz/istio-request.ts';
import {
  compileIstio,
  compileIstioInSteps,
  type IstioPolicy,
  judgeAsIstio,
} from '../../src/authz/istio-rules.ts';
import { readPolicyDocument } from '../../src/authz/read-document.ts';
import { documentOfJson } from '../../src/yaml-json.ts';
import { from, judge, policy, to, when } from './istio-cases.ts';
import { noon } from './mesh.ts';

const web = 'cluster.local/ns/shop/sa/web';
const ofWeb = { from: [{ source: { principals: [web] } }] };
const named = (name: string, rules: readonly unknown[] = [{}], more: object = {}) =>
  policy(rules, more, { name });
const asked = (name: string, provider: string, rules: readonly unknown[] = [{}]) =>
  named(name, rules, { action: 'CUSTOM', provider: { name: provider } });
const puts = to({ methods: ['PUT'] });
const tcp = { protocol: 'tcp' };
const pathAndPort = to({ paths: ['/*'], ports: ['8080'] });

test.each<[string, readonly unknown[], object, boolean, string | null]>([
  ['the first name of three', [named('c'), named('a'), named('b')], {}, true, 'a'],
  ['a name of any caller before one of a caller', [named('a'), named('b', [ofWeb])], {}, true, 'a'],
  ['a name of a caller before one of any', [named('a', [ofWeb]), named('b')], {}, true, 'a'],
  [
    'two rules of a caller, the first',
    [named('a', [ofWeb]), named('b', [{ ...ofWeb, ...puts[0] }])],
    {},
    true,
    'a',
  ],
  [
    'two rules of a caller, the second',
    [named('a', [{ ...ofWeb, ...puts[0] }]), named('b', [ofWeb])],
    {},
    true,
    'b',
  ],
  ['a caller by when', [named('a', when('source.principal', [web]))], {}, true, 'a'],
  ['another caller by when', [named('a', when('source.principal', ['x/ns/a/sa/b']))], {}, false, null],
  ['no such caller', [named('a', from({ notPrincipals: ['x/ns/a/sa/b'] }))], {}, true, 'a'],
  ['whole names beside a pattern', [named('a', from({ principals: ['x/y', '*/sa/web'] }))], {}, true, 'a'],
  [
    'a name, or a namespace',
    [named('a', [{ from: [{ source: { principals: ['x/y'] } }, { source: { namespaces: ['shop'] } }] }])],
    {},
    true,
    'a',
  ],
  [
    'two sources, the second of them right',
    [named('a', [{ from: [{ source: { principals: ['x/y'] } }, { source: { principals: [web] } }] }])],
    {},
    true,
    'a',
  ],
  ['ALLOW by path and port on TCP', [named('a', pathAndPort)], tcp, false, null],
  ['DENY by path and port on TCP', [named('a', pathAndPort, { action: 'DENY' })], tcp, false, 'a'],
  ['a path that HTTP refuses, on TCP', [], { ...tcp, path: '/a#b' }, true, null],
  ['a provider beside an ALLOW', [asked('a', 'x'), named('b')], {}, true, 'b'],
  [
    'two providers of rules that do not match',
    [asked('a', 'x', puts), asked('b', 'y', puts)],
    {},
    true,
    null,
  ],
  ['two providers, one matches', [asked('a', 'y'), asked('b', 'x', puts), named('c')], {}, false, 'a'],
  ['one provider twice', [asked('b', 'x'), asked('a', 'x'), named('c')], {}, true, 'c'],
])('%s', async (_, policies, request, allow, name) => {
  const [answer] = await judge({ policies, request });
  const rule = name === null ? null : `ns[shop]-policy[${name}]-rule[0]`;
  expect(answer).toMatchObject({ allow, rule, error: null });
});

test('of two providers the one whose name comes first is named', async () => {
  const [both, other] = await judge(
    { policies: [asked('a', 'z'), asked('b', 'y'), asked('c', 'z')] },
    { policies: [asked('a', 'y'), asked('b', 'z')] },
  );
  expect(both).toMatchObject({ allow: false, custom: 'y', rule: 'ns[shop]-policy[a]-rule[0]' });
  expect(other).toMatchObject({ allow: false, custom: 'y' });
});

test.each<[string, readonly unknown[], object]>([
  ['an ALLOW that matches', [{}], { allow: 'allowed', deny: null }],
  ['an ALLOW that does not', puts, { allow: 'denied', deny: null }],
])('on trial: %s', async (_, rules, shadow) => {
  const trial = { name: 'p', annotations: { 'istio.io/dry-run': 'true' } };
  const [answer] = await judge({ policies: [policy(rules, {}, trial)] });
  expect(answer).toMatchObject({ allow: true, rule: null, shadow });
});

test('on trial: a DENY that does not match', async () => {
  const trial = { name: 'p', annotations: { 'istio.io/dry-run': 'true' } };
  const [answer] = await judge({ policies: [policy(puts, { action: 'DENY' }, trial)] });
  expect(answer).toMatchObject({ allow: true, shadow: { allow: null, deny: 'allowed' } });
});

const mesh = { trustDomains: ['td1', 'td2'], rootNamespace: 'r', pathNormalization: 'NONE' } as const;
const size = 200;
const accountOf = (i: number) => `td1/ns/shop/sa/w${i}`;

function read(raw: unknown): IstioPolicy {
  return readPolicyDocument(documentOfJson(raw, { file: 'p', line: 1 }));
}

test.each<[string, (i: number) => object]>([
  ['from', (i) => ({ from: [{ source: { principals: [accountOf(i)] } }] })],
  ['when', (i) => ({ when: [{ key: 'source.principal', values: [accountOf(i)] }] })],
  [
    'the second condition of when',
    (i) => ({
      when: [
        { key: 'source.namespace', values: ['shop'] },
        { key: 'source.principal', values: [accountOf(i)] },
      ],
    }),
  ],
  [
    'when, beside any caller',
    (i) => ({
      from: [{ source: { namespaces: ['shop'] } }],
      when: [{ key: 'source.principal', values: [accountOf(i)] }],
    }),
  ],
  [
    'each of two sources',
    (i) => ({
      from: [{ source: { principals: [accountOf(i)] } }, { source: { principals: [`td1/ns/pay/sa/w${i}`] } }],
    }),
  ],
])('a call tries few of the rules that name other callers: %s', (_, ruleOf) => {
  const policies = Array.from({ length: size }, (_one, i) => read(named(`p${i}`, [ruleOf(i)])));
  const rules = compileIstio(mesh, policies);
  for (const [name, hits] of [
    ['td1/ns/shop/sa/w7', 1],
    // The other name of the trust domain is one of the caller as well.
    ['td2/ns/shop/sa/w7', 1],
    ['td1/ns/shop/sa/nobody', 0],
  ] as const) {
    let looks = 0;
    const request: ProxyRequest = {
      ...{
        protocol: 'http',
        method: 'GET',
        path: '/',
        host: 'a',
        headers: [],
        sourceIp: null,
        remoteIp: null,
      },
      ...{ destinationIp: null, destinationPort: null, sni: '', claims: null, metadata: new Map() },
      get peerNames() {
        looks += 1;
        return [`spiffe://${name}`];
      },
    };
    expect(judgeAsIstio(rules, request, noon).allow).toBe(hits === 1);
    // Once for each list of rules, and by each condition about callers that is tried.
    expect(looks).toBeLessThanOrEqual(8);
  }
});

test.each<[string, number, number, number]>([
  // policies, rules in each, the fewest steps
  ['one policy of many rules', 1, 160, 40],
  ['many policies of one rule', 160, 1, 40],
  ['many policies without rules', 160, 0, 20],
])('%s is made ready in small steps', (_, policies, rulesOfEach, fewest) => {
  const rules = Array.from({ length: rulesOfEach }, () => ofWeb);
  const all = Array.from({ length: policies }, (_one, i) => read(named(`p${i}`, rules)));
  let steps = 0;
  for (const work = compileIstioInSteps(mesh, all); work.next().done !== true;) steps += 1;
  // A step for each eight rules to read them, and one to file them; no step for each rule.
  expect(steps).toBeGreaterThanOrEqual(fewest);
  expect(steps).toBeLessThanOrEqual(2 * fewest);
});

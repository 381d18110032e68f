import { Client, credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { Snapshot } from '../../src/authz/snapshot.ts';
import { systemClock } from '../../src/clock.ts';
import { readAsEnvoy } from '../../src/ext-authz/response.ts';
import { createExtAuthzService } from '../../src/ext-authz/service.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import { noBans } from '../../src/identity/ban-list.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { CheckResponse } from '../../src/wire/authz.ts';
import { readDocuments } from '../../src/yaml.ts';
import { sendCheckOver } from '../harness/check-client.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Certificates, checkBypasses, laterCallIds, lookalikeIds } from './bypass-checks.ts';
import { checkBytes, type CheckInput } from './check-input.ts';
import { makeCertificate } from './test-certificate.ts';

const web = 'spiffe://example.org/ns/shop/sa/web';
const other = 'spiffe://example.org/ns/shop/sa/other';
const orders = SpiffeId.parse('spiffe://example.org/ns/shop/sa/orders');
const policies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: allow, namespace: shop }
spec:
  rules: [{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny, namespace: shop }
spec:
  action: DENY
  rules:
    - when: [{ key: 'request.headers[x-role]', values: [admin] }]
    - to: [{ operation: { paths: [/admin] } }]
    - from: [{ source: { ipBlocks: [192.0.2.1] } }]
    - to: [{ operation: { paths: [/token] } }]
      when: [{ key: request.auth.principal, notValues: [i/s] }]
`;
const snapshot = new Snapshot({
  revision: 7,
  trustDomain: TrustDomain.parse('example.org'),
  rootNamespace: 'istio-system',
  policies: readDocuments({ file: 'p.yaml', text: policies }).map(parsePolicy),
  workloads: [{ id: orders, labels: {} }],
});

const scope = createScope();
afterAll(() => scope.close());
const reasons: string[] = [];
let certificates: Certificates;
let client: Client;

beforeAll(async () => {
  const url = (value: string) => ({ type: 'url', value }) as const;
  certificates = {
    web: await makeCertificate([url(web)]),
    other: await makeCertificate([url(other)]),
    two: await makeCertificate([url(web), url(other)]),
    dnsOnly: await makeCertificate([{ type: 'dns', value: web }]),
    mail: await makeCertificate([{ type: 'email', value: web }]),
    nul: await makeCertificate([url(`${web}\0.evil.example`)]),
    nulBefore: await makeCertificate([url(`${other}\0${web}`)]),
    none: await makeCertificate([]),
  };
  const service = createExtAuthzService({
    attest: createUnixAttestor({}),
    entitledIds: () => [orders],
    snapshot: () => snapshot,
    bans: () => noBans,
    record: ({ reason }) => reasons.push(reason),
    clock: systemClock,
    newDecisionId: () => 'd',
    observer: { decided: () => {}, outage: () => {}, failed: () => {} },
  });
  const { definition, implementation } = service;
  const path = `${makeTempDir(scope)}/w.sock`;
  const listener = await startGrpcListener({ path, mode: 0o600, services: [{ definition, implementation }] });
  scope.defer(() => listener.close(100));
  client = new Client(`unix:${path}`, credentials.createInsecure());
  scope.defer(() => client.close());
});

describe('ways around policy, by means of what a proxy is made to send', () => {
  test.each(checkBypasses.map((one) => [`${one.ids}: ${one.attack}`, one] as const))('%s', async (_, one) => {
    const { checks, reason, removed } = one;
    for (const input of checks(certificates)) {
      const { passes, found, headers } = await check(input);
      expect({ input, passes, found }).toEqual({ input, passes: reason === 'allow_rule', found: [reason] });
      if (removed !== undefined) expect(headers).toEqual(['x-countersign-decision', ...removed].toSorted());
    }
  });

  test(`${laterCallIds}: later calls of a connection are judged as the first is`, async () => {
    for (const path of ['/public', '/admin', '/public', '/admin']) {
      expect((await check({ path, certificate: certificates.web })).found).toEqual([
        path === '/admin' ? 'deny_rule' : 'allow_rule',
      ]);
    }
  });

  test(`${lookalikeIds}: calls that only look alike share no answer`, async () => {
    // Each pair gives one text when its parts are joined.
    const pairs: (readonly [CheckInput, string])[] = [
      [{ host: 'a', path: '/admin' }, 'deny_rule'],
      [{ host: 'a/admin', path: '/' }, 'request_invalid'],
      [{ method: 'GET', path: '/admin' }, 'deny_rule'],
      [{ method: 'GET/', path: 'admin' }, 'request_invalid'],
      [{ certificate: certificates.web }, 'allow_rule'],
      [{ certificate: `${certificates.web} ` }, 'request_invalid'],
      [{ principal: other, certificate: certificates.web }, 'request_invalid'],
      [{ rawHeaders: [['x-role', 'user']] }, 'allow_rule'],
      [{ rawHeaders: [['x-rol', 'e: admin']] }, 'allow_rule'],
      [{ rawHeaders: [['x-role', 'admin']] }, 'deny_rule'],
    ];
    for (const [input, reason] of [...pairs, ...pairs.toReversed()]) {
      expect({ input, found: (await check(input)).found }).toEqual({ input, found: [reason] });
    }
  });
});

async function check(input: CheckInput): Promise<{ passes: boolean; found: string[]; headers: string[] }> {
  reasons.length = 0;
  const answer = await sendCheckOver(client, checkBytes(input));
  const { httpResponse } = CheckResponse.decode(answer);
  const headers = httpResponse?.$case === 'okResponse' ? httpResponse.okResponse.headersToRemove : [];
  return { passes: readAsEnvoy(answer) === 'allow', found: [...reasons], headers: headers.toSorted() };
}

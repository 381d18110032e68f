import { Client, credentials } from '@grpc/grpc-js';
import fc from 'fast-check';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { DecisionEvent } from '../../src/audit/event.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { Snapshot } from '../../src/authz/snapshot.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { readAsEnvoy } from '../../src/ext-authz/response.ts';
import { createExtAuthzService } from '../../src/ext-authz/service.ts';
import { type GrpcListener, startGrpcListener } from '../../src/grpc/listener.ts';
import { parseBan } from '../../src/identity/ban.ts';
import { type BanList, indexBans, noBans } from '../../src/identity/ban-list.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { peerCertificateIds } from '../../src/spiffe/svid.ts';
import { readDocuments } from '../../src/yaml.ts';
import { sendCheckOver } from '../harness/check-client.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { leafUri, oddCertificate } from '../spiffe/odd-certificate.ts';
import { checkBytes, type CheckInput, encodeCertificate } from './check-input.ts';

const trustDomain = TrustDomain.parse('example.org');
const orders = SpiffeId.parse('spiffe://example.org/ns/shop/sa/orders');
const second = SpiffeId.parse('spiffe://example.org/ns/shop/sa/second');
const snapshot = new Snapshot({
  revision: 7,
  trustDomain,
  rootNamespace: 'istio-system',
  policies: readDocuments({
    file: 'policy.yaml',
    text: `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}]
`,
  }).map(parsePolicy),
  workloads: [
    { id: orders, labels: {} },
    { id: second, labels: {} },
  ],
});

const scope = createScope();
afterAll(() => scope.close());
const socket = `${makeTempDir(scope)}/w.sock`;

let records: DecisionEvent[];
let listener: GrpcListener;
let client: Client;
beforeEach(() => {
  records = [];
});
afterEach(async () => {
  client.close();
  await listener.close(100);
});

async function serve(options: { readonly bans: () => BanList; readonly clock?: Clock }): Promise<void> {
  let decisions = 0;
  const { definition, implementation } = createExtAuthzService({
    attest: createUnixAttestor({}),
    entitledIds: () => [orders],
    snapshot: () => snapshot,
    record: (event) => records.push(event),
    clock: systemClock,
    newDecisionId: () => `d-${++decisions}`,
    observer: {
      decided: () => undefined,
      outage: () => undefined,
      failed: (error) => {
        throw error;
      },
    },
    ...options,
  });
  listener = await startGrpcListener({
    path: socket,
    mode: 0o600,
    services: [{ definition, implementation }],
  });
  client = new Client(`unix:${socket}`, credentials.createInsecure());
}

function check(input: CheckInput = {}): Promise<Buffer> {
  return sendCheckOver(client, checkBytes(input));
}

const now = new Date();
const banned = (kind: string, value: string, until: string | null = null) => {
  const input = { kind, value, reason: 'host taken over', until };
  const made = { actor: { kind: 'system' }, revision: 7, now } as const;
  return parseBan(input, trustDomain, made);
};
const web = leafUri;
const der = oddCertificate();
const certificate = encodeCertificate(encodePem('CERTIFICATE', der));
const { serial, spkiSha256 } = peerCertificateIds(der);
const withCertificate = { certificate };

test.each<[string, [string, string], CheckInput, string]>([
  ['of the caller', ['spiffe-id', web], {}, 'the caller is banned: host taken over'],
  ['of the caller, beside its certificate', ['spiffe-id', web], withCertificate, 'the caller is banned'],
  ['of the certificate', ['serial', serial], withCertificate, "the caller's certificate is banned"],
  ['of the key', ['key', spkiSha256], withCertificate, "the caller's key is banned"],
  ['of the destination', ['spiffe-id', orders.text], {}, 'the destination is banned'],
  [
    'of the default destination',
    ['spiffe-id', orders.text],
    { destination: '' },
    'the destination is banned',
  ],
  ['of a caller of TCP', ['spiffe-id', web], { http: null }, 'the caller is banned'],
  ['of a caller of an odd request', ['spiffe-id', web], { path: '/a/../b' }, 'the caller is banned'],
  [
    'of a foreign caller',
    ['spiffe-id', 'spiffe://evil.org/x'],
    { principal: 'spiffe://evil.org/x' },
    'the caller',
  ],
])('a ban %s is a denial before any policy', async (_, [kind, value], input, why) => {
  await serve({ bans: () => indexBans([banned(kind, value)]) });
  const answer = await check(input);
  expect(readAsEnvoy(answer)).toBe('deny');
  // Whoever called is told the code, not the operator's words.
  expect(answer.toString('latin1')).toContain('denied by policy: banned; decision d-1');
  expect(answer.toString('latin1')).not.toContain('taken over');
  expect(records).toMatchObject([
    {
      verdict: 'deny',
      reason: 'banned',
      rule: '',
      revision: 7,
      why: expect.stringContaining(why) as string,
    },
  ]);
});

test.each<[string, [string, string], CheckInput, string]>([
  ['of somebody else', ['spiffe-id', `${web}2`], {}, 'allow_rule'],
  ['of an ID that only begins like it', ['spiffe-id', web.slice(0, -1)], {}, 'allow_rule'],
  ['of another serial', ['serial', `${serial}00`], withCertificate, 'allow_rule'],
  ['of another key', ['key', 'ab'.repeat(32)], withCertificate, 'allow_rule'],
  ['of the serial, when the proxy sends no certificate', ['serial', serial], {}, 'allow_rule'],
  [
    'of an identity the proxy has not',
    ['spiffe-id', second.text],
    { destination: second.text },
    'destination_forged',
  ],
  ['of the caller, when there is none', ['spiffe-id', web], { principal: '' }, 'unauthenticated'],
])('a ban %s is none of its business', async (_, [kind, value], input, reason) => {
  await serve({ bans: () => indexBans([banned(kind, value)]) });
  await check(input);
  expect(records.map((record) => record.reason)).toEqual([reason]);
});

test('a ban holds from one call of a connection to the next, and ends by itself', async () => {
  let bans = noBans;
  let at = now;
  await serve({ bans: () => bans, clock: { ...systemClock, now: () => at } });
  expect(readAsEnvoy(await check())).toBe('allow');
  bans = indexBans([banned('spiffe-id', web, '5s')]);
  expect(readAsEnvoy(await check())).toBe('deny');
  at = new Date(now.getTime() + 4_999);
  expect(readAsEnvoy(await check())).toBe('deny');
  at = new Date(now.getTime() + 5_000);
  expect(readAsEnvoy(await check())).toBe('allow');
});

test('a ban never lets anything pass that did not pass without it, and outweighs every rule', async () => {
  let bans = noBans;
  await serve({ bans: () => bans });
  const targets = fc.oneof(
    fc.constantFrom<[string, string]>(
      ['spiffe-id', web],
      ['spiffe-id', orders.text],
      ['serial', serial],
      ['key', spkiSha256],
      ['spiffe-id', second.text],
    ),
    fc.tuple(fc.constant('serial'), fc.stringMatching(/^[1-9a-f][0-9a-f]{0,39}$/)),
  );
  const calls = fc.record({
    principal: fc.constantFrom(web, web, second.text, '', 'web'),
    certificate: fc.constantFrom('', certificate),
    destination: fc.constantFrom('', orders.text, second.text),
    method: fc.constantFrom('GET', 'POST'),
    path: fc.constantFrom('/orders/1', '/admin', '//'),
  });
  const verdict = async (call: CheckInput) => [readAsEnvoy(await check(call)), records.at(-1)?.reason];
  await fc.assert(
    fc.asyncProperty(fc.array(targets, { maxLength: 4 }), calls, async (listed, call) => {
      bans = noBans;
      const [before, reason] = await verdict(call);
      bans = indexBans(listed.map(([kind, value]) => banned(kind, value)));
      const [after, banReason] = await verdict(call);
      if (before !== 'allow') expect(after).toBe(before);
      if (after === 'allow') expect([before, banReason]).toEqual(['allow', reason]);
      const concerned = listed.some(
        ([kind, value]) =>
          value === call.principal ||
          value === (call.destination || orders.text) ||
          (call.certificate !== '' && (kind === 'serial' ? value === serial : value === spkiSha256)),
      );
      if (before === 'allow') expect(banReason).toBe(concerned ? 'banned' : reason);
    }),
    { numRuns: 150 },
  );
});

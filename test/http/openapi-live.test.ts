import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { loadConfig } from '../../src/config.ts';
import { openLog } from '../../src/log.ts';
import { openStore } from '../../src/store/store.ts';
import { type Running, startUp } from '../../src/up.ts';
import { randomBytes } from '../../src/up-random.ts';
import { decision } from '../audit/events.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { makeOpensslRoot } from '../harness/openssl-ca.ts';
import { createAnswerCheck } from './openapi-check.ts';

let directory: string;
let running: Running;
const answers = createAnswerCheck();

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-openapi-'));
  const dataDir = join(directory, 'data');
  // A node that was here before: attesting one takes an agent.
  const store = await openStore({ dataDir, clock: systemClock, randomBytes });
  const now = new Date();
  await store.putNode(
    {
      name: 'web-1',
      method: 'join_token',
      selectors: ['node:join_token:0123456789abcdef'],
      attestedAt: now,
      renewedAt: now,
      notAfter: new Date(now.getTime() + 86_400_000),
      serials: ['0a'],
      evictedAt: null,
    },
    [],
  );
  await store.recordEvents([decision({ decisionId: 'd-1', time: now })]);
  await store.close();
  const flags = {
    dataDir,
    trustDomain: 'mesh.test',
    adminSocket: join(directory, 'a.sock'),
    workloadSocket: join(directory, 'w.sock'),
    adminAddress: 'off',
    nodeAddress: '127.0.0.1:0',
    auditWitnessesFile: join(directory, 'policy'),
    shutdownGraceSeconds: '0',
  };
  writeFileSync(join(directory, 'policy'), 'quorum none\n');
  const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
  running = await startUp(config, openLog('error'));
});
afterAll(async () => {
  await running.close();
  rmSync(directory, { recursive: true, force: true });
});

test('every operation of a real server succeeds once, with an answer that is as the document says', async () => {
  const web = 'spiffe://mesh.test/ns/shop/sa/web';
  const policy =
    'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: web, namespace: shop }\n' +
    'spec: { action: ALLOW, rules: [{ to: [{ operation: { methods: ["GET"] } }] }] }\n';
  for (const path of [
    '/healthz',
    '/readyz',
    '/metrics',
    '/v1/openapi.json',
    '/v1/status',
    '/v1/jwt/bundle',
  ]) {
    await call('GET', path);
  }
  await call('GET', '/v1/trust-bundle');
  await call('GET', '/v1/trust-bundle?format=spiffe');

  await call('POST', '/v1/entries', { id: 'web', spiffeId: web, selectors: ['unix:uid:1'] });
  await call('PATCH', '/v1/entries/web', { labels: { app: 'web' }, expiresAt: '2099-01-01T00:00:00Z' });
  await call('GET', '/v1/entries/web');
  await call('GET', '/v1/entries?limit=1');
  await call('POST', '/v1/apply', { files: [{ file: 'p.yaml', text: policy }] });
  const tested = policy.replace(
    'rules:',
    `expiresAt: 2099-01-01T00:00:00Z, tests: [{ allow: { from: ${web}, method: GET, path: / } }], rules:`,
  );
  await call('POST', '/v1/policies/test', { files: [{ file: 'p.yaml', text: tested }] });
  await call('GET', '/v1/policies');
  await call('GET', '/v1/policy-lint?notes=true');
  await call('GET', '/v1/policies/shop/web');
  const other = policy.replace('"GET"', '"POST"');
  await call('POST', '/v1/apply', { files: [{ file: 'p.yaml', text: other }], message: 'post instead' });
  await call('GET', '/v1/policy-revisions?limit=1');
  await call('GET', '/v1/policy-revisions/active');
  await call('GET', '/v1/policies/shop/web?policyRevision=1');
  await call('POST', '/v1/policy-comparisons', { from: { revision: 1 }, to: { revision: 'active' } });
  const invariant = `apiVersion: countersign.dev/v1
kind: PolicyInvariant
metadata: { name: nobody }
spec: { never: { to: { namespaces: [shop] } } }
`;
  await call('POST', '/v1/policy-proofs', { files: [{ file: 'i.yaml', text: invariant }] });
  await call('POST', '/v1/policy-revisions/previous/activate', { message: 'back' });
  await call('POST', '/v1/policy-revisions/renumber', { after: 10 });
  const candidate = { files: [{ file: 'p.yaml', text: other }] };
  await call('POST', '/v1/policy-replays', { ...candidate, since: '1d' });
  await call('POST', '/v1/policy-suggestions', { since: '1d', destination: web });
  await call('GET', '/v1/policy-rollout');
  await call('POST', '/v1/policy-rollout', { ...candidate, dryRun: true });
  await call('POST', '/v1/policy-rollout', { ...candidate, message: 'try' });
  await call('POST', '/v1/policy-rollout/canary', { percent: 5, maxNewDenials: 1 });
  await call('GET', '/v1/policy-rollout');
  await call('DELETE', '/v1/policy-rollout?message=no');
  await call('POST', '/v1/policy-rollout', candidate);
  await call('POST', '/v1/policy-rollout/enforce', { acceptDenials: true });
  for (const method of ['GET', 'POST']) {
    await call('POST', '/v1/authz/check', { source: null, destination: web, method, path: '/' });
    await call('POST', '/v1/authz/who-can', { destination: web });
    await call('POST', '/v1/authz/can-reach', { source: web });
  }

  await call('GET', '/.well-known/authzen-configuration');
  const subject = { type: 'workload', id: web };
  const question = { subject, action: { name: 'GET' }, resource: { ...subject, properties: { path: '/' } } };
  await call('POST', '/access/v1/evaluation', question);
  await call('POST', '/access/v1/evaluations', { ...question, evaluations: [{}, { action: {} }] });
  for (const what of ['subject', 'resource', 'action']) {
    await call('POST', `/access/v1/search/${what}`, question);
  }

  const { token } = await call('POST', '/v1/jwt/mint', { entryId: 'web', audience: ['db'] });
  await call('POST', '/v1/jwt/validate', { token, audience: 'db' });
  await call('GET', '/v1/ca');
  await call('GET', '/v1/ca/crl');
  await call('POST', '/v1/ca/rotate', { scope: 'root' });
  await call('POST', '/v1/ca/activate', { force: true });
  await call('POST', '/v1/ca/retire', { force: true });
  const { authorities } = await call('POST', '/v1/ca/rotate', { scope: 'jwt' });
  const { keyId } = (authorities as { kind: string; state: string; keyId: string }[]).find(
    ({ kind, state }) => kind === 'intermediate' && state === 'active',
  ) ?? { keyId: '' };
  await call('POST', '/v1/ca/taint', { keyId });
  await call('POST', '/v1/ca/rotate', { scope: 'root', offline: true });
  const { pem } = await call('GET', '/v1/ca/csr');
  const csrFile = join(directory, 'request.csr');
  writeFileSync(csrFile, String(pem));
  await call('POST', '/v1/ca/import', { pem: makeOpensslRoot(directory, 'corp').sign(csrFile) });

  await call('POST', '/v1/bans', { kind: 'serial', value: '0b', reason: 'test', until: '1h' });
  await call('GET', '/v1/bans');
  await call('DELETE', '/v1/bans/serial/0b');
  const alias =
    'apiVersion: countersign.dev/v1\nkind: NodeAlias\nmetadata: { name: edge }\n' +
    'spec: { selectors: ["join_token:id:0123456789abcdef"] }\n';
  await call('POST', '/v1/apply', { files: [{ file: 'a.yaml', text: alias }] });
  await call('GET', '/v1/node-aliases');
  await call('GET', '/v1/node-aliases/edge');
  await call('DELETE', '/v1/node-aliases/edge');
  await call('GET', '/v1/nodes');
  await call('GET', '/v1/nodes/web-1');
  const node = { kind: 'spiffe-id', value: 'spiffe://mesh.test/countersign/node/web-1', reason: 'test' };
  await call('POST', '/v1/bans', node);
  expect(await call('GET', '/v1/nodes/web-1')).toMatchObject({ state: 'banned' });
  await call('DELETE', `/v1/bans/spiffe-id/${encodeURIComponent(node.value)}`);
  expect(await call('POST', '/v1/nodes/web-1/evict', {})).toMatchObject({ state: 'evicted' });
  const joining = await call('POST', '/v1/join-tokens', { node: 'web-2' });
  await call('GET', '/v1/join-tokens');
  await call('DELETE', `/v1/join-tokens/${String(joining['id'])}`);

  const grant = { name: 'auditors', subject: { spiffeId: web }, role: 'auditor' };
  await call('POST', '/v1/admin/grants', grant);
  await call('GET', '/v1/admin/grants');
  await call('GET', '/v1/admin/grants/auditors');
  await call('DELETE', '/v1/admin/grants/auditors');
  const made = await call('POST', '/v1/tokens', { role: 'viewer', label: 'x' });
  await call('GET', '/v1/tokens');
  await call('DELETE', `/v1/tokens/${String(made['id'])}`);
  await call('GET', '/v1/audit?limit=1000');
  await call('GET', '/v1/audit/count?by=type,hour');
  await call('POST', '/v1/audit/shred', { address: '192.0.2.1', reason: 'test' });
  await call('GET', '/v1/audit/questions');
  await call('GET', '/v1/audit/questions/certificates?limit=1');
  expect(await call('GET', '/v1/authz/decisions/d-1')).toMatchObject({ more: false });
  for (const path of ['log/checkpoint', 'log/key', 'log/tile/0/000.p/1', 'proof/0', 'consistency?from=1']) {
    await call('GET', `/v1/audit/${path}`);
  }
  await call('GET', '/v1/audit/witnesses');
  // Nobody has to cosign it, but that is found out in a round that nothing waits for.
  await eventually('a witnessed checkpoint', async () => {
    await call('GET', '/v1/audit/log/witnessed');
    return true;
  });
  await call('DELETE', '/v1/policies/shop/web');
  await call('DELETE', '/v1/entries/web');

  const missing = [...answers.successes].filter((success) => !answers.seen.has(success));
  expect(missing, 'an operation of the document that no call here has seen succeed').toEqual([]);
});

/** Calls, and holds the answer against the document. */
async function call(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const answer = await ask({
    to: join(directory, 'a.sock'),
    method,
    path,
    headers: { host: 'localhost', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    timeoutMs: 30_000,
  });
  expect([path, answer.status < 300, answer.status < 300 ? '' : answer.body]).toEqual([path, true, '']);
  const contentType = answer.headers['content-type'];
  answers.check({
    method,
    path,
    status: answer.status,
    contentType: typeof contentType === 'string' ? contentType : undefined,
    text: answer.body,
  });
  return typeof contentType === 'string' && contentType.startsWith('application/json')
    ? (JSON.parse(answer.body) as Record<string, unknown>)
    : {};
}

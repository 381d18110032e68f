import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RolloutReport } from '../../src/http/rollout-routes.ts';
import { CheckResponse } from '../../src/wire/authz.ts';
import { runCli } from '../cli/run-cli.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { entry } from '../harness/mesh.ts';
import {
  type AgentHere,
  isConnected,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

const directory = makeTempDir(scope);
const agentDirectory = join(makeTempDir(scope), 'agent');
const me = 'spiffe://mesh.test/ns/shop/sa/orders';
const web = 'spiffe://mesh.test/ns/shop/sa/web';
const long = { withinMs: 90_000 };
let server: ServerHere;
let agent: AgentHere;

const policy = (methods: string) =>
  'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: a, namespace: shop }\n' +
  `spec: { action: ALLOW, rules: [{ to: [{ operation: { methods: [${methods}] } }] }] }\n`;
const stage = (methods: string) =>
  server.admin('POST', '/v1/policy-rollout', { files: [{ file: 'next.yaml', text: policy(methods) }] });
const report = async () => (await server.admin('GET', '/v1/policy-rollout')) as RolloutReport;
const canary = (body: object) => server.admin('POST', '/v1/policy-rollout/canary', body);
const enforce = (body: object = {}) => server.admin('POST', '/v1/policy-rollout/enforce', body);
const cli = (...args: string[]) => runCli(['policy', ...args, '--socket', join(directory, 'a.sock')]);
const call = async (method: string): Promise<'allow' | 'deny'> => {
  const bytes = await sendCheck(
    agent.workloadSocket,
    checkBytes({ principal: web, destination: me, method }),
  );
  return CheckResponse.decode(bytes).status?.code === 0 ? 'allow' : 'deny';
};
/** Calls until something holds; every answer on the way is that. */
const callUntil = (what: string, method: string, answer: 'allow' | 'deny', holds: () => Promise<boolean>) =>
  eventually(
    what,
    async () => {
      expect(await call(method)).toBe(answer);
      return holds();
    },
    { ...long, everyMs: 200 },
  );
const steps = async () => (await server.audit('type=policy_rollout')).map(({ action }) => action);

beforeAll(async () => {
  server = await startServerHere(scope, directory);
  const selectors = [`unix:uid:${process.getuid?.() ?? 0}`];
  await server.apply(`${entry(me, '/', { selectors, nodes: ['*'] })}---\n${policy('GET, POST')}`);
  agent = startAgentHere(scope, {
    directory: agentDirectory,
    port: server.port,
    token: await server.token('web-1'),
    flags: { allowedCallsWindowSeconds: '1' },
  });
  await agent.started;
});

test('a candidate in shadow changes no answer, and what it would change is shown with the rule', async () => {
  expect(await call('POST')).toBe('allow');
  await stage('GET');
  await callUntil('the difference', 'POST', 'allow', async () => (await report()).newlyDenied > 0);
  expect((await report()).edges).toMatchObject([
    {
      change: 'newly_denied',
      source: web,
      destination: me,
      method: 'POST',
      rule: 'shop/a rule[0]',
      rulePlace: expect.stringMatching(/^f:\d+:\d+$/),
      candidateReason: 'no_allow_rule',
      decided: 0,
    },
  ]);
  await eventually('the node', async () => (await report()).nodes[0]?.state === 'in_step', long);
  const { out } = await cli('rollout');
  expect(out).toMatch(/^stage +shadow, since /m);
  expect(out).toMatch(/^nodes in step +web-1$/m);
  expect(out).toMatch(
    /newly denied +\d+ +spiffe:\S+web +spiffe:\S+orders +POST \* +no_allow_rule; so far shop\/a/,
  );
});

test('it is not enforced unless somebody accepts that', async () => {
  await expect(enforce()).rejects.toThrow(/policy_rollout_denials/);
  const { err, code } = await cli('enforce');
  expect([code, err]).toEqual([2, expect.stringContaining(`${web} -> ${me} POST`)]);
});

test('in canary the first call that it would deny is allowed, and ends it everywhere', async () => {
  await canary({ percent: 100 });
  const isOver = async () => (await report()).rollout?.stage === 'ended';
  await callUntil('the end', 'POST', 'allow', isOver);
  expect((await report()).rollout?.cause).toContain(`${web} -> ${me} on web-1 would be denied`);
  expect(await steps()).toEqual(['staged', 'canary', 'aborted']);
  const aborted = (await server.audit('type=policy_rollout')).at(-1);
  expect(aborted).toMatchObject({
    actor: { kind: 'system' },
    cause: 'new_denials',
    source: web,
    destination: me,
  });
  expect((await cli('rollout')).out).toMatch(/^ended by +.*would be denied/m);
});

test('the end outlives a restart of the server and of the agent', async () => {
  await server.stop();
  await server.start();
  expect((await report()).rollout?.stage).toBe('ended');
  expect((await report()).newlyDenied).toBeGreaterThan(0);
  await agent.stop();
  agent = startAgentHere(scope, { directory: agentDirectory, port: server.port });
  const running = await agent.started;
  await eventually('the link', () => isConnected(running), long);
  expect(await call('POST')).toBe('allow');
});

test('another one goes all the way, and a canary lives in the cache of the agent', async () => {
  await stage('GET, POST, PUT');
  await canary({ percent: 100, maxNewDenials: 3 });
  await eventually('the canary', async () => (await call('PUT')) === 'allow', { ...long, everyMs: 200 });
  await eventually('the node', async () => (await report()).nodes[0]?.state === 'in_step', long);
  await server.stop();
  await agent.stop();
  agent = startAgentHere(scope, { directory: agentDirectory, port: server.port });
  await agent.started;
  expect([await call('PUT'), await call('POST'), await call('DELETE')]).toEqual(['allow', 'allow', 'deny']);
  await server.start();
  const shipped = async () =>
    (await report()).edges.some(({ change, decided }) => change === 'newly_allowed' && decided > 0);
  await eventually('what it did meanwhile', shipped, long);
  const decided = (await server.audit('type=decision')).filter(({ rollout }) => rollout !== undefined);
  expect(decided[0]).toMatchObject({ verdict: 'allow', method: 'PUT', rule: 'shop/a rule[0]' });
  expect(await enforce()).toMatchObject({ active: { number: 2 } });
  const running = await agent.started;
  await eventually('the revision', () => running.status().policy?.revision?.number === 2, long);
  expect([await call('PUT'), (await report()).rollout]).toEqual(['allow', null]);
});

test('a way back takes everybody along', async () => {
  await stage('GET');
  await server.admin('POST', '/v1/policy-revisions/previous/activate', {});
  expect((await report()).rollout).toBeNull();
  await eventually('the way back', async () => (await call('PUT')) === 'deny', { ...long, everyMs: 200 });
  expect((await steps()).slice(-2)).toEqual(['staged', 'ended']);
});

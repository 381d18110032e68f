import { writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import fc from 'fast-check';
import { connect } from 'node:tls';
import { afterAll, expect, test } from 'vitest';
import { SpiffeId } from '../../src/spiffe/id.ts';
import type { RawPolicy } from '../authz/istio-rbac.ts';
import { makeEnvoyBinary, startEnvoy } from '../harness/envoy.ts';
import { type KeyPair, makeOpensslPki } from '../harness/openssl-pki.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { judgeSeen, readAnswer, type Seen, snapshotOf, treesOf, verdictOf } from './policy-tree-answer.ts';
import { bootstrap, tcpBootstrap } from './policy-tree-envoy.ts';
import { encodeNetworkFilter, encodeRoutes } from './policy-tree-routes.ts';
import { byDesign, callers, type TreeCall, treeCalls, treePolicies } from './policy-tree-world.ts';

// The same policies go to a real Envoy twice, as our tree and as Istio writes them, and to the engine: all three answer alike.
const scope = createScope();
afterAll(() => scope.close());

const sets = 80;
const calls = 2_600;

test('our tree in an Envoy, Istio’s encoding in an Envoy and the engine answer every generated call alike', async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const directory = makeTempDir(scope);
  const ports = await freePorts(2);
  const [ofTrees = 0, ofIstio = 0] = ports;
  const generated = fc.sample(treePolicies(ports.map(String)), { numRuns: sets, seed });
  const worlds = [...generated, ...byDesign.map(({ policies }) => policies)];
  const asked = fc.sample(treeCalls(sets), { numRuns: calls, seed });
  const designed = byDesign.map(({ call }, index): TreeCall => ({ ...call, set: sets + index }));
  const snapshots = worlds.map(snapshotOf);
  const trees = snapshots.map((snapshot) => treesOf(snapshot).http);
  const pki = makeOpensslPki(directory, [['DNS:a.example'], ...callers]);
  const routes = join(directory, 'routes.pb');
  writeFileSync(routes, encodeRoutes(trees));
  const envoy = startEnvoy(scope, {
    name: 'policy-tree',
    directory,
    binary: makeEnvoyBinary(join(directory, 'bin')),
    bootstrap: ({ admin }) => JSON.stringify(bootstrap({ admin, ofTrees, ofIstio, routes, worlds, ...pki })),
  });
  await envoy.live();

  const [seen, istioSaid] = [new Map<TreeCall, Seen>(), new Map<TreeCall, Seen>()];
  const alike = asked.filter((call) => isPlainCall(call) && isAlike(call, worlds[call.set]));
  // One connection for each caller and listener: a handshake costs as much as many calls.
  const ways = [
    { port: ofTrees, into: seen, all: [...asked, ...designed] },
    { port: ofIstio, into: istioSaid, all: [...alike, ...designed] },
  ];
  const groups = ways.flatMap(({ port, into, all }) =>
    [...Map.groupBy(all, ({ caller }) => caller)].map(([caller, some]) => ({ port, into, caller, some })),
  );
  await Promise.all(
    groups.map(async ({ port, into, caller, some }) => {
      const agent = createAgent(caller === null ? undefined : pki.pairs[caller + 1]);
      for (const call of some) into.set(call, await send(agent, call, port));
    }),
  );

  const count = { allow: 0, deny: 0, ask: 0, refused: 0, plain: 0, plainAsks: 0, compared: alike.length };
  const differences: object[] = [];
  for (const call of asked) {
    const [tree, istio, snapshot] = [seen.get(call), istioSaid.get(call), snapshots[call.set]];
    if (tree === undefined || snapshot === undefined) throw new Error('a call is missing');
    const verdict = verdictOf(tree);
    count[verdict] += 1;
    if (verdict === 'refused') continue;
    if (isPlainCall(call)) count.plain += 1;
    if (isPlainCall(call) && verdict === 'ask') count.plainAsks += 1;
    const engine = judgeSeen(snapshot, sourceOf(call), tree, ofTrees);
    const engineOfIstio = istio && judgeSeen(snapshot, sourceOf(call), istio, ofIstio);
    const isSame =
      (verdict === 'ask' || verdict === engine.verdict) &&
      (istio === undefined || engineOfIstio?.verdict === verdictOf(istio));
    if (!isSame)
      differences.push({
        call,
        names: nameOf(call),
        tree,
        istio,
        engine,
        engineOfIstio,
        policies: worlds[call.set],
      });
  }
  console.log(`seed ${seed}: ${calls} calls of ${sets} sets of policies`, count);
  expect(differences.slice(0, 3)).toEqual([]);
  expect(count.allow).toBeGreaterThan(calls / 10);
  expect(count.deny).toBeGreaterThan(calls / 10);
  expect(count.compared).toBeGreaterThan(calls / 4);
  // What strict mode reads otherwise than Istio, and the tree with it.
  const verdicts = (of: Map<TreeCall, Seen>) => designed.map((call) => verdictOf(of.get(call) ?? nothing));
  expect(verdicts(istioSaid)).toEqual(byDesign.map(({ istio }) => istio));
  expect(verdicts(seen)).toEqual(byDesign.map(({ tree }) => tree));
  // A tree that asks about everything would be right, and of no use.
  expect(count.plainAsks).toBeLessThan(count.plain / 20);
}, 300_000);

function sourceOf(call: TreeCall): SpiffeId | null {
  const names = nameOf(call).filter((name) => name.startsWith('URI:'));
  return names.length === 1 ? readId(names[0]?.slice('URI:'.length) ?? '') : null;
}

function readId(text: string): SpiffeId | null {
  try {
    return SpiffeId.parseWorkload(text);
  } catch {
    return null;
  }
}

function nameOf({ caller }: TreeCall): readonly string[] {
  return caller === null ? [] : (callers[caller] ?? []);
}

function isPlainCall({ caller, method, path, hosts }: TreeCall): boolean {
  return (
    caller !== null &&
    caller <= 4 &&
    /^(?:GET|POST|PUT|DELETE)$/.test(method) &&
    /^[a-z/.]+(?:\?[a-z=/]*)?$/.test(path) &&
    path.length < 1_000 &&
    /^[a-z.]+[a-z]$/.test(hosts.join())
  );
}

/** Namespaces of callers of another trust domain, and callers without one, are where the two differ by design. */
function isAlike({ caller }: TreeCall, world: readonly RawPolicy[] = []): boolean {
  return caller !== null && (caller <= 2 || !/amespaces"|erviceAccounts"/.test(JSON.stringify(world)));
}

const nothing: Seen = { status: 0, detail: 'nobody has sent it', method: '', path: '', authority: '' };

function createAgent(pair: KeyPair | undefined): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false, ...pair });
  scope.defer(() => agent.destroy());
  return agent;
}

function send(agent: Agent, { set, method, path, hosts }: TreeCall, port: number): Promise<Seen> {
  return new Promise((resolve, reject) => {
    const headers = ['x-set', String(set), ...hosts.flatMap((host) => ['host', host])];
    const to = { host: '127.0.0.1', port, agent, method, path, headers, setHost: false, timeout: 60_000 };
    const sent = request(to, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.on('error', reject);
      response.on('end', () => {
        resolve(readAnswer(response.statusCode ?? 0, body));
      });
    });
    sent.on('timeout', () => sent.destroy(new Error('no answer within 60 s')));
    sent.on('error', reject);
    sent.end();
  });
}

test('a TCP connection is allowed, denied and asked about by the tree in an Envoy', async () => {
  const directory = makeTempDir(scope);
  const [port = 0] = await freePorts(1);
  const spec = (index: number, action: 'ALLOW' | 'DENY', rules: RawPolicy['spec']['rules']): RawPolicy => ({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: `p${index}`, namespace: 'shop' },
    spec: { action, rules },
  });
  const ports = [String(port)];
  const from = (principal: string) => [{ source: { principals: [principal] } }];
  const snapshot = snapshotOf([
    spec(0, 'ALLOW', [
      { from: from('td1/ns/shop/sa/web'), to: [{ operation: { ports } }] },
      { from: from('td1/job'), to: [{ operation: { methods: ['GET'] } }] },
      { from: from('td2/ns/shop/sa/web'), when: [{ key: 'source.ip', values: ['127.0.0.1'] }] },
    ]),
    spec(1, 'DENY', [{ from: from('td1/ns/evil/sa/b'), to: [{ operation: { paths: ['/x'] } }] }]),
  ]);
  const filter = treesOf(snapshot).tcp;
  const pki = makeOpensslPki(directory, [['DNS:a.example'], ...callers]);
  const policy = join(directory, 'tcp.pb');
  writeFileSync(policy, encodeNetworkFilter('tcp-policy', filter));
  const envoy = startEnvoy(scope, {
    name: 'policy-tree-tcp',
    directory,
    binary: makeEnvoyBinary(join(directory, 'bin')),
    bootstrap: ({ admin }) => JSON.stringify(tcpBootstrap({ admin, port, policy, ...pki })),
  });
  await envoy.live();

  const counts = async () => ({
    allowed: await envoy.stat(/^countersign_tcp\.rbac\.allowed$/),
    denied: await envoy.stat(/^countersign_tcp\.rbac\.denied$/),
    asked: await envoy.stat(/^ext_authz\.asked\.total$/),
  });
  const said: Record<string, object> = {};
  for (const [name, caller] of Object.entries({
    web: 0,
    db: 1,
    evil: 2,
    job: 3,
    foreign: 4,
    twoNames: 5,
    nobody: null,
  })) {
    const before = await counts();
    const answer = await say(port, caller === null ? undefined : pki.pairs[caller + 1]);
    const after = await counts();
    said[name] = {
      answer,
      rbac: `${after.allowed - before.allowed} ${after.denied - before.denied}`,
      asked: after.asked - before.asked,
    };
  }
  const denied = { answer: '', rbac: '0 1', asked: 0 };
  const asked = { answer: '', rbac: '1 0', asked: 1 };
  expect(said).toEqual({
    web: { answer: 'hello', rbac: '1 0', asked: 0 },
    ...{ db: denied, evil: denied, job: denied, twoNames: denied },
    // Nobody answers here who is asked.
    ...{ foreign: asked, nobody: asked },
  });
}, 120_000);

/** What comes back for `hello`; empty when the connection is closed instead. */
function say(port: number, pair: KeyPair | undefined): Promise<string> {
  return new Promise((resolve) => {
    let heard = '';
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...pair }, () =>
      socket.write('hello'),
    );
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('utf8');
      if (heard.length >= 'hello'.length) socket.end();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => resolve(heard));
  });
}

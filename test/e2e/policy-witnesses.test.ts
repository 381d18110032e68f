import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { comparePolicies } from '../../src/authz/analysis/compare.ts';
import { type Invariant, readInvariant } from '../../src/authz/analysis/invariant.ts';
import { provePolicies } from '../../src/authz/analysis/prove.ts';
import type { Witness } from '../../src/authz/analysis/witness.ts';
import { untold } from '../../src/authz/context.ts';
import { headerLinesOf } from '../../src/authz/header-alias.ts';
import type { Snapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { documentOfJson } from '../../src/yaml-json.ts';
import type { RawPolicy, When } from '../authz/istio-rbac.ts';
import { noon } from '../authz/mesh.ts';
import { makeEnvoyBinary, startEnvoy } from '../harness/envoy.ts';
import { type KeyPair, makeOpensslPki } from '../harness/openssl-pki.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import {
  judgeSeen,
  readAnswer,
  readRaw,
  type Seen,
  snapshotOf,
  treeGround,
  treesOf,
  verdictOf,
} from './policy-tree-answer.ts';
import { anyPortBootstrap } from './policy-tree-envoy.ts';
import { encodeRoutes } from './policy-tree-routes.ts';
import { treePolicies } from './policy-tree-world.ts';

// What an analysis tells of a call, a proxy does to that call: the examples are sent as they are written, not only judged again.
const scope = createScope();
afterAll(() => scope.close());

const pairCount = 30;

/** Of some, rules have a condition that a proxy cannot always tell by itself. */
const policySets = fc
  .tuple(
    treePolicies(['8443', '9000']),
    fc.oneof(
      { weight: 3, arbitrary: fc.constant(null) },
      {
        weight: 1,
        arbitrary: fc.constantFrom<When>(
          { key: 'request.headers[x-a]', values: ['a', 'b*'] },
          { key: 'request.headers[x-a]', notValues: ['a*'] },
          { key: 'source.ip', values: ['10.0.0.0/8', '2001:db8::/32'] },
          { key: 'source.ip', notValues: ['10.1.0.0/16'] },
        ),
      },
    ),
  )
  .map(([world, when]) => (when === null ? world : world.map((policy) => withCondition(policy, when))));

/** A call, the set of policies that is enforced, and the verdict that was told of it. */
type Claim = {
  readonly about: string;
  readonly set: number;
  readonly witness: Witness;
  readonly verdict: 'allow' | 'deny';
};

test('a real Envoy answers the examples of comparisons and of broken invariants as they say', async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const sets = fc.sample(policySets, { numRuns: 2 * pairCount, seed });
  const demands = fc.sample(fc.tuple(policySets, fc.constantFrom('never', 'always')), {
    numRuns: pairCount,
    seed: seed + 1,
  });
  const claims = demands.flatMap(([world, demand], pair) => [
    ...compare(sets, 2 * pair),
    ...prove(sets, 2 * pair, demand, world),
  ]);
  const told = Map.groupBy(claims, ({ witness }) => obstacleOf(witness));
  const sendable = told.get('none') ?? [];

  const directory = makeTempDir(scope);
  const [port = 0] = await freePorts(1);
  const callers = [...new Set(sendable.map(({ witness }) => witness.source))];
  const pki = makeOpensslPki(directory, [['DNS:a.example'], ...callers.map((id) => [`URI:${id}`])]);
  const routes = join(directory, 'routes.pb');
  const snapshots = sets.map(snapshotOf);
  writeFileSync(routes, encodeRoutes(snapshots.map((snapshot) => treesOf(snapshot).http)));
  const envoy = startEnvoy(scope, {
    name: 'policy-witnesses',
    directory,
    binary: makeEnvoyBinary(join(directory, 'bin')),
    bootstrap: ({ admin }) => JSON.stringify(anyPortBootstrap({ admin, port, routes, ...pki })),
  });
  await envoy.live();

  const count = { allow: 0, deny: 0, ask: 0, refused: 0 };
  const differences: object[] = [];
  const byWay = Map.groupBy(sendable, ({ witness: { source, sourceIp, port: called } }) =>
    JSON.stringify([source, sourceIp, called]),
  );
  for (const some of byWay.values()) {
    const [{ witness } = missing()] = some;
    const session = await open(port, witness, pki.pairs[callers.indexOf(witness.source) + 1]);
    const answers = await Promise.all(some.map((claim) => send(session, claim)));
    session.close();
    for (const [index, claim] of some.entries()) {
      const seen = answers[index] ?? missing();
      const answer = verdictOf(seen);
      count[answer] += 1;
      const verdict =
        answer === 'ask' ? judge(snapshots[claim.set] ?? missing(), claim.witness, seen) : answer;
      const isSame = seen.status === 200 || isSameCall(claim.witness, seen);
      if (!isSame || verdict !== claim.verdict) differences.push({ claim, seen, policies: sets[claim.set] });
    }
  }
  const kinds = Map.groupBy(sendable, ({ about }) => about);
  const sizes = (of: Map<string, readonly Claim[]>) =>
    [...of].map(([name, { length }]) => `${name} ${length}`);
  console.log(
    `seed ${seed}: ${claims.length} told, ${byWay.size} connections`,
    ...[count, sizes(told), sizes(kinds)],
  );
  expect(differences.slice(0, 3)).toEqual([]);
  expect(sendable.length).toBeGreaterThan(claims.length / 2);
  expect(count.allow).toBeGreaterThan(sendable.length / 5);
  expect(count.deny).toBeGreaterThan(sendable.length / 5);
  // A tree that asks about everything would be right, and of no use.
  expect(count.ask).toBeLessThan(sendable.length / 2);
  for (const kind of ['newlyAllowed', 'newlyDenied', 'never', 'always'])
    expect([kind, (kinds.get(kind)?.length ?? 0) > 3]).toEqual([kind, true]);
}, 300_000);

function compare(sets: readonly (readonly RawPolicy[])[], before: number): readonly Claim[] {
  const [was = [], is = []] = sets.slice(before, before + 2).map(readRaw);
  const compared = finish(comparePolicies(treeGround, was, is, noon));
  expect(compared.unproven).toEqual([]);
  return (['newlyAllowed', 'newlyDenied'] as const).flatMap((about) => {
    const verdicts = about === 'newlyAllowed' ? (['deny', 'allow'] as const) : (['allow', 'deny'] as const);
    return compared[about].flatMap(({ examples }) =>
      examples.flatMap((one) => {
        expect([one.before.verdict, one.after.verdict]).toEqual(verdicts);
        return verdicts.map((verdict, i) => ({ about, set: before + i, witness: one.witness, verdict }));
      }),
    );
  });
}

/** The first rule of a world as an invariant of two sets. */
function prove(
  sets: readonly (readonly RawPolicy[])[],
  first: number,
  demand: Invariant['demand'],
  [policy]: readonly RawPolicy[],
): readonly Claim[] {
  const { from, to } = policy?.spec.rules[0] ?? missing();
  const calls = {
    ...(from === undefined ? {} : { from: from.map(({ source }) => source) }),
    to: {
      namespaces: ['shop'],
      ...(to === undefined ? {} : { operation: to.map(({ operation }) => operation) }),
    },
  };
  // An invariant is of no namespace, so it names a service account with its own.
  const spec = JSON.stringify({ [demand]: calls }).replaceAll('"web"', '"shop/web"');
  const document = {
    ...{ apiVersion: 'countersign.dev/v1', kind: 'PolicyInvariant', metadata: { name: 'i' } },
    spec: JSON.parse(spec) as object,
  };
  const invariants = [readInvariant(documentOfJson(document, { file: 'i', line: 1 }))];
  return [first, first + 1].flatMap((set) => {
    const question = { policies: readRaw(sets[set] ?? []), invariants, examines: false };
    const [result] = finish(provePolicies(treeGround, question, noon)).invariants;
    const verdict = demand === 'never' ? 'allow' : 'deny';
    return (result?.violations ?? []).map(({ witness, decision }) => {
      expect(decision.verdict).toBe(verdict);
      return { about: demand, set, witness, verdict };
    });
  });
}

function withCondition(policy: RawPolicy, when: When): RawPolicy {
  const rules = policy.spec.rules.map((rule, i) => (i % 2 === 0 ? { ...rule, when: [when] } : rule));
  return { ...policy, spec: { ...policy.spec, rules } };
}

/** Why a call cannot be sent here. */
function obstacleOf(witness: Witness): 'none' | 'tcp' | 'port' | 'time' | 'header' | 'address' | 'more' {
  const { protocol, port, at, headers, sourceIp, destinationIp, sni, claims, metadata } = witness;
  if (protocol === 'tcp') return 'tcp';
  if (port === 0) return 'port';
  if (at !== noon.toISOString()) return 'time';
  if (headers.some(([, line]) => !/^[!-~]*$/.test(line))) return 'header';
  if (sourceIp !== null && nobodysAddress.test(sourceIp)) return 'address';
  const isTold = destinationIp !== null || sni !== null || (claims ?? metadata) !== undefined;
  return isTold ? 'more' : 'none';
}

/** Unspecified, multicast or broadcast: no connection comes from there. */
const nobodysAddress = /^(?:0\.0\.0\.0$|22[4-9]\.|2[345]\d\.|0(?::0){7}$|ff)/;

/** What a server that is asked says of the call as the proxy had it. */
function judge(snapshot: Snapshot, { source, sourceIp, port, headers }: Witness, seen: Seen): string {
  const ip = sourceIp ?? undefined;
  const context = { ...untold, sourceIp: ip, remoteIp: ip, headerLines: headerLinesOf(headers) };
  return judgeSeen(snapshot, SpiffeId.parse(source), seen, port, context).verdict;
}

/** Whether the proxy had the very call: nothing of an example is made another on its way. */
function isSameCall(witness: Witness, { method, path, authority }: Seen): boolean {
  return witness.method === method && witness.path === path && witness.authority === authority;
}

/** A connection that says whence it comes and at which port it called. HTTP/2: there any method can be sent. */
async function open(
  port: number,
  { sourceIp, port: called }: Witness,
  pair: KeyPair | undefined,
): Promise<ClientHttp2Session> {
  const socket = connectTcp({ host: '127.0.0.1', port });
  scope.defer(() => socket.destroy());
  await once(socket, 'connect');
  const ends =
    sourceIp?.includes(':') === true ? `TCP6 ${sourceIp} ::1` : `TCP4 ${sourceIp ?? '127.0.0.1'} 127.0.0.1`;
  socket.write(`PROXY ${ends} 40000 ${called}\r\n`);
  const secure = connectTls({ socket, rejectUnauthorized: false, ...pair });
  await once(secure, 'secureConnect');
  return connectHttp2('https://127.0.0.1', { createConnection: () => secure });
}

async function send(session: ClientHttp2Session, { set, witness }: Claim): Promise<Seen> {
  const { method, path, authority, headers: lines } = witness;
  const own = [...Map.groupBy(lines, ([name]) => name)].map(([name, all]) => [
    name,
    all.map(([, line]) => line),
  ]);
  const stream = session.request(
    {
      ...{ ':method': method, ':path': path, ':authority': authority, ':scheme': 'https' },
      ...(Object.fromEntries(own) as Record<string, string[]>),
      'x-set': String(set),
    },
    { endStream: true },
  );
  stream.setEncoding('utf8');
  let status = 0;
  stream.on('response', (headers) => (status = Number(headers[':status'])));
  let body = '';
  for await (const chunk of stream) body += String(chunk);
  if (method !== 'HEAD') return readAnswer(status, body);
  // Its answer has no body: only the status tells.
  return { status, detail: bodiless[status] ?? '', method, path, authority };
}

const bodiless: Readonly<Record<number, string>> = {
  403: 'rbac_access_denied_matched_policy[]',
  503: 'ext_authz_error',
};

function missing(): never {
  throw new Error('it is missing');
}

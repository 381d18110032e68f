import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { EvalAnswer } from '../../src/cli/authz-eval.ts';
import { untold } from '../../src/authz/context.ts';
import { verdictOf } from '../../src/authz/istio.ts';
import { proxyRequestOf } from '../../src/authz/istio-mode.ts';
import type { ProxyRequest } from '../../src/authz/istio-request.ts';
import { compileIstio, istioPolicyOf, type IstioRules, judgeAsIstio } from '../../src/authz/istio-rules.ts';
import { normalizedPath } from '../../src/authz/normalized-path.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { MeshError } from '../../src/errors.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { documentOfJson } from '../../src/yaml-json.ts';
import { collect } from '../authz/istio-cases.ts';
import { encodeRbac, type RawPolicy } from '../authz/istio-rbac.ts';
import { callers, calls, type GeneratedCall, policies } from '../authz/istio-world.ts';
import { makeEnvoyBinary, startEnvoy } from '../harness/envoy.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// The same policies and calls go to a real Envoy, in Istio's own encoding, and to our reading of Istio's language.
const scope = createScope();
afterAll(() => scope.close());

const trustDomains = ['td1', 'td2'];
const normalizations = {
  NONE: { normalize_path: false },
  BASE: { normalize_path: true },
  MERGE_SLASHES: { normalize_path: true, merge_slashes: true },
  DECODE_AND_MERGE_SLASHES: {
    normalize_path: true,
    merge_slashes: true,
    path_with_escaped_slashes_action: 'UNESCAPE_AND_FORWARD',
  },
} as const;
const modes = Object.keys(normalizations) as (keyof typeof normalizations)[];
const sets = 160;
const callsOfSet = 20;

test('an Envoy with Istio’s encoding and our evaluator answer every generated call alike', async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const directory = makeTempDir(scope);
  const ports = await freePorts(modes.length);
  const worlds = fc.sample(policies(ports), { numRuns: sets, seed });
  const asked = fc.sample(calls, { numRuns: sets * callsOfSet, seed });
  const pki = makePki(directory);
  const envoy = startEnvoy(scope, {
    name: 'rbac',
    directory,
    binary: makeEnvoyBinary(join(directory, 'bin')),
    bootstrap: ({ admin }) => JSON.stringify(bootstrap(admin, ports, worlds, pki)),
  });
  await envoy.live();

  const agents = createAgents(pki);
  const lines = asked.map((call, index) => {
    const set = index % sets;
    return { call, set, mode: set % modes.length, port: ports[set % modes.length] ?? 0 };
  });
  const seen: Seen[] = [];
  const queue = [...lines.entries()];
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, { call, set, port }] = next;
      seen[index] = await send(agents(call, port), call, set, port);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));

  const judged = await collect(
    lines
      .map(({ call, set, mode, port }) => JSON.stringify(lineOf(call, worlds[set], mode, port)))
      .join('\n'),
  );
  const differences = lines.flatMap((line, index) => {
    const [envoySays, weSay] = [seen[index], judged[index]];
    return envoySays !== undefined && weSay !== undefined && agree(envoySays, weSay)
      ? []
      : [{ ...line, policies: worlds[line.set], mode: modes[line.mode], envoySays, weSay }];
  });
  const count = (status: number) => seen.filter((one) => one.status === status).length;
  console.log(
    `seed ${seed}: ${seen.length} calls of ${sets} sets of policies: ${count(200)} allowed, ${count(403)} denied, ${count(400)} refused`,
  );
  expect(differences.slice(0, 3)).toEqual([]);
  // What a door goes by in Istio mode: the policies as strict mode has read them, and the path as Envoy forwards it.
  const live = worlds.map((world) => readStrictly(world));
  const others = lines.flatMap((line, index) => {
    const [rules, envoySays] = [live[line.set], seen[index]];
    if (rules === undefined || envoySays === undefined || envoySays.status === 400) return [];
    const weDecide = verdictOf(judgeAsIstio(rules, forwarded(line), new Date(0)));
    return agree(envoySays, { ...weDecide, id: null, error: null })
      ? []
      : [{ ...line, policies: worlds[line.set], envoySays, weDecide }];
  });
  expect(others.slice(0, 3)).toEqual([]);
  expect(live.filter((rules) => rules !== undefined).length).toBeGreaterThan(sets / 10);
  expect(count(200)).toBeGreaterThan(seen.length / 20);
  expect(count(403)).toBeGreaterThan(seen.length / 20);
}, 180_000);

/** The rules of policies that strict mode takes, all of them; undefined when it refuses one. */
function readStrictly(world: readonly RawPolicy[]): IstioRules | undefined {
  try {
    const read = world.map((one) => parsePolicy(documentOfJson(one, { file: 'p', line: 1 })));
    const mesh = { trustDomains, rootNamespace: 'istio-system', pathNormalization: 'NONE' } as const;
    return compileIstio(mesh, read.map(istioPolicyOf));
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

/** The call as ext_authz tells of it: INVARIANT: with the path that the proxy has normalized. */
function forwarded({ call, mode, port }: { call: GeneratedCall; mode: number; port: number }): ProxyRequest {
  const source = SpiffeId.parse('spiffe://td1/x');
  const made = proxyRequestOf(
    {
      ...{ protocol: 'http', source, destination: source, method: call.method, authority: call.host, port },
      path: `${normalizedPath(call.path, modes[mode] ?? 'NONE')}?q=1`,
      context: {
        ...untold,
        ...{ sourceIp: call.sourceIp, remoteIp: call.sourceIp, destinationIp: '127.0.0.1' },
        sni: call.sni ?? '',
        headerLines: (name) =>
          call.headers.filter(([each]) => each.toLowerCase() === name).map(([, value]) => value),
      },
    },
    new Set(['x-h']),
  );
  return { ...made, peerNames: (callers[call.caller] ?? []).map((name) => name.slice(4)) };
}

type Seen = { readonly status: number; readonly detail: string };

/** Envoy names the rule of a DENY, and none when no ALLOW rule matched. */
function agree({ status, detail }: Seen, { allow, rule, error }: EvalAnswer): boolean {
  if (error !== null) return false;
  if (status === 200) return allow;
  if (status === 400) return !allow && rule === null;
  return status === 403 && !allow && detail === `rbac_access_denied_matched_policy[${rule ?? 'none'}]`;
}

function lineOf(call: GeneratedCall, world: readonly RawPolicy[] | undefined, mode: number, port: number) {
  return {
    mode: 'istio',
    mesh: { trustDomains, pathNormalization: modes[mode] },
    workload: { namespace: 'shop' },
    policies: world,
    request: {
      principals: callers[call.caller]?.map((name) => name.slice(4)),
      method: call.method,
      path: call.path,
      host: call.host,
      headers: call.headers,
      sourceIp: call.sourceIp,
      destinationIp: '127.0.0.1',
      destinationPort: port,
      sni: call.sni,
    },
  };
}

type Pki = { readonly ca: string; readonly server: KeyPair; readonly clients: readonly (KeyPair | null)[] };
type KeyPair = { readonly key: string; readonly cert: string };

function makePki(directory: string): Pki {
  const file = (name: string) => join(directory, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'],
    ...['-subj', '/CN=test', '-keyout', file('ca.key'), '-out', file('ca.pem')],
  );
  const issue = (name: string, names: readonly string[]): KeyPair => {
    openssl(
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/O=test'],
      ...['-keyout', file(`${name}.key`), '-out', file(`${name}.csr`)],
    );
    writeFileSync(file(`${name}.ext`), `subjectAltName = ${names.join(',')}\n`);
    openssl(
      ...['x509', '-req', '-in', file(`${name}.csr`), '-CA', file('ca.pem'), '-CAkey', file('ca.key')],
      ...['-days', '30', '-extfile', file(`${name}.ext`), '-out', file(`${name}.pem`)],
    );
    return {
      key: readFileSync(file(`${name}.key`), 'utf8'),
      cert: readFileSync(file(`${name}.pem`), 'utf8'),
    };
  };
  return {
    ca: readFileSync(file('ca.pem'), 'utf8'),
    server: issue('server', ['DNS:a.example']),
    clients: callers.map((names, index) => (names.length === 0 ? null : issue(`client-${index}`, names))),
  };
}

/** A connection for each kind of caller, kept open from call to call. */
function createAgents({ clients }: Pki): (call: GeneratedCall, port: number) => Agent {
  const agents = new Map<string, Agent>();
  return ({ caller, sourceIp, sni }, port) => {
    const key = `${caller} ${sourceIp} ${sni} ${port}`;
    const known = agents.get(key);
    if (known !== undefined) return known;
    const agent = new Agent({
      keepAlive: true,
      rejectUnauthorized: false,
      localAddress: sourceIp,
      servername: sni ?? '',
      ...clients[caller],
    });
    scope.defer(() => agent.destroy());
    agents.set(key, agent);
    return agent;
  };
}

function send(agent: Agent, call: GeneratedCall, set: number, port: number): Promise<Seen> {
  return new Promise((resolve, reject) => {
    const headers = [...call.headers, ['host', call.host], ['x-set', `${set}`]].flat();
    const { method, path } = call;
    const sent = request(
      { host: '127.0.0.1', port, agent, method, path, headers, timeout: 20_000 },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (body += chunk));
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, detail: body.trim() }));
      },
    );
    sent.on('timeout', () => sent.destroy(new Error('no answer within 20 s')));
    sent.on('error', reject);
    sent.end();
  });
}

const type = (name: string) => `type.googleapis.com/envoy.extensions.${name}`;

function bootstrap(
  admin: string,
  ports: readonly number[],
  worlds: readonly (readonly RawPolicy[])[],
  { ca, server }: Pki,
): object {
  return {
    admin: { address: { pipe: { path: admin } } },
    static_resources: {
      listeners: modes.map((mode, index) => ({
        name: mode,
        address: { socket_address: { address: '127.0.0.1', port_value: ports[index] } },
        listener_filters: [
          {
            name: 'envoy.filters.listener.tls_inspector',
            typed_config: { '@type': type('filters.listener.tls_inspector.v3.TlsInspector') },
          },
        ],
        filter_chains: [
          {
            transport_socket: {
              name: 'envoy.transport_sockets.tls',
              typed_config: {
                '@type': type('transport_sockets.tls.v3.DownstreamTlsContext'),
                common_tls_context: {
                  tls_certificates: [
                    {
                      certificate_chain: { inline_string: server.cert },
                      private_key: { inline_string: server.key },
                    },
                  ],
                  validation_context: { trusted_ca: { inline_string: ca } },
                },
              },
            },
            filters: [
              {
                name: 'envoy.filters.network.http_connection_manager',
                typed_config: connectionManager(mode, index, worlds),
              },
            ],
          },
        ],
      })),
    },
  };
}

function connectionManager(
  mode: keyof typeof normalizations,
  index: number,
  worlds: readonly (readonly RawPolicy[])[],
) {
  const rbac = (name: string) => ({ name, typed_config: { '@type': type('filters.http.rbac.v3.RBAC') } });
  const route = (world: readonly RawPolicy[], set: number) => ({
    match: { prefix: '/', headers: [{ name: 'x-set', string_match: { exact: `${set}` } }] },
    direct_response: { status: 200 },
    typed_per_filter_config: Object.fromEntries(
      (['DENY', 'ALLOW'] as const).map((action) => {
        const rules = encodeRbac(world, action, trustDomains);
        return [
          `rbac.${action}`,
          { '@type': type('filters.http.rbac.v3.RBACPerRoute'), rbac: rules === null ? {} : { rules } },
        ];
      }),
    ),
  });
  return {
    '@type': type('filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: mode,
    ...normalizations[mode],
    local_reply_config: { body_format: { text_format_source: { inline_string: '%RESPONSE_CODE_DETAILS%' } } },
    http_filters: [
      rbac('rbac.DENY'),
      rbac('rbac.ALLOW'),
      {
        name: 'envoy.filters.http.router',
        typed_config: { '@type': type('filters.http.router.v3.Router') },
      },
    ],
    route_config: {
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: worlds.flatMap((world, set) => (set % modes.length === index ? [route(world, set)] : [])),
        },
      ],
    },
  };
}

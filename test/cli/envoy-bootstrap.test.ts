import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { renderEnvoyBootstrap } from '../../src/cli/envoy-bootstrap.ts';
import type { EnvoyBootstrapOptions } from '../../src/cli/envoy-bootstrap-options.ts';
import { MeshError } from '../../src/errors.ts';

const web = 'spiffe://example.org/ns/shop/sa/web';
const orders = 'spiffe://example.org/ns/shop/sa/orders';
const base = { workload: web, socket: '/run/countersign/workload.sock' };
const inbound = { ...base, inbound: '127.0.0.1:15443', app: '127.0.0.1:8080' };

const valid: [string, EnvoyBootstrapOptions][] = [
  ['inbound', inbound],
  ['outbound', { ...base, outbound: [`127.0.0.1:15001=${orders}@127.0.0.1:15443`] }],
  [
    'tcp both ways',
    {
      ...base,
      inboundTcp: ['127.0.0.1:15444=127.0.0.1:5432'],
      inboundTcpOpen: ['127.0.0.1:15445=127.0.0.1:3306'],
      outboundTcp: [`127.0.0.1:15002=${orders}@10.0.0.7:15444`],
      decide: 'in-proxy',
    },
  ],
  [
    'IPv6',
    { ...base, inbound: '[::1]:15443', app: '[::1]:8080', outbound: [`[::1]:1=${orders}@[fd00::1:2]:2`] },
  ],
  [
    'everything',
    {
      ...inbound,
      inboundTcp: ['127.0.0.1:15444=127.0.0.1:5432', '127.0.0.1:15445=127.0.0.1:5433'],
      outbound: [`127.0.0.1:15001=${orders}@127.0.0.1:15543`, `127.0.0.1:15002=${web}@127.0.0.1:15643`],
      outboundTcp: [`127.0.0.1:15003=${orders}@127.0.0.1:15544`],
      admin: '/run/countersign/envoy admin.sock',
      accessLog: '/dev/null',
      maxConnectionDuration: '15m',
      decisionTimeout: '2s',
      nodeId: 'web-1',
    },
  ],
  [
    'admin over TCP',
    { ...inbound, admin: '127.0.0.1:9901', accessLog: 'stdout', maxConnectionDuration: '24h' },
  ],
  ...['delta-sds', 'ads', 'delta-ads'].map((xds): [string, EnvoyBootstrapOptions] => [
    xds,
    { ...inbound, outbound: [`127.0.0.1:15001=${orders}@127.0.0.1:15443`], xds, decide: 'in-proxy' },
  ]),
];

describe('what Envoy itself says of a bootstrap', () => {
  let directory: string;
  let envoy: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'countersign-bootstrap-'));
    envoy = execFileSync('bash', ['tool/envoy', '--where'], { encoding: 'utf8' }).trim();
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test.each(
    valid.flatMap(([name, options]) => [[name, 'yaml', options] as const, [name, 'json', options] as const]),
  )('%s as %s', (name, format, options) => {
    const file = join(directory, `${name.replaceAll(' ', '-')}.${format}`);
    writeFileSync(file, renderEnvoyBootstrap(options, format));
    const args = [
      '--mode',
      'validate',
      '-c',
      file,
      '--use-dynamic-base-id',
      '--concurrency',
      '1',
      '-l',
      'warn',
    ];
    const run = spawnSync(envoy, args, { encoding: 'utf8', timeout: 50_000 });
    expect(run.stderr).not.toMatch(/deprecated|unknown field/i);
    expect(run.stdout + run.stderr).toContain('OK');
    expect(run.status).toBe(0);
  });

  test('a bootstrap that Envoy does not take is seen', () => {
    const file = join(directory, 'broken.yaml');
    writeFileSync(file, renderEnvoyBootstrap(inbound).replace('failure_mode_allow', 'failure_mode_deny'));
    const args = [
      '--mode',
      'validate',
      '-c',
      file,
      '--use-dynamic-base-id',
      '--concurrency',
      '1',
      '-l',
      'error',
    ];
    expect(spawnSync(envoy, args, { encoding: 'utf8', timeout: 50_000 }).status).not.toBe(0);
  });
});

describe('what the bootstrap must say', () => {
  const everything = valid.find(([name]) => name === 'everything')![1];
  const text = renderEnvoyBootstrap(everything, 'json');
  const nodes = flatten(JSON.parse(text));

  test('YAML and JSON say the same', () => {
    expect(parse(renderEnvoyBootstrap(everything))).toEqual(JSON.parse(text));
  });

  test('YAML holds no anchors, which some readers refuse', () => {
    expect(renderEnvoyBootstrap(everything)).not.toMatch(/[&*][a-z]+\d*\s/);
  });

  test.each([
    ['require_client_certificate', true, 3],
    ['disable_stateless_session_resumption', true, 3],
    ['disable_stateful_session_resumption', true, 3],
    ['max_session_keys', 0, 3],
    ['tls_minimum_protocol_version', 'TLSv1_3', 6],
    ['tls_maximum_protocol_version', 'TLSv1_3', 6],
    ['initial_fetch_timeout', '0s', 12],
    ['failure_mode_allow', false, 3],
    ['validate_mutations', true, 1],
    ['encode_raw_headers', true, 1],
    ['include_peer_certificate', true, 3],
    ['forward_client_cert_details', 'SANITIZE_SET', 1],
    ['path_with_escaped_slashes_action', 'REJECT_REQUEST', 3],
    ['merge_slashes', true, 3],
    ['normalize_path', true, 3],
    ['max_connection_duration', '900s', 3],
    ['max_downstream_connection_duration', '900s', 3],
    ['mode', 0o600, 1],
  ])('%s is always %j', (key, value, times) => {
    const found = nodes.filter(([name]) => name === key).map(([, found]) => found);
    expect(found).toEqual(Array.from({ length: times }, () => value));
  });

  test.each([
    ['sds', 'GRPC', 'GRPC', undefined],
    ['delta-sds', 'DELTA_GRPC', 'DELTA_GRPC', undefined],
    // Envoy crashes when a cluster of its bootstrap wants a secret from ADS.
    ['ads', 'ads', 'GRPC', 'GRPC'],
    ['delta-ads', 'ads', 'DELTA_GRPC', 'DELTA_GRPC'],
  ])('with --xds %s listeners ask by %s, clusters by %s', (xds, ofListeners, ofClusters, ofAds) => {
    const options = { ...inbound, outbound: [`127.0.0.1:15001=${orders}@127.0.0.1:15443`], xds };
    const made = JSON.parse(renderEnvoyBootstrap(options, 'json')) as {
      static_resources: { listeners: unknown; clusters: unknown };
      dynamic_resources?: { ads_config: { api_type: string } };
    };
    const waysOf = (part: unknown) =>
      flatten(part)
        .filter(([name]) => name === 'sds_config')
        .map(([, found]) => found as { ads?: object; api_config_source?: { api_type: string } })
        .map((found) => found.api_config_source?.api_type ?? (found.ads === undefined ? '' : 'ads'));
    expect(waysOf(made.static_resources.listeners)).toEqual([ofListeners, ofListeners]);
    expect(waysOf(made.static_resources.clusters)).toEqual([ofClusters, ofClusters]);
    expect(made.dynamic_resources?.ads_config.api_type).toBe(ofAds);
  });

  test('one set of bytes for each SDS name', () => {
    const byName = new Map<string, Set<string>>();
    for (const [, value] of nodes) {
      if (typeof value !== 'object' || value === null || !('sds_config' in value)) continue;
      const { name } = value as unknown as { name: string };
      byName.set(name, (byName.get(name) ?? new Set()).add(JSON.stringify(value)));
    }
    expect([...byName].map(([name, texts]) => [name, texts.size])).toEqual([
      [web, 1],
      ['ROOTCA', 1],
    ]);
  });

  test('callers are held to the trust domain, with its slash, and peers to one identity', () => {
    const matchers = nodes.filter(([name]) => name === 'matcher').map(([, value]) => value);
    expect(matchers).toEqual([
      { prefix: 'spiffe://example.org/' },
      { prefix: 'spiffe://example.org/' },
      { prefix: 'spiffe://example.org/' },
      { exact: orders },
      { exact: web },
      { exact: orders },
    ]);
  });

  test.each([
    ['inbound', { ...inbound }, 1],
    ['inbound TCP', { ...base, inboundTcp: ['127.0.0.1:1=127.0.0.1:2'] }, 1],
    ['both', { ...inbound, inboundTcp: ['127.0.0.1:1=127.0.0.1:2'] }, 2],
    ['open TCP', { ...base, inboundTcpOpen: ['127.0.0.1:1=127.0.0.1:2'] }, 0],
    ['outbound', { ...base, outbound: [`127.0.0.1:1=${orders}@127.0.0.1:2`] }, 0],
  ])('a decision is asked for by %s, over a cluster of its own', (_, options, times) => {
    const made = renderEnvoyBootstrap(options, 'json');
    expect(made.match(/"cluster_name": "countersign_authz"\n/g) ?? []).toHaveLength(times);
    expect(made.match(/"name": "countersign_authz"/g) ?? []).toHaveLength(times > 0 ? 1 : 0);
  });

  test.each([
    ['inbound', { ...inbound }, 2],
    ['inbound TCP', { ...base, inboundTcp: ['127.0.0.1:1=127.0.0.1:2'] }, 1],
    ['open TCP', { ...base, inboundTcpOpen: ['127.0.0.1:1=127.0.0.1:2'] }, 1],
    ['outbound', { ...base, outbound: [`127.0.0.1:1=${orders}@127.0.0.1:2`] }, 0],
    ['inbound that is not to tell', { ...inbound, accessLogStream: 'off' }, 0],
  ])('the audit log is told by %s, over a cluster of its own', (_, options, times) => {
    const made = renderEnvoyBootstrap(options, 'json');
    expect(made.match(/"cluster_name": "countersign_access_log"\n/g) ?? []).toHaveLength(times);
    expect(made.match(/"name": "countersign_access_log"/g) ?? []).toHaveLength(times > 0 ? 1 : 0);
    // Without it no certificate could be looked up.
    expect(made.match(/"value": "%DOWNSTREAM_PEER_SERIAL%"/g) ?? []).toHaveLength(times);
  });

  test('a TCP application hears and says nothing before the decision', () => {
    const made = renderEnvoyBootstrap({ ...base, inboundTcp: ['127.0.0.1:1=127.0.0.1:2'] }, 'json');
    const [listener] = (
      JSON.parse(made) as { static_resources: { listeners: { filter_chains: { filters: unknown[] }[] }[] } }
    ).static_resources.listeners;
    expect(listener?.filter_chains[0]?.filters).toMatchObject([
      { name: 'envoy.filters.network.ext_authz', typed_config: { failure_mode_allow: false } },
      {
        name: 'envoy.filters.network.tcp_proxy',
        typed_config: { upstream_connect_mode: 'ON_DOWNSTREAM_DATA' },
      },
    ]);
  });
});

describe('refused options', () => {
  const out = `127.0.0.1:15001=${orders}@127.0.0.1:15443`;
  test.each<[string, EnvoyBootstrapOptions, string, string]>([
    ['nothing to do', base, 'usage', '--inbound'],
    ['inbound without app', { ...base, inbound: '127.0.0.1:1' }, 'usage', '--inbound'],
    ['app without inbound', { ...base, app: '127.0.0.1:1' }, 'usage', '--app'],
    ['one port twice', { ...inbound, outbound: [out.replace('15001', '15443')] }, 'usage', '--outbound'],
    [
      'one port twice, TCP',
      { ...inbound, inboundTcp: ['127.0.0.1:15443=127.0.0.1:2'] },
      'usage',
      '--inbound-tcp',
    ],
    ['workload not an ID', { ...inbound, workload: 'web' }, 'config_invalid', '--workload'],
    [
      'workload a trust domain',
      { ...inbound, workload: 'spiffe://example.org' },
      'config_invalid',
      '--workload',
    ],
    ['workload with a newline', { ...inbound, workload: `${web}\n` }, 'config_invalid', '--workload'],
    ['socket relative', { ...inbound, socket: 'workload.sock' }, 'config_invalid', '--workload-socket'],
    ['socket empty', { ...inbound, socket: '' }, 'config_invalid', '--workload-socket'],
    ['socket too long', { ...inbound, socket: `/${'a'.repeat(107)}` }, 'config_invalid', '--workload-socket'],
    ['socket with a NUL', { ...inbound, socket: '/run/\0' }, 'config_invalid', '--workload-socket'],
    ['a host name', { ...inbound, app: 'localhost:8080' }, 'config_invalid', '--app'],
    ['neither on nor off', { ...inbound, accessLogStream: 'yes' }, 'config_invalid', '--access-log-stream'],
    ['port 0', { ...inbound, inbound: '127.0.0.1:0' }, 'config_invalid', '--inbound'],
    ['port 65536', { ...inbound, inbound: '127.0.0.1:65536' }, 'config_invalid', '--inbound'],
    ['no port', { ...inbound, inbound: '127.0.0.1' }, 'config_invalid', '--inbound'],
    ['port with a sign', { ...inbound, inbound: '127.0.0.1:+1' }, 'config_invalid', '--inbound'],
    ['octet 256', { ...inbound, inbound: '127.0.0.256:1' }, 'config_invalid', '--inbound'],
    ['octal octet', { ...inbound, inbound: '127.0.0.01:1' }, 'config_invalid', '--inbound'],
    ['three octets', { ...inbound, inbound: '127.0.0.:10' }, 'config_invalid', '--inbound'],
    ['IPv6 without brackets', { ...inbound, inbound: '::1:15443' }, 'config_invalid', '--inbound'],
    ['IPv6 with two gaps', { ...inbound, inbound: '[1::2::3]:1' }, 'config_invalid', '--inbound'],
    ['IPv6 of nine groups', { ...inbound, inbound: '[1:2:3:4:5:6:7:8:9]:1' }, 'config_invalid', '--inbound'],
    ['IPv6 with a long group', { ...inbound, inbound: '[::12345]:1' }, 'config_invalid', '--inbound'],
    [
      'IPv6 with a colon at its end',
      { ...inbound, inbound: '[1:2:3:4:5:6:7:8:]:1' },
      'config_invalid',
      '--inbound',
    ],
    ['inbound-tcp without app', { ...base, inboundTcp: ['127.0.0.1:1'] }, 'config_invalid', '--inbound-tcp'],
    [
      'inbound-tcp with two',
      { ...base, inboundTcp: ['127.0.0.1:1=127.0.0.1:2=x'] },
      'config_invalid',
      '--inbound-tcp',
    ],
    [
      'outbound without an ID',
      { ...base, outbound: ['127.0.0.1:1=127.0.0.1:2'] },
      'config_invalid',
      '--outbound',
    ],
    [
      'outbound to a trust domain',
      { ...base, outbound: ['127.0.0.1:1=spiffe://a@127.0.0.1:2'] },
      'config_invalid',
      '--outbound',
    ],
    ['outbound twice in one', { ...base, outbound: [`${out},${out}`] }, 'config_invalid', '--outbound'],
    ['outbound to two hosts', { ...base, outbound: [`${out}@127.0.0.1:2`] }, 'config_invalid', '--outbound'],
    ['outbound empty', { ...base, outbound: [''] }, 'config_invalid', '--outbound'],
    [
      'outbound-tcp to a bad port',
      { ...base, outboundTcp: [`127.0.0.1:1=${web}@127.0.0.1:x`] },
      'config_invalid',
      '--outbound-tcp',
    ],
    ['admin for everybody', { ...inbound, admin: '0.0.0.0:9901' }, 'config_invalid', '--admin'],
    ['admin relative', { ...inbound, admin: 'admin.sock' }, 'config_invalid', '--admin'],
    ['access log relative', { ...inbound, accessLog: 'access.log' }, 'config_invalid', '--access-log'],
    [
      'access log with a format',
      { ...inbound, accessLog: '/tmp/%REQ(x)%' },
      'config_invalid',
      '--access-log',
    ],
    [
      'duration without a unit',
      { ...inbound, maxConnectionDuration: '60' },
      'config_invalid',
      '--max-connection-duration',
    ],
    [
      'duration of ever',
      { ...inbound, maxConnectionDuration: '0s' },
      'config_invalid',
      '--max-connection-duration',
    ],
    [
      'duration of a month',
      { ...inbound, maxConnectionDuration: '720h' },
      'config_invalid',
      '--max-connection-duration',
    ],
    [
      'decision timeout without a unit',
      { ...inbound, decisionTimeout: '250' },
      'config_invalid',
      '--decision-timeout',
    ],
    [
      'decision timeout of nothing',
      { ...inbound, decisionTimeout: '49ms' },
      'config_invalid',
      '--decision-timeout',
    ],
    [
      'decision timeout of a minute',
      { ...inbound, decisionTimeout: '60s' },
      'config_invalid',
      '--decision-timeout',
    ],
    ['node id with a space', { ...inbound, nodeId: 'web 1' }, 'config_invalid', '--node-id'],
    ['node id empty', { ...inbound, nodeId: '' }, 'config_invalid', '--node-id'],
    ['xds of another kind', { ...inbound, xds: 'cds' }, 'config_invalid', '--xds'],
    ['xds empty', { ...inbound, xds: '' }, 'config_invalid', '--xds'],
    ['xds twice delta', { ...inbound, xds: 'delta-delta-sds' }, 'config_invalid', '--xds'],
  ])('%s', (_, options, code, option) => {
    const error = refusal(() => renderEnvoyBootstrap(options));
    expect(error.code).toBe(code);
    expect(error.message.startsWith(`${option} `) || error.message.startsWith(`${option}:`)).toBe(true);
    expect(error.fix).not.toBeUndefined();
  });

  test('any text in any option is rendered as data or refused with a code', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(web, '127.0.0.1:1', '/a: b', '/#', out),
    );
    const options = fc.record({ workload: text, socket: text, admin: text, accessLog: text, nodeId: text });
    fc.assert(
      fc.property(options, (texts) => {
        let rendered: string;
        try {
          rendered = renderEnvoyBootstrap({ ...inbound, ...texts });
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError);
          return;
        }
        expect(parse(rendered)).toEqual(JSON.parse(renderEnvoyBootstrap({ ...inbound, ...texts }, 'json')));
      }),
    );
  });
});

/** Every key with its value, at any depth. */
function flatten(value: unknown): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) => [
    [key, child] as [string, unknown],
    ...flatten(child),
  ]);
}

function refusal(render: () => unknown): MeshError {
  try {
    render();
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

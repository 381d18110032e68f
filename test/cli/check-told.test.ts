import { createServer as createTlsServer } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type CheckCode, type CheckResult, formatReport, reportOf } from '../../src/cli/check-report.ts';
import { type CheckedStatus, judgeStatus } from '../../src/cli/check-server.ts';
import { webPair } from '../http/trust-harness.ts';
import { ago, check, type Installation, later, startInstallation, wrong } from './check-installation.ts';
import type { Relay } from './lying-relay.ts';

let installation: Installation;
let relay: Relay;

beforeAll(async () => {
  installation = await startInstallation();
  ({ relay } = installation);
});
afterAll(() => installation.close());
afterEach(() => {
  relay.lie = (_path, answer) => answer;
});

const workload = {
  spiffeId: 'spiffe://mesh.internal/web',
  entryId: 'web',
  serial: '',
  expiresAt: null,
  renewsAt: null,
  darkAt: ago(1),
  darkBy: 'certificate',
  darkInSeconds: 0,
  failure: 'issuer_expired',
};
const condition = (code: string, level: string) => ({ code, level, text: 'it is so', fix: 'mend it' });
const node = {
  name: 'web-1',
  method: 'join_token',
  state: 'attested',
  selectors: [],
  serials: [],
  attestedAt: ago(86_400),
  renewedAt: ago(70_000),
  notAfter: later(16_400),
  evictedAt: null,
};
const entry = { id: 'web', spiffeId: 'spiffe://mesh.internal/web', nodes: [], expiresAt: null };
const ban = { kind: 'spiffe-id', value: entry.spiffeId, reason: 'stolen', inForce: true };
const refusal = (code: string, door: string, uid: unknown) => ({
  event: { code, door, caller: { uid, node: 'web-1' }, selectors: ['unix:path:/usr/bin/envoy'] },
});

test.each<[CheckCode[], CheckResult['status']]>([
  [[], 'warning'],
  [['key_files_private'], 'warning'],
  [['disk_room'], 'ok'],
])('little room that the server tells of, where this machine has found %j itself', (told, expected) => {
  const status = { version: '1', ready: true, conditions: [condition('disk_low', 'warning')] };
  const results = judgeStatus(status as unknown as CheckedStatus, '1', new Set(told));
  expect(results.find(({ code }) => code === 'server_untroubled')?.status).toBe(expected);
});

describe('what a server says of its troubles is passed on', () => {
  test.each<[string, CheckCode, CheckResult['status'], string, object]>([
    ['another version', 'server_version', 'warning', '/v1/status', { version: '9.9.9' }],
    ['an answer of another age', 'server_understood', 'failed', '/v1/status', { conditions: undefined }],
    [
      'a cause',
      'server_ready',
      'failed',
      '/v1/status',
      { ready: false, conditions: [condition('issuer_ended', 'cause')] },
    ],
    [
      'a warning',
      'server_untroubled',
      'warning',
      '/v1/status',
      { conditions: [condition('disk_low', 'warning')] },
    ],
    [
      'a clock that was put',
      'clock_steady',
      'warning',
      '/v1/status',
      { conditions: [condition('clock_put', 'warning')] },
    ],
    [
      'a log that is behind',
      'log_complete',
      'warning',
      '/v1/status',
      { conditions: [condition('log_behind', 'warning')] },
    ],
    [
      'a store that is gone',
      'log_writable',
      'failed',
      '/v1/status',
      { conditions: [condition('store_failed', 'cause')] },
    ],
    [
      'a dark workload',
      'workloads_lit',
      'failed',
      '/v1/status',
      { workloads: [workload], workloadsInAll: 1 },
    ],
    [
      'a renewal that fails',
      'workloads_lit',
      'warning',
      '/v1/status',
      { workloads: [{ ...workload, darkAt: later(60), darkInSeconds: 60 }], workloadsInAll: 1 },
    ],
    [
      'a source that fails',
      'sources_answer',
      'warning',
      '/v1/status',
      {
        sources: [
          {
            name: 'kubelet',
            place: '',
            state: 'failing',
            calls: 1,
            failures: 1,
            lastSuccessAt: null,
            lastFailureAt: ago(1),
            lastFailure: 'refused',
          },
        ],
      },
    ],
    ['a port where nobody listens', 'admin_tls', 'failed', '/v1/status', { adminUrl: 'https://localhost:1' }],
    [
      'a node API where nobody listens',
      'node_api_tls',
      'failed',
      '/v1/status',
      { nodeAddress: '127.0.0.1:1' },
    ],
    ['another trust domain', 'admin_tls', 'failed', '/v1/status', { trustDomain: 'other.test' }],
    [
      'a step that is safe',
      'rotation_settled',
      'warning',
      '/v1/ca',
      { next: { step: 'retire', safe: true } },
    ],
    [
      'a step that is not',
      'rotation_settled',
      'warning',
      '/v1/ca',
      { next: { step: 'activate', safe: false } },
    ],
    [
      'a CA without a certificate',
      'issuer_valid',
      'failed',
      '/v1/ca',
      { authorities: [], waiting: { keyId: 'ab'.repeat(20) } },
    ],
    ['no key for tokens', 'jwt_key_signs', 'failed', '/v1/ca', { jwtKeys: [] }],
    [
      'a token that has ended',
      'tokens_last',
      'warning',
      '/v1/tokens',
      { items: [{ id: 'a', label: 'x', expiresAt: ago(1) }] },
    ],
    [
      'an entry near its end',
      'entries_last',
      'warning',
      '/v1/entries',
      { items: [{ ...entry, expiresAt: later(60) }] },
    ],
  ])('%s: %s is %s', async (_, code, status, path, lie) => {
    relay.lie = (asked, answer) => (asked === path ? { ...(answer as object), ...lie } : answer);
    expect(await wrong(relay.socket)).toContainEqual([code, status]);
  });

  test.each<[string, CheckCode, object, object]>([
    ['an entry for no node', 'entries_have_nodes', { items: [entry] }, { items: [] }],
    ['a node that is late', 'nodes_seen', { items: [] }, { items: [node] }],
    ['a node that is lost', 'nodes_seen', { items: [] }, { items: [{ ...node, state: 'expired' }] }],
  ])('of a fleet, %s: %s', async (_, code, entries, nodes) => {
    relay.lie = (path, answer) => ({
      ...(answer as object),
      ...(path === '/v1/status'
        ? { serves: 'nodes', policies: 1 }
        : path === '/v1/entries'
          ? entries
          : path === '/v1/nodes'
            ? nodes
            : {}),
    });
    expect(await wrong(relay.socket)).toEqual([[code, 'warning']]);
  });

  test.each<[string, CheckCode | null, Readonly<Record<string, object>>]>([
    ['no policy', 'policies_present', { '/v1/entries': { items: [entry] } }],
    [
      'an entry that is banned',
      'entries_unbanned',
      {
        '/v1/status': { policies: 1 },
        '/v1/entries': { items: [entry] },
        '/v1/bans': { items: [ban] },
      },
    ],
    [
      'a ban that is over, or of somebody else',
      null,
      {
        '/v1/status': { policies: 1 },
        '/v1/entries': { items: [entry] },
        '/v1/bans': {
          items: [
            { ...ban, inForce: false },
            { ...ban, value: 'spiffe://mesh.internal/a' },
          ],
        },
      },
    ],
    ['no entry', 'callers_known', { '/v1/audit': { items: [refusal('identity_none', 'sds', 1_001)] } }],
    [
      'a call of a check, another refusal, a uid that is none',
      null,
      {
        '/v1/audit': {
          items: [
            refusal('identity_none', 'workload_api', 0),
            refusal('rate_limited', 'sds', 1_001),
            refusal('identity_none', 'sds', '1001; reboot'),
          ],
        },
      },
    ],
  ])('of a mesh with %s: %s', async (_, code, lies) => {
    relay.lie = (path, answer) => ({ ...(answer as object), ...lies[path] });
    expect(await wrong(relay.socket)).toEqual(code === null ? [] : [[code, 'warning']]);
  });

  test('a key that is tainted: keys_untainted', async () => {
    relay.lie = (path, answer) =>
      path === '/v1/ca'
        ? {
            ...(answer as Keys),
            authorities: (answer as Keys).authorities.map((one) => ({ ...one, tainted: true })),
          }
        : answer;
    expect(await wrong(relay.socket)).toContainEqual(['keys_untainted', 'warning']);
  });

  test('somebody else on the port of the admin API: admin_tls', async () => {
    const { certificate: cert, privateKey: key } = await webPair();
    const other = createTlsServer({ cert, key });
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as { port: number };
    relay.lie = (path, answer) =>
      path === '/v1/status' ? { ...(answer as object), adminUrl: `https://localhost:${port}` } : answer;
    try {
      expect(await wrong(relay.socket)).toContainEqual(['admin_tls', 'failed']);
    } finally {
      other.close();
    }
  });

  test('terminal escapes in an answer are shown as what they are', async () => {
    const evil = '\u001b]0;owned\u0007\u202e';
    relay.lie = (path, answer) =>
      path === '/v1/status'
        ? {
            ...(answer as object),
            version: evil,
            conditions: [{ ...condition('disk_low', 'warning'), text: evil }],
          }
        : answer;
    const shown = formatReport(reportOf(await check(relay.socket)));
    expect(shown).toContain('\\u001b]0;owned');
    expect(shown).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f\u202e]/);
  });
});

describe('an agent', () => {
  const agent = () => ({
    kind: 'agent',
    version: '0.1.0',
    ready: true,
    causes: [],
    dataDir: installation.dataDir,
    workloadSocket: installation.workloadSocket,
    adminSocket: installation.adminSocket,
    streams: 0,
    workloads: [],
    workloadsInAll: 0,
    sources: [],
    node: { name: 'web-1', expiresAt: later(86_400), attestsWith: null },
    server: { address: 'mesh:7444', connected: true, since: ago(60), trouble: null },
    policy: { maxStalenessSeconds: 86_400, deniesAt: later(86_400), deniesInSeconds: 86_400 },
    events: { queued: 0, lost: 0 },
  });
  const away = { address: 'mesh:7444', connected: false, since: ago(60), trouble: null };
  const policy = (deniesInSeconds: number) => ({
    maxStalenessSeconds: 86_400,
    deniesAt: later(deniesInSeconds),
    deniesInSeconds,
  });

  test('in order is found so, through the same socket', async () => {
    relay.lie = () => agent();
    const results = await check(relay.socket);
    expect(results.filter(({ status }) => status !== 'ok' && status !== 'skipped')).toEqual([]);
    expect(results.map(({ code }) => code)).toEqual(
      expect.arrayContaining(['agent_connected', 'workload_api_answers']),
    );
    expect(results.map(({ code }) => code)).not.toContain('server_answers');
  });

  test.each<[string, CheckCode, CheckResult['status'], object]>([
    ['not ready', 'agent_ready', 'failed', { ready: false, causes: ['the server was not reached yet'] }],
    ['cut off', 'agent_connected', 'failed', { server: away }],
    [
      'with a certificate that ended',
      'agent_certificate',
      'failed',
      { node: { name: 'web-1', expiresAt: ago(1), attestsWith: null } },
    ],
    [
      'cut off, with a certificate near its end',
      'agent_certificate',
      'warning',
      { server: away, node: { name: 'web-1', expiresAt: later(60), attestsWith: null } },
    ],
    ['that denies', 'agent_policy_fresh', 'failed', { server: away, policy: policy(0) }],
    ['that will deny', 'agent_policy_fresh', 'warning', { server: away, policy: policy(3_600) }],
    ['that lost records', 'agent_events_sent', 'warning', { events: { queued: 0, lost: 3 } }],
  ])('%s: %s is %s', async (_, code, status, change) => {
    relay.lie = () => ({ ...agent(), ...change });
    expect(await wrong(relay.socket)).toContainEqual([code, status]);
  });
});

type Keys = { readonly authorities: readonly object[] };

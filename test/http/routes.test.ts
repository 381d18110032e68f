import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

const web = {
  id: 'web',
  spiffeId: 'spiffe://example.org/ns/shop/sa/web',
  selectors: ['unix:uid:1000'],
};
const policy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: shop
spec:
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/web"]
      to:
        - operation:
            methods: ["GET"]
`;

describe('entries', () => {
  test('are created, shown, changed and deleted', async () => {
    const created = await harness.overTls({ method: 'POST', path: '/v1/entries', body: web }, 'operator');
    expect(created.status).toBe(201);
    expect(created.json).toEqual({
      ...web,
      ttlSeconds: 3_600,
      dnsNames: [],
      labels: {},
      hint: '',
      expiresAt: null,
      nodes: [],
      revision: 1,
    });
    expect((await harness.overTls({ path: '/v1/entries/web' }, 'viewer')).json).toEqual(created.json);
    const patch = { ttlSeconds: 60, labels: { app: 'web' } };
    const patched = await harness.overTls({ method: 'PATCH', path: '/v1/entries/web', body: patch });
    expect(patched.json).toEqual({ ...created.json, ...patch, revision: 2 });
    const again = await harness.overTls({ method: 'POST', path: '/v1/entries', body: web });
    expect([again.status, again.json.code]).toEqual([409, 'entry_exists']);
    const deleted = await harness.overUnix({ method: 'DELETE', path: '/v1/entries/web' });
    expect(deleted.json).toEqual({ entry: patched.json, certificatesValidUntil: null });
    expect((await harness.overTls({ path: '/v1/entries/web' })).status).toBe(404);
    const actors = (await harness.events('entry_change')).map(({ action, actor }) => [action, actor]);
    const token = (role: 'operator' | 'admin') => ({
      kind: 'token',
      role,
      tokenId: harness.tokens[role].slice(4, 20),
    });
    expect(actors).toEqual([
      ['created', token('operator')],
      ['updated', token('admin')],
      ['deleted', { kind: 'uid', uid: process.getuid?.(), role: 'admin' }],
    ]);
  });

  test('an id cannot be changed', async () => {
    const answer = await harness.overTls({ method: 'PATCH', path: '/v1/entries/web', body: { id: 'other' } });
    expect([answer.status, answer.json.code]).toEqual([400, 'body_invalid']);
  });

  test('are listed in pages without gaps or repeats', async () => {
    const documents = ['a', 'b', 'c', 'd', 'e'].map(
      (id) =>
        `apiVersion: countersign.dev/v1\nkind: RegistrationEntry\nmetadata:\n  name: ${id}\n` +
        `spec:\n  spiffeId: spiffe://example.org/page/${id}\n  selectors: ["unix:uid:${id.charCodeAt(0)}"]\n`,
    );
    const files = [{ file: 'mesh.yaml', text: documents.join('---\n') }];
    const applied = await harness.overTls({ method: 'POST', path: '/v1/apply', body: { files } }, 'operator');
    expect(applied.json.changes).toHaveLength(5);
    const seen: string[] = [];
    let cursor = '';
    do {
      const page = await harness.overTls({ path: `/v1/entries?limit=2${cursor}` });
      seen.push(...page.json.items.map(({ id }: { id: string }) => id));
      cursor = page.json.next === null ? '' : `&cursor=${page.json.next}`;
      // An entry that goes between two pages hides no other.
      if (seen.length === 2) await harness.overTls({ method: 'DELETE', path: '/v1/entries/b' });
    } while (cursor !== '');
    expect(seen).toEqual(['a', 'b', 'c', 'd', 'e']);
  });
});

describe('apply and policies', () => {
  const apply = (text: string, dryRun = false) =>
    harness.overTls({
      method: 'POST',
      path: '/v1/apply',
      body: { files: [{ file: 'p.yaml', text }], dryRun },
    });

  test('a dry run changes nothing', async () => {
    const before = harness.ports.administration.current().revision;
    expect((await apply(policy, true)).json.changes).toEqual([
      { kind: 'policy', key: 'shop/orders', action: 'created' },
    ]);
    expect(harness.ports.administration.current().revision).toBe(before);
  });

  test('an error names file, line and column, and nothing is applied', async () => {
    const before = harness.ports.administration.current().revision;
    const answer = await apply(`${policy}---\n${policy.replace('methods', 'metods').replace('orders', 'x')}`);
    expect([answer.status, answer.json.code]).toEqual([400, 'document_field_unknown']);
    expect(answer.json.place).toMatchObject({ file: 'p.yaml', line: 29 });
    expect(answer.json.fix).not.toBe('');
    expect(harness.ports.administration.current().revision).toBe(before);
  });

  test('a policy is applied, shown, asked and deleted', async () => {
    expect((await apply(policy)).json.changes[0].action).toBe('created');
    expect((await apply(policy)).json.changes[0].action).toBe('unchanged');
    const listed = await harness.overTls({ path: '/v1/policies' }, 'viewer');
    expect(listed.json.items).toEqual([
      expect.objectContaining({ key: 'shop/orders', file: 'p.yaml', line: 1 }),
    ]);
    expect(listed.text).not.toContain('AuthorizationPolicy');
    const shown = await harness.overTls({ path: '/v1/policies/shop/orders' }, 'viewer');
    expect(shown.json.source).toBe(policy);

    const call = {
      source: 'spiffe://example.org/ns/shop/sa/web',
      destination: 'spiffe://example.org/ns/shop/sa/orders',
      method: 'GET',
      path: '/list',
    };
    const ask = (body: object) =>
      harness.overTls({ method: 'POST', path: '/v1/authz/check', body }, 'viewer');
    expect(JSON.stringify((await ask(call)).json)).toContain('"allow"');
    expect(JSON.stringify((await ask({ ...call, method: 'POST' })).json)).toContain('"no_allow_rule"');
    expect(JSON.stringify((await ask({ ...call, source: null })).json)).toContain('"deny"');
    expect(JSON.stringify((await ask({ ...call, path: '/a/../b' })).json)).toContain('"deny"');
    expect((await ask({ ...call, source: 'spiffe://Example.org/x' })).json.code).toBe(
      'spiffe_id_trust_domain_char',
    );
    expect((await ask({ ...call, port: 65_536 })).json.code).toBe('body_invalid');
    // No token is so long, and each rule would look through all of it.
    const claims = { groups: Array<string>(20_000).fill('a') };
    expect((await ask({ ...call, context: { claims } })).json.code).toBe('body_invalid');
    expect((await ask({ ...call, context: { metadata: { f: claims } } })).json.code).toBe('body_invalid');

    const deleted = await harness.overTls(
      { method: 'DELETE', path: '/v1/policies/shop/orders' },
      'policy-author',
    );
    expect([deleted.status, deleted.text]).toEqual([204, '']);
    expect((await harness.overTls({ path: '/v1/policies/shop/orders' })).json.code).toBe('policy_not_found');
  });
});

describe('tokens', () => {
  test('are made once, work, and stop to work when revoked', async () => {
    const body = { role: 'viewer', label: 'dashboard', lifeSeconds: 60 };
    const made = await harness.overUnix({ method: 'POST', path: '/v1/tokens', body });
    expect(made.status).toBe(201);
    expect(made.json.token).toMatch(/^ctk_[0-9a-f]{16}_[0-9a-f]{64}$/);
    const headers = { authorization: `Bearer ${made.json.token}` };
    const use = () => harness.overTls({ path: '/v1/status', headers }, null);
    expect((await use()).status).toBe(200);

    const listed = await harness.overTls({ path: '/v1/tokens' });
    expect(listed.text).toContain(made.json.id);
    expect(listed.text).not.toMatch(/ctk_|secret|[0-9a-f]{64}/i);

    const revoke = () => harness.overTls({ method: 'DELETE', path: `/v1/tokens/${made.json.id}` });
    expect((await revoke()).status).toBe(204);
    expect((await use()).status).toBe(401);
    expect((await revoke()).json.code).toBe('token_not_found');

    const admin = await harness.events('admin');
    const changes = admin.filter(({ action }) => String(action).startsWith('token_'));
    expect(changes.map(({ action, actor }) => [action, (actor as { kind: string }).kind])).toEqual([
      ['token_created', 'uid'],
      ['token_revoked', 'token'],
    ]);
    expect(JSON.stringify(admin)).not.toContain(made.json.token.split('_')[2]);
  });

  test('expire', async () => {
    const body = { role: 'viewer', lifeSeconds: 60 };
    const { json } = await harness.overUnix({ method: 'POST', path: '/v1/tokens', body });
    const headers = { authorization: `Bearer ${json.token}` };
    harness.clock.move(59_999);
    expect((await harness.overTls({ path: '/v1/status', headers }, null)).status).toBe(200);
    harness.clock.move(1);
    expect((await harness.overTls({ path: '/v1/status', headers }, null)).status).toBe(401);
  });

  test.each([
    ['a role of its own', { role: 'root' }],
    ['a life of seconds', { role: 'viewer', lifeSeconds: 59 }],
    ['a life of years', { role: 'viewer', lifeSeconds: 31_536_001 }],
    ['an id', { role: 'viewer', id: '0123456789abcdef' }],
    ['a hash', { role: 'viewer', secretSha256: '00' }],
    ['a terminal escape', { role: 'viewer', label: '\u001b[2J' }],
    ['a hidden character', { role: 'viewer', label: 'a\u202eb' }],
  ])('cannot have %s', async (_, body) => {
    const answer = await harness.overTls({ method: 'POST', path: '/v1/tokens', body });
    expect([answer.status, answer.json.code]).toEqual([400, 'body_invalid']);
  });
});

describe('the audit log', () => {
  test('is read in pages that fit together, and the reading is recorded once', async () => {
    harness.clock.move(120_000);
    const all = await harness.overTls({ path: '/v1/audit?order=oldest&limit=1000' }, 'viewer');
    expect(all.json.items.length).toBeGreaterThan(5);
    const indexes = all.json.items.map(({ index }: { index: number }) => index);
    expect(indexes).toEqual(indexes.map((_: number, i: number) => i));
    const before = (await harness.events('admin')).length;

    const seen: number[] = [];
    let cursor = '';
    do {
      const page = await harness.overTls({ path: `/v1/audit?type=entry_change&limit=3${cursor}` }, 'viewer');
      seen.push(...page.json.items.map(({ index }: { index: number }) => index));
      cursor = page.json.next === null ? '' : `&cursor=${page.json.next}`;
    } while (cursor !== '');
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => b - a));
    const reads = (await harness.events('admin')).slice(before);
    expect(reads).toHaveLength(1);
    expect(reads[0]).toMatchObject({
      action: 'audit_read',
      route: '/v1/audit',
      detail: 'type=entry_change',
      actor: { kind: 'token', role: 'viewer' },
    });
  });

  test('answers with the exact bytes of each leaf', async () => {
    const { text, json } = await harness.overTls({ path: '/v1/audit?limit=1&order=oldest' });
    const [row] = (await harness.store.queryAudit({ ...oldest, limit: 1 })).rows;
    expect(text).toContain(`"event":${row?.leaf}}`);
    expect(json.items[0]).toMatchObject({ index: 0, leafHash: row?.leafHash });
  });
});

const oldest = {
  types: [],
  since: null,
  until: null,
  source: null,
  destination: null,
  verdict: null,
  serial: null,
  where: [],
  text: null,
  limit: 1,
  order: 'oldest',
  cursor: null,
} as const;

test.each([
  ['/v1/status', 'application/json; charset=utf-8', '"trustDomain":"example.org"'],
  ['/v1/trust-bundle', 'application/x-pem-file', '-----BEGIN CERTIFICATE-----'],
  ['/metrics', 'application/openmetrics-text; version=1.0.0; charset=utf-8', '#'],
  ['/healthz', 'application/json; charset=utf-8', '{"status":"ok"}'],
])('%s answers as %s', async (path, type, part) => {
  const answer = await harness.overTls({ path }, 'viewer');
  expect(answer.status).toBe(200);
  expect(answer.headers['content-type']).toBe(type);
  expect(answer.text).toContain(part);
  expect(answer.headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
});

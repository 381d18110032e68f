import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../cli/run-cli.ts';
import { collect, from, judge, policy, to, when } from './istio-cases.ts';

const allowAll = policy([{}], {}, { name: 'open' });

test.each<[string, unknown]>([
  ['document_field_unknown', policy([{ form: [] }])],
  ['document_field_unknown', policy(from({ principles: ['x'] }))],
  ['document_field_missing', { ...policy([]), metadata: {} }],
  ['document_kind_unknown', { ...policy([]), apiVersion: 'security.istio.io/v2' }],
  ['policy_invalid', policy([{ from: [] }])],
  ['policy_invalid', policy([{ to: [] }])],
  ['policy_invalid', policy(from({}))],
  ['policy_invalid', policy(from({ principals: [] }))],
  ['policy_invalid', policy(from({ principals: [''] }))],
  ['policy_invalid', policy(from({ ipBlocks: ['10.0.0.0/33'] }))],
  ['policy_invalid', policy(from({ ipBlocks: ['10.0.0.01'] }))],
  ['policy_invalid', policy(from({ ipBlocks: ['fe80::1%eth0'] }))],
  ['policy_invalid', policy(from({ serviceAccounts: ['a*'] }))],
  ['policy_invalid', policy(from({ serviceAccounts: ['a/b/c'] }))],
  ['policy_invalid', policy(from({ serviceAccounts: ['a'], namespaces: ['b'] }))],
  ['policy_invalid', policy(from({ trustDomains: ['a*b*'] }))],
  ['policy_invalid', policy(from({ trustDomains: ['a/b'] }))],
  ['policy_invalid', policy(to({ ports: ['65536'] }))],
  ['policy_invalid', policy(to({ ports: ['x'] }))],
  ['policy_invalid', policy(to({ paths: ['/a{*}'] }))],
  ['policy_invalid', policy(to({ paths: ['/{**}/{*}'] }))],
  ['policy_invalid', policy(to({ paths: ['/{*}/a*'] }))],
  ['policy_invalid', policy(to({ paths: ['/{x}'] }))],
  ['policy_invalid', policy(to({ paths: ['{*}/a'] }))],
  ['document_field_type', policy(to({ ports: [80] }))],
  ['policy_invalid', policy(when('request.headers', ['x']))],
  ['policy_invalid', policy(when('request.headers[]', ['x']))],
  ['policy_invalid', policy(when('destination.labels[x]', ['x']))],
  ['policy_invalid', policy([{ when: [{ key: 'source.ip' }] }])],
  ['document_field_missing', policy([{ when: [{ values: ['x'] }] }])],
  ['policy_invalid', policy(undefined, { action: 'DENY' })],
  ['policy_invalid', policy([{}], { action: 'PERMIT' })],
  ['policy_invalid', policy([{}], { action: 'CUSTOM' })],
  ['policy_invalid', policy([{}], { provider: { name: 'x' } })],
  ['policy_invalid', policy(from({ principals: ['x'] }), { action: 'CUSTOM', provider: { name: 'x' } })],
  [
    'policy_invalid',
    policy(when('request.auth.claims[x]', ['x']), { action: 'CUSTOM', provider: { name: 'x' } }),
  ],
  ['policy_invalid', policy([{}], { selector: { matchLabels: { a: '*' } } })],
  ['policy_invalid', policy([{}], { selector: {}, targetRefs: [{ kind: 'Gateway', name: 'g' }] })],
  ['policy_invalid', policy([{}], { action: 'AUDIT' }, { annotations: { 'istio.io/dry-run': 'true' } })],
  ['policy_invalid', policy([{}], {}, { annotations: { 'istio.io/dry-run': 'yes' } })],
])('%s for %j, and the line after it is judged', async (code, bad) => {
  const [refused, judged] = await judge({ id: 'a', policies: [bad] }, { id: 'b' });
  expect(refused).toMatchObject({ id: 'a', allow: false, error: code });
  expect(judged).toMatchObject({ id: 'b', allow: true, error: null });
});

test.each<[string, string]>([
  ['input_unreadable', '{'],
  ['input_unreadable', '[]'],
  ['input_unreadable', 'null'],
  ['input_unreadable', '"x"'],
  ['input_unreadable', '{"id":"a"}'],
  [
    'input_unreadable',
    JSON.stringify({ id: 'a', mode: 'lax', workload: { namespace: 'x' }, policies: [], request: {} }),
  ],
  ['input_unreadable', JSON.stringify({ workload: { namespace: 'x' }, request: {} })],
  [
    'input_unreadable',
    JSON.stringify({ workload: { namespace: 'x' }, policies: [], policiesFile: 'x', request: {} }),
  ],
  [
    'input_unreadable',
    JSON.stringify({ workload: { namespace: 'x' }, policiesFile: '/no/such', request: {} }),
  ],
  ['input_unreadable', JSON.stringify({ workload: { namespace: 'x' }, policies: [], request: { pth: '/' } })],
  [
    'input_unreadable',
    JSON.stringify({ workload: { namespace: 'x' }, policies: [], request: { destinationPort: 70_000 } }),
  ],
  ['document_field_type', JSON.stringify({ workload: { namespace: 'x' }, policies: [7], request: {} })],
  ['document_field_missing', JSON.stringify({ workload: { namespace: 'x' }, policies: [{}], request: {} })],
  ['input_too_large', `"${'x'.repeat(2_097_152)}"`],
])('%s for the line %.60j, and it is no allow', async (code, line) => {
  const answers = await collect(`${line}\n`);
  expect(answers).toMatchObject([{ allow: false, rule: null, error: code }]);
  expect(JSON.stringify(answers)).not.toMatch(/node_modules|\.ts:|ENOENT/);
});

test('two policies of one name are refused, and a document that is too deep', async () => {
  const [twice] = await judge({ mode: 'istio', policies: [allowAll, allowAll] });
  expect(twice).toMatchObject({ allow: false, error: 'policy_invalid' });
  const text = JSON.stringify({ workload: { namespace: 'x' }, policies: ['@'], request: {} });
  const nested = `${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`;
  expect(await collect(text.replace('"@"', nested))).toMatchObject([{ error: 'document_depth' }]);
});

test('a file of policies is read once for all the lines that name it', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cs-eval-'));
  const file = join(directory, 'policies.yaml');
  writeFileSync(file, JSON.stringify(policy(to({ methods: ['PUT'] }))));
  try {
    const line = { policies: undefined, policiesFile: file };
    const answers = await judge(line, { ...line, request: { method: 'PUT' } });
    expect(answers.map(({ allow }) => allow)).toEqual([false, true]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test.each(['istio', 'strict'])(
  'of a file that cannot be taken nothing is used, and the lines around it are judged: %s',
  async (mode) => {
    const directory = mkdtempSync(join(tmpdir(), 'cs-eval-'));
    const text = (one: unknown): string => `${JSON.stringify(one)}\n`;
    const bad = policy([{ form: [] }], {}, { name: 'bad' });
    const files: [string, string | Buffer, string][] = [
      ['one of two is bad', `${text(allowAll)}---\n${text(bad)}`, 'document_field_unknown'],
      ['the second is no YAML', `${text(allowAll)}---\n{`, 'document_syntax'],
      ['over 1 MiB', text(allowAll).padEnd(1_048_577), 'document_too_large'],
      [
        'not UTF-8',
        Buffer.concat([Buffer.from(text(allowAll)), Buffer.from([0x23, 0xff])]),
        'input_unreadable',
      ],
    ];
    try {
      for (const [name, content] of files) writeFileSync(join(directory, name), content);
      const named = [...files.map(([name]) => join(directory, name)), directory, '/dev/zero', '/dev/tty\0'];
      const good = { id: 'good', mode, policies: [allowAll], mesh: {} };
      const answers = await judge(
        good,
        ...named.map((policiesFile) => ({ mode, policies: undefined, policiesFile })),
        good,
      );
      expect(answers.map(({ allow, rule, error }) => [allow, rule, error])).toEqual([
        [true, 'ns[shop]-policy[open]-rule[0]', null],
        ...files.map(([, , error]) => [false, null, error]),
        ...Array.from({ length: 3 }, () => [false, null, 'input_unreadable']),
        [true, 'ns[shop]-policy[open]-rule[0]', null],
      ]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);

test('a header that could be taken for another cannot be told, strictly', async () => {
  const deny = { action: 'DENY' };
  const policies = [allowAll, policy(when('request.headers[x-role]', ['admin']), deny)];
  const withHeaders = (mode: string, headers: object) => ({ mode, policies, request: { headers } });
  const answers = await judge(
    ...['istio', 'strict'].flatMap((mode) => [
      withHeaders(mode, { 'x-role': 'user' }),
      withHeaders(mode, { x_role: 'admin' }),
      withHeaders(mode, { 'x-role': 'user', connection: 'x-role' }),
    ]),
  );
  expect(answers.map(({ allow }) => allow)).toEqual([true, true, true, true, false, false]);
});

test('the command answers each line, and says which file it cannot read', async () => {
  const line = JSON.stringify({ id: 7, workload: { namespace: 'x' }, policies: [], request: {} });
  const judged = await runCli(['authz', 'eval', '--batch', '-'], { stdin: `${line}\n\n${line}` });
  expect(judged.code).toBe(0);
  expect(
    judged.out
      .trim()
      .split('\n')
      .map((one) => (JSON.parse(one) as { id: number }).id),
  ).toEqual([7, 7]);
  const refused = await runCli(['authz', 'eval', '--batch', '/no/such']);
  expect(refused.err).toContain('input_unreadable');
  expect(refused.code).not.toBe(0);
});

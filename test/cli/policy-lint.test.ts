import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { openCli } from './run-cli.ts';

const scope = createScope();
afterAll(() => scope.close());
const dir = makeTempDir(scope);
const run = openCli(scope, { cwd: dir });

const policy = (spec: string, name = 'p') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec:
  ${spec}
`;
const configuration = (mode: string) => `apiVersion: countersign.dev/v1
kind: Configuration
spec: { trustDomain: a.test, policyMode: ${mode} }
`;
const files = {
  clean: policy('rules: [{ from: [{ source: { namespaces: [shop] } }] }]'),
  warned: policy('rules: [{ to: [{ operation: { notMethods: [DELETE] } }] }]'),
  refused: policy('rules: [{ to: [{ operation: { paths: ["/a*b"] } }] }]'),
  nothing: '',
  long: policy(`rules: [{ to: [{ operation: { ${' '.repeat(9_000)}notMethods: [DELETE] } }] }]`),
  istio: configuration('istio'),
  strict: configuration('strict'),
  tested: policy(
    'action: AUDIT\n  rules: [{}]\n  tests: [{ allow: { from: a.test/ns/a/sa/b, method: GET, path: / } }]',
  ),
  foreign: policy(
    'rules: [{}]\n  tests: [{ deny: { from: b.test/ns/a/sa/b, method: GET, path: / } }]',
    'foreign',
  ),
};

beforeAll(async () => {
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, `${name}.yaml`), text);
});

test.each<[string, readonly string[], number, string]>([
  ['clean', [], 0, '1 policy: 0 errors, 0 warnings, 2 notes about Istio (--istio shows them)'],
  ['clean', ['--fail-on', 'warning'], 0, '0 warnings'],
  ['clean', ['--istio'], 0, 'note[istio_namespace_foreign]: read otherwise by Istio'],
  ['warned', [], 0, 'warning[allow_not_methods]'],
  [
    'warned',
    [],
    0,
    ' --> warned.yaml:5:45\n 5 |   rules: [{ to: [{ operation: { notMethods: [DELETE] } }] }]\n',
  ],
  ['warned', [], 0, 'docs: docs/policy-lint.md#allow_not_methods'],
  ['warned', ['--fail-on', 'warning'], 1, '1 warning,'],
  ['refused', [], 1, 'error[istio_refused]: spec.rules[0].to[0].operation.paths[0] is "/a*b"'],
  ['refused', [], 1, 'docs: docs/policy.md#strict-mode'],
  ['nothing', [], 0, '0 policies: 0 errors, 0 warnings'],
])('policy lint of %s with %j exits %d and says %j', async (name, more, code, said) => {
  const outcome = await run(['policy', 'lint', '-f', `${name}.yaml`, ...more]);
  expect(outcome.out).toContain(said);
  expect([outcome.code, outcome.err]).toEqual([code, '']);
});

test('of a long line is shown what fits a terminal', async () => {
  const { out } = await run(['policy', 'lint', '-f', 'long.yaml']);
  expect(out).toContain(' --> long.yaml:5:9045');
  expect(Math.max(...out.split('\n').map(({ length }) => length))).toBeLessThan(220);
});

test.each<[readonly string[], number, string]>([
  [['-f', 'absent.yaml'], 2, 'file_missing'],
  [['-f', 'clean.yaml', '--limit', '0'], 64, 'usage'],
  [['-f', 'clean.yaml', '--fail-on', 'note'], 64, 'usage'],
  [['-f', 'clean.yaml', 'clean.yaml'], 64, 'usage'],
])('policy lint %j is refused', async (more, code, error) => {
  const outcome = await run(['policy', 'lint', ...more]);
  expect(outcome.code).toBe(code);
  expect(outcome.err).toContain(error);
});

test('findings as JSON have their codes and documents', async () => {
  const { out } = await run(['policy', 'lint', '-f', 'warned.yaml', '-o', 'json']);
  expect(JSON.parse(out)).toMatchObject({
    findings: [
      { code: 'allow_not_methods', severity: 'warning', docs: 'docs/policy-lint.md#allow_not_methods' },
    ],
    errors: 0,
    warnings: 1,
    omitted: 0,
    inventory: false,
    policies: 1,
  });
});

const call = ['--from', 'none', '--to', 'spiffe://a.test/ns/pay/sa/db', '-f', 'warned.yaml'];
test.each<[readonly string[], number, string]>([
  [[], 1, 'unauthenticated'],
  [['--mode', 'strict'], 1, 'unauthenticated'],
  // Another namespace: no policy applies.
  [['--mode', 'istio'], 0, 'allow_by_default · mesh revision 1 · Istio mode'],
])('authz check of a stranger with %j exits %d: %s', async (more, code, said) => {
  const outcome = await run(['authz', 'check', ...call, ...more]);
  expect(outcome.out).toContain(said);
  expect(outcome.code).toBe(code);
});

test('a server decides in its own mode', async () => {
  const outcome = await run(['authz', 'check', ...call.slice(0, 4), '--mode', 'istio']);
  expect([outcome.code, outcome.err.includes('--mode goes with --file')]).toEqual([64, true]);
});

test.each<[readonly string[], number, string]>([
  [['-f', 'tested.yaml', '--config', 'istio.yaml'], 0, 'allow (allow_by_default)'],
  [['-f', 'tested.yaml', '--config', 'strict.yaml'], 1, 'deny (no_policy)'],
  [['-f', 'clean.yaml', '--config', 'strict.yaml', '--require-coverage'], 1, 'no test matches it'],
  [
    ['-f', 'nothing.yaml', '--config', 'strict.yaml'],
    64,
    'no policy with rules or tests is in "nothing.yaml"',
  ],
  // Without any, by what the tests themselves say, when they agree.
  [['-f', 'tested.yaml'], 1, 'trust domain a.test: the one that all tests name'],
  [['-f', 'tested.yaml', 'foreign.yaml'], 64, 'the tests name "a.test" and "b.test"'],
  [['-f', 'tested.yaml', 'foreign.yaml', '--trust-domain', 'a.test'], 1, '2 tests, 1 failed'],
  [['-f', 'clean.yaml'], 64, 'the tests name none'],
])(
  'policy test %j goes by the mode and the trust domain of the configuration, and exits %d: %s',
  async (more, code, said) => {
    const outcome = await run(['policy', 'test', ...more]);
    expect(outcome.out + outcome.err).toContain(said);
    expect(outcome.code).toBe(code);
  },
);

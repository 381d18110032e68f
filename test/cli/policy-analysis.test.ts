import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { runCli } from './run-cli.ts';

const scope = createScope();
const dir = makeTempDir(scope);
let harness: Harness;
const policy = (namespaces: string, name = 'ledger') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: pay }
spec: { rules: [{ from: [{ source: { namespaces: [${namespaces}] } }] }] }
`;
const invariant = (from: string) => `apiVersion: countersign.dev/v1
kind: PolicyInvariant
metadata: { name: never-${from} }
spec: { never: { from: { namespaces: [${from}] }, to: { namespaces: [pay] } } }
`;
const entry = (labels: string, domain = 'example.org') => `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata: { name: db, labels: { ${labels} } }
spec: { spiffeId: spiffe://${domain}/ns/pay/sa/db, selectors: ['unix:uid:1'] }
`;
const files = {
  'nothing.yaml': '# lost\n',
  'db.yaml': `${policy('shop')}---\n${entry('app: db')}`,
  'moved.yaml': `${policy('shop')}---\n${entry('app: other')}`,
  'foreign.yaml': `${policy("'*'")}---\n${entry('', 'elsewhere.org')}`,
  'old.yaml': policy('shop, dev'),
  'new.yaml': policy('shop'),
  'twice.yaml': `${policy('shop')}---\n${policy('shop', 'second')}`,
  'dev.yaml': invariant('dev'),
  'shop.yaml': invariant('shop'),
  'void.yaml': invariant('dev').replace('[pay]', "['gone*']"),
  'job.yaml': policy('shop').replace('namespaces: [shop]', 'serviceAccounts: [dev/job]'),
  'job-never.yaml': invariant('dev').replace(
    'namespaces: [dev]',
    'principals: [mesh.internal/ns/dev/sa/job]',
  ),
  'named.yaml': policy('shop').replace('namespaces: [shop]', 'principals: [mesh.internal/ns/dev/sa/job]'),
  'both-named.yaml': policy('shop').replace(
    'namespaces: [shop]',
    "principals: [mesh.internal/ns/dev/sa/job, 'example.org/ns/dev/*']",
  ),
  'named-db.yaml': policy('shop', 'named').replace(
    'namespaces: [shop]',
    'principals: [mesh.internal/ns/dev/sa/job]',
  ),
  'suffix.yaml': policy('shop').replace('namespaces: [shop]', "principals: ['*/sa/job', 'mesh*']"),
  'told.yaml': policy('shop').replace('namespaces: [shop]', "trustDomains: ['mesh.internal']"),
  'to-never.yaml': invariant('dev').replace('[pay]', "['*'], principals: ['mesh.internal/ns/pay/*']"),
  'nowhere.yaml': invariant('dev').replace('[pay]', '[pya]'),
  'both/a.yaml': policy('shop'),
  'both/b.yml': invariant('dev'),
  'both/README.md': 'not YAML: [',
  'none/README.md': '',
};

beforeAll(async () => {
  for (const name of ['both', 'none']) mkdirSync(join(dir, name));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  harness = await startHarness();
  for (const text of [files['old.yaml'], files['new.yaml']]) {
    const body = { files: [{ file: 'p.yaml', text }] };
    await harness.overTls({ method: 'POST', path: '/v1/apply', body });
  }
});
afterAll(async () => {
  await harness.close();
  await scope.close();
});

/** A word with a dot or a slash in it is a file. */
const run = (line: string) => {
  const words = line
    .split(' ')
    .map((word) => (/[./]/.test(word) && word !== 'example.org' ? join(dir, word) : word));
  const isLocal = line.includes('--trust-domain');
  return runCli(['policy', ...words, ...(isLocal ? [] : ['--socket', harness.unix.address])]);
};
const alone = '--trust-domain example.org';

test.each<[string, number, string]>([
  [
    `prove -f old.yaml dev.yaml ${alone}`,
    1,
    'countersign authz check --from spiffe://example.org/ns/dev/sa/',
  ],
  [`prove -f both/ ${alone}`, 0, '1 invariant: 1 proven, 0 violated, 0 unproven; 0 findings'],
  [`prove -f new.yaml void.yaml ${alone}`, 2, 'it is about no destination that there is'],
  [
    `prove -f twice.yaml --fail-on finding ${alone}`,
    1,
    'without it every call is decided the same: pay/ledger rule[0]',
  ],
  [`prove -f db.yaml nowhere.yaml ${alone}`, 0, 'nowhere.yaml:1:1: it is about nobody who is registered'],
  [`prove -f db.yaml dev.yaml ${alone}`, 0, 'dev.yaml:1:1\n1 policy at 1 destination\n'],
  [`prove -f new.yaml nowhere.yaml ${alone}`, 0, 'nowhere.yaml:1:1\n'],
  // A trust domain that somebody names beside others may be the right one, and so may any that nobody names.
  [`prove -f both-named.yaml dev.yaml ${alone}`, 1, 'violated'],
  [`prove -f suffix.yaml dev.yaml ${alone}`, 1, 'violated'],
  [`prove -f named-db.yaml dev.yaml db.yaml ${alone}`, 1, 'violated'],
  ['prove', 0, '1 policy at 1 destination, some of them made up'],
  ['prove -i dev.yaml --revision 1', 1, 'violated'],
  ['prove -i dev.yaml --candidate old.yaml', 1, 'violated'],
  [`diff old.yaml new.yaml --exit-code ${alone}`, 1, 'after   deny: no ALLOW rule matched'],
  [`diff new.yaml twice.yaml --exit-code ${alone}`, 0, 'no call is decided differently'],
  [`diff new.yaml db.yaml --exit-code ${alone}`, 0, 'no call is decided differently'],
  [`diff db.yaml moved.yaml --exit-code ${alone}`, 2, 'its entries have other labels on the two sides'],
  ['diff 2 1 --exit-code', 1, 'newly allowed'],
  ['diff active old.yaml -o json', 0, '"newlyAllowed"'],
  ['diff 1 active --text', 0, '+++ pay/ledger (revision 2)'],
])('policy %s exits %d and says %j', async (line, code, said) => {
  const outcome = await run(line);
  expect(outcome.out).toContain(said);
  expect([outcome.code, outcome.err]).toEqual([code, '']);
});

test.each<[string, number, string]>([
  ['prove -f absent.yaml --trust-domain example.org', 2, 'file_missing'],
  [`prove -f none/ ${alone}`, 64, 'no file of'],
  [`prove -f new.yaml --revision 1 ${alone}`, 64, '--file stands alone'],
  [`prove -f new.yaml -i old.yaml ${alone}`, 2, 'document_field_value'],
  [`prove -f twice.yaml -i new.yaml ${alone}`, 2, 'there are two documents of the policy pay/ledger'],
  [`prove -f new.yaml --invariants-only ${alone}`, 64, 'no invariant is in the files'],
  ['prove -i dev.yaml --candidate nothing.yaml', 64, 'no policy and no entry'],
  ['diff active nothing.yaml --exit-code', 2, 'no policy and no entry'],
  [`prove -f foreign.yaml dev.yaml ${alone}`, 64, 'is of another trust domain than example.org'],
  [`prove -f job.yaml job-never.yaml ${alone}`, 64, 'they name "mesh.internal"'],
  [
    `prove -f named.yaml dev.yaml ${alone}`,
    64,
    'nobody in the files is named of the trust domain example.org',
  ],
  [
    `prove -f told.yaml dev.yaml ${alone}`,
    64,
    'nobody in the files is named of the trust domain example.org',
  ],
  [
    `prove -f old.yaml to-never.yaml ${alone}`,
    64,
    'nobody in the files is named of the trust domain example.org',
  ],
  [`diff named.yaml old.yaml ${alone}`, 64, 'nobody in the files is named of the trust domain example.org'],
  [`prove -f named.yaml dev.yaml ${alone}`, 64, 'if it is right, give an entry of the mesh too'],
  ['prove --invariants-only', 64, 'there are no invariants to prove'],
  ['prove --candidate new.yaml --revision 1', 64, 'leave out --revision'],
  [`prove ${alone}`, 64, '--trust-domain is for files alone'],
  ['prove --revision 99', 2, 'policy_revision_not_found'],
  [`diff old.yaml dev.yaml --text ${alone}`, 64, 'is not the number of a revision'],
  ['diff 0', 2, 'file_missing'],
  [`diff dev.yaml shop.yaml ${alone}`, 64, 'no policy is in the files'],
])('policy %s is refused', async (line, code, said) => {
  const outcome = await run(line);
  expect(outcome.err).toContain(said);
  expect([outcome.code, outcome.out]).toEqual([code, '']);
});

test('in Istio mode files are refused for the mode, whomever they name', async () => {
  const file = join(dir, 'named.yaml');
  const env = { COUNTERSIGN_POLICY_MODE: 'istio' };
  for (const args of [
    ['prove', '-f', file],
    ['diff', file, join(dir, 'old.yaml')],
  ]) {
    const { code, err } = await runCli(['policy', ...args, ...alone.split(' ')], { env });
    expect([code, err]).toEqual([2, expect.stringContaining('policy_mode_inexact')]);
  }
});

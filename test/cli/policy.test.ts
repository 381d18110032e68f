import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Harness, startHarness } from '../http/harness.ts';
import { runCli } from './run-cli.ts';

let harness: Harness;
const policy = (name: string, namespace: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ${name}
  namespace: ${namespace}
spec:
  rules:
    - to:
        - operation:
            methods: [GET]
`;
const directory = mkdtempSync(join(tmpdir(), 'cs-policy-'));
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
  rmSync(directory, { recursive: true });
});

const run = (...args: string[]) => runCli([...args, '--socket', harness.unix.address]);
function file(text: string): string {
  const path = join(directory, 'p.yaml');
  writeFileSync(path, text);
  return path;
}

// In this order: each goes on from what the one before left.
test.each([
  ['there is no revision of policies yet', ['rollback']],
  ['there is no revision of policies to verify', ['log', '--verify', '--key-id', 'ab'.repeat(20)]],
])('before the first revision %s', async (message, command) => {
  const { code, err } = await run('policy', ...command);
  expect([code, err]).toEqual([2, expect.stringContaining(message)]);
});

test('policy apply makes a revision, with the message', async () => {
  const made = await run('policy', 'apply', '-f', file(policy('all', 'shop')), '-m', 'let web in');
  expect(made.out).toContain('shop/all');
  // Its number is not that of a revision of policies, by which one goes back.
  expect(made.out).toMatch(/\nmesh revision [0-9]+\n$/);
  const changed = policy('all', 'shop').replace('GET', 'PUT');
  expect(changed).not.toBe(policy('all', 'shop'));
  expect((await run('apply', '-f', file(changed), '-m', 'and let it write')).code).toBe(0);
  const { out } = await run('policy', 'log');
  expect(out.split('\n').map((line) => line.replace(/ {2,}/g, ' | '))).toEqual([
    expect.stringMatching(/NUMBER \| ID \| TIME \| AUTHOR \| CHANGES \| MESSAGE/),
    expect.stringMatching(
      /^\* \| 2 \| [0-9a-f]{12} .* \| uid [0-9]+ \(admin\) \| \+0 ~1 -0 \| and let it write$/,
    ),
    expect.stringMatching(/^ \| 1 \| [0-9a-f]{12} .* \| \+1 ~0 -0 \| let web in$/),
    '',
  ]);
});

test('policy diff --text shows it line by line, without colours', async () => {
  const { out } = await run('policy', 'diff', '1', '--text');
  expect(out).toMatch(/^--- shop\/all \(revision 1\)\n\+\+\+ shop\/all \(revision 2\)\n@@ /);
  expect(out.split('\n').filter((line) => /^[-+] /.test(line))).toHaveLength(2);
  expect((await run('policy', 'diff', '1', '1', '--text')).out).toBe(
    'revisions 1 and 1 have the same policies\n',
  );
});

test('policy show gives the text as it was, and what a revision is', async () => {
  expect((await run('policy', 'show', 'shop/all', '--revision', '1')).out).toContain('GET');
  expect((await run('policy', 'show', 'shop/all')).out).toContain('PUT');
  const { out } = await run('policy', 'show', '--revision', '2');
  expect(out).toMatch(/^revision 2, in force\n/);
  expect(out).toContain('and let it write');
});

test('policy rollback goes back, once it was looked at', async () => {
  const tried = await run('policy', 'rollback', '--dry-run');
  expect(tried.out).toMatch(/\ndry run: nothing was changed\n$/);
  expect(tried.out).toContain('+++ shop/all (revision 1)');
  const { out } = await run('policy', 'rollback', '-m', 'it broke');
  expect(out).toContain('revision 3 is in force: the policies of revision 1');
  expect((await run('policy', 'activate', '1')).out).toBe(
    'revision 3 has the policies of revision 1 already\n',
  );
});

test('policy log --verify checks them, and the key', async () => {
  const { out } = await run('policy', 'log', '--verify', '-o', 'json');
  const { keyId, ...rest } = JSON.parse(out) as { keyId: string };
  expect(rest).toEqual({ revisions: 3, hidden: 0 });
  const wrong = await run(
    'policy',
    'log',
    '--key-id',
    keyId.replace(/^./, (c) => (c === '0' ? '1' : '0')),
  );
  expect([wrong.code, wrong.err]).toEqual([
    expect.any(Number),
    expect.stringContaining('policy_revision_invalid'),
  ]);
  expect(wrong.code).not.toBe(0);
});

test.each<[string[], number | RegExp]>([
  [['policy', 'activate', '99'], /policy_revision_not_found/],
  [['policy', 'activate', 'x'], /not the number of a revision/],
  [['policy', 'activate', '-m', 'x'], /missing required argument/],
  [['policy', 'rollback'], /policy_revision_not_found/],
  [['policy', 'renumber', '--after', '1'], /policy_number_invalid/],
  [['policy', 'renumber'], /--after/],
  [['policy', 'show'], /name a policy/],
  [['policy', 'show', 'shop'], /namespace\/name/],
  [['policy', 'diff', '1', '99'], /policy_revision_not_found/],
  [['policy', 'delete', 'shop/all', '-m', 'a\u001bb'], /policy_message_invalid/],
])('%j is refused', async (args, expected) => {
  const { code, err } = await run(...args);
  expect(code).not.toBe(0);
  expect(err).toMatch(expected as RegExp);
});

test('policy apply refuses what is no policy', async () => {
  const alias =
    'apiVersion: countersign.dev/v1\nkind: NodeAlias\nmetadata: { name: edge }\nspec: { selectors: [] }\n';
  const { code, err } = await run('policy', 'apply', '-f', file(alias));
  expect(code).not.toBe(0);
  expect(err).toContain('document_kind_unknown');
});

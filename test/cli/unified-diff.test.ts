import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RevisionView } from '../../src/http/revision-routes.ts';
import { signRevision } from '../../src/identity/policy-revision.ts';
import { policyKeyId } from '../../src/identity/policy-signature.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { unifiedHunks } from '../../src/cli/unified-diff.ts';
import { verifyRevisions } from '../../src/cli/policy-verify.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const lines = (...all: (number | string)[]) => all.map((line) => `${line}\n`).join('');

describe('a unified diff', () => {
  test.each([
    ['of nothing', '', '', []],
    ['of the same', lines(1, 2), lines(1, 2), []],
    ['of a new text', '', lines(1, 2), ['@@ -0,0 +1,2 @@', '+1', '+2']],
    ['of a text that is gone', lines(1), '', ['@@ -1 +0,0 @@', '-1']],
    ['of one line', lines(1, 2, 3), lines(1, 'x', 3), ['@@ -1,3 +1,3 @@', ' 1', '-2', '+x', ' 3']],
    [
      'with three lines around',
      lines(1, 2, 3, 4, 5, 6, 7, 8, 9),
      lines(1, 2, 3, 4, 'x', 6, 7, 8, 9),
      ['@@ -2,7 +2,7 @@', ' 2', ' 3', ' 4', '-5', '+x', ' 6', ' 7', ' 8'],
    ],
    [
      'of two places',
      lines(1, 2, 3, 4, 5, 6, 7, 8, 9),
      lines(2, 3, 4, 5, 6, 7, 8, 9, 10),
      ['@@ -1,4 +1,3 @@', '-1', ' 2', ' 3', ' 4', '@@ -7,3 +6,4 @@', ' 7', ' 8', ' 9', '+10'],
    ],
  ])('%s', (_, before, after, expected) => {
    expect(unifiedHunks(before, after)).toEqual(expected);
  });

  test('leads from the one text to the other, whatever they are', () => {
    const text = fc.array(fc.constantFrom('a', 'b', 'c', ''), { maxLength: 30 }).map((all) => lines(...all));
    fc.assert(
      fc.property(text, text, (before, after) => {
        expect(patched(before, unifiedHunks(before, after))).toBe(after);
      }),
    );
  });

  test('of texts that have nothing in common ends soon', () => {
    const of = (name: string) => lines(...Array.from({ length: 20_000 }, (_, i) => `${name}${i}`));
    expect(unifiedHunks(of('a'), of('b'))).toHaveLength(40_001);
  });
});

describe('revisions that are verified', () => {
  const trustDomain = TrustDomain.parse('mesh.test');
  const [signer, other] = [makePolicySigner(), makePolicySigner()];
  const viewOf = async (number: number, by = signer): Promise<RevisionView> => {
    const id = (n: number) => `${n}`.repeat(64);
    const reason = { author: { kind: 'system' as const }, message: `the ${number}`, restores: null };
    const parent = number === 1 ? null : { number: number - 1, id: id(number - 1) };
    const record = await signRevision(
      by,
      trustDomain,
      { number, id: id(number), parent, time: new Date(0) },
      reason,
    );
    const changes = { created: 0, updated: 0, deleted: 0 };
    return { ...record, time: record.time.toISOString(), active: number === 3, changes };
  };
  const three = () => Promise.all([3, 2, 1].map((number) => viewOf(number)));
  const keyId = policyKeyId(signer.publicKey);

  test('are what they say', async () => {
    const items = await three();
    expect(verifyRevisions({ items, trustDomain: 'mesh.test' }, keyId)).toEqual({
      revisions: 3,
      keyId,
      hidden: 0,
    });
    const hidden = items.map((item) => ({ ...item, author: null, message: null }));
    expect(verifyRevisions({ items: hidden, trustDomain: 'mesh.test' })).toMatchObject({ hidden: 3 });
  });

  test('are not verified when there are none', () => {
    expect(() => verifyRevisions({ items: [], trustDomain: 'mesh.test' }, keyId)).toThrow(
      expect.objectContaining({ code: 'policy_revision_not_found' }),
    );
  });

  test.each<[string, (items: readonly RevisionView[]) => Promise<readonly RevisionView[]> | RevisionView[]]>([
    ['one is missing', ([a, , c]) => [a!, c!]],
    ['another order', (items) => [...items].reverse()],
    ['another message', ([a, b, c]) => [a!, { ...b!, message: 'x' }, c!]],
    ['another author', ([a, b, c]) => [a!, { ...b!, author: { kind: 'anonymous' } }, c!]],
    ['another origin', ([a, b, c]) => [a!, { ...b!, restores: 1 }, c!]],
    ['another time', ([a, b, c]) => [a!, { ...b!, time: '2027-01-01T00:00:00.000Z' }, c!]],
    ['another set', ([a, b, c]) => [{ ...a!, id: 'ab'.repeat(32) }, b!, c!]],
    ['another key in between', async ([a, , c]) => [a!, await viewOf(2, other), c!]],
  ])('are refused: %s', async (_, change) => {
    const items = await change(await three());
    expect(() => verifyRevisions({ items, trustDomain: 'mesh.test' })).toThrow(
      expect.objectContaining({ code: 'policy_revision_invalid' }),
    );
  });

  test('are refused with another key than is expected, and in another trust domain', async () => {
    const items = await three();
    for (const [domain, key] of [
      ['mesh.test', policyKeyId(other.publicKey)],
      ['other.test', keyId],
    ] as const) {
      expect(() => verifyRevisions({ items, trustDomain: domain }, key)).toThrow(
        expect.objectContaining({ code: 'policy_revision_invalid' }),
      );
    }
  });
});

function patched(before: string, hunks: readonly string[]): string {
  const old = before.split('\n').slice(0, -1);
  const made: string[] = [];
  let at = 0;
  for (const line of hunks) {
    const head = /^@@ -([0-9]+)(?:,([0-9]+))? \+/.exec(line);
    if (head !== null) {
      const start = Number(head[1]) - (head[2] === '0' ? 0 : 1);
      while (at < start) made.push(old[at++]!);
    } else if (line.startsWith('+')) made.push(line.slice(1));
    else {
      expect(old[at]).toBe(line.slice(1));
      if (line.startsWith(' ')) made.push(old[at]!);
      at += 1;
    }
  }
  return [...made, ...old.slice(at)].map((line) => `${line}\n`).join('');
}

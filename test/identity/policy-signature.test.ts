import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { canonicalJson } from '../../src/audit/canonical-json.ts';
import type { Actor } from '../../src/audit/event.ts';
import {
  parseRevisionMessage,
  policySetId,
  revisionStatement,
  signRevision,
} from '../../src/identity/policy-revision.ts';
import { openPolicySigner, policyKeyId, verifyRevision } from '../../src/identity/policy-signature.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const signer = makePolicySigner();
const code = (name: string) => expect.objectContaining({ code: name });

describe('a message', () => {
  test.each(['', 'one line', 'ü — 日本語 👩‍👩‍👧', 'x'.repeat(1_024), '👍'.repeat(1_024)])(
    'is taken: %s',
    (text) => {
      expect(parseRevisionMessage(text)).toBe(text);
    },
  );
  test.each([
    ['a line feed', 'a\nb'],
    ['a tab', 'a\tb'],
    ['an escape', 'a\u001b[2Jb'],
    ['NUL', 'a\0b'],
    ['DEL', 'a\u007fb'],
    ['C1', 'a\u009bb'],
    ['text turned around', 'a\u202eb'],
    ['an isolate', 'a\u2066b'],
    ['a line separator', 'a\u2028b'],
    ['half a character', 'a\ud83db'],
    ['1,025 characters', 'x'.repeat(1_025)],
    ['1,025 characters of two units', '👍'.repeat(1_025)],
  ])('is refused with %s', (_, text) => {
    expect(() => parseRevisionMessage(text)).toThrow(code('policy_message_invalid'));
  });
});

describe('what is signed', () => {
  const next = {
    number: 7,
    id: 'ab'.repeat(32),
    parent: { number: 6, id: 'cd'.repeat(32) },
    time: new Date(1_800_000_000_000),
  };
  const reason = { author: admin, message: 'why', restores: null };

  test('is this, byte for byte', () => {
    const text = Buffer.from(
      revisionStatement(trustDomain, {
        ...next,
        time: new Date('2027-01-02T03:04:05.006Z'),
        recordSha256: 'ef'.repeat(32),
      }),
    ).toString();
    expect(text).toBe(
      `countersign policy revision v1\n{"id":"${'ab'.repeat(32)}","number":7,"parent":{"id":"${'cd'.repeat(32)}","number":6},"recordSha256":"${'ef'.repeat(32)}","time":"2027-01-02T03:04:05.006Z","trustDomain":"mesh.test"}`,
    );
  });

  test('a set has its name from keys and texts, in no order', () => {
    const set = (...pairs: [string, string][]) =>
      policySetId(new Map(pairs.map(([key, digit]) => [key, { sha256: digit.repeat(64) }])));
    const empty = '{"documents":{},"type":"countersign/policy-set","v":1}';
    expect(set()).toBe(createHash('sha256').update(empty).digest('hex'));
    expect(set(['a/a', '1'], ['b/b', '2'])).toBe(set(['b/b', '2'], ['a/a', '1']));
    expect(set(['a/a', '1'], ['b/b', '2'])).not.toBe(set(['a/a', '2'], ['b/b', '1']));
    const odd = ['b/b', 'a/a', 'a/"', 'a/é', 'a/\u2028', 'a.b/c', 'a/b.c'];
    const documents = Object.fromEntries(odd.map((key) => [key, '1'.repeat(64)]));
    const text = canonicalJson({ documents, type: 'countersign/policy-set', v: 1 });
    expect(set(...odd.map((key): [string, string] => [key, '1']))).toBe(
      createHash('sha256').update(text).digest('hex'),
    );
    expect(set(['a/a', '1'])).not.toBe(set());
  });

  test.each<[string, object]>([
    ['another number', { number: 8 }],
    ['another id', { id: 'ba'.repeat(32) }],
    ['no parent', { parent: null }],
    ['another number of the parent', { parent: { number: 5, id: 'cd'.repeat(32) } }],
    ['another id of the parent', { parent: { number: 6, id: 'dc'.repeat(32) } }],
    ['another time', { time: new Date(0) }],
    ['another record', { recordSha256: '00'.repeat(32) }],
    ['another key', { publicKey: makePolicySigner().publicKey }],
    ['a key of another kind', { publicKey: Buffer.from('3059301306072a', 'hex').toString('base64') }],
    ['no key', { publicKey: '' }],
    ['no signature', { signature: '' }],
    ['half a signature', { signature: Buffer.alloc(32).toString('base64') }],
  ])('does not verify with %s', async (_, change) => {
    const record = await signRevision(signer, trustDomain, next, reason);
    expect(verifyRevision(trustDomain, record)).toBe(true);
    expect(verifyRevision(trustDomain, { ...record, ...change })).toBe(false);
  });

  test('does not verify in another trust domain', async () => {
    const record = await signRevision(signer, trustDomain, next, reason);
    expect(verifyRevision(TrustDomain.parse('mesh.tes'), record)).toBe(false);
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['no key', Buffer.from('302e', 'hex')],
  ])('a key that is %s is refused', (_, pkcs8) => {
    expect(() => openPolicySigner(pkcs8)).toThrow(code('authority_invalid'));
    expect(policyKeyId(signer.publicKey)).toMatch(/^[0-9a-f]{40}$/);
  });
});

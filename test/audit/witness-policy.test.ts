import { verify } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/audit/checkpoint.ts';
import { createCosigner, openCosignatures, parseWitnessKey } from '../../src/audit/cosignature.ts';
import { parseVerifierKey } from '../../src/audit/note.ts';
import {
  isQuorum,
  openWitnessed,
  parseWitnessPolicy,
  policyOfWitnesses,
} from '../../src/audit/witness-policy.ts';
import { logKey, logSigner, makeNoteSigner } from './log-files.ts';

const makeWitness = (name: string, seed: number) => {
  const { privateKey } = makeNoteSigner(name, seed);
  const cosigner = createCosigner(name, privateKey);
  return { ...cosigner, key: parseWitnessKey(cosigner.verifierKey) };
};
const [a, b, c] = [
  makeWitness('a.example/w', 11),
  makeWitness('b.example/w', 12),
  makeWitness('c.example/w', 13),
];
const at = new Date('2026-01-31T12:00:00.000Z');
const note = signCheckpoint({ size: 5, root: new Uint8Array(32).fill(7) }, logSigner);
const text = note.slice(0, note.indexOf('\n\n') + 1);
const flip = (line: string) =>
  line.replace(/.(.{8}\n)$/, (whole, end: string) => `${whole[0] === 'A' ? 'B' : 'A'}${end}`);

describe('a cosignature', () => {
  test('is over the time and the checkpoint', () => {
    const line = a.cosign(text, at);
    const bytes = Buffer.from(line.split(' ')[2]!, 'base64');
    expect(line).toMatch(/^— a\.example\/w [A-Za-z0-9+/]+=*\n$/);
    expect(bytes.subarray(0, 4).toString('hex')).toBe(a.key.keyId);
    expect(bytes.readBigUInt64BE(4)).toBe(BigInt(at.getTime() / 1_000));
    const message = Buffer.from(`cosignature/v1\ntime 1769860800\n${text}`);
    expect(verify(null, message, a.key.publicKey, bytes.subarray(12))).toBe(true);
    expect(openCosignatures(note + line, [a.key])).toEqual([{ key: a.key, at, line: line.slice(0, -1) }]);
  });

  test('of a stranger is passed over, of one witness the latest counts', () => {
    const later = new Date(at.getTime() + 60_000);
    const lines = b.cosign(text, at) + a.cosign(text, later) + a.cosign(text, at);
    expect(openCosignatures(note + lines, [a.key])).toMatchObject([{ at: later }]);
    expect(openCosignatures(note, [a.key])).toEqual([]);
  });

  // What stands below is 4 bytes of the ID, 8 of the time, 64 of the signature.
  const changed = (change: (bytes: Buffer) => Buffer): string => {
    const bytes = change(Buffer.from(a.cosign(text, at).split(' ')[2]!, 'base64'));
    return `— a.example/w ${bytes.toString('base64')}\n`;
  };
  test.each<[string, string]>([
    ['a flipped bit', flip(a.cosign(text, at))],
    ['another time', changed((bytes) => (bytes.writeBigUInt64BE(5n, 4), bytes))],
    ['another text', a.cosign(text.replace('\n5\n', '\n6\n'), at)],
    ['no time', a.cosign(text, new Date(0))],
    ['a time that no calendar has', changed((bytes) => (bytes.writeBigUInt64BE(2n ** 63n - 1n, 4), bytes))],
    ['a byte too few', changed((bytes) => bytes.subarray(0, -1))],
    ['a byte too many', changed((bytes) => Buffer.concat([bytes, Buffer.of(0)]))],
    ['a time and nothing else', changed((bytes) => bytes.subarray(0, 12))],
    ['an ID and a byte', changed((bytes) => bytes.subarray(0, 5))],
  ])('with %s refuses the note, whoever else has signed it', (_, line) => {
    for (const lines of [line, line + a.cosign(text, at), b.cosign(text, at) + line]) {
      expect(() => openCosignatures(note + lines, [a.key, b.key])).toThrow(
        expect.objectContaining({ code: 'audit_signature_invalid' }),
      );
    }
  });

  test('has a key that no log has, and the other way round', () => {
    expect(() => parseVerifierKey(a.verifierKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid' }),
    );
    expect(() => parseWitnessKey(logSigner.verifierKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid' }),
    );
  });
});

const lines = (...all: readonly string[]) => `${all.join('\n')}\n`;
const witnesses = [
  `witness A ${a.verifierKey} https://a.example`,
  `witness B ${b.verifierKey}`,
  `witness C\t${c.verifierKey}  `,
];
const parse = (...all: readonly string[]) => parseWitnessPolicy(lines(...all), 'trust.tlog-policy');

describe('a policy', () => {
  const cosignedBy =
    (...by: readonly { readonly key: typeof a.key }[]) =>
    (policy: ReturnType<typeof parse>) =>
      isQuorum(
        policy.quorum,
        new Set(
          policy.witnesses
            .map(({ key }) => key)
            .filter((key) => by.some((one) => one.key.keyId === key.keyId)),
        ),
      );

  test('of one log and a quorum of two levels', () => {
    const policy = parse(
      '# who is believed',
      `log ${logSigner.verifierKey} https://log.example`,
      '',
      ...witnesses,
      'group ab any A B',
      ' \tgroup all-of-them all ab C',
      'quorum all-of-them',
    );
    expect(policy.logs).toMatchObject([{ key: { name: logKey.name }, url: 'https://log.example' }]);
    expect(policy.witnesses.map(({ name, url }) => [name, url])).toEqual([
      ['A', 'https://a.example'],
      ['B', null],
      ['C', null],
    ]);
    expect([
      cosignedBy()(policy),
      cosignedBy(a, b)(policy),
      cosignedBy(c)(policy),
      cosignedBy(a, c)(policy),
      cosignedBy(b, c)(policy),
      cosignedBy(a, b, c)(policy),
    ]).toEqual([false, false, false, true, true, true]);
  });

  test.each<[string, readonly boolean[]]>([
    ['none', [true, true, true, true]],
    ['A', [false, true, true, true]],
    ['two', [false, false, true, true]],
  ])('whose quorum is %s', (quorum, expected) => {
    const policy = parse(...witnesses, 'group two 2 A B C', `quorum ${quorum}`);
    const cosigned = [cosignedBy(), cosignedBy(a), cosignedBy(a, b), cosignedBy(a, b, c)];
    expect(cosigned.map((judge) => judge(policy))).toEqual(expected);
  });

  test.each<[string, readonly string[], number]>([
    ['no quorum', witnesses, 0],
    ['two quorums', [...witnesses, 'quorum A', 'quorum B'], 5],
    ['a quorum that is not there', [...witnesses, 'quorum D'], 4],
    ['a quorum that comes later', ['quorum A', ...witnesses], 1],
    ['a quorum of two', [...witnesses, 'quorum A B'], 4],
    ['a witness twice', [witnesses[0]!, `witness B ${a.verifierKey}`, 'quorum A'], 2],
    ['a name twice', [witnesses[0]!, `witness A ${b.verifierKey}`, 'quorum A'], 2],
    ['a witness called none', [`witness none ${a.verifierKey}`, 'quorum none'], 1],
    ['a log twice', [`log ${logSigner.verifierKey}`, `log ${logSigner.verifierKey}`, 'quorum none'], 2],
    ['a log with the key of a witness', [`log ${a.verifierKey}`, 'quorum none'], 1],
    ['a witness with the key of a log', [`witness A ${logSigner.verifierKey}`, 'quorum A'], 1],
    ['a witness without a key', ['witness A', 'quorum A'], 1],
    ['a group of nobody', [...witnesses, 'group g any', 'quorum g'], 4],
    ['a group of 0', [...witnesses, 'group g 0 A B', 'quorum g'], 4],
    ['a group of more than there are', [...witnesses, 'group g 3 A B', 'quorum g'], 4],
    ['a group of itself', [...witnesses, 'group g any g', 'quorum g'], 4],
    ['a group with none', [...witnesses, 'group g any A none', 'quorum g'], 4],
    ['a member twice', [...witnesses, 'group g any A A', 'quorum g'], 4],
    ['a member of two groups', [...witnesses, 'group g any A', 'group h any A B', 'quorum h'], 5],
    ['a word that is not known', ['mirror A', 'quorum none'], 1],
    ['a carriage return', ['quorum none\r'], 1],
    ['a NUL', ['# \0', 'quorum none'], 1],
    ['a wide space', ['quorum\u2003none'], 1],
    ['a quarter of a megabyte', ['#'.repeat(262_144), 'quorum none'], 0],
  ])('with %s is refused', (_, all, line) => {
    expect(() => parse(...all)).toThrow(
      expect.objectContaining({
        code: 'audit_policy_invalid',
        place: line === 0 ? undefined : { file: 'trust.tlog-policy', line, column: 1 },
      }),
    );
  });

  test.each([
    [[a.key], 0],
    [[a.key], 2],
    [[], null],
    [[a.key, a.key], 1],
  ] as const)('of %j with a quorum of %j is none', (keys, atLeast) => {
    expect(() => policyOfWitnesses(keys, atLeast)).toThrow(
      expect.objectContaining({ code: 'audit_policy_invalid' }),
    );
  });
});

describe('a checkpoint under a policy', () => {
  const policy = policyOfWitnesses([a.key, b.key], null);
  const all = note + a.cosign(text, at) + c.cosign(text, at) + b.cosign(text, at);

  test('opens when a quorum has cosigned it', () => {
    const { checkpoint, cosignatures } = openWitnessed(all, logKey, policy);
    expect([checkpoint.size, cosignatures.map(({ key }) => key.name)]).toEqual([
      5,
      ['a.example/w', 'b.example/w'],
    ]);
  });

  test.each<[string, string, string]>([
    ['by nobody', note, 'audit_quorum_missing'],
    ['by too few', note + a.cosign(text, at), 'audit_quorum_missing'],
    ['by one twice', note + a.cosign(text, at).repeat(2), 'audit_quorum_missing'],
    ['by a stranger', note + a.cosign(text, at) + c.cosign(text, at), 'audit_quorum_missing'],
    ['by all, and not signed', all.replace(/— example.org.*\n/, ''), 'audit_signature_invalid'],
    ['wrongly by one', all + flip(a.cosign(text, at)), 'audit_signature_invalid'],
  ])('cosigned %s does not', (_, given, code) => {
    expect(() => openWitnessed(given, logKey, policy)).toThrow(expect.objectContaining({ code }));
  });
});

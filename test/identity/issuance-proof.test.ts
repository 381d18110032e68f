import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import type { AuditEvent, IssuanceEvent } from '../../src/audit/event.ts';
import { proveInclusion } from '../../src/audit/merkle-proof.ts';
import { formatTlogProof } from '../../src/audit/tlog-proof.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { verifyIssuanceProof } from '../../src/identity/issuance-proof.ts';
import { createBelievedLogKey, createProofDemand, provenOnly } from '../../src/node/proven-issuance.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { decision, issuance, jwtIssuance } from '../audit/events.ts';
import { logKey, logSigner, makeLogFiles, makeNoteSigner } from '../audit/log-files.ts';
import { makeKey, makeTestAuthority } from '../ca/test-authority.ts';

let certificate: Uint8Array;
let other: Uint8Array;
let event: IssuanceEvent;
beforeAll(async () => {
  const now = new Date(Math.floor(Date.now() / 1_000) * 1_000);
  const { authority } = await makeTestAuthority(now);
  const make = async (path: string) => {
    const prepared = authority.prepare(
      {
        id: SpiffeId.parse(`spiffe://example.org${path}`),
        publicKey: makeKey('ec-prime256v1').spki,
        dnsNames: [],
        ttlSeconds: 600,
      },
      now,
    );
    const { certificates } = await authority.sign(prepared);
    const { id, serial, notBefore, notAfter, tbsSha256, spkiSha256 } = prepared;
    const facts = { spiffeId: id.text, serial, notBefore, notAfter, tbsSha256, spkiSha256 };
    return { der: certificates[0]!, event: issuance(facts) };
  };
  const [made, another] = [await make('/web'), await make('/web')];
  [certificate, other, event] = [made.der, another.der, made.event];
});

/** The proof of an event among others, as the log of a server gives it. */
function proofOf(
  entry: AuditEvent | Uint8Array,
  { signer = logSigner, withEntry = true, index = 5 } = {},
): string {
  const leaf = entry instanceof Uint8Array ? entry : encodeEvent(entry, randomBytes).leaf;
  const leaves = Array.from({ length: 9 }, (_, at) =>
    at === 5 ? leaf : encodeEvent(decision({ decisionId: `d-${at}` }), randomBytes).leaf,
  );
  const { note } = makeLogFiles(leaves, signer);
  const hashes = leaves.map(leafHash);
  const path = proveInclusion(
    (level, first, count) => (level === 0 ? hashes.slice(first, first + count) : []),
    5,
    leaves.length,
  );
  return formatTlogProof({ index, path, checkpoint: note, extra: withEntry ? leaf : null });
}

function changed(change: (leaf: string) => string, encoding: BufferEncoding = 'utf8'): Uint8Array {
  return Buffer.from(change(Buffer.from(encodeEvent(event, randomBytes).leaf).toString()), encoding);
}

const wrong: readonly (readonly [string, () => string, string])[] = [
  [
    'of a certificate for another key',
    () => proofOf({ ...event, spkiSha256: 'ab'.repeat(32) }),
    'spkiSha256',
  ],
  ['of one with another serial', () => proofOf({ ...event, serial: `${event.serial.slice(2)}00` }), 'serial'],
  ['of one with another name', () => proofOf({ ...event, spiffeId: 'spiffe://example.org/api' }), 'spiffeId'],
  ['of one that says something else', () => proofOf({ ...event, tbsSha256: 'ab'.repeat(32) }), 'tbsSha256'],
  ['of one that ends later', () => proofOf({ ...event, notAfter: new Date(2_000_000_000_000) }), 'notAfter'],
  ['of a decision', () => proofOf(decision()), 'no issuance'],
  ['of a token', () => proofOf(jwtIssuance()), 'no issuance'],
  ['of another place', () => proofOf(event, { index: 4 }), 'not entry 4'],
  [
    'of an entry that says two things',
    () => proofOf(changed((leaf) => leaf.replace('{', '{"v":1,'))),
    'canonical',
  ],
  [
    'of an entry that begins with a mark',
    () => proofOf(changed((leaf) => `\ufeff${leaf}`)),
    'cannot be read',
  ],
  [
    'of an entry that is no UTF-8',
    () => proofOf(changed((leaf) => leaf.replace('"entryId":"', '"entryId":"\u00ff'), 'latin1')),
    'cannot be read',
  ],
  ['of an entry that is no JSON', () => proofOf(Buffer.from('issuance')), 'cannot be read'],
  ['of an entry that is null', () => proofOf(Buffer.from('null')), 'no issuance'],
];

describe('the proof of an issuance', () => {
  test('holds for its certificate, and for no other of the same workload', () => {
    expect(verifyIssuanceProof(proofOf(event), certificate, logKey)).toMatchObject({
      origin: 'example.org/audit',
      index: 5,
      size: 9,
    });
    const code = 'audit_proof_invalid';
    expect(() => verifyIssuanceProof(proofOf(event), other, logKey)).toThrow(
      expect.objectContaining({ code }),
    );
  });

  test.each(wrong)('is refused when it is %s', (_, make, words) => {
    expect(() => verifyIssuanceProof(make(), certificate, logKey)).toThrow(
      expect.objectContaining({ code: 'audit_proof_invalid', message: expect.stringContaining(words) }),
    );
  });

  test('takes the entry from elsewhere when it does not hold it', () => {
    const bare = proofOf(event, { withEntry: false });
    const { leaf } = encodeEvent(event, randomBytes);
    expect(verifyIssuanceProof(bare, certificate, logKey, leaf).index).toBe(5);
    expect(() => verifyIssuanceProof(bare, certificate, logKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid' }),
    );
  });
});

describe('an agent', () => {
  const stranger = makeNoteSigner('example.org/audit', 7);
  test.each<[string, () => string, string | null, boolean, string]>([
    ['takes a proven certificate', () => proofOf(event), logSigner.verifierKey, true, 'taken'],
    ['takes one without a proof unless it has to be', () => '', logSigner.verifierKey, false, 'taken'],
    ['takes one while it knows no key unless it has to', () => proofOf(event), null, false, 'taken'],
    ['refuses one without a proof', () => '', logSigner.verifierKey, true, 'issuance_unproven'],
    ['refuses one while it knows no key', () => proofOf(event), null, true, 'issuance_unproven'],
    ['refuses a false proof', () => proofOf(decision()), logSigner.verifierKey, true, 'audit_proof_invalid'],
    [
      'refuses a false proof that it did not ask for',
      () => proofOf(decision()),
      logSigner.verifierKey,
      false,
      'audit_proof_invalid',
    ],
    [
      'refuses one of another log',
      () => proofOf(event, { signer: stranger }),
      logSigner.verifierKey,
      true,
      'audit_signature_invalid',
    ],
    ['refuses what is no proof', () => 'yes', logSigner.verifierKey, false, 'audit_note_invalid'],
  ])('%s', (_, proof, key, isRequired, expected) => {
    const demand = createProofDemand(() => key, isRequired);
    let outcome = 'taken';
    try {
      demand(certificate, proof());
    } catch (error) {
      outcome = (error as { code: string }).code;
    }
    expect(outcome).toBe(expected);
    const kept = { certificates: [certificate], proof: proof() };
    const reasons: string[] = [];
    const proven = provenOnly(kept, demand, ({ code }) => reasons.push(code));
    expect([proven, reasons]).toEqual(expected === 'taken' ? [kept, []] : [undefined, [expected]]);
  });

  type Texts = readonly string[];
  type Key = string | null;
  const [a, b] = [logSigner.verifierKey, stranger.verifierKey];
  const none = ['a', `${a}A`, 'x'.repeat(600)];
  test.each<[string, Key, Key, Texts, { believed: Key; learned: Key; complaints: Texts }]>([
    [
      'believes the first key that it is told',
      null,
      null,
      [a, b, b],
      { believed: a, learned: a, complaints: [b] },
    ],
    [
      'believes nothing that is no key',
      null,
      null,
      [...none, a],
      { believed: a, learned: a, complaints: none },
    ],
    ['goes by the key of before', null, b, [a, a], { believed: b, learned: b, complaints: [a] }],
    ['goes by the key that it is given', b, a, [a], { believed: b, learned: a, complaints: [a] }],
    ['keeps none that it was given alone', b, null, [a, ''], { believed: b, learned: null, complaints: [a] }],
    ['keeps one that it is given and told', b, a, [a, b], { believed: b, learned: b, complaints: [a] }],
    [
      'learns nothing of a server that says nothing',
      null,
      null,
      ['', ''],
      { believed: null, learned: null, complaints: [] },
    ],
  ])('%s', (_, given, kept, told, expected) => {
    const others: string[] = [];
    const key = createBelievedLogKey(given, kept, (one) => others.push(one));
    for (const one of told) key.told(one);
    expect({ believed: key.current(), learned: key.learned(), complaints: others }).toEqual(expected);
  });
});

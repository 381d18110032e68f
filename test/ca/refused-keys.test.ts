import { createECDH, createHash, createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority } from '../../src/ca/authority.ts';
import { leakedKeys } from '../../src/ca/leaked-keys.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { checkRefused, maxRefusedKeys, parseRefusedKeys } from '../../src/ca/refused-keys.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from './test-authority.ts';

const now = new Date('2026-11-21T12:00:00Z');
const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;

/** The SubjectPublicKeyInfo of a private scalar. */
function fromScalar(curve: 'P-256' | 'P-384', scalar: string): Buffer {
  const pair = createECDH(curve === 'P-256' ? 'prime256v1' : 'secp384r1');
  pair.setPrivateKey(scalar, 'hex');
  const point = pair.getPublicKey();
  const half = (point.length - 1) / 2;
  const jwk = {
    kty: 'EC',
    crv: curve,
    x: point.subarray(1, 1 + half).toString('base64url'),
    y: point.subarray(1 + half).toString('base64url'),
  };
  return createPublicKey({ key: jwk, format: 'jwk' }).export({ format: 'der', type: 'spki' });
}

function fromSec1(base64: string): Buffer {
  const key = createPrivateKey({ key: Buffer.from(base64, 'base64'), format: 'der', type: 'sec1' });
  return createPublicKey(key).export({ format: 'der', type: 'spki' });
}

// The private keys as they are published.
const published: readonly (readonly [string, () => Buffer])[] = [
  ['the private key 1 on P-256', () => fromScalar('P-256', '1'.padStart(64, '0'))],
  ['the private key 1 on P-384', () => fromScalar('P-384', '1'.padStart(96, '0'))],
  [
    'RFC 6979 appendix A.2.5',
    () => fromScalar('P-256', 'c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721'),
  ],
  [
    'RFC 6979 appendix A.2.6',
    () =>
      fromScalar(
        'P-384',
        '6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5',
      ),
  ],
  [
    'RFC 7515 appendix A.3',
    () =>
      fromScalar(
        'P-256',
        Buffer.from('jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI', 'base64url').toString('hex'),
      ),
  ],
  [
    'RFC 9421 appendix B.1.3',
    () =>
      fromSec1(
        'MHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49AwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==',
      ),
  ],
  [
    'RFC 9500 section 2.3',
    () =>
      fromSec1(
        'MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjVuKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==',
      ),
  ],
];

test.each(published)('the list has the key of %s', (source, spki) => {
  expect(leakedKeys.get(createHash('sha256').update(spki()).digest('hex'))).toBe(source);
});

describe('an authority', () => {
  let ca: TestAuthority;
  const own = new Set<string>();
  const listed = makeKey('ec-prime256v1');
  const proper = makeKey('ec-prime256v1');
  const late = makeKey('ec-prime256v1');
  beforeAll(async () => {
    ca = await makeTestAuthority(now);
  });
  const prepare = (spki: Uint8Array) =>
    createAuthority({
      ...ca,
      randomBytes: (size) => new Uint8Array(randomBytes(size)),
      refused: { own: () => own, listed: new Set([readPublicKey(listed.spki).spkiSha256]) },
    }).prepare(
      { id: SpiffeId.parse('spiffe://example.org/web'), publicKey: spki, dnsNames: [], ttlSeconds: 60 },
      now,
    );

  test.each<[string, () => Uint8Array, string]>([
    ['its own', () => ca.intermediate.key.publicKey.spki, 'public_key_unsupported'],
    ["its root's", () => ca.root.key.publicKey.spki, 'public_key_unsupported'],
    ['a listed one', () => listed.spki, 'public_key_leaked'],
    ['a published one', () => published[2]![1](), 'public_key_leaked'],
    ['the private key 1', () => published[0]![1](), 'public_key_leaked'],
  ])('certifies no key that is %s', (_, spki, expected) => {
    expect(() => prepare(spki())).toThrow(code(expected));
  });

  test('certifies no key that has become ours since it was opened', () => {
    expect(prepare(late.spki).spkiSha256).toBe(readPublicKey(late.spki).spkiSha256);
    own.add(readPublicKey(late.spki).spkiSha256);
    expect(() => prepare(late.spki)).toThrow(code('public_key_unsupported'));
  });

  test('certifies every other key', () => {
    expect(prepare(proper.spki).issuerKeyId).toBe(ca.intermediate.keyId);
    expect(() =>
      checkRefused({ own: () => own, listed: new Set() }, readPublicKey(proper.spki)),
    ).not.toThrow();
  });
});

describe('a list', () => {
  const [one, two] = ['ab'.repeat(32), 'CD'.repeat(32)];

  test('has a key a line, comments and blank lines', () => {
    const keys = parseRefusedKeys(`# Debian\n${one}\n\n  ${two}  # that one\r\n`, 'list');
    expect([...keys]).toEqual([one, two.toLowerCase()]);
    expect(parseRefusedKeys('', 'list').size).toBe(0);
  });

  test.each<[string, string, number]>([
    ['a short hash', `${one}\nab\n`, 2],
    ['a hash with colons', 'ab:cd', 1],
    ['two on a line', `${one} ${one}`, 1],
    ['a PEM file', '-----BEGIN PUBLIC KEY-----', 1],
    ['a letter that is no digit', 'g'.repeat(64), 1],
  ])('with %s is refused, with its line', (_, text, line) => {
    expect(() => parseRefusedKeys(text, 'list')).toThrow(
      expect.objectContaining({ code: 'config_invalid', place: { file: 'list', line, column: 1 } }) as Error,
    );
  });

  test('is bounded', () => {
    let text = '';
    for (let at = 0; at <= maxRefusedKeys; at++) text += `${at.toString(16).padStart(64, '0')}\n`;
    expect(() => parseRefusedKeys(text, 'list')).toThrow(code('config_invalid'));
  });
});

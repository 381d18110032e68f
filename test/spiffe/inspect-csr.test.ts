import { sign } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bitString, objectIdentifier, sequence, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { MeshError } from '../../src/errors.ts';
import { inspectCsr } from '../../src/spiffe/inspect-csr.ts';
import { makeKey, type TestKey } from '../ca/test-authority.ts';
import { altNames, commonName, dns, leafUri, uri } from './odd-certificate.ts';

const key = makeKey('ec-prime256v1');
const algorithm = sequence(objectIdentifier('1.2.840.10045.4.3.2'));

type Options = {
  readonly version?: number;
  readonly extensions?: readonly Uint8Array[];
  readonly signer?: TestKey;
  readonly algorithm?: Uint8Array;
  readonly attributes?: Uint8Array;
};

function request(options: Options = {}): Uint8Array {
  const { extensions = [altNames(false, uri(leafUri), dns('web'))], signer = key } = options;
  const wish = sequence(objectIdentifier('1.2.840.113549.1.9.14'), tlv(0x31, sequence(...extensions)));
  const info = sequence(
    unsignedInteger(Uint8Array.of(options.version ?? 0)),
    commonName('web'),
    key.spki,
    options.attributes ?? tlv(0xa0, wish),
  );
  return sequence(info, options.algorithm ?? algorithm, bitString(sign('sha256', info, signer.privateKey)));
}

test('a request tells its wishes', () => {
  const { facts, broken } = inspectCsr(request());
  expect(broken).toEqual([]);
  expect(facts).toMatchObject({
    subject: 'CN=web',
    key: 'ECDSA P-256',
    signature: 'ECDSA with SHA-256',
    spiffeId: leafUri,
    dnsNames: ['web'],
  });
});

test.each<[string, Options, string[]]>([
  ['of version 2', { version: 1 }, ['rfc2986-4.1-version']],
  ['signed by another', { signer: makeKey('ec-prime256v1') }, ['rfc2986-4.2-proof-of-possession']],
  [
    'signed in an unknown way',
    { algorithm: sequence(objectIdentifier('1.2.3')) },
    ['rfc2986-4.2-proof-of-possession'],
  ],
  ['without attributes', { attributes: tlv(0xa0) }, []],
  ['with attributes that are none', { attributes: tlv(0xa0, tlv(5)) }, ['rfc5280-4.2-extension']],
  [
    'for two IDs, one odd',
    { extensions: [altNames(false, uri(leafUri), uri('spiffe://a/'))] },
    ['x509-svid-2-one-uri-san', 'spiffe-id-2.2-no-trailing-slash'],
  ],
  [
    'wrong in every way',
    { version: 1, signer: makeKey('ec-prime256v1'), extensions: [altNames(false, uri('x'))] },
    ['rfc2986-4.1-version', 'rfc2986-4.2-proof-of-possession', 'spiffe-id-2-scheme'],
  ],
])('%s breaks exactly its rules', (_, options, expected) => {
  expect(inspectCsr(request(options)).broken.map(({ rule }) => rule)).toEqual(expected);
});

test('a signature that is not whole octets proves nothing', () => {
  const bent = Uint8Array.from(request());
  // The count of unused bits stands before the signature, a SEQUENCE of at most 72 octets.
  const at = Buffer.from(bent).indexOf(Buffer.of(0, 0x30), bent.length - 74);
  expect(bent[at]).toBe(0);
  bent[at] = 1;
  bent[bent.length - 1] = (bent[bent.length - 1] ?? 0) & 0xfe;
  expect(inspectCsr(bent).broken.map(({ rule }) => rule)).toContain('rfc2986-4.2-proof-of-possession');
});

test('bent requests are read or refused', () => {
  const good = request();
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, to) => {
      const bent = Uint8Array.from(good);
      bent[at] = to;
      try {
        const { broken } = inspectCsr(bent);
        expect(broken.length > 0 || good[at] === to).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(MeshError);
      }
    }),
    { numRuns: 2_000 },
  );
});

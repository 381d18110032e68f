import { sign } from 'node:crypto';
import { bitString, booleanTrue, sequence, unsignedInteger } from '../../src/ca/der-writer.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { makeKey, type TestKey } from '../ca/test-authority.ts';
import {
  altNames,
  basicConstraints,
  commonName,
  keyUsage,
  oddCertificate,
  type Parts,
  uri,
} from './odd-certificate.ts';

/** A CA of a test's own making, that signs whatever it is given. */
export type Forger = { readonly name: string; readonly key: TestKey; readonly der: Uint8Array };

/** A certificate of odd parts with a signature that verifies. */
export function forge(
  parts: Partial<Parts>,
  issuer: { readonly name: string; readonly key: TestKey },
): Uint8Array {
  const { tbs, signatureAlgorithm } = readCertificate(
    oddCertificate({ issuer: commonName(issuer.name), ...parts }),
  );
  return sequence(tbs, signatureAlgorithm, bitString(sign('sha256', tbs, issuer.key.privateKey)));
}

/** A CA with a new key, signed by itself when no issuer is given. */
export function forgeAuthority(
  name: string,
  options: {
    readonly issuer?: Forger;
    readonly pathLength?: number;
    readonly trustDomain?: string;
    readonly extensions?: readonly Uint8Array[];
  } = {},
): Forger {
  const { issuer, pathLength, trustDomain, extensions = [] } = options;
  const key = makeKey('ec-prime256v1');
  const limit = pathLength === undefined ? [] : [unsignedInteger(Uint8Array.of(pathLength))];
  const parts = {
    subject: commonName(name),
    spki: key.spki,
    extensions: [
      basicConstraints(true, booleanTrue(), ...limit),
      keyUsage(true, 1, 0x06),
      ...(trustDomain === undefined ? [] : [altNames(false, uri(`spiffe://${trustDomain}`))]),
      ...extensions,
    ],
  };
  return { name, key, der: forge(parts, issuer ?? { name, key }) };
}

import type { KeyObject } from 'node:crypto';
import { hash } from 'node:crypto';
import type { AttestedNode } from '../../src/identity/node.ts';
import { nodeSpiffeId } from '../../src/identity/node.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeKey, type TestAuthority } from '../ca/test-authority.ts';

/** A certificate with its key, as TLS wants them and as we read them. */
export type Shown = {
  readonly certificate: string;
  readonly privateKey: string;
  readonly key: KeyObject;
  readonly serial: string;
  readonly spkiSha256: string;
  readonly notAfter: Date;
  readonly certificates: readonly Uint8Array[];
};

/** Has a certificate for any path of the trust domain made. */
export async function makeShown(
  { authority, trustDomain }: TestAuthority,
  path: string,
  now: Date,
  ttlSeconds = 3_600,
): Promise<Shown> {
  const key = makeKey('ec-prime256v1');
  const id = SpiffeId.parseWorkload(`${trustDomain.id}${path}`);
  const issued = await authority.sign(
    authority.prepare({ id, publicKey: key.spki, dnsNames: ['localhost'], ttlSeconds }, now),
  );
  return {
    certificate: issued.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    privateKey: encodePem('PRIVATE KEY', key.pkcs8),
    key: key.privateKey,
    serial: issued.serial,
    spkiSha256: hash('sha256', key.spki, 'hex'),
    notAfter: issued.notAfter,
    certificates: issued.certificates,
  };
}

export function makeNodeCertificate(
  authority: TestAuthority,
  name: string,
  now: Date,
  ttlSeconds?: number,
): Promise<Shown> {
  return makeShown(authority, nodeSpiffeId(authority.trustDomain, name).path, now, ttlSeconds);
}

/** The record of a node that may show these certificates. */
export function attestedNode(name: string, shown: readonly Shown[], now: Date): AttestedNode {
  return {
    name,
    method: 'join_token',
    selectors: [],
    attestedAt: now,
    renewedAt: now,
    notAfter: shown[0]?.notAfter ?? now,
    serials: shown.map(({ serial }) => serial),
    evictedAt: null,
  };
}

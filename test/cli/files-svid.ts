import type { FetchedSvid } from '../../src/cli/svid-stream.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeKey, type TestAuthority } from '../ca/test-authority.ts';

/** A certificate with its key, as the workload socket would give it. */
export async function issueSvid(ca: TestAuthority, ttlSeconds = 600): Promise<FetchedSvid> {
  const key = makeKey('ec-prime256v1');
  const id = SpiffeId.parse('spiffe://example.org/web');
  const request = { id, publicKey: key.spki, dnsNames: [], ttlSeconds };
  const { certificates } = await ca.authority.sign(ca.authority.prepare(request, new Date()));
  return {
    certificates,
    privateKeyPem: encodePem('PRIVATE KEY', key.pkcs8),
    authorities: [ca.root.certificate],
  };
}

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mintToken } from '../../src/http/bearer-token.ts';
import { type AdminRole, adminRoles, type Grant } from '../../src/identity/access.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { checkX509SvidLeaf } from '../../src/spiffe/svid.ts';
import type { Store } from '../../src/store/store.ts';
import type { TestAuthority } from '../ca/test-authority.ts';

/** Tokens that every harness has: one of each role for the whole mesh, some that are confined, and one that has expired. */
export type TokenName = AdminRole | 'shopAuthor' | 'shopOperator' | 'shopViewer' | 'expired';

/** What a client shows: PEM. */
export type ClientCertificate = { readonly cert?: string; readonly key?: string };

/** A certificate of a workload, with its intermediate, as a client shows it. */
export async function clientCertificate(
  { authority }: Pick<TestAuthority, 'authority'>,
  id: string,
  now: Date,
  ttlSeconds = 3_600,
): Promise<Required<ClientCertificate> & { readonly serial: string; readonly spkiSha256: string }> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'der' },
  });
  const order = { id: SpiffeId.parseWorkload(id), publicKey, dnsNames: [], ttlSeconds };
  const { certificates } = await authority.sign(authority.prepare(order, now));
  const { serial, spkiSha256 } = checkX509SvidLeaf(certificates[0] ?? new Uint8Array());
  return {
    cert: certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    key: encodePem('PRIVATE KEY', privateKey),
    serial,
    spkiSha256,
  };
}

/** The SPIFFE ID that the harness is configured to take for an administrator's. */
export const configuredAdmin = 'spiffe://example.org/ns/ops/sa/admin';

/** A certificate for the name `localhost`, of the server or of whoever has been given that name. */
export async function serverCertificate(
  authority: TestAuthority['authority'],
  owner = 'spiffe://example.org/countersign/server',
) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'der' },
  });
  const id = SpiffeId.parseWorkload(owner);
  const issued = await authority.sign(
    authority.prepare({ id, publicKey, dnsNames: ['localhost'], ttlSeconds: 3_600 }, new Date()),
  );
  return {
    certificate: issued.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    privateKey: encodePem('PRIVATE KEY', privateKey),
  };
}

/** Makes the tokens of a harness. */
export async function seedTokens(store: Store, now: Date): Promise<Readonly<Record<TokenName, string>>> {
  const seed = async (grant: Grant, from = now): Promise<string> => {
    const wish = { grants: [grant], label: 'test', lifeSeconds: 86_400 };
    const { stored, text } = mintToken(wish, from, randomBytes);
    await store.createToken(stored, []);
    return text;
  };
  const [viewer = '', auditor = '', author = '', operator = '', admin = ''] = await Promise.all(
    adminRoles.map((role) => seed({ role, namespaces: null })),
  );
  return {
    viewer,
    auditor,
    'policy-author': author,
    operator,
    admin,
    shopAuthor: await seed({ role: 'policy-author', namespaces: ['shop'] }),
    shopOperator: await seed({ role: 'operator', namespaces: ['shop'] }),
    shopViewer: await seed({ role: 'viewer', namespaces: ['shop'] }),
    expired: await seed({ role: 'admin', namespaces: null }, new Date(now.getTime() - 86_400_000)),
  };
}

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { openAuthorityCertificate, openIssuer } from '../../src/ca/issuer.ts';
import { createLeafTemplate } from '../../src/ca/leaf-template.ts';
import { prepareLeaf, signLeaf } from '../../src/ca/leaf.ts';
import { parseProfile } from '../../src/ca/profile.ts';
import { decodePem, encodePem } from '../../src/spiffe/pem.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { createFileCustody } from '../../src/up-keys.ts';
import { readSealingSecret } from '../../src/up-secret.ts';
import type { KeyPair } from './sds-client.ts';

/**
 * A certificate of an identity, signed with the key of the CA by somebody who has taken the data directory of an authority:
 * valid in every way, and in no log.
 * @param chain any certificate of that CA with its issuer, PEM
 */
export async function signWithStolenKey(
  dataDir: string,
  chain: string,
  spiffeId: string,
): Promise<KeyPair & { readonly serial: string }> {
  const id = SpiffeId.parse(spiffeId);
  const [, issuing] = decodePem(chain, 'CERTIFICATE', { maxBytes: 65_536 });
  if (issuing === undefined) throw new Error('the chain has no issuer');
  const keyDir = join(dataDir, 'keys');
  const none = { passphraseFile: null, passphraseCredential: null, passphraseFd: null };
  const secret = readSealingSecret(none, keyDir);
  const custody = createFileCustody({ keyDir, trustDomain: id.trustDomain, secret, randomBytes });
  const { keyId } = openAuthorityCertificate(issuing);
  const issuer = openIssuer(issuing, await custody.open(keyId), id.trustDomain);
  const signer = {
    issuer,
    template: createLeafTemplate(issuer),
    profile: parseProfile(),
    reservedKeys: new Set<string>(),
    randomBytes,
    lint: () => undefined,
  };
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const request = {
    id,
    publicKey: publicKey.export({ type: 'spki', format: 'der' }),
    dnsNames: [],
    ttlSeconds: 600,
  };
  const { certificate, serial } = await signLeaf(signer, prepareLeaf(signer, request, new Date()));
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: encodePem('CERTIFICATE', certificate) + encodePem('CERTIFICATE', issuing),
    serial,
  };
}

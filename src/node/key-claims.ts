import { createHash } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { IssueX509 } from '../identity/issuer.ts';
import type { KeyOwners } from '../identity/key-owners.ts';
import type { Refusals } from '../identity/refusals.ts';

/**
 * Issues no certificate for a key that was certified for another identity, on whatever node: whoever holds it could act
 * as both. Each attempt is put on record.
 * @returns an issuer that also throws `public_key_in_use`
 */
export function claimKeys(issue: IssueX509, owners: KeyOwners, record: Refusals['add']): IssueX509 {
  return async (request) => {
    const { entry, publicKey, attestation } = request;
    const spkiSha256 =
      publicKey instanceof Uint8Array
        ? createHash('sha256').update(publicKey).digest('hex')
        : publicKey.spkiSha256;
    if (owners.claim(spkiSha256, entry.spiffeId)) return issue(request);
    const code = 'public_key_in_use';
    const message = 'the public key was certified for another identity';
    const selectors = attestation.selectors.map(({ text }) => text);
    record({ code, message, resource: entry.spiffeId.text, selectors, caller: attestation.caller });
    throw new MeshError(code, message, { fix: 'make a key for each identity' });
  };
}

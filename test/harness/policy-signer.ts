import { generateKeyPairSync } from 'node:crypto';
import type { NewPolicyRevision, PolicyDocument } from '../../src/identity/mesh.ts';
import type { PolicyHistory } from '../../src/identity/policy-edits.ts';
import { type PolicyRevision, policySetId, type PolicySigner } from '../../src/identity/policy-revision.ts';
import { openPolicySigner } from '../../src/identity/policy-signature.ts';

/** A new key that signs policy revisions. */
export function makePolicySigner(): PolicySigner {
  const { privateKey } = generateKeyPairSync('ed25519');
  return openPolicySigner(privateKey.export({ format: 'der', type: 'pkcs8' }));
}

/** For meshes that are not stored: no earlier revision is kept. */
export const noHistory: PolicyHistory = {
  revision: async () => null,
  past: async () => ({ documents: [], newer: [] }),
};

/** A revision as the store takes it. Nobody signed it. */
export function unsignedRevision(
  parent: PolicyRevision | undefined,
  policies: readonly PolicyDocument[],
  time: Date,
): NewPolicyRevision {
  return {
    record: {
      number: (parent?.number ?? 0) + 1,
      id: policySetId(new Map(policies.map((policy) => [policy.key, policy]))),
      parent: parent === undefined ? null : { number: parent.number, id: parent.id },
      time,
      recordSha256: '00'.repeat(32),
      publicKey: '',
      signature: '',
      author: { kind: 'system' },
      message: '',
      restores: null,
    },
    changes: [],
  };
}

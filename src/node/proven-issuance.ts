import { type NoteKey, parseVerifierKey } from '../audit/note.ts';
import { MeshError } from '../errors.ts';
import type { X509Svid } from '../identity/credentials.ts';
import { verifyIssuanceProof } from '../identity/issuance-proof.ts';

/**
 * Refuses a certificate whose issuance is not proven to be in the audit log.
 * @param proof that came with it, or empty
 * @throws MeshError `issuance_unproven` when there is no proof, or no key to verify it with, and one is required;
 *   `audit_proof_invalid`, `audit_signature_invalid` and `audit_note_invalid` for one that proves something else,
 *   whether or not it is required
 */
export type DemandProof = (certificate: Uint8Array, proof: string) => void;

/** The key of the audit log that an agent goes by. */
export type BelievedLogKey = {
  /** As text; null while nobody has named one. */
  readonly current: () => string | null;
  /**
   * What the server says: the first that is a key is believed, for that of a log never changes. Empty when it says
   * nothing.
   */
  readonly told: (verifierKey: string) => void;
};

/**
 * @param given by whoever runs the agent, or null: then it is the first one that the server names
 * @param kept of an earlier process, or null
 * @param onOther called with what the server names and is not believed: once until it names something else
 */
export function createBelievedLogKey(
  given: string | null,
  kept: string | null,
  onOther: (verifierKey: string) => void,
): BelievedLogKey {
  let current = given ?? kept;
  let refused: string | undefined;
  return {
    current: () => current,
    told: (verifierKey) => {
      if (verifierKey === '' || verifierKey === current || verifierKey === refused) return;
      // INVARIANT: what is kept for ever can verify something. A later release may name what this one cannot read.
      if (current === null && isVerifierKey(verifierKey)) {
        current = verifierKey;
        return;
      }
      refused = verifierKey;
      onOther(verifierKey);
    },
  };
}

function isVerifierKey(text: string): boolean {
  try {
    parseVerifierKey(text);
    return true;
  } catch {
    return false;
  }
}

/** @param isRequired whether a certificate is refused that came without a proof, or cannot be held against a key */
export function createProofDemand(key: BelievedLogKey['current'], isRequired: boolean): DemandProof {
  let parsed: { readonly text: string; readonly key: NoteKey } | undefined;
  return (certificate, proof) => {
    const text = key();
    if (proof === '' || text === null) {
      if (!isRequired) return;
      throw new MeshError(
        'issuance_unproven',
        proof === ''
          ? 'the server sent a certificate without the proof that it is in the audit log'
          : 'the key of the audit log is not known',
        {
          fix: 'bring the server up to date, and name the key that countersign audit key prints with auditLogKey',
        },
      );
    }
    if (parsed?.text !== text) parsed = { text, key: parseVerifierKey(text) };
    verifyIssuanceProof(proof, certificate, parsed.key);
  };
}

/** A certificate that was kept, unless it is refused now. */
export function provenOnly<S extends Pick<X509Svid, 'certificates' | 'proof'>>(
  svid: S | undefined,
  demand: DemandProof,
): S | undefined {
  const [leaf] = svid?.certificates ?? [];
  if (svid === undefined || leaf === undefined) return undefined;
  try {
    demand(leaf, svid.proof ?? '');
    return svid;
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

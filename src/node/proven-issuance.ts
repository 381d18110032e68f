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
  /** What the server has said and was believed, for the next process; null for nothing. */
  readonly learned: () => string | null;
};

/**
 * @param given by whoever runs the agent, or null: then it is the first one that the server names
 * @param kept what an earlier process has learned, or null
 * @param onOther called with what the server names and is not believed: once until it names something else
 */
export function createBelievedLogKey(
  given: string | null,
  kept: string | null,
  onOther: (verifierKey: string) => void,
): BelievedLogKey {
  // INVARIANT: only what a server has named is kept: a key that was given by mistake is gone when it is taken back.
  let learned = kept;
  let refused: string | undefined;
  const current = (): string | null => given ?? learned;
  return {
    current,
    learned: () => learned,
    told: (verifierKey) => {
      if (verifierKey === '' || verifierKey === refused) return;
      // INVARIANT: what is kept for ever can verify something. A later release may name what this one cannot read.
      if (verifierKey === (current() ?? verifierKey) && isVerifierKey(verifierKey)) {
        learned = verifierKey;
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

/**
 * A certificate that was kept, unless it is refused now.
 * @param onRefused told why
 */
export function provenOnly<S extends Pick<X509Svid, 'certificates' | 'proof'>>(
  svid: S | undefined,
  demand: DemandProof,
  onRefused: (error: MeshError) => void = () => undefined,
): S | undefined {
  const [leaf] = svid?.certificates ?? [];
  if (svid === undefined || leaf === undefined) return undefined;
  try {
    demand(leaf, svid.proof ?? '');
    return svid;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    onRefused(error);
    return undefined;
  }
}

import { type RotationState, signerOf } from './slot.ts';

/** What will become of the CA if nobody does anything. */
export type Outlook = {
  /** What needs somebody, in words, with the command; empty when nothing does. */
  readonly warnings: readonly string[];
  /** Why no certificate can be signed now; null when they can. */
  readonly ended: string | null;
};

/** Looks ahead: an intermediate under a root that is kept elsewhere is renewed by nobody but people. */
export function outlook(state: RotationState, now: Date): Outlook {
  const signer = signerOf(state);
  if (signer === undefined) return { warnings: [], ended: null };
  const leftMs = signer.notAfter.getTime() - now.getTime();
  const lifeMs = signer.notAfter.getTime() - signer.notBefore.getTime();
  const until = signer.notAfter.toISOString();
  if (leftMs < leastMs) return { warnings: [], ended: `ca: the issuing CA ended at ${until}` };
  if (state.requested === null || leftMs * 3 > lifeMs) return { warnings: [], ended: null };
  return {
    warnings: [
      `the issuing CA ends at ${until}, in ${span(leftMs)}, and its successor waits for a certificate: ` +
        'have the output of `countersign ca csr` signed, then use `countersign ca import`',
    ],
    ended: null,
  };
}

function span(ms: number): string {
  const hours = Math.floor(ms / 3_600_000);
  if (hours >= 48) return `${Math.floor(hours / 24)} days`;
  return hours >= 2 ? `${hours} hours` : `${Math.max(1, Math.floor(ms / 60_000))} minutes`;
}

/** What a leaf of the usual length needs: see leafValidity. */
const leastMs = 60_000;

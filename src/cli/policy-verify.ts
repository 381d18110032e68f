import { MeshError } from '../errors.ts';
import type { RevisionPage, RevisionView } from '../http/revision-routes.ts';
import { type PolicyRevision, recordDigest } from '../identity/policy-revision.ts';
import { policyKeyId, verifyRevision } from '../identity/policy-signature.ts';
import { TrustDomain } from '../spiffe/id.ts';

/** What was found of revisions that were verified. */
export type Verification = {
  readonly revisions: number;
  /** Of the key that signed all of them. */
  readonly keyId: string;
  /** Revisions whose author and message this caller may not see: only their digest was verified. */
  readonly hidden: number;
};

/**
 * Verifies revisions, the latest first, as the server gave them: one key signed all, each follows the next in the list, and
 * author and message are those that were signed.
 * @param keyId the key that is expected; without it only that all have one and the same
 * @throws MeshError `policy_revision_invalid` naming the first that is not right; `policy_revision_not_found` when there
 *   is none
 */
export function verifyRevisions(
  { items, trustDomain: name }: Pick<RevisionPage, 'items' | 'trustDomain'>,
  keyId?: string,
): Verification {
  const trustDomain = TrustDomain.parse(name);
  const [latest] = items;
  // A server that shows nothing has proven nothing.
  if (latest === undefined) {
    throw new MeshError('policy_revision_not_found', 'there is no revision of policies to verify', {
      fix: 'apply a policy first',
    });
  }
  const expected = keyId ?? policyKeyId(latest.publicKey);
  for (const [at, view] of items.entries()) {
    const revision: PolicyRevision = { ...view, time: new Date(view.time) };
    const key = policyKeyId(view.publicKey);
    if (key !== expected) fail(view, `was signed by the key ${key}, and not by ${expected}`);
    if (!verifyRevision(trustDomain, revision)) fail(view, 'has a signature that is wrong');
    if (!isHidden(view) && !hasReason(view)) {
      fail(view, 'has another author, message or origin than was signed');
    }
    const before = items[at + 1];
    if (before === undefined) continue;
    if (view.parent?.number !== before.number || view.parent.id !== before.id) {
      fail(view, `does not follow revision ${before.number}`);
    }
  }
  return { revisions: items.length, keyId: expected, hidden: items.filter(isHidden).length };
}

function isHidden(view: RevisionView): boolean {
  return view.author === null || view.message === null;
}

function hasReason(view: RevisionView): boolean {
  const { author, message, restores, recordSha256 } = view;
  return author !== null && message !== null && recordDigest({ author, message, restores }) === recordSha256;
}

function fail({ number }: RevisionView, what: string): never {
  throw new MeshError('policy_revision_invalid', `policy revision ${number} ${what}`, {
    fix: 'compare the data of the server with a backup',
  });
}

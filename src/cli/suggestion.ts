import type { Explanation } from '../authz/explain.ts';
import { MeshError } from '../errors.ts';
import type { Session } from './session.ts';

/**
 * Prints a policy that allows a call. It goes to a file that is applied, so nothing else is printed.
 * @throws MeshError `suggestion_impossible`
 */
export function printSuggestion(session: Session, { verdict, reason, remedy }: Explanation): void {
  const isBarred = reason === 'deny_rule';
  if (!isBarred && typeof remedy?.policy === 'string') {
    session.write(remedy.policy);
    return;
  }
  const why =
    verdict === 'allow'
      ? 'the call is allowed already'
      : isBarred
        ? 'a DENY rule stands in the way, which no ALLOW rule outweighs'
        : remedy === null
          ? `no policy allows a call that is denied for ${reason}`
          : 'no policy can be written for this very call and no other';
  const isWanted = remedy !== null && !isBarred;
  throw new MeshError('suggestion_impossible', why, {
    fix: `${isWanted ? "give the destination's entry a label that no other has, or " : ''}see what decides it: leave --suggest-policy away`,
  });
}

import type { Actor } from '../audit/event.ts';

/** Who did something, for people. */
export function actorText(actor: Actor): string {
  if (actor.kind === 'uid') return `uid ${actor.uid} (${actor.role})`;
  if (actor.kind === 'token') return `token ${actor.tokenId} (${actor.role})`;
  if (actor.kind === 'svid') return `${actor.spiffeId} (${actor.role})`;
  if (actor.kind === 'oidc') return `${actor.subject} of ${actor.issuer} (${actor.role})`;
  return actor.kind;
}

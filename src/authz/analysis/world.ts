import { isHttpOnly } from '../document.ts';
import type { Predicate } from '../policy.ts';
import type { Draft } from './draft.ts';

/**
 * A part of all calls in which each dimension can be looked at by itself: HTTP or not, and what is known of a token.
 */
export type World = Pick<Draft, 'protocol' | 'token'>;

/** All worlds that boxes can tell apart, those first in which calls look most usual. */
export function worldsOf(boxes: Iterable<{ readonly readsToken: boolean }>): readonly World[] {
  let readsToken = false;
  for (const box of boxes) readsToken ||= box.readsToken;
  const tokens: readonly World['token'][] = readsToken ? ['none', 'present', 'untold'] : ['none'];
  return [
    ...tokens.map((token) => ({ protocol: 'http', token }) as const),
    { protocol: 'tcp', token: 'none' },
  ];
}

/** Whether calls of a world have what a predicate reads; else all of them are the same to it. */
export function isIn({ protocol, token }: World, { attribute }: Predicate): boolean {
  if (protocol === 'tcp' && isHttpOnly(attribute)) return false;
  return token === 'present' || !attribute.startsWith('request.auth.');
}

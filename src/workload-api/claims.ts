import { MeshError } from '../errors.ts';

/** Claims as they travel in a `google.protobuf.Struct`. */
export type Claims = { [name: string]: unknown };

/**
 * The claims of a validated token for the wire. `aud` is a list, whichever form the token has: clients expect one.
 * @param claims any JSON
 * @throws MeshError `jwt_invalid` when they nest deeper than 32 levels, which a protobuf reader might not take
 */
export function claimsForWire(claims: { readonly [name: string]: unknown }): Claims {
  demandDepth(claims, maxDepth);
  const { aud } = claims;
  return typeof aud === 'string' ? { ...claims, aud: [aud] } : { ...claims };
}

function demandDepth(value: unknown, left: number): void {
  if (typeof value !== 'object' || value === null) return;
  if (left === 0) {
    throw new MeshError('jwt_invalid', `the claims nest deeper than ${maxDepth} levels`);
  }
  for (const inner of Object.values(value)) demandDepth(inner, left - 1);
}

const maxDepth = 32;

/**
 * Why a request is refused before any policy sees it: `request_invalid` when it is malformed, `request_ambiguous` when
 * two parts of a mesh could read it differently.
 */
export type Rejection = {
  readonly reason: 'request_ambiguous' | 'request_invalid';
  /** Goes on where `the path` or `the host` ends: `has an empty segment`. Names no bytes of the request. */
  readonly why: string;
};

export function ambiguous(why: string): Rejection {
  return { reason: 'request_ambiguous', why };
}

export function malformed(why: string): Rejection {
  return { reason: 'request_invalid', why };
}

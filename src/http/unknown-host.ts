/** The host of a question that names none. A reserved name (RFC 2606), so that only rules for any host match it. */
export const unknownHost = 'unknown.invalid';

import type { Slot } from './slot.ts';

/** A certificate authority as it is kept: the certificate here, its key sealed in a file of its own. */
export type StoredAuthority = Slot & { readonly certificate: Uint8Array };

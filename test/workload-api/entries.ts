import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';

/** What this very process has. */
export const own = `unix:uid:${process.getuid?.() ?? 0}`;

/** An entry that gives this process an identity of example.org. */
export function entry(path: string, changes: Partial<RegistrationEntry> = {}): RegistrationEntry {
  return {
    id: path.replaceAll('/', '-').slice(1),
    spiffeId: SpiffeId.parseWorkload(`spiffe://example.org${path}`),
    selectors: [parseSelector(own)],
    ttlSeconds: 600,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 1,
    ...changes,
  };
}

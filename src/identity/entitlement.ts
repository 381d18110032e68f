import type { SpiffeId } from '../spiffe/id.ts';
import type { BanList } from './ban-list.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import type { Registry } from './registry.ts';

/** What a caller may have at one moment. */
export type Entitlement = {
  /** The default one first, unless it is banned; those of banned identities are left out. */
  readonly entries: readonly RegistrationEntry[];
  /** Identities that the caller would have were they not banned. */
  readonly banned: readonly SpiffeId[];
  /** Whether the default identity is banned: then none is the default, or a ban would make one workload another. */
  readonly isDefaultBanned: boolean;
};

/** The entries that a caller matches at `now`, banned or not, the default one first. */
export function entriesOf(
  registry: Registry,
  { selectors, presented }: Caller,
  now: Date,
): readonly RegistrationEntry[] {
  // INVARIANT: whoever is known by a certificate has its identity and no other, whatever entries select.
  if (presented !== undefined) return [registry.renewable(presented.id, now) ?? []].flat();
  return registry.match(selectors, now);
}

/** What of the registry a caller is entitled to at `now`. */
export function entitlementOf(registry: Registry, bans: BanList, caller: Caller, now: Date): Entitlement {
  const matched = entriesOf(registry, caller, now);
  const isBanned = ({ spiffeId }: RegistrationEntry): boolean =>
    bans.find({ id: spiffeId }, now) !== undefined;
  const [first] = matched;
  return {
    entries: matched.filter((entry) => !isBanned(entry)),
    banned: matched.filter(isBanned).map(({ spiffeId }) => spiffeId),
    isDefaultBanned: first !== undefined && isBanned(first),
  };
}

type Caller = Pick<Attestation, 'selectors' | 'presented'>;

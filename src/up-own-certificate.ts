import type { X509Svid } from './identity/credentials.ts';
import type { RegistrationEntry } from './identity/entry.ts';
import type { Attestation } from './identity/evidence.ts';
import { reservedIds, reservedPath } from './identity/entry-parse.ts';
import type { Keeper } from './identity/keeper.ts';
import { SpiffeId, type TrustDomain } from './spiffe/id.ts';
import { encodePem } from './spiffe/pem.ts';

/** The doors of the authority that have a certificate of its own CA. */
export type OwnDoor = 'server' | 'trust-endpoint';

/** The entries under which the authority's own certificates are issued; they are in no registry. */
export const ownEntryIds: ReadonlySet<string> = new Set(
  (['server', 'trust-endpoint'] satisfies OwnDoor[]).map((door) => `${reservedIds}${door}`),
);

/** What a TLS door shows: PEM, leaf first, and PKCS#8 PEM. */
export type DoorCertificate = { readonly certificate: string; readonly privateKey: string };

/** The SPIFFE ID of a door of the authority. */
export function ownSpiffeId(trustDomain: TrustDomain, door: OwnDoor): SpiffeId {
  return SpiffeId.parseWorkload(`${trustDomain.id}${reservedPath}${door}`);
}

/** A certificate that is renewed in time. */
export type OwnCertificate = {
  readonly current: () => DoorCertificate;
  /** Calls back at once, and with each later one; what the listener throws it must deal with itself. */
  readonly watch: (listener: (certificate: DoorCertificate) => void) => void;
};

/**
 * Has a certificate made for a door of the authority, and kept fresh for as long as the keeper runs.
 * @throws whatever kept the first one from being made
 */
export async function keepOwnCertificate(keeper: Keeper, owner: DoorOwner): Promise<OwnCertificate> {
  let listener: (certificate: DoorCertificate) => void = () => undefined;
  let latest: DoorCertificate | undefined;
  const first = await new Promise<DoorCertificate>((resolve, reject) => {
    const look = (): void => {
      const [svid, failure] = [lease.svid(), lease.failure()];
      // Settles once: what fails later is tried again while the last one serves.
      if (failure !== undefined) reject(failure);
      if (svid === undefined) return;
      latest = doorCertificate(svid);
      resolve(latest);
      listener(latest);
    };
    const lease = keeper.hold(entryOf(owner), ownAttestation(), look);
    // Another door may hold it already: then nothing changes, and nobody calls back.
    look();
  });
  return {
    current: () => latest ?? first,
    watch: (next) => {
      listener = next;
      next(latest ?? first);
    },
  };
}

/** Whose certificate it is; the names are those by which clients that know no SPIFFE IDs call the door. */
export type DoorOwner = {
  readonly door: OwnDoor;
  readonly trustDomain: TrustDomain;
  readonly dnsNames: readonly string[];
};

function entryOf({ door, trustDomain, dnsNames }: DoorOwner): RegistrationEntry {
  return {
    id: `${reservedIds}${door}`,
    spiffeId: ownSpiffeId(trustDomain, door),
    selectors: [],
    ttlSeconds: 86_400,
    dnsNames,
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 0,
  };
}

function ownAttestation(): Attestation {
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  return { selectors: [], caller: { pid: process.pid, uid, gid } };
}

/** A certificate and its key as a listener takes them. */
export function doorCertificate(svid: Pick<X509Svid, 'certificates' | 'privateKey'>): DoorCertificate {
  return {
    certificate: svid.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    privateKey: encodePem('PRIVATE KEY', svid.privateKey),
  };
}
